"""Operators of the domain ``edgepack``: those of ONNX whose output shape depends on data, with a bound.

Each does what ONNX's operator of the same name does, but that its outputs have ``bound`` rows: the first
ones are those of ONNX's operator, at most ``bound`` of them, and what follows is zero. One more output,
an int64 scalar, tells how many rows there are. An input ``rows``, an int64 scalar, tells the same of the
input: what follows is not looked at.

    BoundedNonZero           x -> indices [rank, bound], count
    BoundedUnique            x, rows -> y, indices [bound], inverse_indices, counts [bound], count
    BoundedNonMaxSuppression boxes, scores, max_output_boxes_per_class, iou_threshold,
                             score_threshold, rows -> selected_indices [bound, 3], count
    BoundedRows              x [n, ...], rows -> y [?, ...]

BoundedRows computes nothing. It says that ``x`` has so many rows and is replaced once everything that
follows has fixed shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

DOMAIN = "edgepack"
NON_ZERO = "BoundedNonZero"
UNIQUE = "BoundedUnique"
NON_MAX_SUPPRESSION = "BoundedNonMaxSuppression"
ROWS = "BoundedRows"

_VERSION = 1
_INT64 = 7
"""onnx.TensorProto.INT64."""


def declare(model: onnx.ModelProto) -> None:
    """Let the model have nodes of the domain."""
    _register()
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.add(domain=DOMAIN, version=_VERSION)


@cache
def _register() -> None:
    """Tell ONNX of the operators: its checker and its shape inference then know them."""
    scalars = ["count"]
    _add(NON_ZERO, ["x:T"], ["indices", *scalars], ["bound"], _infer_non_zero)
    _add(
        UNIQUE,
        ["x:T", "rows?"],
        ["y:T", "indices", "inverse_indices", "counts", *scalars],
        ["bound", "axis?", "sorted"],
        _infer_unique,
    )
    _add(
        NON_MAX_SUPPRESSION,
        [
            "boxes:T",
            "scores:T",
            "max_output_boxes_per_class?",
            "iou_threshold:T?",
            "score_threshold:T?",
            "rows?",
        ],
        ["selected_indices", *scalars],
        ["bound", "center_point_box"],
        _infer_non_max_suppression,
    )
    _add(ROWS, ["x:T", "rows"], ["y:T"], [], _infer_rows)


def _add(
    name: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    attributes: Sequence[str],
    infer: Callable[[Any], None],
) -> None:
    """Register an operator; ``:T`` marks its type variable, all else is int64, ``?`` may be missing."""
    import onnx

    schema = onnx.defs.OpSchema
    anything = onnx.defs.get_schema("Identity", 13).type_constraints[0].allowed_type_strs
    types = sorted(t for t in anything if t.startswith("tensor(") and "string" not in t)
    option = schema.FormalParameterOption

    def parameter(text: str) -> Any:
        word, _, kind = text.removesuffix("?").partition(":")
        how = option.Optional if text.endswith("?") else option.Single
        return schema.FormalParameter(word, kind or "tensor(int64)", param_option=how)

    definition = schema(
        name,
        DOMAIN,
        _VERSION,
        inputs=[parameter(text) for text in inputs],
        outputs=[parameter(text) for text in outputs],
        type_constraints=[("T", types, "")],
        attributes=[
            schema.Attribute(
                text.removesuffix("?"), schema.AttrType.INT, required=not text.endswith("?")
            )
            for text in attributes
        ],
    )
    definition.set_type_and_shape_inference_function(infer)
    onnx.defs.register_schema(definition)


def _infer_non_zero(context: Any) -> None:
    shape = _shape(context, 0)
    if shape is not None:
        _set(context, 0, _INT64, [max(len(shape), 1), _integer(context, "bound")])
    _set(context, 1, _INT64, [])


def _infer_unique(context: Any) -> None:
    shape, bound = _shape(context, 0), _integer(context, "bound")
    _set(context, 4, _INT64, [])
    for output in (1, 3):
        _set(context, output, _INT64, [bound])
    if shape is None:
        return
    element = context.get_input_type(0).tensor_type.elem_type
    attribute = context.get_attribute("axis")
    if attribute is None:
        _set(context, 0, element, [bound])
        total: int | None = 1
        for extent in shape:
            total = None if total is None or extent is None else total * extent
        _set(context, 2, _INT64, [total])
    else:
        axis = attribute.i % len(shape)
        _set(context, 0, element, [*shape[:axis], bound, *shape[axis + 1 :]])
        _set(context, 2, _INT64, [shape[axis]])


def _infer_non_max_suppression(context: Any) -> None:
    _set(context, 0, _INT64, [_integer(context, "bound"), 3])
    _set(context, 1, _INT64, [])


def _infer_rows(context: Any) -> None:
    shape = _shape(context, 0)
    if shape is not None:
        _set(context, 0, context.get_input_type(0).tensor_type.elem_type, [None, *shape[1:]])


def _integer(context: Any, name: str) -> int:
    return int(context.get_attribute(name).i)


def _shape(context: Any, index: int) -> list[int | None] | None:
    """The extents of an input, None for one that is not known; None if not even its rank is."""
    found = context.get_input_type(index)
    if found is None or not found.tensor_type.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") else None for dim in found.tensor_type.shape.dim
    ]


def _set(context: Any, index: int, element: int, shape: Sequence[int | None]) -> None:
    import onnx

    if index >= context.get_num_outputs():
        return
    found = onnx.TypeProto()
    found.tensor_type.elem_type = element
    found.tensor_type.shape.SetInParent()
    for extent in shape:
        dim = found.tensor_type.shape.dim.add()
        if extent is not None:
            dim.dim_value = extent
    context.set_output_type(index, found)
