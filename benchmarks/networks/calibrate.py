"""Gives batch norms the statistics of real activations, then folds them into convolutions.

A deep network with random weights and made-up statistics answers every input alike; a runtime that
gave stale answers would pass for a right one. With each channel's mean and variance taken from sample
inputs, as training does, the answer depends on the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx


def calibrate(model: onnx.ModelProto, samples: np.ndarray) -> onnx.ModelProto:
    """The model with every BatchNormalization's mean and variance measured on ``samples`` [n, …].

    Statistics are rounded to three digits, so that other machines' rounding gives the same weights.
    """
    import onnxruntime

    norms = _norms(model)
    if not norms:
        return model
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        _probe(model, len(samples)).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    names = [f"{norm.output[0]}_{what}" for norm in norms for what in ("mean", "variance")]
    measured = dict(zip(names, session.run(names, {"x": samples}), strict=True))
    made = type(model)()
    made.CopyFrom(model)
    for norm in norms:
        for place, what in ((3, "mean"), (4, "variance")):
            _replace(made, norm.input[place], _round(measured[f"{norm.output[0]}_{what}"]))
    return made


def fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold each batch norm that follows a convolution into it, as torch's exporter does."""
    made = type(model)()
    made.CopyFrom(model)
    graph = made.graph
    convolutions = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
    for norm in _norms(made):
        convolution = convolutions.get(norm.input[0])
        if convolution is None:
            continue
        scale, shift, mean, variance = (_array(made, name) for name in norm.input[1:])
        factor = scale / (variance + _attribute(norm, "epsilon")) ** 0.5
        weight = _array(made, convolution.input[1])
        _replace(made, convolution.input[1], weight * factor[:, None, None, None])
        _replace(made, norm.input[2], shift - mean * factor)
        convolution.input.append(norm.input[2])
        convolution.output[0] = norm.output[0]
        graph.node.remove(norm)
    used = {name for node in graph.node for name in node.input}
    for weight in [weight for weight in graph.initializer if weight.name not in used]:
        graph.initializer.remove(weight)
    return made


def _norms(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "BatchNormalization"]


def _probe(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The model with batch norms that normalise by, and put out, the statistics of the batch itself."""
    from onnx import TensorProto, helper

    made = type(model)()
    made.CopyFrom(model)
    graph = made.graph
    del graph.value_info[:]
    del graph.output[:]
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    nodes = list(graph.node)
    del graph.node[:]
    ranks = _ranks(model)
    for node in nodes:
        if node.op_type != "BatchNormalization":
            graph.node.append(node)
            continue
        value, out = node.input[0], node.output[0]
        axes = [axis for axis in range(ranks[value]) if axis != 1]
        graph.node.extend(_statistics(value, out, axes))
        inputs = [value, *node.input[1:3], f"{out}_mean", f"{out}_variance"]
        epsilon = _attribute(node, "epsilon")
        graph.node.append(helper.make_node(node.op_type, inputs, [out], epsilon=epsilon))
        graph.output.extend(
            helper.make_tensor_value_info(f"{out}_{what}", TensorProto.FLOAT, None)
            for what in ("mean", "variance")
        )
    return made


def _statistics(value: str, out: str, axes: list[int]) -> list[onnx.NodeProto]:
    """Mean and variance [channels] of ``value`` over all axes but the second."""
    from onnx import helper

    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(operator, inputs, [f"{out}_{output}"], **attributes)

    return [
        node("ReduceMean", [value], "kept", axes=axes, keepdims=1),
        node("Sub", [value, f"{out}_kept"], "centred"),
        node("Mul", [f"{out}_centred"] * 2, "squared"),
        node("ReduceMean", [value], "mean", axes=axes, keepdims=0),
        node("ReduceMean", [f"{out}_squared"], "variance", axes=axes, keepdims=0),
    ]


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    return {value.name: len(value.type.tensor_type.shape.dim) for value in values}


def _round(values: np.ndarray) -> np.ndarray:
    """Three significant digits."""
    import numpy as np

    return np.array([float(f"{value:.3g}") for value in values], np.float32)


def _array(model: onnx.ModelProto, name: str) -> np.ndarray:
    from onnx import numpy_helper

    return numpy_helper.to_array(next(w for w in model.graph.initializer if w.name == name))


def _replace(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    import numpy as np
    from onnx import numpy_helper

    weight = next(weight for weight in model.graph.initializer if weight.name == name)
    weight.CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))


def _attribute(node: onnx.NodeProto, name: str) -> float:
    return next(float(attribute.f) for attribute in node.attribute if attribute.name == name)
