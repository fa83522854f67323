"""Networks of a few nodes for the tests, whose outputs have the types that ONNX infers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def network(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int]],
    outputs: Iterable[str],
    weights: Mapping[str, Any] | None = None,
    *,
    opset: int = 19,
    types: Mapping[str, int] | None = None,
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model of these nodes; inputs are float32 unless ``types`` says otherwise."""
    kinds = types or {}
    graph = helper.make_graph(
        list(nodes),
        "network",
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), list(shape))
            for name, shape in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [
            numpy_helper.from_array(np.asarray(array), name)
            for name, array in (weights or {}).items()
        ],
    )
    versions = {"": opset, **(domains or {})}
    opsets = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def several(
    operator: str,
    inputs: Mapping[str, Sequence[int]],
    options: Sequence[dict[str, Any]],
    weights: Mapping[str, Any] | None = None,
    *,
    opset: int = 19,
    types: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """One node for each set of attributes; all have the same inputs, the weights last."""
    operands = [*inputs, *(weights or {})]
    nodes = [
        helper.make_node(operator, operands, [f"y{i}"], **attributes)
        for i, attributes in enumerate(options)
    ]
    names = [f"y{i}" for i in range(len(options))]
    return network(nodes, inputs, names, weights, opset=opset, types=types)
