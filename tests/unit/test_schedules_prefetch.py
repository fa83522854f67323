from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import onnx
import pytest

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
