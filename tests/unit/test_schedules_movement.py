from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests import kernels, networks
from tests.kernels import integers, weights
from tests.networks import node

BEST = kernels.PROFILES[-1]


def chain(nodes: Sequence[onnx.NodeProto], inputs: Any, *output: int) -> onnx.ModelProto:
    return networks.model(nodes, inputs, {"y": list(output)})


@pytest.mark.parametrize("shape", [(3, 5, 7), (17, 1, 9), (2, 3, 5, 7)], ids=str)
def test_every_transposition(shape: tuple[int, ...]) -> None:
    orders = list(itertools.permutations(range(len(shape))))
    nodes, outputs = [], {}
    for number, order in enumerate(orders):
        nodes.append(node("Transpose", "x", f"y{number}", perm=list(order)))
        outputs[f"y{number}"] = [shape[axis] for axis in order]
    kernels.check(networks.model(nodes, {"x": list(shape)}, outputs), BEST, rule="elementwise")


@pytest.mark.parametrize("profile", kernels.EXTREMES)
def test_long_transpositions_with_a_function_in_them(profile: str) -> None:
    nodes = [
        node("Transpose", "x", "t", perm=[0, 2, 3, 1]),
        node("Sigmoid", "t", "y"),
        node("Transpose", "m", "n", perm=[1, 0]),
        node("Transpose", "b", "c", perm=[1, 0]),
    ]
    network = networks.model(
        nodes,
        {"x": [2, 33, 17, 19], "m": [131, 257], "b": [31, 57]},
        {"y": [2, 17, 19, 33], "n": [257, 131], "c": [57, 31]},
        types=dict.fromkeys("bc", TensorProto.INT8),
    )
    kernels.check(network, profile, rule="elementwise")


@pytest.mark.parametrize("axis", range(4))
def test_concatenation(axis: int) -> None:
    nodes, inputs = [node("Sigmoid", "b", "s"), node("Concat", "a s c a", "y", axis=axis)], {}
    for name, extent in {"a": 1, "b": 5, "c": 4}.items():
        inputs[name] = [extent if way == axis else (2, 3, 5, 7)[way] for way in range(4)]
    result = [11 if way == axis else (2, 3, 5, 7)[way] for way in range(4)]
    kernels.check(chain(nodes, inputs, *result), BEST, rule="elementwise")


def test_concatenation_of_many() -> None:
    names = [f"x{number}" for number in range(20)]
    inputs = {name: [2, 1 + number % 3] for number, name in enumerate(names)}
    total = sum(width for _, width in inputs.values())
    nodes = [helper.make_node("Concat", names, ["y"], axis=1)]
    kernels.check(chain(nodes, inputs, 2, total), BEST, rule="elementwise")


def test_every_part_of_many_is_a_loop_of_its_own() -> None:
    names = [f"x{number}" for number in range(40)]
    inputs = {name: [5, 3 + number % 7] for number, name in enumerate(names)}
    total = sum(width for _, width in inputs.values())
    nodes = [helper.make_node("Concat", names, ["c"], axis=1), node("Sigmoid", "c", "y")]
    network = chain(nodes, inputs, 5, total)
    kernels.check(network, BEST, rule="elementwise")
    assert kernels.loops_of(network, BEST).count("T.vectorized") == 40


def test_concatenation_of_more_than_conditions_can_be_nested() -> None:
    parts = [f"p{number}" for number in range(350)]
    nodes = [
        helper.make_node("Split", ["x"], parts, axis=0),
        helper.make_node("Concat", parts[::-1], ["y"], axis=0),
    ]
    kernels.check(chain(nodes, {"x": [700, 3]}, 700, 3), BEST, rule="elementwise")


def test_slices_forwards_and_backwards() -> None:
    slices = {  # start, stop, axes, steps, result
        "a": ((-1,), (-1000,), (2,), (-1,), [5, 13, 9]),
        "b": ((1, 12), (4, 0), (0, 1), (2, -3), [2, 4, 9]),
        "c": ((0,), (100,), (-1,), (2,), [5, 13, 5]),
        "d": ((2,), (-1,), (1,), (4,), [5, 3, 9]),
    }
    nodes, outputs = [], {}
    parameters: dict[str, np.ndarray] = {}
    for name, (*bounds, result) in slices.items():
        operands = [f"{name}{number}" for number in range(4)]
        nodes.append(helper.make_node("Slice", ["x", *operands], [name]))
        outputs[name] = result
        parameters |= {o: integers(*b) for o, b in zip(operands, bounds, strict=True)}
    network = networks.model(nodes, {"x": [5, 13, 9]}, outputs, parameters)
    kernels.check(network, BEST, rule="elementwise")


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_padding(mode: str) -> None:
    pads = {
        "a": ((2, 3, 5, 7), (0, 0, 1, 2, 0, 0, 3, 0)),
        "b": ((5, 7), (1, 2, 0, 3)),
        "c": ((2, 3, 5, 7), (1, 2, 0, 0, 0, 1, 0, 0)),
    }
    nodes, inputs, outputs = [], {}, {}
    parameters: dict[str, np.ndarray | np.generic] = {"v": np.float32(1.5)}
    for name, (shape, widths) in pads.items():
        value = " v" if mode == "constant" else ""
        nodes += [
            node("Pad", f"{name} {name}_p{value}", f"{name}_q", mode=mode),
            node("Tanh", f"{name}_q", f"{name}_y"),
        ]
        inputs[name] = list(shape)
        parameters[f"{name}_p"] = integers(*widths)
        outputs[f"{name}_y"] = [
            extent + before + after
            for extent, before, after in zip(
                shape, widths[: len(shape)], widths[len(shape) :], strict=True
            )
        ]
    network = networks.model(nodes, inputs, outputs, parameters, opset=18)
    kernels.check(network, BEST, rule="elementwise")


def test_padding_before_a_convolution_and_padding_that_cuts() -> None:
    nodes = [
        node("Pad", "x p", "q", mode="reflect"),
        node("Conv", "q w", "y"),
        node("Pad", "m n", "z"),
    ]
    network = networks.model(
        nodes,
        {"x": [1, 3, 5, 7], "m": [5, 7]},
        {"y": [1, 4, 5, 7], "z": [3, 8]},
        {
            "p": integers(0, 0, 1, 1, 0, 0, 1, 1),
            "w": weights(4, 3, 3, 3),
            "n": integers(-1, 2, -1, -1),
        },
    )
    kernels.check(network, BEST)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resizing(mode: str) -> None:
    cases = {
        "twice": ([2, 3, 5, 7], [2, 3, 10, 14], "half_pixel"),
        "odd": ([1, 5, 5, 7], [1, 5, 13, 3], "half_pixel"),
        "corners": ([1, 5, 5, 7], [1, 5, 9, 13], "align_corners"),
        "uneven": ([1, 5, 5, 7], [1, 5, 10, 14], "asymmetric"),
        "pixel": ([1, 5, 1, 1], [1, 5, 3, 4], "half_pixel"),
        "torch": ([1, 5, 5, 7], [1, 5, 1, 14], "pytorch_half_pixel"),
    }
    nodes, inputs, outputs, sizes = [], {}, {}, {}
    for name, (shape, result, places) in cases.items():
        how = {"mode": mode, "coordinate_transformation_mode": places}
        operands = [name, "", "", f"{name}_sizes"]
        nodes.append(helper.make_node("Resize", operands, [f"{name}_y"], **how))
        inputs[name], outputs[f"{name}_y"] = shape, result
        sizes[f"{name}_sizes"] = integers(*result)
    kernels.check(networks.model(nodes, inputs, outputs, sizes), BEST, rule="elementwise")


def test_lookups_and_rearrangements() -> None:
    nodes = [
        node("Gather", "x places", "g", axis=1),
        node("Gather", "x place", "h", axis=0),
        node("Gather", "table codes", "e"),
        node("Expand", "row shape", "r"),
        node("Tile", "table times", "t"),
        node("DepthToSpace", "image", "d", blocksize=2),
        node("DepthToSpace", "image", "c", blocksize=2, mode="CRD"),
        node("SpaceToDepth", "image", "s", blocksize=2),
        node("Split", "table", "p q", axis=1),
        node("Trilu", "square", "l", upper=0),
    ]
    network = networks.model(
        nodes,
        {
            "x": [5, 13, 3],
            "codes": [3, 5],
            "row": [3, 1, 5],
            "image": [1, 12, 4, 6],
            "square": [7, 7],
        },
        {
            "g": [5, 2, 2, 3],
            "h": [13, 3],
            "e": [3, 5, 6],
            "r": [2, 3, 7, 5],
            "t": [20, 18],
            "d": [1, 3, 8, 12],
            "c": [1, 3, 8, 12],
            "s": [1, 48, 2, 3],
            "p": [10, 3],
            "q": [10, 3],
            "l": [7, 7],
        },
        {
            "places": np.array([[0, -1], [12, 5]]),
            "place": np.array(-2),
            "table": weights(10, 6),
            "shape": integers(2, 3, 7, 5),
            "times": integers(2, 3),
        },
        types={"codes": TensorProto.INT64},
    )
    kernels.check(network, BEST, rule="elementwise")


def test_split_into_parts() -> None:
    nodes = [node("Split", "x", "a b c", axis=1), node("Mul", "a b", "m"), node("Sub", "m c", "y")]
    kernels.check(chain(nodes, {"x": [3, 15]}, 3, 5), BEST, rule="elementwise")


def test_parts_that_are_written_where_their_concatenation_is() -> None:
    nodes = [
        node("Conv", "x w1", "a", pads=[1, 1, 1, 1]),
        node("MaxPool", "a", "p", kernel_shape=[5, 5], pads=[2, 2, 2, 2]),
        node("Conv", "x w2", "b"),
        node("Concat", "a p b", "c", axis=1),
        node("Conv", "c w3", "d", pads=[1, 1, 1, 1]),
        node("Concat", "c d", "e", axis=1),
        node("Split", "e", "f g", axis=1),
        node("Mul", "f g", "h"),
        node("Concat", "h a", "i", axis=1),
        node("Conv", "i w4", "y"),
    ]
    parameters = {
        "w1": weights(13, 5, 3, 3),
        "w2": weights(3, 5, 1, 1),
        "w3": weights(17, 29, 3, 3),
        "w4": weights(7, 36, 1, 1),
    }
    for batch in (1, 2):
        network = networks.model(
            nodes, {"x": [batch, 5, 7, 9]}, {"y": [batch, 7, 7, 9]}, parameters
        )
        kernels.check(network, BEST)


@pytest.mark.parametrize("others", [[], ["a"], ["c"]], ids=str)
def test_rows_one_after_the_other(others: list[str]) -> None:
    nodes = [
        node("MatMul", "x w1", "a"),
        node("MatMul", "x w2", "b"),
        node("Concat", "a b", "c", axis=0),
        node("Concat", "b a", "d", axis=0),
        node("MatMul", "c w3", "e"),
        node("MatMul", "d w3", "f"),
        node("Sub", "e f", "y"),
    ]
    shapes = {"a": [3, 5], "c": [6, 5]}
    network = networks.model(
        nodes,
        {"x": [3, 5]},
        {"y": [6, 2]} | {name: shapes[name] for name in others},
        {"w1": weights(5, 5), "w2": weights(5, 5) * 2, "w3": weights(5, 2)},
    )
    kernels.check(network, BEST)


def test_a_reshape_at_a_kernels_end_costs_no_division() -> None:
    network = networks.model(
        [node("Tile", "x times", "y")],
        {"x": [5, 7, 28]},
        {"y": [5, 14, 84]},
        {"times": integers(1, 2, 3)},
    )
    kernels.check(network, BEST, rule="elementwise")
    loops = kernels.loops_of(network, BEST)
    assert "vectorized" in loops
    assert "//" not in loops
    assert "%" not in loops
