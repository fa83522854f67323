from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgepack.compiler.schedules import matmul, sharing
from edgepack.compiler.schedules.register_tile import (
    RegisterFile,
    best_vectors,
    make_overlapping_panels,
)
from edgepack.targets import Target, load_target
from tests import kernels, networks
from tests.kernels import integers, weights
from tests.networks import node

Shape = tuple[int, ...]


def product(a: Shape, b: Shape, *, constant: bool) -> onnx.ModelProto:
    result = np.matmul(np.zeros(a, bool), np.zeros(b, bool)).shape
    inputs: dict[str, Sequence[int | str]] = {"a": list(a)}
    if not constant:
        inputs["b"] = list(b)
    parameters = {"b": weights(*b)} if constant else {}
    return networks.model([node("MatMul", "a b", "y")], inputs, {"y": list(result)}, parameters)


SIZES = [
    (1, 1, 1),
    (1, 17, 1),
    (1, 1, 17),
    (17, 1, 1),
    (1, 100, 31),
    (7, 1, 13),
    (2, 3, 5),
    (31, 37, 41),
    (50, 64, 48),
    (3, 129, 16),
    (1, 300, 401),
]
BATCHED: list[tuple[Shape, Shape]] = [
    ((3, 7, 5), (3, 5, 11)),
    ((2, 3, 7, 5), (2, 3, 5, 11)),
    ((2, 3, 7, 5), (1, 3, 5, 11)),
    ((7, 5), (2, 3, 5, 11)),
    ((2, 1, 7, 5), (1, 3, 5, 11)),
    ((2, 3, 7, 5), (5, 11)),
    ((4, 1, 33), (4, 33, 17)),
    ((9, 16, 24), (9, 24, 18)),
    ((5,), (5, 11)),
    ((5,), (2, 3, 5, 11)),
]
FAR_APART: list[tuple[Shape, Shape]] = [
    ((40, 30), (30, 1024)),
    ((3, 33, 40), (3, 40, 512)),
    ((2, 5, 25, 70), (2, 1, 70, 512)),
    ((2, 24, 300), (2, 300, 256 + 128)),
]
ACROSS_LINES: list[tuple[Shape, Shape]] = [
    ((64, 160), (160, 1001)),
    ((2, 65, 333), (2, 333, 777)),
    ((3, 70, 450), (3, 450, 301)),
]
"""Rows of B that begin anywhere in a line of the cache, on hundreds of pages."""
SUMS: list[tuple[Shape, Shape]] = [
    ((13, 7), (7, 1)),
    ((7, 5), (5,)),
    ((5,), (5,)),
    ((2, 3, 7, 5), (5,)),
    ((4, 33, 17), (4, 17, 1)),
]
"""One result a row: lanes run along the sum."""


@pytest.mark.parametrize("constant", [True, False], ids=["weights", "activations"])
@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_product_of_matrices(size: tuple[int, int, int], profile: str, constant: bool) -> None:
    rows, depth, columns = size
    network = product((rows, depth), (depth, columns), constant=constant)
    kernels.check(network, profile, rule="matmul")


@pytest.mark.parametrize("constant", [True, False], ids=["weights", "activations"])
@pytest.mark.parametrize("shapes", BATCHED, ids=str)
def test_product_of_batches(shapes: tuple[Shape, Shape], constant: bool) -> None:
    network = product(*shapes, constant=constant)
    kernels.check(network, kernels.PROFILES[-1], rule="matmul")


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("shapes", FAR_APART, ids=str)
def test_panels_whose_rows_share_a_few_sets_of_the_cache_are_copied(
    shapes: tuple[Shape, Shape], profile: str
) -> None:
    network = product(*shapes, constant=False)
    compiled, _ = kernels.check(network, profile, rule="matmul")
    depth = shapes[1][-2]
    assert depth * 4 <= compiled.plan.arena_bytes < 4 * depth * 200  # a panel of B


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("shapes", ACROSS_LINES, ids=str)
def test_panels_whose_rows_lie_across_lines_on_many_pages_are_copied(
    shapes: tuple[Shape, Shape], profile: str
) -> None:
    network = product(*shapes, constant=False)
    compiled, _ = kernels.check(network, profile, rule="matmul")
    target = load_target(profile)
    vector = target.vector_bits // 8
    copied = compiled.plan.arena_bytes // (target.cores * shapes[1][-2] * vector)
    assert 1 <= copied <= 4  # vectors of a panel of B


@pytest.mark.usefixtures("small_kernels_shared")
def test_panels_are_copied_for_each_thread() -> None:
    target = replace(load_target(kernels.PROFILES[-1]), cores=4)
    for shapes in FAR_APART + ACROSS_LINES:
        compiled = kernels.compile_network(product(*shapes, constant=False), target)
        kernels.check_threads(compiled, 3)


def test_a_panel_that_stays_in_the_cache_or_serves_few_rows_is_not_copied() -> None:
    for rows, depth, columns in ((40, 30, 1000), (8, 30, 1024), (40, 5, 1024), (40, 200, 128)):
        network = product((rows, depth), (depth, columns), constant=False)
        compiled, _ = kernels.check(network, kernels.PROFILES[-1])
        assert compiled.plan.arena_bytes == 0


@pytest.mark.parametrize(
    "size",
    [(63, 160, 1001), (64, 160, 1008), (64, 160, 1000), (64, 120, 1001), (64, 2100, 200)],
    ids=["few rows", "whole lines", "half lines", "few pages", "near rows"],
)
def test_a_panel_that_lies_well_or_serves_few_rows_is_not_copied(size: Shape) -> None:
    rows, depth, columns = size
    network = product((rows, depth), (depth, columns), constant=False)
    compiled, _ = kernels.check(network, kernels.PROFILES[-1])
    assert compiled.plan.arena_bytes == 0


def test_panels_read_in_place_end_with_a_whole_one_that_skips_what_is_stored() -> None:
    for width in (33, 40, 41, 57, 64, 73, 201, 777):
        stored: list[int] = []
        for panel in make_overlapping_panels(width, 2, 16):
            for which, vector in itertools.product(range(panel.count), panel.vectors):
                first = panel.start + which * panel.width + vector.offset + vector.skipped
                stored += range(first, first + vector.stored)
                assert vector.skipped + vector.stored <= vector.lanes
            lengths = {vector.lanes for vector in panel.vectors}
            assert lengths == {16} or (len(panel.vectors) == 1 and lengths <= {1, 2, 4, 8})
        assert stored == list(range(width))
    (short,) = make_overlapping_panels(27, 2, 16)  # there is nothing before it
    assert [vector.lanes for vector in short.vectors] == [16, 11]


def test_a_panel_of_terms_that_lie_across_lines_is_narrow() -> None:
    file = RegisterFile(registers=32, sums=32, near=48 << 10, cache=2 << 20)
    for rows in (40, 400):
        inside = best_vectors(rows, 1, 777, 333, 16, file)
        across = best_vectors(rows, 1, 777, 333, 16, file, 777)
        assert across < inside
    # Where the first cache level holds it, it does not matter.
    assert best_vectors(400, 1, 777, 30, 16, file) == best_vectors(400, 1, 777, 30, 16, file, 777)


FEW_ROWS_IN_CACHE: list[Shape] = [(7, 2048, 130), (33, 4096, 128), (2, 9, 4096, 200), (14, 4096, 3)]
"""Rows, terms and columns, one with a batch: rows that lie a large power of two apart."""


def one_way(profile: str) -> Target:
    """With a first cache level that holds one line of those that share a set."""
    return replace(load_target(profile), l1_bytes=4 << 10)


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("size", FEW_ROWS_IN_CACHE, ids=str)
def test_rows_that_share_a_few_sets_of_the_cache_are_copied(size: Shape, profile: str) -> None:
    *rows, depth, columns = size
    network = product((*rows, depth), (depth, columns), constant=True)
    compiled, _ = kernels.check(network, one_way(profile), rule="matmul")
    assert compiled.plan.arena_bytes >= 4 * math.prod(rows) * (depth + 16)


def test_rows_that_the_cache_holds_are_not_copied() -> None:
    for rows, depth, columns in ((33, 4000, 128), (1, 4096, 128), (40, 64, 256)):
        network = product((rows, depth), (depth, columns), constant=True)
        compiled, _ = kernels.check(network, one_way(kernels.PROFILES[-1]), rule="matmul")
        assert compiled.plan.arena_bytes == 0


@pytest.mark.parametrize(
    ("profile", "copied"),
    [("raspberrypi4", True), ("x86-64-v2", False), ("x86-64-v3", False), ("x86-64-v4", False)],
)
def test_rows_that_share_a_set_are_as_many_as_the_cache_has_ways(
    profile: str, copied: bool
) -> None:
    for depth in (4096, 8192):
        network = product((33, depth), (depth, 40), constant=True)
        _, module = kernels.lowered(network, load_target(profile))
        assert ("rows" in str(module.script())) == copied


POINTWISE: dict[str, tuple[Shape, int, bool]] = {
    "7 of 14": ((14, 14), 2, True),
    "4 of 7": ((7, 7), 2, True),
    "3 of 9": ((8, 9), 3, True),
    "25 of 50": ((6, 50), 2, False),
}
"""Image and stride of 1x1 convolutions, and whether their rows are too short for a tile."""


@pytest.mark.parametrize("name", POINTWISE)
def test_pixels_of_short_rows_are_put_together(name: str) -> None:
    image, stride, copied = POINTWISE[name]
    result = [1, 130, *(-(-extent // stride) for extent in image)]
    network = networks.model(
        [node("Conv", "x w", "y", strides=[stride] * 2), node("Relu", "y", "z")],
        {"x": [1, 70, *image]},
        {"z": result},
        {"w": weights(130, 70, 1, 1)},
    )
    compiled, _ = kernels.check(network, kernels.PROFILES[-1], rule="matmul")
    _, module = kernels.lowered(network, load_target(kernels.PROFILES[-1]))
    assert ("rows" in str(module.script())) == copied, compiled.rules_called


def test_pixels_of_rows_of_14_are_put_together_where_the_weights_leave_the_second_cache() -> None:
    network = networks.model(
        [node("Conv", "x w", "y", strides=[2, 2])],
        {"x": [1, 70, 28, 28]},
        {"y": [1, 130, 14, 14]},
        {"w": weights(130, 70, 1, 1)},
    )
    weights_bytes = 4 * 70 * 130
    for cache, copied in ((2 * weights_bytes - 8, True), (2 * weights_bytes, False)):
        target = replace(load_target(kernels.PROFILES[-1]), l2_bytes=cache)
        kernels.check(network, target, rule="matmul")
        _, module = kernels.lowered(network, target)
        assert ("rows" in str(module.script())) == copied


@pytest.mark.usefixtures("small_kernels_shared")
def test_threads_share_the_copy_of_rows() -> None:
    target = replace(one_way(kernels.PROFILES[-1]), cores=4)
    for *rows, depth, columns in FEW_ROWS_IN_CACHE:
        network = product((*rows, depth), (depth, columns), constant=True)
        kernels.check_threads(kernels.compile_network(network, target), 2, 3)


@pytest.mark.parametrize("shapes", SUMS, ids=str)
def test_products_with_a_vector(shapes: tuple[Shape, Shape]) -> None:
    for constant in (True, False):
        kernels.check(product(*shapes, constant=constant), kernels.PROFILES[-1])


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)], ids=str)
def test_dense_layers_with_either_matrix_transposed(
    transposed: tuple[int, int], profile: str
) -> None:
    nodes, outputs = [], {}
    inputs: dict[str, list[int]] = {}
    parameters: dict[str, np.ndarray] = {}
    for name, (rows, depth, columns) in {
        "p": (1, 19, 23),
        "q": (13, 17, 31),
        "r": (11, 5, 1),
    }.items():
        a = (depth, rows) if transposed[0] else (rows, depth)
        b = (columns, depth) if transposed[1] else (depth, columns)
        flags = {"transA": transposed[0], "transB": transposed[1], "alpha": 0.5, "beta": 2.0}
        for kind in ("w", "i"):
            nodes.append(node("Gemm", f"a{name} {kind}{name} c{name}", f"{kind}y{name}", **flags))
            outputs[f"{kind}y{name}"] = [rows, columns]
        inputs |= {f"a{name}": list(a), f"i{name}": list(b)}
        parameters |= {f"w{name}": weights(*b), f"c{name}": weights(columns)}
    network = networks.model(nodes, inputs, outputs, parameters)
    kernels.check(network, profile, rule="matmul")


def around(
    nodes: Sequence[onnx.NodeProto], inputs: Any, output: list[int], **parameters: np.ndarray
) -> onnx.ModelProto:
    return networks.model(nodes, inputs, {"y": output}, parameters)


SURROUNDED = {
    "a bias of each row": around(
        [node("MatMul", "a b", "m"), node("Add", "m c", "s"), node("Sigmoid", "s", "y")],
        {"a": [2, 3, 17], "c": [3, 1]},
        [2, 3, 19],
        b=weights(17, 19),
    ),
    "a residual": around(
        [node("MatMul", "a b", "m"), node("Add", "m a", "y")],
        {"a": [13, 17]},
        [13, 17],
        b=weights(17, 17),
    ),
    "a scalar": around(
        [node("MatMul", "a b", "m"), node("Mul", "m c", "y")],
        {"a": [13, 17], "c": []},
        [13, 19],
        b=weights(17, 19),
    ),
    "a bias that repeats it": around(
        [node("MatMul", "a b", "m"), node("Add", "m c", "y")],
        {"a": [1, 17], "c": [5, 1]},
        [5, 19],
        b=weights(17, 19),
    ),
    "a tensor of higher rank": around(
        [node("MatMul", "a b", "m"), node("Add", "m c", "y")],
        {"a": [3, 17], "c": [5, 3, 19]},
        [5, 3, 19],
        b=weights(17, 19),
    ),
    "an activation before": around(
        [node("Erf", "a", "e"), node("Mul", "e a", "g"), node("MatMul", "g b", "y")],
        {"a": [7, 5]},
        [7, 3],
        b=weights(5, 3),
    ),
    "a slice before": around(
        [node("Slice", "a start stop axes", "s"), node("MatMul", "s b", "y")],
        {"a": [9, 7]},
        [7, 3],
        b=weights(5, 3),
        start=integers(1, 1),
        stop=integers(8, 6),
        axes=integers(0, 1),
    ),
    "padding before": around(
        [node("Pad", "a p", "q"), node("MatMul", "q b", "y")],
        {"a": [3, 5]},
        [6, 3],
        b=weights(8, 3),
        p=integers(1, 2, 2, 1),
    ),
    "the same matrix twice, once transposed": around(
        [node("Transpose", "a", "t", perm=[1, 0]), node("MatMul", "a t", "y")],
        {"a": [7, 13]},
        [7, 7],
    ),
    "heads": around(
        [
            node("Transpose", "a", "t", perm=[0, 2, 1, 3]),
            node("Transpose", "b", "u", perm=[0, 2, 3, 1]),
            node("MatMul", "t u", "y"),
        ],
        {"a": [2, 7, 3, 5], "b": [2, 9, 3, 5]},
        [2, 3, 7, 9],
    ),
    "weights on the left": around(
        [node("MatMul", "b a", "y")], {"a": [3, 7, 9]}, [3, 5, 9], b=weights(5, 7)
    ),
    "weights on the left of a column": around(
        [node("MatMul", "b a", "y")], {"a": [7, 1]}, [5, 1], b=weights(5, 7)
    ),
    "the same weights twice": around(
        [node("MatMul", "a b", "m"), node("Relu", "m", "r"), node("MatMul", "r b", "y")],
        {"a": [7, 13]},
        [7, 13],
        b=weights(13, 13),
    ),
    "the same weights as they are and transposed": around(
        [
            node("MatMul", "a b", "m"),
            node("Transpose", "b", "t", perm=[1, 0]),
            node("MatMul", "m t", "y"),
        ],
        {"a": [7, 13]},
        [7, 13],
        b=weights(13, 13),
    ),
    "heads after": around(
        [
            node("MatMul", "a b", "m"),
            node("Reshape", "m s", "r"),
            node("Transpose", "r", "y", perm=[0, 2, 1, 3]),
        ],
        {"a": [1, 7, 12]},
        [1, 4, 7, 6],
        b=weights(12, 24),
        s=integers(1, 7, 4, 6),
    ),
    "a convolution before": around(
        [node("Conv", "x w", "c"), node("Flatten", "c", "f"), node("Gemm", "f v u", "y")],
        {"x": [2, 3, 5, 6]},
        [2, 7],
        w=weights(5, 3, 2, 2),
        v=weights(100, 7),
        u=weights(7),
    ),
}


@pytest.mark.parametrize("name", SURROUNDED)
def test_product_with(name: str) -> None:
    kernels.check(SURROUNDED[name], kernels.PROFILES[-1], rule="matmul")


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.DOUBLE])
def test_products_of_other_types(kind: int) -> None:
    network = networks.model(
        [node("MatMul", "a b", "y")],
        {"a": [7, 5], "b": [5, 3]},
        {"y": [7, 3]},
        types=dict.fromkeys("aby", kind),
    )
    kernels.check(network, kernels.PROFILES[-1])


@pytest.mark.parametrize(
    ("equation", "a", "b", "y"),
    [
        ("bhwc,hkc->bhwk", [2, 3, 4, 5], [3, 6, 5], [2, 3, 4, 6]),
        ("ij,ij->i", [7, 5], [7, 5], [7]),
        ("i,j->ij", [7], [5], [7, 5]),
    ],
)
def test_sums_of_products_by_equation(
    equation: str, a: list[int], b: list[int], y: list[int]
) -> None:
    network = networks.model(
        [node("Einsum", "a b", "y", equation=equation)], {"a": a, "b": b}, {"y": y}
    )
    kernels.check(network, kernels.PROFILES[-1])


@pytest.mark.usefixtures("small_kernels_shared")
@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(
    ("rows", "depth", "width"), [(211, 70, 100), (400, 33, 137), (300, 65, 99)]
)
def test_rows_that_leave_the_second_cache_are_done_in_blocks(
    rows: int, depth: int, width: int, constant: bool, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = product((rows, depth), (depth, width), constant=constant)
    runnable = replace(load_target(kernels.PROFILES[-1]), l2_bytes=16 << 10, cores=cores)
    compiled, _ = kernels.check(network, runnable)
    kernels.check_threads(compiled, 2, 3)
    kernels.check(network, replace(runnable, l2_bytes=1 << 24))

    asked: list[int] = []

    def counted(*arguments: Any) -> Any:
        asked.append(arguments[3])
        return sharing.block_by_block(*arguments)

    monkeypatch.setattr(matmul, "block_by_block", counted)
    # With fewer registers, panels of a computed matrix are copied instead.
    many_registers = replace(load_target("x86-64-v4"), l2_bytes=16 << 10, cores=cores)
    kernels.lowered(network, many_registers)
    assert all(blocks > 1 for blocks in asked)
    assert asked or cores == 3  # their rows may be too uneven: then each has panels of its own
    asked.clear()
    kernels.lowered(network, replace(many_registers, l2_bytes=1 << 24))
    assert not asked
