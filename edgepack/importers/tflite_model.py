"""A TensorFlow Lite model as objects, and what is changed in it before tf2onnx reads it.

The objects are those that FlatBuffers makes of tensorflow/lite/schema/schema.fbs: ModelT, SubGraphT,
TensorT, OperatorT. Of several subgraphs the first is the model, the others are bodies of its loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edgepack.errors import ModelError
from edgepack.importers.tensorflow_graphs import OPSET, clean_name, unique
from edgepack.importers.tensorflow_operators import HANDLERS
from edgepack.unsupported import refuse_unsupported

if TYPE_CHECKING:
    import numpy as np

_REFUSED = ("TFLite_Detection_PostProcess",)
"""tf2onnx takes another suppression of boxes for it, and gives as many boxes as there happen to be."""
_PREFIX = "TFL_"
"""Begins tf2onnx's names of TensorFlow Lite's operators."""
_DENSIFY = "DENSIFY"
_NO_DATA = 0
"""The first buffer is always empty."""


def read_model(content: bytes) -> Any:
    """The model; ``content`` has been verified to be one."""
    from tensorflow.lite.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def write_model(model: Any) -> bytes:
    """The model as a file."""
    from tensorflow.lite.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def check_operators(model: Any) -> None:
    """Raise ModelError naming every operator that cannot be converted."""
    import onnx

    nodes = []
    for graph in model.subgraphs:
        for operator, name in _operators(model, graph):
            outputs = [_text(graph.tensors[i].name) for i in operator.outputs]
            label = "" if outputs else "without an output"
            nodes.append(onnx.helper.make_node(name, [], outputs, name=label))
        _check_types(graph)
    known = _convertible()
    described = onnx.ModelProto(graph=onnx.GraphProto(node=nodes))
    refuse_unsupported(described, lambda _, operator: operator in known)


def tensor_names(model: Any) -> list[str]:
    """A name for each tensor of the model's graph, no two the same.

    Inputs and outputs have those of the model's signature; without one, their own in plain form.
    """
    graph = model.subgraphs[0]
    given = [_text(tensor.name) for tensor in graph.tensors]
    public = list(dict.fromkeys([*graph.inputs, *graph.outputs]))
    for index in public:
        given[index] = clean_name(given[index])
    for signature in model.signatureDefs or ():
        if signature.subgraphIndex == 0:
            for entry in [*signature.inputs, *signature.outputs]:
                given[entry.tensorIndex] = _text(entry.name)
    order = [*public, *sorted(set(range(len(given))) - set(public))]
    for index, name in zip(order, unique(given[i] or "tensor" for i in order), strict=True):
        given[index] = name
    return given


def unpack_weights(model: Any) -> tuple[str, ...]:
    """Make float32 of weights of 8 bits where float32 is multiplied with them; what to tell of it."""
    from tensorflow.lite.python.schema_py_generated import TensorType

    graph = model.subgraphs[0]
    count = 0
    for operator, _ in _operators(model, graph):
        tensors = [graph.tensors[i] for i in operator.inputs if i >= 0]
        packed = [t for t in tensors if t.type == TensorType.INT8 and _is_constant(model, t)]
        if packed and any(tensor.type == TensorType.FLOAT32 for tensor in tensors):
            count += 1
            for tensor in packed:
                _unpack(model, tensor)
            if hasattr(operator.builtinOptions, "asymmetricQuantizeInputs"):
                operator.builtinOptions.asymmetricQuantizeInputs = False
    if not count:
        return ()
    return (
        f"operators that multiply float32 with weights of 8 bits: {count}; they do so in float32, here"
        " and for the comparison, where TensorFlow Lite rounds to 8 bits what it multiplies",
    )


def _is_constant(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _unpack(model: Any, tensor: Any) -> None:
    import numpy as np
    from tensorflow.lite.python.schema_py_generated import TensorType

    packed = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.int8)
    sizes = [1] * len(tensor.shape)
    if len(tensor.quantization.scale) > 1:
        sizes[tensor.quantization.quantizedDimension] = -1
    scale, zero = (
        np.asarray(values).reshape(sizes)
        for values in (tensor.quantization.scale, tensor.quantization.zeroPoint)
    )
    values = (packed.reshape(tensor.shape) - zero) * scale
    tensor.buffer = _add_buffer(model, values.astype(np.float32))
    tensor.type, tensor.quantization = TensorType.FLOAT32, None


def _add_buffer(model: Any, values: np.ndarray) -> int:
    import numpy as np
    from tensorflow.lite.python.schema_py_generated import BufferT

    buffer = BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def densify(model: Any, value: Callable[[int], np.ndarray]) -> None:
    """Put constants in the place of operators that unpack sparse weights.

    ``value`` gives what a tensor holds once the model has run.
    """
    graph = model.subgraphs[0]
    kept = []
    for operator, name in _operators(model, graph):
        if name != _DENSIFY:
            kept.append(operator)
            continue
        graph.tensors[operator.outputs[0]].buffer = _add_buffer(model, value(operator.outputs[0]))
        graph.tensors[operator.inputs[0]].buffer = _NO_DATA
    graph.operators = kept


def describe(model: Any, names: Sequence[str], shapes: Sequence[Sequence[int] | None]) -> None:
    """Give the tensors of the model's graph their names and shapes; None leaves a shape as it is."""
    import numpy as np

    for tensor, name, shape in zip(model.subgraphs[0].tensors, names, shapes, strict=True):
        tensor.name = name
        if shape is not None:
            tensor.shape = np.array(shape, np.int32)
            tensor.shapeSignature = None


def _check_types(graph: Any) -> None:
    """Raise ModelError for a tensor of a type that ONNX, or its quantisation, does not have."""
    from tensorflow.lite.python.schema_py_generated import TensorType
    from tf2onnx.tflite_utils import TFLITE_TO_ONNX_DTYPE

    names = {code: name for name, code in vars(TensorType).items() if name.isupper()}
    for tensor in graph.tensors:
        scale = tensor.quantization.scale if tensor.quantization else None
        quantised = scale is not None and len(scale) > 0
        if tensor.type not in TFLITE_TO_ONNX_DTYPE:
            problem = names[tensor.type]
        elif quantised and tensor.type == TensorType.INT16:
            problem = "INT16, quantised"
        else:
            continue
        raise ModelError(
            f"the tensor {_text(tensor.name)!r} is of type {problem}, which is not supported",
            "convert the model with weights and activations of 8 bits, or without quantisation",
        )


def _operators(model: Any, graph: Any) -> Iterator[tuple[Any, str]]:
    """The operators of a subgraph with their names: the schema's, or a custom operator's own."""
    from tensorflow.lite.python.schema_py_generated import BuiltinOperator

    names = {code: name for name, code in vars(BuiltinOperator).items() if name.isupper()}
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        # Codes that do not fit the first field, of a byte, are in the second.
        name = names[max(code.deprecatedBuiltinCode, code.builtinCode)]
        name = _text(code.customCode) if code.customCode else name
        if name == "SOFTMAX" and operator.builtinOptions.beta != 1:
            name = f"SOFTMAX with beta {operator.builtinOptions.beta:g}"
        yield operator, name


def _convertible() -> set[str]:
    """Names of operators that tf2onnx and we convert."""
    from tf2onnx import handler

    mappings = (
        handler.tfl_op.create_tfl_to_tf_mapping(),
        handler.tf_op.create_mapping(OPSET, None),
        HANDLERS,
    )
    names = {name for mapping in mappings for name in mapping if name.startswith(_PREFIX)}
    return {name.removeprefix(_PREFIX) for name in names}.difference(_REFUSED) | {_DENSIFY}


def _text(name: bytes | str | None) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name or ""
