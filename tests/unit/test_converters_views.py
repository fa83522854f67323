from __future__ import annotations

from typing import Any

import pytest

from tests import operators
from tests.operators import EVERY_TYPE, any_of, ints, node, normal


@pytest.mark.parametrize("dtype", EVERY_TYPE)
def test_every_type_is_moved(dtype: str) -> None:
    nodes = [
        node("Transpose", "x", "transposed", perm=[2, 0, 1]),
        node("Tile", "x counts", "tiled"),
        node("Expand", "row shape", "expanded"),
        node("DepthToSpace", "image", "space", blocksize=2),
        node("SpaceToDepth", "image", "depth", blocksize=2),
    ]
    draws = {
        "x": any_of(dtype, 3, 2, 5),
        "row": any_of(dtype, 3, 1, 2),
        "image": any_of(dtype, 1, 8, 4, 6),
    }
    constants = {"counts": ints(2, 1, 3), "shape": ints(2, 1, 4, 1)}
    operators.agree(nodes, draws, constants)


SHAPES = [(0, -1), (4, 0, -1), (24,), (1, 2, 1, 12), (-1,), (2, 3, 4)]


def test_other_axes_for_the_same_elements() -> None:
    nodes: list[Any] = [node("Reshape", f"x s{i}", f"r{i}") for i in range(len(SHAPES))]
    nodes += [node("Flatten", "x", f"f{axis + 3}", axis=axis) for axis in range(-2, 4)]
    nodes += [
        node("Unsqueeze", "x a", "u"),
        node("Squeeze", "u", "s"),
        node("Squeeze", "u b", "t"),
        node("Reshape", "y one", "v"),
        node("Unsqueeze", "y zero", "w"),
    ]
    constants = {f"s{i}": ints(*shape) for i, shape in enumerate(SHAPES)}
    constants |= {"a": ints(-1, 1), "b": ints(1), "one": ints(1, 1), "zero": ints(0)}
    operators.agree(nodes, {"x": normal(2, 3, 4), "y": normal()}, constants)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 7), (5,), ()], ids=str)
def test_transposition_without_an_order(shape: tuple[int, ...]) -> None:
    operators.agree(node("Transpose", "x", "y"), {"x": normal(*shape)})


def test_repetitions() -> None:
    shapes = {"a": (1, 5), "b": (2, 3, 1), "c": (4,), "d": (1, 1)}
    counts = {"a": (4, 1), "b": (1, 2, 3), "c": (3,), "d": (2, 5)}
    nodes = [node("Tile", f"{name} n{name}", f"t{name}") for name in shapes]
    nodes += [node("Expand", f"{name} m{name}", f"e{name}") for name in shapes]
    constants = {f"n{name}": ints(*count) for name, count in counts.items()}
    wide = {"a": (3, 1, 1), "b": (1,), "c": (2, 1, 4), "d": (7, 1)}
    constants |= {f"m{name}": ints(*shape) for name, shape in wide.items()}
    operators.agree(nodes, {name: normal(*shape) for name, shape in shapes.items()}, constants)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("size", [2, 3])
def test_blocks_of_depth_and_space(size: int, mode: str) -> None:
    nodes = [node("DepthToSpace", "x", "y", blocksize=size, mode=mode)]
    draws = {"x": normal(2, size * size * 3, 2, 5), "z": normal(2, 3, 2 * size, 3 * size)}
    operators.agree([*nodes, node("SpaceToDepth", "z", "w", blocksize=size)], draws)
