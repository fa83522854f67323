from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from edgepack.importers import functions
from tests import operators
from tests.operators import EVERY_TYPE, any_of, ints, node, normal, whole

FARTHEST = 2**63 - 1
SLICES: list[tuple[tuple[int, ...], ...]] = [
    # starts, ends, axes, steps
    ((1,), (3,)),
    ((5,), (-7,), (1,), (-2,)),
    ((100,), (-100,), (0,), (-1,)),
    ((-2,), (FARTHEST,), (1,)),
    ((0, 0), (100, 2), (2, 0), (3, 1)),
    ((3,), (0,), (-2,), (-1,)),
    ((-1,), (-FARTHEST,), (2,), (-1,)),
    ((2,), (3,), (1,), (5,)),
    ((-1, 1), (-100, 6), (0, -1), (-1, 2)),
]


@pytest.mark.parametrize("dtype", EVERY_TYPE)
def test_every_type_is_cut_and_joined(dtype: str) -> None:
    nodes = [
        node("Slice", "x starts ends axes steps", "sliced"),
        node("Split", "x lengths", "first second", axis=1),
        node("Concat", "x y x", "joined", axis=-1),
        node("ReverseSequence", "x counts", "reversed", batch_axis=0, time_axis=1),
    ]
    constants = {
        "starts": ints(-1, 1),
        "ends": ints(-100, 6),
        "axes": ints(0, -1),
        "steps": ints(-1, 2),
        "lengths": ints(2, 3),
    }
    draws = {
        "x": any_of(dtype, 3, 5, 7),
        "y": any_of(dtype, 3, 5, 2),
        "counts": whole(1, 6, 3),
    }
    operators.agree(nodes, draws, constants)


def test_starts_ends_and_steps_of_either_sign_and_out_of_range() -> None:
    nodes: list[Any] = []
    constants: dict[str, np.ndarray] = {}
    for number, parts in enumerate(SLICES):
        names = [f"{name}{number}" for name in "seat"[: len(parts)]]
        constants |= {name: ints(*part) for name, part in zip(names, parts, strict=True)}
        nodes.append(node("Slice", " ".join(["x", *names]), f"y{number}"))
    operators.agree(nodes, {"x": normal(4, 6, 5)}, constants)


def test_slices_as_attributes_of_old_opsets() -> None:
    nodes = [
        node("Slice", "x", "y", starts=[1], ends=[-1], axes=[1]),
        node("Slice", "x", "z", starts=[0, -2], ends=[2, 100]),
    ]
    operators.agree(nodes, {"x": normal(4, 6, 5)}, opset=9, oracle=operators.onnxruntime)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_parts_as_even_as_can_be(count: int) -> None:
    split = node("Split", "x", " ".join("abcd"[:count]), axis=0, num_outputs=count)
    operators.agree(split, {"x": normal(7, 3)})


def test_parts_in_old_opsets() -> None:
    nodes = [node("Split", "x", "a b c", axis=-2), node("Split", "x", "d e", split=[1, 5])]
    operators.agree(nodes, {"x": normal(6, 3)}, opset=11, oracle=operators.onnxruntime)


def test_a_part_without_elements_joins_as_nothing() -> None:
    nodes = [
        node("Split", "x lengths", "a b", axis=1),
        node("Slice", "x three two axis", "c"),
        node("Concat", "b x c", "y", axis=1),
        node("Add", "a one", "z"),
    ]
    constants = {"lengths": ints(5, 0), "three": ints(3), "two": ints(2), "axis": ints(1)}
    operators.agree(nodes, {"x": normal(4, 5)}, constants | {"one": np.float32(1)})


def test_lengths_of_a_sequence_that_are_out_of_range() -> None:
    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        data = inputs["x"].copy()
        for line, length in enumerate(inputs["n"].clip(0, 6)):
            data[:length, line] = data[:length, line][::-1]
        return [data]

    draws = {"x": normal(6, 40), "n": whole(-20, 20, 40)}
    operators.agree(node("ReverseSequence", "x n", "y", time_axis=0), draws, oracle=wanted)


def test_the_middle_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "REPLACED", ())  # the operator itself, not ONNX's definition
    shapes = list(itertools.product((3, 5, 8), (4, 6)))

    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        results = []
        for shape in shapes:
            data = inputs["x"]
            for axis, new in zip((1, 2), shape, strict=True):
                old = data.shape[axis]
                start, before = max(old - new, 0) // 2, max(new - old, 0) // 2
                data = data.take(range(start, start + min(old, new)), axis)
                widths = [(0, 0)] * 3
                widths[axis] = (before, max(new - old, 0) - before)
                data = np.pad(data, widths)
            results.append(data)
        return results

    nodes = [node("CenterCropPad", f"x s{i}", f"y{i}", axes=[1, -1]) for i in range(len(shapes))]
    constants = {f"s{i}": ints(*shape) for i, shape in enumerate(shapes)}
    operators.agree(nodes, {"x": normal(2, 5, 5)}, constants, oracle=wanted)
