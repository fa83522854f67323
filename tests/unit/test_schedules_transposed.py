from __future__ import annotations

from typing import NamedTuple

import onnx
import pytest

from tests import kernels, networks
from tests.kernels import weights
from tests.networks import node


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
MANY_PHASES = {
    "25 phases": Case(5, 4, (2, 3), (2, 2), (5, 5), (0, 0, 0, 0)),
    "64 phases": Case(3, 3, (3, 5), (16, 16), (8, 8), (4, 4, 4, 4)),
    "a signal, stride 20": Case(3, 5, (4,), (40,), (20,), (10, 10)),
    "two groups of a signal, stride 20": Case(6, 4, (4,), (40,), (20,), (10, 10), group=2),
}
"""More phases than the rule writes out: whichever other rule takes them must be right."""


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("name", CASES)
def test_transposed_convolution_of(name: str, profile: str) -> None:
    kernels.check(CASES[name].network(), profile, rule="transposed")


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("name", MANY_PHASES)
def test_transposed_convolution_of_many_phases(name: str, profile: str) -> None:
    kernels.check(MANY_PHASES[name].network(), profile)
