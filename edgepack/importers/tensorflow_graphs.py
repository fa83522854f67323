"""What the TensorFlow importers share: fixed input shapes first, then tf2onnx, on a static graph.

Every shape that a model's graph can have is known from its inputs' before anything is converted, so
neither tf2onnx nor what comes after it meets dynamic dimensions. Layouts stay TensorFlow's (NHWC).
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.artefacts import Infer, Tensors
from edgepack.errors import ModelError
from edgepack.importers.extras import quietly, require
from edgepack.importers.input_shapes import dims_of, fix_input_shapes
from edgepack.importers.onnx_file import one_line
from edgepack.importers.tensorflow_operators import HANDLERS
from edgepack.unsupported import refuse_unsupported

if TYPE_CHECKING:
    import onnx
    import tensorflow as tf

Call = Callable[..., Sequence["tf.Tensor"]]
"""A function of tensors, given one by one."""

EXTRA = "tensorflow"
OPSET = 18
"""The newest that tf2onnx writes."""
_KEPT_AS_CALLS = {"_XlaMustCompile", "_noinline"}
"""Attributes of functions and their calls."""


@dataclass(frozen=True, kw_only=True)
class DeclaredInput:
    """An input as the model declares it; None is a dynamic dimension, or an unknown rank."""

    name: str
    dtype: Any
    """A DType, or what makes one; as ``shape`` for TensorShape."""
    shape: Any


def import_tensorflow(what: str) -> None:
    """Import TensorFlow and tf2onnx, and keep them quiet. Raises ConfigError without them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for module in ("tensorflow", "tf2onnx.tfonnx"):
        require(module, EXTRA, what)


def convert_function(
    call: Call,
    inputs: Sequence[DeclaredInput],
    outputs: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
) -> onnx.ModelProto:
    """A function of tensors as ONNX, its variables as constants. Raises ModelError.

    ``outputs`` names what it returns; ``shapes`` are those that the user gave.
    """
    import tensorflow as tf
    from tf2onnx import tf_loader

    specs = [
        tf.TensorSpec(shape, value.dtype)
        for value, shape in zip(inputs, fixed_shapes(inputs, shapes), strict=True)
    ]

    def distinct(*tensors: tf.Tensor) -> list[tf.Tensor]:
        return [tf.identity(tensor) for tensor in call(*tensors)]

    try:
        traced = tf.function(distinct, autograph=False).get_concrete_function(*specs)
        arguments = [tensor.name for tensor in traced.inputs[: len(inputs)]]
        results = [tensor.name for tensor in traced.outputs]
        frozen = tf_loader.from_function(traced, arguments, results)
        if _allow_inlining(frozen):
            with tf.Graph().as_default():
                tf.import_graph_def(frozen, name="")
                frozen = tf_loader.tf_optimize(arguments, results, frozen)
    except Exception as error:  # TensorFlow's exceptions have no common type
        raise ModelError(f"TensorFlow cannot trace the model: {one_line(error)}") from error
    names = dict(zip(arguments, (value.name for value in inputs), strict=True))
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen, name="")
        return through_tf2onnx(
            tf_graph=graph,
            input_names=arguments,
            output_names=results,
            tensors_to_rename=names | dict(zip(results, outputs, strict=True)),
        )


def _allow_inlining(graph: Any) -> bool:
    """Take marks from a GraphDef that keep functions as calls; whether there were some.

    Keras marks its convolutions in groups for XLA, of which TensorFlow has none of its own on a CPU.
    """
    functions = graph.library.function
    nodes = [*graph.node, *itertools.chain.from_iterable(f.node_def for f in functions)]
    found = False
    for owner in (*nodes, *functions):
        for mark in _KEPT_AS_CALLS & set(owner.attr):
            del owner.attr[mark]
            found = True
    return found


def fixed_shapes(
    inputs: Sequence[DeclaredInput], shapes: Mapping[str, tuple[int, ...]]
) -> list[tuple[int, ...]]:
    """The inputs' shapes with those that the user gave. Raises ModelError, as for an ONNX model."""
    import onnx
    import tensorflow as tf
    from tf2onnx.tf_utils import map_tf_dtype

    values = [
        onnx.helper.make_tensor_value_info(
            value.name, map_tf_dtype(tf.as_dtype(value.dtype)), _symbolic(value.shape)
        )
        for value in inputs
    ]
    model = onnx.ModelProto(graph=onnx.GraphProto(input=values))
    fix_input_shapes(model, shapes)
    return [tuple(map(int, dims_of(value) or ())) for value in model.graph.input]


def runner(call: Call, inputs: Sequence[str], outputs: Sequence[str]) -> Infer:
    """The function itself, for NumPy tensors by these names."""

    def run(tensors: Tensors) -> Tensors:
        import tensorflow as tf

        with quietly(), tf.device("/cpu:0"):
            answers = call(*(tf.constant(tensors[name]) for name in inputs))
        return dict(zip(outputs, (answer.numpy() for answer in answers), strict=True))

    return run


def through_tf2onnx(**source: Any) -> onnx.ModelProto:
    """Convert what process_tf_graph's arguments describe. Raises ModelError."""
    import onnx
    from tf2onnx import optimizer
    from tf2onnx.tfonnx import process_tf_graph

    handlers: dict[str, Any] = {name: (handler, []) for name, handler in HANDLERS.items()}
    try:
        graph = process_tf_graph(opset=OPSET, custom_op_handlers=handlers, **source)
        model: onnx.ModelProto = optimizer.optimize_graph(graph).make_model("edgepack")
    except Exception as error:  # tf2onnx's exceptions have no common type
        raise ModelError(f"tf2onnx cannot convert the model: {one_line(error)}") from error
    refuse_unsupported(model, lambda domain, operator: onnx.defs.has(operator, domain))
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        # An output whose rank tf2onnx does not know: it is inferred later.
        if "Field 'shape' of 'type' is required" not in str(error):
            raise ModelError(f"tf2onnx cannot convert the model: {one_line(error)}") from error
    return model


def unique(names: Iterable[str]) -> list[str]:
    """The names, with a number behind those that have been there."""
    given: dict[str, None] = {}
    for name in names:
        numbered = (f"{name}_{i}" for i in itertools.count(1))
        given[name if name not in given else next(n for n in numbered if n not in given)] = None
    return list(given)


def clean_name(tensor: str) -> str:
    """A tensor's name without what TensorFlow adds when it saves: ``serving_default_x:0``."""
    return re.sub(r":\d+$", "", tensor.removeprefix("serving_default_"))


def _symbolic(shape: Any) -> list[int | str | None] | None:
    """A dynamic first dimension is nearly always the batch; the others have no name."""
    import tensorflow as tf

    dims = tf.TensorShape(shape)
    if dims.rank is None:
        return None
    return ["batch" if i == 0 and size is None else size for i, size in enumerate(dims)]
