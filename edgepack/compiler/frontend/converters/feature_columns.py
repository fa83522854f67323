"""Operators of ai.onnx.ml that choose and join columns: ArrayFeatureExtractor, FeatureVectorizer."""

from __future__ import annotations

import math
from typing import Any

from edgepack.compiler.frontend.converters.values import (
    bound,
    cast,
    concatenated,
    filled,
    reshaped,
)
from edgepack.compiler.frontend.node import Converter, Node, shape_of

DOMAIN = "ai.onnx.ml"


def _array_feature_extractor(node: Node) -> Any:
    from tvm import relax

    shape, places = node.shape(), node.constant(1)
    if not shape:
        raise node.unsupported("its input is a scalar")
    if places is not None and ((places < 0) | (places >= shape[-1])).any():
        raise node.unsupported(f"it asks for elements that an axis of {shape[-1]} does not have")
    data = bound(node, reshaped(node.inputs[0], (1, *shape) if len(shape) == 1 else shape))
    wanted = bound(node, reshaped(node.inputs[1], (math.prod(node.shape(1)),)))
    return node.emit(relax.op.take(data, wanted, axis=-1))


def _feature_vectorizer(node: Node) -> Any:
    widths = [int(width) for width in node.attributes.get("inputdimensions", ())]
    if len(widths) != len(node.inputs):
        raise node.unsupported(f"it has {len(node.inputs)} inputs, {len(widths)} inputdimensions")
    parts = [part for i, width in enumerate(widths) for part in _columns(node, i, width)]
    if len({shape_of(part)[0] for part in parts}) != 1:
        raise node.unsupported("its inputs differ in their number of rows")
    return bound(node, concatenated(node, parts, 1))


def _columns(node: Node, number: int, width: int) -> list[Any]:
    """The first ``width`` columns of an input as float32; zeros in place of those that it lacks."""
    from tvm import relax

    shape = node.shape(number)
    if not shape or 0 in shape or width < 1:
        raise node.unsupported(f"input {number} has the shape {list(shape)}, {width} are wanted")
    rows = 1 if len(shape) == 1 else shape[0]
    columns = math.prod(shape) // rows
    flat = bound(node, reshaped(node.inputs[number], (rows, columns)))
    part = bound(node, cast(flat, "float32"))
    if columns > width:
        return [node.emit(relax.op.strided_slice(part, axes=[1], begin=[0], end=[width]))]
    return [part] if columns == width else [part, filled((rows, width - columns), 0, "float32")]


CONVERTERS: dict[str, Converter] = {
    "ArrayFeatureExtractor": _array_feature_extractor,
    "FeatureVectorizer": _feature_vectorizer,
}
