from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx
import pytest

from edgepack.targets import load_target
from tests import kernels, networks
from tests.kernels import weights
from tests.networks import node

ERROR = 3e-5
"""Of the outputs' size: F(4x4, 3x3) on unit inputs stays below 1e-5; a wrong product does not."""


def network(
    channels: int,
    out: int,
    image: Sequence[int],
    kernel: Sequence[int] = (3, 3),
    pads: Sequence[int] = (1, 1, 1, 1),
    batch: int = 1,
) -> onnx.ModelProto:
    """A convolution with bias, residual and ReLU."""
    result = [batch, out, *(image[i] + pads[i] + pads[i + 2] - kernel[i] + 1 for i in (0, 1))]
    nodes = [
        node("Conv", "x w b", "c", pads=list(pads)),
        node("Add", "c r", "sum"),
        node("Relu", "sum", "y"),
    ]
    return networks.model(
        nodes,
        {"x": [batch, channels, *image], "r": result},
        {"y": result},
        {"w": weights(out, channels, *kernel), "b": weights(out)},
    )


NETWORKS = {
    "odd channels and an odd map": network(33, 35, (13, 9)),
    "residual, batch of two": network(64, 64, (13, 15), batch=2),
    "no padding": network(48, 48, (14, 11), pads=(0, 0, 0, 0)),
    "padding of two": network(48, 65, (10, 11), pads=(2, 2, 2, 2)),
    "uneven padding": network(65, 64, (9, 14), pads=(0, 2, 1, 0), batch=2),
    "one result": network(64, 1, (17, 17)),
    "7x7 map": network(64, 128, (7, 7)),
    "two rows": network(64, 64, (2, 30)),
    "padding larger than the kernel": network(64, 64, (5, 5), pads=(5, 6, 7, 4)),
    "1x3": network(64, 64, (9, 33), (1, 3), (0, 1, 0, 1)),
    "5x1": network(64, 64, (33, 9), (5, 1), (2, 0, 2, 0)),
    "5x3": network(64, 32, (17, 19), (5, 3), (2, 1, 2, 1)),
    "1x5 of one row": network(64, 64, (1, 67), (1, 5), (0, 2, 0, 2)),
    "small maps, batch of five": network(64, 128, (4, 5), batch=5),
    "3x1 of one column": network(64, 67, (67, 1), (3, 1), (1, 0, 1, 0), batch=2),
}


@pytest.mark.parametrize("profile", kernels.PROFILES[1:] or kernels.PROFILES)
@pytest.mark.parametrize("name", NETWORKS)
def test_minimal_filtering_of(name: str, profile: str) -> None:
    target = replace(load_target(profile), l2_bytes=1 << 22)  # holds the transformed weights
    kernels.check(NETWORKS[name], target, rule="winograd", tolerance=ERROR)


def test_transformed_weights_that_must_come_from_memory_are_not_worth_it_for_a_few_tiles() -> None:
    profile, pixels = load_target(kernels.PROFILES[-1]), (7, 7)
    for l2_bytes, rule in ((1 << 26, "winograd"), (1 << 18, "convolution")):
        target = replace(profile, l2_bytes=l2_bytes)
        kernels.check(network(256, 256, pixels), target, rule=rule, tolerance=ERROR)


@pytest.mark.parametrize("l2_bytes", [16 << 10, 64 << 10])
@pytest.mark.parametrize("cores", [1, 3])
def test_strips_cover_every_tile_whatever_the_cache_and_the_threads(
    l2_bytes: int, cores: int
) -> None:
    target = replace(load_target(kernels.PROFILES[0]), l2_bytes=l2_bytes, cores=cores)
    kernels.check(network(33, 35, (23, 29), batch=2), target, rule="winograd", tolerance=ERROR)


def test_what_gains_nothing_is_a_plain_convolution() -> None:
    kernels.check(network(3, 8, (13, 9)), kernels.PROFILES[0], rule="convolution")
