from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import onnx
import pytest

from edgepack.compiler.packing import packings_of
from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index, rebuild, simplified
from edgepack.compiler.schedules.prefetch import Ahead
from edgepack.targets import Target, load_target
from tests import kernels, networks
from tests.kernels import weights
from tests.networks import node

CORES = 4
ASKED = "T.prefetch("


def target(l1_bytes: int = 1 << 12, profile: str = kernels.PROFILES[-1]) -> Target:
    """Of a first cache level that small weights leave, and a second one that holds all."""
    return replace(load_target(profile), cores=CORES, l1_bytes=l1_bytes, l2_bytes=1 << 22)


def dense(rows: int, depth: int, columns: int, *, residual: bool = False) -> onnx.ModelProto:
    inputs: dict[str, Sequence[int | str]] = {"x": [rows, depth]}
    nodes = [node("MatMul", "x w", "y")]
    if residual:
        inputs["r"] = [rows, columns]
        nodes.append(node("Add", "y r", "z"))
    return networks.model(
        nodes,
        inputs,
        {"z" if residual else "y": [rows, columns]},
        {"w": weights(depth, columns)},
    )


def convolution(
    image: Sequence[int], channels: int, out: int, strides: int = 1, groups: int = 1
) -> onnx.ModelProto:
    result = [1, out, *(-(-extent // strides) for extent in image)]
    nodes = [
        node("Conv", "x w b", "c", pads=[1] * 4, strides=[strides] * 2, group=groups),
        node("Add", "c r", "sum"),
        node("Relu", "sum", "y"),
    ]
    return networks.model(
        nodes,
        {"x": [1, channels, *image], "r": result},
        {"y": result},
        {"w": weights(out, channels // groups, 3, 3), "b": weights(out)},
    )


def requests(network: onnx.ModelProto, profile: Target) -> int:
    """Places in the kernels' code that ask for memory."""
    _, module = kernels.lowered(network, profile)
    return str(module.script()).count(ASKED)


NETWORKS = {
    "product": dense(50, 129, 70),
    "product whose terms are a few": dense(33, 7, 300),
    "product of one row": dense(1, 300, 700),
    "product with a residual": dense(61, 200, 37, residual=True),
    "convolution": convolution((13, 9), 21, 50, strides=2),
    "convolution of 7x7": convolution((7, 7), 32, 64, strides=2),
    "convolution in groups": convolution((9, 12), 24, 60, strides=2, groups=3),
    "winograd": convolution((37, 39), 64, 72),
}


@pytest.mark.usefixtures("small_kernels_shared")
@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_that_ask_for_what_comes_next_compute_the_same(name: str, profile: str) -> None:
    chosen = target(profile=profile)
    assert requests(NETWORKS[name], chosen) > 0
    compiled, _ = kernels.check(NETWORKS[name], chosen, tolerance=3e-5)
    kernels.check_threads(compiled, 2, CORES)


def test_nothing_is_asked_for_where_it_is_in_the_first_cache_level_anyway() -> None:
    for name, network in NETWORKS.items():
        assert requests(network, target(l1_bytes=1 << 24)) == 0, name


def test_a_single_tile_of_rows_asks_for_a_line_of_each_page() -> None:
    """Its panels have 256 terms: on AVX-512, of up to 8 vectors of 16 lanes."""
    assert 0 < requests(dense(1, 256, 700), target()) < requests(dense(64, 256, 700), target())
    assert requests(dense(1, 256, 700), target(l1_bytes=1 << 24)) == 0


def test_a_residual_is_asked_for_but_not_a_bias() -> None:
    plain, added = (requests(dense(64, 70, 256, residual=flag), target()) for flag in (False, True))
    assert added > plain
    bias = networks.model(
        [node("MatMul", "x w", "y"), node("Add", "y b", "z")],
        {"x": [64, 70]},
        {"z": [64, 256]},
        {"w": weights(70, 256), "b": weights(256)},
    )
    assert requests(bias, target()) == plain


@pytest.mark.parametrize("lines", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("length", [1, 5, 8, 17, 64, 131, 1024])
def test_the_terms_of_a_loop_are_done_once_and_in_order_and_ask_for_all_lines(
    length: int, lines: int
) -> None:
    from tvm import tirx

    buffer = tirx.decl_buffer((1 << 20,), "float32", "panel")
    ahead = Ahead(buffer=buffer, start=index(320), lines=lines)
    done, asked = _simulated(ahead.loop(length, lambda k: tirx.Evaluate(k + index(1))))
    assert done == list(range(1, length + 1))  # TVM leaves Evaluate(0) out
    assert asked == sorted(set(asked))
    assert set(asked) >= {320 + 16 * line for line in range(lines)}
    assert len(asked) < lines + length  # a few lines more, as each turn asks for as many


def test_parts_of_a_loop_ask_for_all_lines_together() -> None:
    from tvm import tirx

    buffer = tirx.decl_buffer((1 << 20,), "float32", "panel")
    ahead = Ahead(buffer=buffer, start=index(0), lines=100)
    asked: set[int] = set()
    for part in range(9):
        asked |= set(_simulated(ahead.loop(40, tirx.Evaluate, index(part), 9))[1])
    assert asked >= {16 * line for line in range(100)}


@pytest.mark.parametrize("length", [1, 7, 64, 131, 4096])
def test_pages_are_asked_for_once_each(length: int) -> None:
    from tvm import tirx

    buffer = tirx.decl_buffer((1 << 20,), "float32", "panel")
    ahead = Ahead(buffer=buffer, start=index(64), lines=9, apart=1024)
    done, asked = _simulated(ahead.loop(length, lambda k: tirx.Evaluate(k + index(1))))
    assert done == list(range(1, length + 1))
    assert set(asked) >= {64 + 1024 * page for page in range(9)}
    assert asked == sorted(set(asked))


def test_pages_of_streams_are_asked_for_side_by_side() -> None:
    from tvm import tirx

    buffer = tirx.decl_buffer((1 << 20,), "float32", "panel")
    ahead = Ahead(buffer=buffer, start=index(64), lines=9, apart=1024, streams=3, between=20000)
    _, asked = _simulated(ahead.loop(4096, tirx.Evaluate))
    assert asked[:6] == [64, 20064, 40064, 1088, 21088, 41088]
    assert set(asked) >= {64 + 1024 * page + 20000 * s for page in range(9) for s in range(3)}


def _simulated(statements: list[Any]) -> tuple[list[int], list[int]]:
    """The numbers that Evaluate gives, and the elements that are asked for, in order."""
    from tvm import ir, tirx

    done: list[int] = []
    asked: list[int] = []

    def value(expression: Any, known: dict[Any, Any]) -> int:
        return int(
            simplified(
                rebuild(expression, known, lambda source, at, _: emit.load(source, at[0]))
            ).value
        )

    def walk(node: Any, known: dict[Any, Any]) -> None:
        if isinstance(node, tirx.SeqStmt):
            for inner in node.seq:
                walk(inner, known)
        elif isinstance(node, tirx.Bind):
            known[node.var] = index(value(node.value, known))
        elif isinstance(node, tirx.For):
            for i in range(value(node.extent, known)):
                walk(node.body, known | {node.loop_var: index(i)})
        elif isinstance(node.value, ir.Call):
            (place,) = node.value.args[0].args[0].indices
            asked.append(value(place, known))
        else:
            done.append(value(node.value, known))

    walk(emit.sequence(statements), {})
    return done, asked


def whole_image(groups: int = 1) -> onnx.ModelProto:
    """A convolution whose kernel covers the image: a dense layer in all but name."""
    return networks.model(
        [node("Conv", "x w b", "y", group=groups), node("Relu", "y", "z")],
        {"x": [1, 32, 5, 6]},
        {"z": [1, 160, 1, 1]},
        {"w": weights(160, 32 // groups, 5, 6), "b": weights(160)},
    )


READ_ONCE = {
    "a row": dense(1, 300, 700),
    "rows": dense(3, 257, 650),
    "whole vectors": dense(1, 301, 640),
    "less than a vector": dense(2, 5000, 3),
    "a convolution": whole_image(),
    "a convolution in groups": whole_image(4),
}
"""Products by weights that a small second cache level does not hold, of a single tile."""


def out_of_cache(profile: str, issue: str) -> Target:
    return replace(
        load_target(profile), cores=CORES, l1_bytes=1 << 12, l2_bytes=1 << 14, issue=issue
    )


@pytest.mark.usefixtures("small_kernels_shared")
@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("name", READ_ONCE)
def test_weights_that_are_read_once_lie_in_streams(name: str, profile: str) -> None:
    compiled, _ = kernels.check(READ_ONCE[name], out_of_cache(profile, "out-of-order"))
    kernels.check_threads(compiled, 2, CORES)


def panels(network: onnx.ModelProto, profile: Target) -> list[list[int]]:
    """Number, width and room of the panels that the only packed constant is laid out in."""
    from tvm import tirx

    _, module = kernels.lowered(network, profile)
    functions = [f for f in module.functions.values() if isinstance(f, tirx.PrimFunc)]
    (packing,) = [p for function in functions for p in packings_of(function).values()]
    found: list[list[int]] = json.loads(packing)["panels"]
    return found


def test_a_core_that_issues_in_order_reads_one_stream() -> None:
    network = dense(1, 301, 640)  # 40 vectors of 16, in panels of eight
    assert panels(network, out_of_cache("x86-64-v4", "in-order")) == [[5, 128, 128]]
    assert panels(network, out_of_cache("x86-64-v4", "out-of-order")) == [[20, 32, 32]]
    held = replace(out_of_cache("x86-64-v4", "out-of-order"), l2_bytes=1 << 22)
    assert panels(network, held) == [[5, 128, 128]]
    one_row, rows = (
        requests(dense(count, 301, 640), out_of_cache("x86-64-v4", "out-of-order"))
        for count in (1, 64)
    )
    assert 0 < one_row < rows
