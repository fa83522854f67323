from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgepack.compiler import patterns
from tests import networks, relax_graphs
from tests.networks import node

SHAPE = [2, 5, 16]
Weights = dict[str, Any]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), np.float32)


def chain(nodes: Sequence[onnx.NodeProto], weights: Weights, **options: Any) -> onnx.ModelProto:
    """Nodes from "x" to "y", both [2, 5, 16]; weights without a type are float32."""
    arrays = {
        name: value if isinstance(value, np.ndarray) else np.float32(value)
        for name, value in weights.items()
    }
    return networks.model(nodes, {"x": SHAPE}, {"y": SHAPE}, arrays, **options)


def recognised(network: onnx.ModelProto, *, tolerance: float = 1e-6) -> dict[str, int]:
    """The operators that are left, after their results have been compared with onnxruntime's."""
    module = patterns.recognise(relax_graphs.relax_of(network))
    relax_graphs.assert_same_results(module, network, tolerance=tolerance)
    return dict(relax_graphs.operators(module))


CENTRED = [
    node("ReduceMean", "x", "mean", axes=[-1]),
    node("Sub", "x mean", "centred"),
]
DEVIATION = [
    node("Add", "variance epsilon", "shifted"),
    node("Sqrt", "shifted", "deviation"),
]
SCALED = [node("Mul", "normal gamma", "scaled"), node("Add", "beta scaled", "y")]


def layer_norm_by_power() -> list[onnx.NodeProto]:
    return [
        *CENTRED,
        node("Pow", "centred two", "squares"),
        node("ReduceMean", "squares", "variance", axes=[-1]),
        *DEVIATION,
        node("Div", "centred deviation", "normal"),
        *SCALED,
    ]


def layer_norm_by_product() -> list[onnx.NodeProto]:
    return [
        *CENTRED,
        node("Mul", "centred centred", "squares"),
        node("ReduceMean", "squares", "variance", axes=[2]),
        *DEVIATION,
        node("Reciprocal", "deviation", "inverse"),
        node("Mul", "inverse centred", "normal"),
        *SCALED,
    ]


def layer_norm_by_two_differences() -> list[onnx.NodeProto]:
    return [
        *CENTRED,
        node("ReduceMean", "x", "other_mean", axes=[-1]),
        node("Sub", "x other_mean", "other"),
        node("Pow", "other two", "squares"),
        node("ReduceMean", "squares", "variance", axes=[-1]),
        *DEVIATION,
        node("Div", "centred deviation", "normal"),
        *SCALED,
    ]


@pytest.mark.parametrize(
    "spelled", [layer_norm_by_power, layer_norm_by_product, layer_norm_by_two_differences]
)
@pytest.mark.parametrize("shape", [(16,), (1, 1, 16)], ids=str)
def test_a_layer_normalisation_is_one_operator(
    spelled: Callable[[], list[onnx.NodeProto]], shape: tuple[int, ...]
) -> None:
    weights = {
        "two": 2,
        "epsilon": 1e-5,
        "gamma": random(*shape, seed=1),
        "beta": random(*shape, seed=2),
    }
    assert recognised(chain(spelled(), weights)) == {"nn.layer_norm": 1}


def test_a_layer_normalisation_needs_no_scale_and_no_offset() -> None:
    nodes = [*layer_norm_by_power()[:-3], node("Div", "centred deviation", "y")]
    assert recognised(chain(nodes, {"two": 2, "epsilon": 1e-5})) == {"nn.layer_norm": 1}


def test_a_layer_normalisation_over_channels_is_one_operator() -> None:
    nodes = [
        node("ReduceMean", "x", "mean", axes=[1]),
        node("Sub", "x mean", "centred"),
        node("Pow", "centred two", "squares"),
        node("ReduceMean", "squares", "variance", axes=[1]),
        *DEVIATION,
        node("Div", "centred deviation", "normal"),
        *SCALED,
    ]
    weights = {"two": 2, "epsilon": 1e-6, "gamma": random(5, 1), "beta": random(5, 1, seed=1)}
    assert recognised(chain(nodes, weights)) == {"nn.layer_norm": 1}


@pytest.mark.parametrize("change", ["axis", "other data", "scale of other axes"])
def test_what_only_looks_like_a_layer_normalisation_stays_as_it_is(change: str) -> None:
    nodes = layer_norm_by_power()
    gamma = random(16)
    if change == "axis":
        nodes[3] = node("ReduceMean", "squares", "variance", axes=[1])
    elif change == "other data":
        nodes[6] = node("Div", "x deviation", "normal")
    else:
        gamma = random(5, 16)
    weights = {"two": 2, "epsilon": 1e-5, "gamma": gamma, "beta": random(16)}
    left = recognised(chain(nodes, weights))
    assert "mean" in left or left.keys() >= {"nn.layer_norm", "multiply", "add"}
    assert ("nn.layer_norm" in left) == (change == "scale of other axes")


def test_an_rms_normalisation_is_one_operator() -> None:
    nodes = [
        node("Pow", "x two", "squares"),
        node("ReduceMean", "squares", "variance", axes=[-1]),
        *DEVIATION,
        node("Div", "one deviation", "inverse"),
        node("Mul", "x inverse", "normal"),
        node("Mul", "gamma normal", "y"),
    ]
    weights = {"two": 2, "one": 1, "epsilon": 1e-5, "gamma": random(16)}
    assert recognised(chain(nodes, weights)) == {"nn.rms_norm": 1}


def gelu_of_pytorch() -> list[onnx.NodeProto]:
    return [
        node("Div", "x root_two", "divided"),
        node("Erf", "divided", "erf"),
        node("Add", "erf one", "shifted"),
        node("Mul", "x shifted", "product"),
        node("Mul", "product half", "y"),
    ]


def gelu_of_tensorflow() -> list[onnx.NodeProto]:
    return [
        node("Mul", "x inverse_root", "scaled"),
        node("Erf", "scaled", "erf"),
        node("Add", "one erf", "shifted"),
        node("Mul", "half shifted", "halved"),
        node("Mul", "x halved", "y"),
    ]


GELU_WEIGHTS = {
    "root_two": 2**0.5,
    "inverse_root": 0.5**0.5,
    "one": 1,
    "half": 0.5,
    "two": 2,
    "three": 3,
    "cubic": 0.044715,
    "slope": (2 / np.pi) ** 0.5,
    "slope_cubic": 0.044715 * (2 / np.pi) ** 0.5,
}


@pytest.mark.parametrize("spelled", [gelu_of_pytorch, gelu_of_tensorflow])
def test_a_gelu_by_erf_is_one_operator(spelled: Callable[[], list[onnx.NodeProto]]) -> None:
    assert recognised(chain(spelled(), GELU_WEIGHTS)) == {"nn.gelu": 1}


@pytest.mark.parametrize("name", ["root_two", "one", "half"])
def test_other_constants_are_no_gelu(name: str) -> None:
    weights = GELU_WEIGHTS | {name: 1.25}
    assert "nn.gelu" not in recognised(chain(gelu_of_pytorch(), weights))


CUBE_BY_POWER = [node("Pow", "x three", "cube"), node("Mul", "cube cubic", "scaled_cube")]
CUBE_BY_PRODUCTS = [
    node("Mul", "cubic x", "linear"),
    node("Mul", "x linear", "square"),
    node("Mul", "x square", "scaled_cube"),
]
TANH_OF_SUM = [
    node("Add", "x scaled_cube", "sum"),
    node("Mul", "slope sum", "inner"),
]
TANH_OF_TERMS = [
    node("Mul", "x x", "x2"),
    node("Mul", "x2 x", "x3"),
    node("Mul", "x3 slope_cubic", "high"),
    node("Mul", "x slope", "low"),
    node("Add", "low high", "inner"),
]


@pytest.mark.parametrize(
    "argument", [CUBE_BY_POWER + TANH_OF_SUM, CUBE_BY_PRODUCTS + TANH_OF_SUM, TANH_OF_TERMS]
)
def test_a_gelu_by_tanh_is_one_operator(argument: list[onnx.NodeProto]) -> None:
    nodes = [
        *argument,
        node("Tanh", "inner", "tanh"),
        node("Add", "tanh one", "shifted"),
        node("Mul", "half shifted", "halved"),
        node("Mul", "halved x", "y"),
    ]
    assert recognised(chain(nodes, GELU_WEIGHTS)) == {"nn.gelu_tanh": 1}


def test_a_silu_is_one_operator() -> None:
    nodes = [node("Sigmoid", "x", "gate"), node("Mul", "gate x", "y")]
    assert recognised(chain(nodes, {})) == {"nn.silu": 1}
    nodes = [
        node("Sigmoid", "x", "gate"),
        node("Neg", "x", "other"),
        node("Mul", "gate other", "y"),
    ]
    assert "nn.silu" not in recognised(chain(nodes, {}))


@pytest.mark.parametrize("first", ["gate", "product"])
def test_a_hard_swish_multiplies_by_a_sixth(first: str) -> None:
    ends = {"three": 3, "zero": 0, "six": 6}
    nodes = [node("Add", "x three", "s"), node("Clip", "s zero six", "c")]
    last = [node("Div", "c six", "g"), node("Mul", "x g", "y")]
    if first == "product":
        last = [node("Mul", "x c", "p"), node("Div", "p six", "y")]
    assert recognised(chain([*nodes, *last], ends)) == {"add": 1, "clip": 1, "multiply": 2}


def test_a_divisor_with_more_axes_keeps_the_shape_of_the_quotient() -> None:
    nodes = [node("Clip", "x zero six", "c"), node("Div", "c divisor", "y")]
    ends = {name: np.array(end, np.float32) for name, end in (("zero", 0), ("six", 6))}
    ends["divisor"] = np.full((1, 1, 1, 1), 6, np.float32)
    network = networks.model(nodes, {"x": SHAPE}, {"y": [1, *SHAPE]}, ends)
    assert recognised(network) == {"clip": 1, "multiply": 1}


def test_a_division_of_what_may_be_rounded_next_stays() -> None:
    nodes = [node("Clip", "x zero six", "c"), node("Div", "c scale", "d"), node("Round", "d", "y")]
    ends = {"zero": 0, "six": 6, "scale": 6 / 255}
    assert recognised(chain(nodes, ends)) == {"clip": 1, "divide": 1, "round": 1}


def test_operators_that_onnx_has_whole_stay_whole() -> None:
    nodes = [
        node("LayerNormalization", "x gamma beta", "n", axis=-1),
        node("Gelu", "n", "g"),
        node("HardSwish", "g", "y"),
    ]
    weights = {"gamma": random(16), "beta": random(16, seed=1)}
    left = recognised(chain(nodes, weights, opset=20))
    assert left["nn.layer_norm"] == left["nn.gelu"] == left["clip"] == 1


@pytest.mark.parametrize("opset", [10, 17])
def test_a_clip_is_one_operator(opset: int) -> None:
    if opset == 10:
        network = chain([node("Clip", "x", "y", min=-0.5, max=1.0)], {}, opset=10)
    else:
        network = chain([node("Clip", "x low high", "y")], {"low": -0.5, "high": 1})
    assert recognised(network) == {"clip": 1}


def test_a_clip_with_one_bound_or_with_bounds_out_of_order_keeps_onnx_meaning() -> None:
    low = chain([node("Clip", "x low", "y")], {"low": -0.5})
    assert recognised(low) == {"maximum": 1}
    high = chain([helper.make_node("Clip", ["x", "", "high"], ["y"])], {"high": 0.5})
    assert recognised(high) == {"minimum": 1}
    crossed = chain([node("Clip", "x low high", "y")], {"low": 1, "high": -1})
    assert recognised(crossed) == {"maximum": 1, "minimum": 1}


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("pads", [(0, 1, 2, 0, 3, 1), (0, 0, 0, 0, 2, 4), (1, 0, 3, 0, 0, 3)])
def test_a_pad_is_one_operator(mode: str, pads: tuple[int, ...]) -> None:
    shape = [
        size + before + after for size, before, after in zip(SHAPE, pads[:3], pads[3:], strict=True)
    ]
    weights: Weights = {"pads": np.array(pads, np.int64)}
    names = "x pads"
    if mode == "constant":
        weights["value"] = np.float32(0.25)
        names = "x pads value"
    network = networks.model(
        [node("Pad", names, "y", mode=mode)], {"x": SHAPE}, {"y": shape}, weights
    )
    assert recognised(network) == {"nn.pad": 1}


def test_the_largest_of_several_is_not_stacked() -> None:
    nodes = [node("Max", "x row column", "m"), node("Sum", "m x row", "s"), node("Min", "s x", "y")]
    weights = {"row": random(16), "column": random(5, 1)}
    left = recognised(chain(nodes, weights))
    assert left == {"maximum": 2, "add": 2, "minimum": 1}


@pytest.mark.parametrize(
    ("operator", "operands", "values"),
    [
        ("Mul", "x c", np.float32(1)),
        ("Mul", "c x", np.ones((1, 1), np.float32)),
        ("Div", "x c", np.float32(1)),
        ("Sub", "x c", np.float32(0)),
        ("Add", "c x", np.float32(-0.0)),
        ("Pow", "x c", np.float32(1)),
    ],
)
def test_an_operand_that_does_nothing_is_removed(operator: str, operands: str, values: Any) -> None:
    nodes = [node(operator, operands, "same"), node("Neg", "same", "y")]
    assert recognised(chain(nodes, {"c": values})) == {"negative": 1}


@pytest.mark.parametrize(
    ("operator", "operands", "values"),
    [
        ("Add", "x c", np.float32(0)),
        ("Sub", "x c", np.float32(-0.0)),
        ("Sub", "c x", np.float32(0)),
        ("Div", "c x", np.float32(1)),
        ("Mul", "x c", np.float32(0)),
        ("Mul", "x c", random(16)),
    ],
)
def test_an_operand_that_does_something_stays(operator: str, operands: str, values: Any) -> None:
    network = chain([node(operator, operands, "y")], {"c": values})
    assert sum(recognised(network).values()) == 1


def test_one_that_widens_the_result_is_no_neutral_operand() -> None:
    network = networks.model(
        [node("Mul", "x c", "wide"), node("Neg", "wide", "y")],
        {"x": [4]},
        {"y": [1, 4]},
        {"c": np.ones((1, 1), np.float32)},
    )
    assert recognised(network) == {"multiply": 1, "negative": 1}


@pytest.mark.parametrize(
    ("divisor", "operator"), [(4, "multiply"), (-0.125, "multiply"), (6, "divide"), (3, "divide")]
)
def test_only_a_division_by_a_power_of_two_is_a_multiplication(
    divisor: float, operator: str
) -> None:
    network = chain([node("Div", "x c", "y")], {"c": divisor})
    module = patterns.recognise(relax_graphs.relax_of(network))
    assert dict(relax_graphs.operators(module)) == {operator: 1}
    inputs = relax_graphs.inputs_of(network)
    (ours,) = relax_graphs.run(module, inputs)
    np.testing.assert_array_equal(ours, inputs["x"] / np.float32(divisor))


@pytest.mark.parametrize(("exponent", "products"), [(2, 1), (3, 2)])
def test_a_small_whole_power_is_products(exponent: int, products: int) -> None:
    network = chain([node("Pow", "x c", "y")], {"c": exponent})
    assert recognised(network) == {"multiply": products}


def test_other_powers_stay_powers() -> None:
    nodes = [node("Abs", "x", "a"), node("Pow", "a c", "y")]
    assert recognised(chain(nodes, {"c": 0.5}))["power"] == 1


def test_an_operand_is_not_repeated_for_an_operator_that_repeats_it() -> None:
    nodes = [node("Expand", "row shape", "wide"), node("Mul", "x wide", "y")]
    weights = {"row": random(16), "shape": np.array(SHAPE, np.int64)}
    network = chain(nodes, weights)
    network.graph.input.append(network.graph.input[0])
    network.graph.input[1].CopyFrom(
        helper.make_tensor_value_info("row", TensorProto.FLOAT, [1, 16])
    )
    del network.graph.initializer[0]
    assert recognised(network) == {"multiply": 1}


def one_hot(indices: np.ndarray, numbers: np.ndarray) -> tuple[onnx.ModelProto, Any]:
    nodes = [
        node("Unsqueeze", "codes axis", "column"),
        node("Equal", "column numbers", "hot"),
        node("Cast", "hot", "rows", to=TensorProto.FLOAT),
        node("MatMul", "rows table", "y"),
    ]
    weights = {
        "axis": np.array([-1], np.int64),
        "numbers": numbers,
        "table": random(len(numbers), 4),
    }
    network = networks.model(
        nodes,
        {"codes": list(indices.shape)},
        {"y": [*indices.shape, 4]},
        weights,
        types={"codes": TensorProto.INT32},
    )
    return network, patterns.recognise(relax_graphs.relax_of(network))


def test_a_product_with_one_hot_rows_is_a_lookup_and_unknown_codes_give_zeros() -> None:
    codes = np.array([[0, 5, 8], [9, -1, 2**31 - 1], [3, 3, -(2**31)]], np.int32)
    network, module = one_hot(codes, np.arange(9, dtype=np.int32))
    left = relax_graphs.operators(module)
    assert left["take"] == 1
    assert "matmul" not in left
    (ours,) = relax_graphs.run(module, {"codes": codes})
    (theirs,) = relax_graphs.expected(network, {"codes": codes})
    np.testing.assert_array_equal(ours, theirs)


def test_a_product_with_other_codes_than_the_rows_stays() -> None:
    codes = np.array([[1, 5, 8]], np.int32)
    network, module = one_hot(codes, np.arange(1, 10, dtype=np.int32))
    assert relax_graphs.operators(module)["matmul"] == 1
    (ours,) = relax_graphs.run(module, {"codes": codes})
    (theirs,) = relax_graphs.expected(network, {"codes": codes})
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
