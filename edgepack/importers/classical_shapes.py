"""Types and shapes of what ONNX's own inference leaves open in the ai.onnx.ml domain.

Its schemas for several of these operators say nothing of their outputs. What they give is read off
ONNX Runtime. Where there are such operators, inference and completion take turns until nothing is new.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_ML = "ai.onnx.ml"

Type = tuple[int, list[int]]
"""ONNX's number of the element type, and the shape."""


def infer(model: onnx.ModelProto, *, strict: bool) -> onnx.ModelProto:
    """As onnx.shape_inference.infer_shapes with data propagation, ai.onnx.ml completed.

    Raises what that raises.
    """
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    while _complete(inferred.graph):
        inferred = onnx.shape_inference.infer_shapes(inferred, strict_mode=False, data_prop=True)
    if strict:
        inferred = onnx.shape_inference.infer_shapes(inferred, strict_mode=True, data_prop=True)
    return inferred


def _complete(graph: onnx.GraphProto) -> bool:
    """Add what follows from the types that are known; whether anything did."""
    outputs = {value.name: value for value in graph.output}
    noted = {value.name: value for value in graph.value_info}
    types = {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        known = _type_of(value)
        if known is not None:
            types[value.name] = known
    changed = False
    for node in graph.node:
        rule = _RULES.get(node.op_type)
        inputs = [types.get(name) for name in node.input]
        if node.domain != _ML or rule is None or None in inputs:
            continue
        for name, found in zip(node.output, rule(node, [x for x in inputs if x]), strict=False):
            if name and name not in types:
                value = outputs.get(name) or noted.get(name) or graph.value_info.add(name=name)
                _set(value, found)
                types[name] = found
                changed = True
    return changed


def _type_of(value: onnx.ValueInfoProto) -> Type | None:
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in dims):
        return None
    return tensor.elem_type, [dim.dim_value for dim in dims]


def _set(value: onnx.ValueInfoProto, found: Type) -> None:
    elem_type, shape = found
    tensor = value.type.tensor_type
    tensor.elem_type = elem_type
    tensor.shape.ClearField("dim")
    for size in shape:
        tensor.shape.dim.add().dim_value = size


def _attribute(node: onnx.NodeProto, name: str, default: int = 1) -> int:
    """An integer, or the length of a list."""
    import onnx

    for attribute in node.attribute:
        if attribute.name == name:
            value = onnx.helper.get_attribute_value(attribute)
            return value if isinstance(value, int) else len(value)
    return default


def _float(shape: list[int]) -> Type:
    from onnx import TensorProto

    return TensorProto.FLOAT, shape


def _rows(inputs: list[Type]) -> int:
    shape = inputs[0][1]
    return shape[0] if len(shape) > 1 else 1


def _same_shape(node: onnx.NodeProto, inputs: list[Type]) -> list[Type]:
    return [_float(inputs[0][1])]


def _unchanged(node: onnx.NodeProto, inputs: list[Type]) -> list[Type]:
    return [inputs[0]]


def _columns(node: onnx.NodeProto, inputs: list[Type]) -> list[Type]:
    elem_type, shape = inputs[0]
    return [(elem_type, [*(shape[:-1] or [1]), math.prod(inputs[1][1])])]


def _joined(node: onnx.NodeProto, inputs: list[Type]) -> list[Type]:
    import onnx

    sizes = next(a for a in node.attribute if a.name == "inputdimensions")
    return [_float([_rows(inputs), sum(onnx.helper.get_attribute_value(sizes))])]


def _one_column(node: onnx.NodeProto, inputs: list[Type]) -> list[Type]:
    return [_float([_rows(inputs), 1])]


def _targets(name: str) -> Callable[[onnx.NodeProto, list[Type]], list[Type]]:
    def rule(node: onnx.NodeProto, inputs: list[Type]) -> list[Type]:
        return [_float([_rows(inputs), _attribute(node, name)])]

    return rule


def _classes(node: onnx.NodeProto) -> tuple[int, int]:
    """Type of the labels, and how many there are."""
    from onnx import TensorProto

    strings = _attribute(node, "classlabels_strings", 0)
    if strings:
        return TensorProto.STRING, strings
    numbers = max(_attribute(node, name, 0) for name in ("classlabels_ints", "classlabels_int64s"))
    return TensorProto.INT64, numbers


def _tree_classifier(node: onnx.NodeProto, inputs: list[Type]) -> list[Type]:
    label, classes = _classes(node)
    return [(label, [_rows(inputs)]), _float([_rows(inputs), classes])]


def _vector_classifier(node: onnx.NodeProto, inputs: list[Type]) -> list[Type]:
    """Without probabilities there is a score for each pair of classes, but two for one pair."""
    label, classes = _classes(node)
    pairs = _attribute(node, "vectors_per_class", 0) and not _attribute(node, "prob_a", 0)
    scores = classes * (classes - 1) // 2 if pairs and classes > 2 else classes
    return [(label, [_rows(inputs)]), _float([_rows(inputs), scores])]


_RULES: dict[str, Callable[[onnx.NodeProto, list[Type]], list[Type]]] = {
    "ArrayFeatureExtractor": _columns,
    "FeatureVectorizer": _joined,
    "Imputer": _unchanged,
    "LinearRegressor": _targets("targets"),
    "Normalizer": _same_shape,
    "SVMClassifier": _vector_classifier,
    "SVMRegressor": _one_column,
    "Scaler": _same_shape,
    "TreeEnsembleClassifier": _tree_classifier,
    "TreeEnsembleRegressor": _targets("n_targets"),
}
