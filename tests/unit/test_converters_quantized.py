from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgepack.targets import load_target
from tests import inferred, kernels
from tests.kernels import weights, whole

BEST = kernels.PROFILES[-1]
DATA = (2, 6, 5, 7)
INTEGERS = {
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int16": TensorProto.INT16,
    "uint16": TensorProto.UINT16,
    "int32": TensorProto.INT32,
}


def steps(*shape: int) -> np.ndarray:
    return np.asarray(np.abs(weights(*shape)) + 0.01, np.float32)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
@pytest.mark.parametrize(("extents", "axis"), [((), 1), ((6,), 1), ((7,), -1)])
def test_quantize_and_back(dtype: str, extents: tuple[int, ...], axis: int) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=axis),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=axis),
    ]
    parameters = {"s": steps(*extents), "z": whole(dtype, *extents)}
    network = inferred.network(nodes, {"x": DATA}, "qy", parameters, opset=21)
    kernels.check(network, BEST, tolerance=0)


def test_quantize_without_a_zero_point_and_by_a_given_type() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"]),
        helper.make_node("QuantizeLinear", ["x", "s"], ["r"], output_dtype=TensorProto.INT16),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    parameters = {"s": np.float32(0.013)}
    kernels.check(inferred.network(nodes, {"x": DATA}, "qry", parameters, opset=21), BEST)


@pytest.mark.parametrize("extent", [8, 7])
def test_blocks_of_a_scale_each(extent: int) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1, block_size=4),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1, block_size=4),
    ]
    parameters = {"s": steps(3, 2, 5), "z": whole("uint8", 3, 2, 5)}
    network = inferred.network(nodes, {"x": (3, extent, 5)}, "qy", parameters, opset=21)
    kernels.check(network, BEST, tolerance=0)


def test_scales_and_zero_points_that_a_request_brings() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1),
    ]
    inputs = {"x": DATA, "s": (6,), "z": (6,)}
    network = inferred.network(nodes, inputs, "qy", types={"z": TensorProto.INT8})
    kernels.check(network, BEST, tolerance=0, positive=True)


def test_halves_go_to_even_and_everything_else_to_the_ends() -> None:
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])]
    parameters = {"s": np.float32(2), "z": np.int8(3)}
    network = inferred.network(nodes, {"x": (12,)}, "q", parameters)
    compiled = kernels.compile_network(network, load_target(BEST))
    given = np.array([1, 3, 5, -1, -3, -5, 1e30, -1e30, np.inf, -np.inf, 247, 249], np.float32)
    (answer,) = kernels.run(compiled, [given])
    assert answer.tolist() == [3, 5, 5, 3, 1, 1, 127, -128, 127, -128, 127, 127]


def test_int32_is_scaled_exactly() -> None:
    nodes = [helper.make_node("DequantizeLinear", ["x", "s"], ["y"], axis=0)]
    parameters = {"s": steps(9)}
    network = inferred.network(
        nodes, {"x": (9, 5)}, "y", parameters, types={"x": INTEGERS["int32"]}
    )
    kernels.check(network, BEST, tolerance=0)


def test_constant_weights_are_scaled_when_the_model_is_compiled() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    parameters = {"w": whole("int8", 6, 5), "s": steps(6), "z": whole("int8", 6)}
    compiled, _ = kernels.check(inferred.network(nodes, {"x": (3, 6)}, "y", parameters), BEST)
    assert len(compiled.plan.calls) == 1


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("extents", [(), (6,)])
def test_constants_are_quantised_when_the_model_is_compiled(
    dtype: str, extents: tuple[int, ...]
) -> None:
    """A quantiser may leave weights as numbers; a kernel for each of them would take long to compile."""
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"], axis=0),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=0),
        helper.make_node("Add", ["x", "d"], ["y"]),
        helper.make_node("QuantizeLinear", ["v", "t"], ["p"]),
    ]
    ends = np.array([np.inf, -np.inf, 1e30, 0.5, 1.5, -2.5, 3], np.float32)
    parameters = {
        "w": weights(6, 5) * 3,
        "s": steps(*extents),
        "z": whole(dtype, *extents),
        "v": ends,
        "t": np.float32(1),
    }
    network = inferred.network(nodes, {"x": (6, 5)}, "yp", parameters, opset=21)
    compiled, _ = kernels.check(network, BEST, tolerance=0)
    assert compiled.rules_called == ["elementwise"]


def test_range_of_the_data_gives_the_scale() -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], list("ysz")),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("DynamicQuantizeLinear", ["r"], list("abc")),
        helper.make_node("Mul", ["r", "nothing"], ["n"]),
        helper.make_node("DynamicQuantizeLinear", ["n"], list("def")),
    ]
    network = inferred.network(nodes, {"x": (3, 50)}, "yszabcdef", {"nothing": np.float32(0)})
    kernels.check(network, BEST, tolerance=0)


def integers_of(dtype: str, **shapes: tuple[int, ...]) -> dict[str, int]:
    return dict.fromkeys(shapes, INTEGERS[dtype])


@pytest.mark.parametrize("left", ["int8", "uint8"])
@pytest.mark.parametrize("right", ["int8", "uint8"])
def test_matmul_integer(left: str, right: str) -> None:
    nodes = [
        helper.make_node("MatMulInteger", ["x", "w"], ["a"]),
        helper.make_node("MatMulInteger", ["x", "w", "p", "q"], ["b"]),
        helper.make_node("MatMulInteger", ["x", "w", "", "c"], ["d"]),
        helper.make_node("MatMulInteger", ["t", "w", "p", "q"], ["e"]),
    ]
    parameters: dict[str, Any] = {
        "w": whole(right, 300, 17),
        "p": whole(left, 1).reshape(()),
        "q": whole(right, 1).reshape(()),
        "c": whole(right, 17),
    }
    types = integers_of(left, x=(), t=())
    inputs = {"x": (9, 300), "t": (2, 3, 300)}
    kernels.check(inferred.network(nodes, inputs, "abde", parameters, types=types), BEST)


def test_deep_products_of_the_largest_numbers_are_exact() -> None:
    nodes = [
        helper.make_node("MatMulInteger", ["x", "w", "p", "q"], ["y"]),
        helper.make_node("MatMulInteger", ["x", "v", "p", "q"], ["z"]),
    ]
    inputs = {"x": (3, 2100), "v": (2100, 5)}
    parameters: dict[str, Any] = {
        "w": np.full((2100, 5), 127, np.int8),
        "p": np.uint8(0),
        "q": np.int8(-128),
    }
    parameters["w"][::7, 3] = -128
    types = integers_of("uint8", x=()) | integers_of("int8", v=())
    network = inferred.network(nodes, inputs, "yz", parameters, types=types)
    compiled = kernels.compile_network(network, load_target(BEST))
    given = [np.full((3, 2100), 255, np.uint8), np.full((2100, 5), 127, np.int8)]
    given[0][1, ::3], given[1][::5, 2] = 254, 126
    answers = kernels.run(compiled, given)
    for answer, weight in zip(answers, (parameters["w"], given[1]), strict=True):
        wanted = given[0].astype(np.int64) @ (weight.astype(np.int64) + 128)
        assert np.array_equal(answer, wanted)


def test_rows_with_a_zero_point_each() -> None:
    nodes = [helper.make_node("MatMulInteger", ["x", "w", "r"], ["y"])]
    parameters = {"w": whole("int8", 6, 5), "r": whole("uint8", 4)}
    network = inferred.network(
        nodes, {"x": (4, 6)}, "y", parameters, types=integers_of("uint8", x=())
    )
    compiled = kernels.compile_network(network, load_target(BEST))
    (given,) = kernels.random_inputs(compiled.imported, 1)
    (answer,) = kernels.run(compiled, [given])
    centred = given.astype(np.int32) - parameters["r"].astype(np.int32)[:, None]
    assert np.array_equal(answer, centred @ parameters["w"].astype(np.int32))


def test_matmul_of_two_activations() -> None:
    nodes = [helper.make_node("MatMulInteger", list("xypq"), ["z"])]
    inputs: dict[str, Any] = {"x": (2, 3, 5), "y": (2, 5, 4), "p": (), "q": ()}
    types = integers_of("uint8", x=(), p=()) | integers_of("int8", y=(), q=())
    kernels.check(inferred.network(nodes, inputs, "z", types=types), BEST)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("columns", [(), (17,)])
def test_qlinear_matmul(dtype: str, columns: tuple[int, ...]) -> None:
    operands = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    nodes = [helper.make_node("QLinearMatMul", operands, ["y"])]
    parameters = {
        "xs": np.float32(0.021),
        "xz": whole(dtype, 1)[0],
        "w": whole("int8", 65, 17),
        "ws": steps(*columns),
        "wz": np.zeros(columns, np.int8),
        "ys": np.float32(3.7),
        "yz": whole(dtype, 1, seed=2)[0],
    }
    network = inferred.network(
        nodes, {"x": (9, 65)}, "y", parameters, types=integers_of(dtype, x=())
    )
    kernels.check(network, BEST)


CONVOLUTIONS: list[dict[str, Any]] = [
    {"pads": [1, 1, 1, 1]},
    {"strides": [2, 3], "pads": [0, 1, 2, 0]},
    {"dilations": [2, 1], "pads": [2, 1, 1, 2]},
    {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
]


@pytest.mark.parametrize("options", CONVOLUTIONS)
def test_conv_integer(options: dict[str, Any]) -> None:
    groups = 2 if "dilations" in options else 1
    nodes = [helper.make_node("ConvInteger", list("xwpq"), ["y"], group=groups, **options)]
    parameters: dict[str, Any] = {
        "w": whole("uint8", 4, 6 // groups, 3, 3),
        "p": np.uint8(131),
        "q": np.uint8(77),
    }
    types = integers_of("uint8", x=())
    network = inferred.network(nodes, {"x": (2, 6, 9, 11)}, "y", parameters, types=types)
    kernels.check(network, BEST)


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize(("dtype", "groups"), [("int8", 1), ("uint8", 6)])
def test_qlinear_conv(dtype: str, options: dict[str, Any], groups: int) -> None:
    network = quantized_convolution(dtype, (1, 6, 9, 11), (12, 6 // groups, 3, 3), groups, options)
    kernels.check(network, BEST)


def test_qlinear_conv_of_signals_and_volumes() -> None:
    for shape, kernel in [((2, 6, 15), (4, 6, 3)), ((1, 3, 5, 6, 4), (4, 3, 2, 3, 2))]:
        options = {"pads": [1] * 2 * (len(shape) - 2)}
        kernels.check(quantized_convolution("uint8", shape, kernel, 1, options), BEST)


def quantized_convolution(
    dtype: str,
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    groups: int,
    options: dict[str, Any],
) -> onnx.ModelProto:
    operands = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    nodes = [helper.make_node("QLinearConv", operands, ["y"], group=groups, **options)]
    generator = np.random.default_rng(3)
    parameters = {
        "xs": np.float32(0.021),
        "xz": whole(dtype, 1)[0],
        "w": whole("int8", *kernel),
        "ws": steps(kernel[0]),
        "wz": np.zeros(kernel[0], np.int8),
        "ys": np.float32(2.3),
        "yz": whole(dtype, 1, seed=2)[0],
        "b": np.asarray(generator.integers(-5000, 5000, kernel[0]), np.int32),
    }
    if len(shape) != 4:  # onnxruntime is asked, whose products of two bytes must stay below 2**14
        parameters["w"] //= 2
    types = integers_of(dtype, x=())
    return inferred.network(nodes, {"x": shape}, "y", parameters, types=types)
