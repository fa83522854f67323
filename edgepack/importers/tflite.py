"""Importer of TensorFlow Lite models: FlatBuffers with the identifier ``TFL3`` at byte 4.

TensorFlow Lite runs the model once, on inputs of the user's shapes: the shape of every tensor is then
known, and sparse weights are unpacked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.artefacts import Infer, SourceModel, Tensors
from edgepack.errors import ModelError
from edgepack.importers import tflite_model
from edgepack.importers.extras import quietly
from edgepack.importers.onnx_file import one_line
from edgepack.importers.protocol import ConvertedModel, ImportOptions
from edgepack.importers.tensorflow_graphs import (
    DeclaredInput,
    fixed_shapes,
    import_tensorflow,
    through_tf2onnx,
)

if TYPE_CHECKING:
    import onnx

LAYOUT = "nhwc"
SUFFIXES: tuple[str, ...] = ()

_IDENTIFIER = b"TFL3"
_IDENTIFIER_OFFSET = 4


def recognise(path: Path) -> bool:
    """Whether the file has TensorFlow Lite's identifier."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8)[_IDENTIFIER_OFFSET:] == _IDENTIFIER


def convert(
    source: SourceModel, shapes: Mapping[str, tuple[int, ...]], options: ImportOptions
) -> ConvertedModel:
    """Convert the model's first subgraph. Raises ModelError; ConfigError without TensorFlow."""
    import_tensorflow("a TensorFlow Lite model")
    with quietly():
        content = _content(source.path)
        plain = _interpreter(source.path, content, delegates=False)
        model, names = _read(source.path, content)
        fixed = fixed_shapes(_declared(plain, names), shapes)
        _run_once(source.path, plain, fixed)
        notes = tflite_model.unpack_weights(model)
        usual = _interpreter(
            source.path, tflite_model.write_model(model) if notes else content, delegates=True
        )
        _run_once(source.path, usual, fixed)
        tflite_model.densify(model, plain.get_tensor)
        tflite_model.describe(model, names, _shapes(plain, len(names)))
        converted = _convert(model)
    return ConvertedModel(
        model=converted,
        original=_original(usual, names),
        framework="TensorFlow Lite",
        notes=notes,
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error


def _interpreter(path: Path, content: bytes, *, delegates: bool) -> Any:
    """TensorFlow Lite on one thread; it verifies the file.

    ``delegates`` lets it take XNNPACK's kernels where there are any, as it does by default. Tensors
    between those have no shapes.
    """
    import tensorflow as tf

    kinds = tf.lite.experimental.OpResolverType
    kind = kinds.AUTO if delegates else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        return tf.lite.Interpreter(
            model_content=content, num_threads=1, experimental_op_resolver_type=kind
        )
    except (ValueError, RuntimeError) as error:
        raise _damaged(path, error) from error


def _read(path: Path, content: bytes) -> tuple[Any, list[str]]:
    """The model, which can be converted, and names of its tensors. Raises ModelError."""
    try:
        model = tflite_model.read_model(content)
        tflite_model.check_operators(model)
        return model, tflite_model.tensor_names(model)
    # What was verified may still lack a part, or point to one that is not there.
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{path} is not a whole TensorFlow Lite model: {one_line(error)}", "Export or copy it again"
    )


def _declared(interpreter: Any, names: Sequence[str]) -> list[DeclaredInput]:
    return [
        DeclaredInput(
            name=names[entry["index"]],
            dtype=entry["dtype"],
            shape=[None if size < 0 else int(size) for size in entry["shape_signature"]],
        )
        for entry in interpreter.get_input_details()
    ]


def _run_once(path: Path, interpreter: Any, shapes: Sequence[tuple[int, ...]]) -> None:
    """Run the model on ones, of these shapes. Raises ModelError."""
    import numpy as np

    try:
        details = interpreter.get_input_details()
        for entry, shape in zip(details, shapes, strict=True):
            interpreter.resize_tensor_input(entry["index"], shape)
        interpreter.allocate_tensors()
        for entry, shape in zip(details, shapes, strict=True):
            interpreter.set_tensor(entry["index"], np.ones(shape, entry["dtype"]))
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"TensorFlow Lite cannot run {path}: {one_line(error)}") from error


def _shapes(interpreter: Any, count: int) -> list[Sequence[int] | None]:
    """The shape of each tensor of the model, None where it has no place in memory."""
    found = {entry["index"]: entry["shape"] for entry in interpreter.get_tensor_details()}
    return [found.get(index) for index in range(count)]


def _convert(model: Any) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.tflite")
        path.write_bytes(tflite_model.write_model(model))
        return through_tf2onnx(tf_graph=None, tflite_path=str(path))


def _original(interpreter: Any, names: Sequence[str]) -> Infer:
    inputs = {names[entry["index"]]: entry["index"] for entry in interpreter.get_input_details()}
    outputs = {names[entry["index"]]: entry["index"] for entry in interpreter.get_output_details()}

    def run(tensors: Tensors) -> Tensors:
        with quietly():
            for name, index in inputs.items():
                interpreter.set_tensor(index, tensors[name])
            interpreter.invoke()
            return {name: interpreter.get_tensor(index) for name, index in outputs.items()}

    return run
