from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import onnx
import pytest

from edgepack.compiler.schedules import phase_lanes
from edgepack.compiler.schedules.nest import Request
from edgepack.compiler.schedules.phase_forms import Form, forms_of
from edgepack.compiler.schedules.phases import Transposed
from edgepack.targets import load_target
from tests import kernels, networks
from tests.kernels import weights
from tests.networks import node

_FORMS = 3
"""So many of a case's are tried, spread over all."""


class Case(NamedTuple):
    """A transposed convolution of [batch, channels, *image]."""

    channels: int
    out: int
    image: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    extra: tuple[int, ...] = ()
    """output_padding."""
    group: int = 1
    dilations: tuple[int, ...] = ()
    batch: int = 1

    def network(self) -> onnx.ModelProto:
        rank = len(self.image)
        extra, dilations = self.extra or (0,) * rank, self.dilations or (1,) * rank
        extents = [
            (self.image[way] - 1) * self.strides[way]
            - self.pads[way]
            - self.pads[rank + way]
            + dilations[way] * (self.kernel[way] - 1)
            + 1
            + extra[way]
            for way in range(rank)
        ]
        convolution = node(
            "ConvTranspose",
            "x w b",
            "c",
            strides=list(self.strides),
            pads=list(self.pads),
            output_padding=list(extra),
            dilations=list(dilations),
            group=self.group,
        )
        return networks.model(
            [convolution, node("Tanh", "c", "y")],
            {"x": [self.batch, self.channels, *self.image]},
            {"y": [self.batch, self.out, *extents]},
            {
                "w": weights(self.channels, self.out // self.group, *self.kernel),
                "b": weights(self.out),
            },
        )


CASES = {
    "k2 s2": Case(7, 13, (5, 7), (2, 2), (2, 2), (0, 0, 0, 0)),
    "k3 s2, longer output": Case(17, 5, (5, 7), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), batch=2),
    "k4 s2": Case(3, 33, (7, 3), (4, 4), (2, 2), (1, 1, 1, 1)),
    "k3 s1": Case(5, 6, (7, 3), (3, 3), (1, 1), (1, 1, 1, 1)),
    "k5 s3, uneven padding": Case(5, 6, (1, 3), (5, 5), (3, 3), (0, 2, 1, 3), batch=2),
    "dilated": Case(5, 4, (5, 6), (3, 3), (2, 2), (1, 0, 1, 2), (1, 0), dilations=(2, 3)),
    "gaps between the windows": Case(5, 4, (5, 6), (2, 2), (3, 3), (0, 0, 0, 0)),
    "one pixel": Case(5, 4, (1, 1), (3, 3), (2, 2), (0, 0, 0, 0)),
    "all edges cut": Case(5, 4, (5, 6), (3, 3), (1, 1), (2, 2, 2, 2)),
    "shared by threads": Case(17, 16, (13, 11), (4, 4), (2, 2), (1, 1, 1, 1), batch=2),
    "a signal": Case(13, 7, (9,), (4,), (2,), (1, 1)),
    "a signal, stride 8": Case(3, 5, (9,), (16,), (8,), (4, 4), batch=2),
    "two groups": Case(6, 10, (5, 3), (4, 4), (2, 2), (1, 1, 1, 1), group=2),
    "depthwise": Case(5, 5, (5, 3), (4, 4), (2, 2), (1, 1, 1, 1), group=5, batch=2),
    "two groups of a signal": Case(6, 4, (9,), (4,), (2,), (1, 1), group=2, batch=2),
    "depthwise of a signal": Case(6, 6, (9,), (3,), (2,), (1, 1), (1,), group=6, batch=2),
}
FEW_RESULTS = {
    "three results, k4 s2": Case(9, 3, (5, 37), (4, 4), (2, 2), (1, 1, 1, 1)),
    "three results, k5 s2, longer output": Case(
        5, 3, (5, 7), (5, 5), (2, 2), (2, 2, 2, 2), (1, 1), batch=2
    ),
    "one result": Case(8, 1, (3, 35), (9, 9), (4, 4), (4, 3, 4, 5), (1, 3)),
    "one result a group": Case(6, 3, (3, 5), (3, 4), (2, 2), (1, 1, 0, 1), group=3),
    "strides that differ": Case(5, 2, (7, 9), (3, 5), (1, 4), (1, 2, 1, 0), batch=2),
    "one result of a signal": Case(7, 1, (17,), (16,), (8,), (4, 4)),
    "no overlap": Case(5, 3, (6, 5), (2, 2), (2, 2), (0, 0, 0, 0)),
    "more cut off than the kernel has": Case(5, 3, (6, 7), (2, 3), (2, 2), (3, 4, 4, 5)),
}
"""Whose channels fill no vector alone."""
MANY_PHASES = {
    "25 phases": Case(5, 4, (2, 3), (2, 2), (5, 5), (0, 0, 0, 0)),
    "64 phases": Case(3, 3, (3, 5), (16, 16), (8, 8), (4, 4, 4, 4)),
    "panels of several phases": Case(6, 21, (3, 5), (16, 16), (8, 8), (4, 4, 4, 4)),
    "channels that fill vectors": Case(3, 150, (2, 3), (7, 7), (5, 5), (1, 2, 3, 0), batch=2),
    "kernel of more than the stride": Case(3, 5, (3, 5), (7, 8), (6, 5), (3, 0, 2, 1), (4, 2)),
    "a signal, stride 20": Case(3, 5, (4,), (40,), (20,), (10, 10)),
    "two groups of a signal, stride 20": Case(6, 4, (4,), (40,), (20,), (10, 10), group=2),
}
"""More phases than are written out."""


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("name", CASES | FEW_RESULTS | MANY_PHASES)
def test_transposed_convolution_of(name: str, profile: str) -> None:
    case = (CASES | FEW_RESULTS | MANY_PHASES)[name]
    kernels.check(case.network(), profile, rule="transposed")


@pytest.mark.parametrize("profile", kernels.EXTREMES)
def test_many_phases_of_a_depthwise_one_are_a_reduction(profile: str) -> None:
    case = Case(5, 5, (3, 5), (16, 16), (8, 8), (4, 4, 4, 4), group=5, batch=2)
    kernels.check(case.network(), profile, rule="reduction")


@pytest.mark.parametrize("number", range(_FORMS))
@pytest.mark.parametrize("name", FEW_RESULTS | MANY_PHASES)
def test_results_are_right_in_every_form(
    name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in those that the estimate does not choose, or only for other targets."""
    tried: list[Form] = []

    def best(request: Request, transposed: Transposed) -> tuple[Form, float]:
        forms = list(forms_of(request, transposed))
        tried.append(forms[number * len(forms) // _FORMS])
        return tried[-1], 0.0

    monkeypatch.setattr("edgepack.compiler.schedules.transposed.best_form", best)
    case = (FEW_RESULTS | MANY_PHASES)[name]
    kernels.check(case.network(), kernels.PROFILES[-1], rule="transposed")
    assert tried


@pytest.mark.parametrize(
    "name", ["three results, k4 s2", "panels of several phases", "channels that fill vectors"]
)
def test_threads_give_the_bytes_of_one(name: str) -> None:
    case = (FEW_RESULTS | MANY_PHASES)[name]
    made, _ = kernels.check(case.network(), kernels.PROFILES[-1], rule="transposed")
    kernels.check_threads(made, 2, 3, 4)


@pytest.mark.parametrize(
    ("bits", "out", "held"),
    [(512, 3, (2, 2)), (256, 1, (2, 2)), (512, 24, (1, 2)), (512, 64, None)],
)
def test_phases_share_vectors_that_channels_alone_leave_empty(
    bits: int, out: int, held: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = replace(load_target("x86-64-v4"), vector_bits=bits)
    made: list[tuple[int, int]] = []
    write = phase_lanes.Writer.__init__

    def writer(self: Any, request: Request, transposed: Transposed, form: Form) -> None:
        made.append(form.held)
        write(self, request, transposed, form)

    monkeypatch.setattr(phase_lanes.Writer, "__init__", writer)
    kernels.lowered(Case(64, out, (28, 28), (4, 4), (2, 2), (1, 1, 1, 1)).network(), target)
    assert made == ([held] if held else [])
