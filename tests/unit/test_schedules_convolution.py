from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import onnx
import pytest

from edgepack.compiler.schedules.register_tile import RegisterFile, best_vectors, make_panels
from edgepack.targets import load_target
from tests import kernels, networks
from tests.kernels import weights
from tests.networks import node


class Case(NamedTuple):
    """A convolution of [batch, channels, height, width]; the rule that takes it."""

    channels: int
    out: int
    image: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    group: int = 1
    batch: int = 1
    rule: str = "convolution"

    def result(self) -> list[int]:
        extents = [
            (size + before + after - apart * (taps - 1) - 1) // step + 1
            for size, before, after, apart, taps, step in zip(
                self.image,
                self.pads[:2],
                self.pads[2:],
                self.dilations,
                self.kernel,
                self.strides,
                strict=True,
            )
        ]
        return [self.batch, self.out, *extents]

    def attributes(self) -> dict[str, Any]:
        return {
            "strides": list(self.strides),
            "pads": list(self.pads),
            "dilations": list(self.dilations),
            "group": self.group,
        }

    def network(self) -> onnx.ModelProto:
        return networks.model(
            [node("Conv", "x w b", "c", **self.attributes()), node("Tanh", "c", "y")],
            {"x": [self.batch, self.channels, *self.image]},
            {"y": self.result()},
            {
                "w": weights(self.out, self.channels // self.group, *self.kernel),
                "b": weights(self.out),
            },
        )


WINDOWS = {
    "1x1 with padding": Case(3, 17, (13, 9), (1, 1), (2, 2), (1, 0, 2, 1), batch=2),
    "1x1 strided": Case(33, 5, (7, 7), (1, 1), (3, 1), rule="matmul"),
    "1x1 strided both ways": Case(17, 33, (7, 9), (1, 1), (2, 2), rule="matmul"),
    "2x2, padding above the kernel": Case(3, 17, (13, 9), (2, 2), (1, 3), (3, 0, 0, 4), batch=2),
    "2x2": Case(33, 5, (7, 7), (2, 2), (2, 1)),
    "3x3, uneven padding": Case(3, 17, (13, 9), (3, 3), (1, 1), (1, 0, 2, 1), batch=2),
    "3x3 strided": Case(33, 5, (7, 7), (3, 3), (2, 2), (2, 2, 2, 2)),
    "4x4": Case(3, 17, (13, 9), (4, 4), (3, 1), (5, 0, 0, 6), batch=2),
    "5x5": Case(5, 33, (7, 7), (5, 5), (1, 1), (4, 4, 4, 4)),
    "7x7": Case(3, 17, (13, 9), (7, 7), (2, 2), (8, 0, 0, 9), batch=2),
    "7x7 of a whole 7x7 map": Case(33, 5, (7, 7), (7, 7)),
    "7x7 of one channel": Case(1, 20, (11, 50), (7, 7), (1, 2), (3, 3, 3, 3), batch=2),
    "5x5 of four channels, dilated": Case(4, 20, (11, 50), (5, 5), (2, 2), (4, 4, 4, 4), (2, 2)),
    "7x7 of an image": Case(3, 48, (33, 35), (7, 7), (2, 2), (3, 3, 3, 3)),
    "1x3": Case(3, 17, (13, 9), (1, 3), (1, 3), (1, 0, 2, 1), batch=2),
    "3x1": Case(33, 5, (7, 7), (3, 1), (1, 1), (2, 0, 2, 0)),
    "1x5": Case(3, 17, (13, 9), (1, 5), (3, 1), (1, 0, 2, 1), batch=2),
    "one pixel": Case(13, 31, (1, 1), (3, 3), (1, 1), (1, 1, 1, 1)),
    "width 1": Case(5, 48, (29, 1), (3, 1), (1, 1), (1, 0, 1, 0)),
    "width 1, square kernel": Case(5, 48, (29, 1), (3, 3), (1, 1), (1, 1, 1, 1)),
    "height 1": Case(5, 48, (1, 29), (1, 3), (2, 1), (0, 1, 0, 1)),
    "2x3 map": Case(5, 33, (2, 3), (3, 3), (1, 1), (1, 1, 1, 1)),
    "one channel": Case(1, 1, (7, 9), (3, 3), (1, 1), (1, 1, 1, 1)),
    "nothing but padding at the edges": Case(3, 4, (2, 2), (3, 3), (1, 1), (4, 5, 6, 3)),
    "nothing but padding, strided": Case(3, 4, (2, 2), (3, 3), (3, 3), (7, 5, 6, 8)),
    "dilated": Case(17, 13, (13, 9), (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    "dilated and strided": Case(17, 13, (13, 19), (3, 3), (2, 2), (3, 1, 0, 4), (3, 2)),
    "one channel, dilated": Case(1, 2, (13, 19), (3, 3), (1, 2), (0, 3, 0, 3), (1, 3)),
    "two groups": Case(6, 34, (9, 13), (3, 3), (1, 1), (1, 1, 1, 1), group=2),
    "three groups": Case(51, 33, (7, 7), (3, 3), (2, 2), (1, 1, 1, 1), group=3, batch=2),
    "three groups, 1x1": Case(9, 15, (9, 13), (1, 1), group=3),
    "two groups, width 1": Case(34, 62, (31, 1), (3, 1), (2, 1), (1, 0, 1, 0), group=2, batch=2),
    "three results a channel": Case(
        17, 51, (7, 9), (3, 3), (2, 2), (1, 1, 1, 1), group=17, batch=2
    ),
    "three groups of three": Case(9, 9, (7, 9), (3, 3), (1, 1), (1, 1, 1, 1), group=3),
    "far more channels than results": Case(60, 6, (7, 9), (3, 3), (1, 1), (1, 1, 1, 1), group=3),
    "shared by threads": Case(16, 33, (21, 23), (3, 3), (2, 1), (1, 1, 1, 1), batch=2),
}
DEPTHWISE = {
    **{
        f"{channels} channels": Case(
            channels, channels, (7, 13), (3, 3), (1, 1), (1, 1, 1, 1), group=channels
        )
        for channels in (2, 3, 13, 17, 33, 48)
    },
    "5x5 strided": Case(31, 31, (13, 9), (5, 5), (2, 2), (2, 2, 2, 2), group=31, batch=2),
    "7x7 dilated": Case(13, 13, (17, 19), (7, 7), (1, 1), (6, 6, 6, 6), (2, 2), group=13),
    "4x2, uneven": Case(13, 13, (8, 6), (4, 2), (3, 2), (0, 2, 3, 0), group=13),
    "width 1": Case(17, 17, (23, 1), (5, 1), (1, 1), (2, 0, 2, 0), group=17),
    "one pixel": Case(17, 17, (1, 1), (3, 3), (1, 1), (1, 1, 1, 1), group=17),
    "nothing but padding at the edges": Case(3, 3, (2, 2), (3, 3), (1, 1), (4, 5, 6, 3), group=3),
    "tiles of nothing but padding": Case(5, 5, (4, 6), (3, 3), (1, 1), (1, 40, 1, 40), group=5),
    "shared by threads": Case(33, 33, (29, 31), (3, 3), (1, 1), (1, 1, 1, 1), group=33, batch=2),
}
WIDE = {
    "1x101": Case(3, 17, (2, 140), (1, 101), (1, 1), (0, 50, 0, 50), batch=2),
    "101x1": Case(2, 33, (140, 1), (101, 1), (2, 1), (37, 0, 64, 0)),
    "1x63, five channels": Case(5, 7, (3, 90), (1, 63), (1, 3), (0, 62, 0, 0)),
    "31x31 of a small map": Case(2, 20, (9, 11), (31, 31), (1, 1), (15, 15, 15, 15)),
    "far apart": Case(9, 12, (3, 300), (1, 9), (1, 1), (0, 120, 0, 136), (1, 32)),
    "far apart and strided": Case(3, 40, (3, 300), (1, 9), (1, 2), (0, 130, 0, 140), (1, 33)),
    "nothing but padding": Case(3, 20, (2, 5), (1, 40), (1, 1), (0, 70, 0, 60)),
    "in groups": Case(6, 10, (2, 80), (1, 61), (1, 1), (0, 30, 0, 30), group=2),
    "shared by threads": Case(3, 17, (9, 140), (3, 101), (1, 1), (1, 50, 1, 50)),
}
WIDE_DEPTHWISE = {
    "31x31": Case(17, 17, (40, 45), (31, 31), (1, 1), (15, 15, 15, 15), group=17),
    "9x9 strided": Case(13, 13, (30, 61), (9, 9), (2, 2), (4, 4, 4, 4), group=13, batch=2),
    "1x127": Case(9, 9, (2, 200), (1, 127), (1, 1), (0, 63, 0, 63), group=9),
    "65x1 strided": Case(20, 20, (150, 1), (65, 1), (3, 1), (32, 0, 32, 0), group=20),
    "21x21, far apart": Case(5, 5, (60, 60), (21, 21), (1, 1), (30, 30, 30, 30), (3, 3), group=5),
    "far apart": Case(17, 17, (3, 400), (1, 5), (1, 1), (0, 200, 0, 200), (1, 100), group=17),
    "nothing but padding": Case(3, 3, (2, 5), (2, 40), (1, 1), (0, 70, 1, 60), group=3),
    "two results of one channel": Case(9, 18, (2, 90), (1, 63), (1, 1), (0, 31, 0, 31), group=9),
}
NARROW = {
    "a result of two channels": Case(
        34, 17, (7, 9), (3, 3), (2, 2), (1, 1, 1, 1), group=17, batch=2
    ),
    "two results of one channel": Case(17, 34, (7, 9), (3, 3), (2, 2), (1, 1, 1, 1), group=17),
    "two of two": Case(26, 26, (7, 13), (3, 3), (1, 1), (1, 1, 1, 1), group=13, batch=2),
    "two of two, 1x1": Case(38, 38, (6, 5), (1, 1), group=19),
    "two of three": Case(21, 14, (9, 8), (3, 3), (1, 2), (2, 0, 1, 1), group=7),
    "two of four": Case(36, 18, (5, 17), (2, 5), (1, 1), (0, 2, 1, 2), group=9),
    "dilated": Case(22, 22, (17, 19), (5, 5), (1, 1), (6, 6, 6, 6), (3, 3), group=11),
    "width 1": Case(6, 6, (23, 1), (5, 1), (1, 1), (2, 0, 2, 0), group=3),
    "one pixel": Case(6, 6, (1, 1), (3, 3), (1, 1), (1, 1, 1, 1), group=3),
    "nothing but padding at the edges": Case(4, 4, (2, 2), (3, 3), (1, 1), (4, 5, 6, 3), group=2),
}
"""Groups of which the shortest vector of the profiles holds two."""
NARROW_FOR_LONG_VECTORS = {
    "four of four": Case(52, 52, (7, 17), (3, 3), (1, 1), (1, 1, 1, 1), group=13),
    "four of one": Case(5, 20, (9, 9), (3, 3), (2, 2), (1, 1, 1, 1), group=5),
    "four of six": Case(30, 20, (9, 9), (3, 3), (1, 1), (1, 1, 1, 1), group=5),
    "eight of eight": Case(40, 40, (7, 9), (3, 3), (2, 2), (1, 1, 1, 1), group=5, batch=2),
    "eight of sixteen": Case(48, 24, (5, 6), (3, 3), (1, 1), (1, 1, 1, 1), group=3),
}


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("name", WINDOWS)
def test_convolution_of(name: str, profile: str) -> None:
    case = WINDOWS[name]
    kernels.check(case.network(), profile, rule=case.rule)


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("name", NARROW)
def test_narrow_groups(name: str, profile: str) -> None:
    case = NARROW[name]
    rule = "depthwise" if case.channels == case.group else "narrow groups"
    kernels.check(case.network(), profile, rule=rule)


@pytest.mark.parametrize("name", NARROW_FOR_LONG_VECTORS)
def test_groups_of_a_part_of_a_long_vector(name: str) -> None:
    case = NARROW_FOR_LONG_VECTORS[name]
    for profile in kernels.PROFILES:
        lanes = load_target(profile).vector_bits // 32
        compiled, _ = kernels.check(case.network(), profile)
        assert ("convolution" in compiled.rules_called) == (case.out // case.group >= lanes)


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise_convolution_of(name: str, profile: str) -> None:
    kernels.check(DEPTHWISE[name].network(), profile, rule="depthwise")


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("name", WIDE)
def test_wide_window(name: str, profile: str) -> None:
    kernels.check(WIDE[name].network(), profile, rule="convolution")


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("name", WIDE_DEPTHWISE)
def test_wide_window_of_a_depthwise_convolution(name: str, profile: str) -> None:
    kernels.check(WIDE_DEPTHWISE[name].network(), profile, rule="depthwise")


SMALL_MAPS = {
    "2x2": Case(40, 72, (4, 3), (3, 3), (2, 2), (1, 1, 1, 1), batch=7),
    "3x1": Case(40, 72, (5, 1), (3, 1), (2, 1), (1, 0, 1, 0), batch=6),
    "strided": Case(40, 72, (5, 3), (3, 3), (2, 2), (1, 1, 1, 1), batch=6),
    "groups": Case(40, 80, (5, 3), (3, 3), (2, 2), (1, 1, 1, 1), group=2, batch=6),
}


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("l2_bytes", [4 << 10, 1 << 20])
@pytest.mark.parametrize("name", SMALL_MAPS)
def test_small_maps_of_a_batch(name: str, l2_bytes: int, profile: str) -> None:
    target = replace(load_target(profile), l2_bytes=l2_bytes)
    kernels.check(SMALL_MAPS[name].network(), target, rule="convolution")


@pytest.mark.usefixtures("small_kernels_shared")
@pytest.mark.parametrize("name", SMALL_MAPS)
def test_threads_share_the_rows_of_all_images(name: str) -> None:
    target = replace(load_target(kernels.PROFILES[-1]), cores=3)
    compiled, _ = kernels.check(SMALL_MAPS[name].network(), target, rule="convolution")
    kernels.check_threads(compiled, 2, 3)


@pytest.mark.parametrize(
    ("l2_bytes", "loops"),
    [(1 << 20, "range({18})"), (1 << 14, "grid({2}, {9})"), (1 << 12, "grid({6}, {3})")],
)
def test_weights_are_read_once_for_as_many_images_as_the_cache_holds(
    l2_bytes: int, loops: str
) -> None:
    network = SMALL_MAPS["strided"].network()  # six images of 2400 bytes and three rows of results
    target = replace(load_target("x86-64-v4"), l2_bytes=l2_bytes, cores=1)
    expected = loops.replace("{", "T.int64(").replace("}", ")")
    assert expected in kernels.loops_of(network, target)


@pytest.mark.parametrize("group", [1, 32])
def test_code_does_not_grow_with_the_window(group: int) -> None:
    sizes = []
    for taps in (101, 401):
        pads = (0, taps // 2, 0, taps // 2)
        case = Case(group, 32, (1, 900), (1, taps), (1, 1), pads, group=group)
        compiled = kernels.compile_network(case.network(), load_target(kernels.PROFILES[-1]))
        sizes.append(len(compiled.functions.inspect_source("asm")))
    assert sizes[1] < 1.5 * sizes[0]


@pytest.mark.parametrize("profile", kernels.EXTREMES)
def test_of_an_edge_only_what_some_columns_do_not_see_is_written_out(profile: str) -> None:
    loops = kernels.loops_of(WINDOWS["7x7 of an image"].network(), profile)
    # Of seven columns of the window, an edge's first or last three; the others are one loop, as inside.
    assert loops.count("for i_1 in range(T.int64(12))") == 2


def test_a_panel_that_the_second_cache_does_not_hold_is_narrow_and_its_tiles_long() -> None:
    file = RegisterFile(registers=32, sums=32)
    small = replace(file, cache=2 << 20)
    for depth, wide, narrow in ((64, 6, 6), (4608, 6, 2), (9216, 6, 3)):
        assert best_vectors(7, 7, 1024, depth, 16, file) == wide
        assert best_vectors(7, 7, 1024, depth, 16, small) == narrow
    # One tile reads each panel once, however wide it is.
    assert best_vectors(1, 1, 1024, 4608, 16, small) == best_vectors(1, 1, 1024, 4608, 16, file)


def test_packed_panels_of_several_vectors_have_whole_ones_alone() -> None:
    for width in (17, 24, 31, 33, 40, 184):
        for panel in make_panels(width, 2, 16, padded=True):
            several = len(panel.vectors) > 1
            assert not several or {vector.lanes for vector in panel.vectors} == {16}
            assert panel.padded == sum(vector.lanes for vector in panel.vectors)
    (narrow,) = make_panels(6, 2, 16, padded=True)
    assert [vector.lanes for vector in narrow.vectors] == [8]
    (exact,) = make_panels(22, 2, 16, padded=False)
    assert [vector.lanes for vector in exact.vectors] == [16, 6]


@pytest.mark.parametrize("profile", kernels.EXTREMES)
def test_convolutions_of_signals(profile: str) -> None:
    shapes = {
        "plain": ((13, 17, 3), {"pads": [1, 1]}),
        "strided": ((13, 17, 5), {"pads": [0, 3], "strides": [2], "dilations": [2]}),
        "dilated": ((13, 15, 5), {"pads": [0, 3], "dilations": [2]}),
        "pointwise": ((13, 5, 1), {}),
    }
    nodes, outputs, parameters = [], {}, {}
    for name, ((channels, out, taps), attributes) in shapes.items():
        nodes.append(node("Conv", f"x {name}_w", name, **attributes))
        before, after = attributes.get("pads", [0, 0])
        (step,), (apart,) = attributes.get("strides", [1]), attributes.get("dilations", [1])
        outputs[name] = [2, out, (31 + before + after - apart * (taps - 1) - 1) // step + 1]
        parameters[f"{name}_w"] = weights(out, channels, taps)
    network = networks.model(nodes, {"x": [2, 13, 31]}, outputs, parameters)
    kernels.check(network, profile, rule="convolution")


@pytest.mark.parametrize(
    ("depth", "step", "result", "rule"),
    [(5, 1, 5, "winograd"), (4, 2, 2, "convolution"), (2, 2, 1, "convolution")],
)
def test_convolution_of_a_volume(depth: int, step: int, result: int, rule: str) -> None:
    network = networks.model(
        [node("Conv", "x w b", "y", strides=[step] * 3, pads=[1] * 6)],
        {"x": [1, 8, depth, 6, 8]},
        {"y": [1, 12, result, 6 // step, 8 // step]},
        {"w": weights(12, 8, 3, 3, 3), "b": weights(12)},
    )
    kernels.check(network, kernels.PROFILES[-1], rule=rule)


def test_depthwise_convolution_of_a_signal() -> None:
    network = networks.model(
        [node("Conv", "x w b", "y", strides=[3], pads=[4, 0], dilations=[2], group=17)],
        {"x": [2, 17, 31]},
        {"y": [2, 17, 9]},
        {"w": weights(17, 1, 5), "b": weights(17)},
    )
    kernels.check(network, kernels.PROFILES[-1], rule="depthwise")


@pytest.mark.parametrize("other", [(2, 11, 5, 7), (2, 11, 1, 1), (1, 1, 5, 7), (7,), ()])
def test_what_follows_a_convolution_reads_the_other_operand_at_its_own_shape(
    other: tuple[int, ...],
) -> None:
    nodes = [
        node("Conv", "x w b", "c"),
        node("Add", "c r", "sum"),
        node("Sigmoid", "sum", "gate"),
        node("Mul", "sum gate", "y"),
    ]
    network = networks.model(
        nodes,
        {"x": [2, 5, 7, 9], "r": list(other)},
        {"y": [2, 11, 5, 7]},
        {"w": weights(11, 5, 3, 3), "b": weights(11)},
    )
    kernels.check(network, kernels.PROFILES[-1], rule="convolution")
