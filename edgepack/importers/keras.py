"""Importer of Keras models: ``.keras`` archives, and the older ``.h5`` files that hold a whole model.

Both describe layers in JSON. A Lambda layer is Python code in there, and a layer of the user's own
is code that is not: the description is searched for both before Keras sees it, so no code runs.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.artefacts import SourceModel
from edgepack.errors import ConfigError, ModelError
from edgepack.importers.extras import quietly, require
from edgepack.importers.onnx_file import one_line
from edgepack.importers.protocol import ConvertedModel, ImportOptions
from edgepack.importers.tensorflow_graphs import (
    EXTRA,
    DeclaredInput,
    convert_function,
    import_tensorflow,
    runner,
    unique,
)

if TYPE_CHECKING:
    import tensorflow as tf

LAYOUT = "nhwc"
SUFFIXES: tuple[str, ...] = ()

_WHAT = "a Keras model"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_NAME_OFFSET = 30
"""Of the first member's name in a zip file."""
_CONFIG = "config.json"
_MEMBERS = (_CONFIG, "metadata.json")
_BACKEND = "KERAS_BACKEND"
_LAMBDAS = ("Lambda", "__lambda__")
_LAYER_KEYS = ("layer", "layers")
_MODELS = ("Functional", "Model", "Sequential")
"""Classes of older files, whose entries name no module, that are no layers."""
_EXPORT = (
    'if you trust it, load it where its code is, write model.export("folder") and compile that'
)


def recognise(path: Path) -> bool:
    """Whether the file is a zip archive with Keras's members, or any HDF5 file."""
    if not path.is_file():
        return False
    head = _head(path)
    if not head.startswith(_ZIP):
        return head.startswith(_HDF5)
    try:
        with zipfile.ZipFile(path) as archive:
            return set(_MEMBERS) <= set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        # Cut short: the list of members, at the end, is not there.
        return head[_NAME_OFFSET:].startswith(tuple(name.encode() for name in _MEMBERS))


def convert(
    source: SourceModel, shapes: Mapping[str, tuple[int, ...]], options: ImportOptions
) -> ConvertedModel:
    """Convert the model as it infers, not trains. Raises ModelError; ConfigError without Keras."""
    _import_keras()
    import_tensorflow(_WHAT)
    with quietly():
        import keras

        model = _load(source.path)
        inputs = [
            DeclaredInput(name=name, dtype=tensor.dtype, shape=tensor.shape)
            for name, tensor in zip(unique(t.name for t in model.inputs), model.inputs, strict=True)
        ]
        arguments = [value.name for value in inputs]
        outputs = unique([*arguments, *_output_names(model)])[len(arguments) :]
        flat = keras.Model(model.inputs, model.outputs)

        def call(*tensors: tf.Tensor) -> Sequence[tf.Tensor]:
            answer: Sequence[tf.Tensor] = keras.tree.flatten(flat(list(tensors), training=False))
            return answer

        converted = convert_function(call, inputs, outputs, shapes)
    return ConvertedModel(
        model=converted, original=runner(call, arguments, outputs), framework="Keras"
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _import_keras() -> None:
    """Import Keras on TensorFlow, whatever the user's own choice of a backend is."""
    chosen = os.environ.get(_BACKEND)
    os.environ[_BACKEND] = "tensorflow"
    try:
        keras = require("keras", EXTRA, _WHAT)
    finally:
        del os.environ[_BACKEND]
        if chosen is not None:
            os.environ[_BACKEND] = chosen
    if keras.backend.backend() != "tensorflow":
        raise ConfigError(
            f"reading {_WHAT} needs Keras on TensorFlow; this process has it on"
            f" {keras.backend.backend()}",
            f"set {_BACKEND}=tensorflow before Keras is imported",
        )


def _load(path: Path) -> Any:
    """The model, without what is needed for training alone. Raises ModelError."""
    import keras

    is_zip = _head(path).startswith(_ZIP)
    _refuse_code(path, _archive_config(path) if is_zip else _hdf5_config(path))
    with tempfile.TemporaryDirectory() as folder:
        # Keras goes by the name.
        link = Path(folder, "model.keras" if is_zip else "model.h5")
        link.symlink_to(path.resolve())
        try:
            model = keras.saving.load_model(link, compile=False, safe_mode=True)
        except Exception as error:  # Keras's exceptions have no common type
            raise ModelError(
                f"Keras {keras.__version__} cannot load {path}: {one_line(error)}",
                'save it again, or write model.export("folder") with the Keras that wrote it and'
                " compile that",
            ) from error
    if not getattr(model, "inputs", None):
        raise ModelError(f"{path} does not say what its inputs are", _EXPORT)
    return model


def _archive_config(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read(_CONFIG))
    except (OSError, zipfile.BadZipFile, zlib.error, KeyError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if isinstance(config, dict):
        config.pop("compile_config", None)  # not loaded: only training needs it
    return config


def _hdf5_config(path: Path) -> Any:
    import h5py

    try:
        with h5py.File(path) as file:
            written = file.attrs.get("model_config")
            found = {*file, *file.attrs}
        if written is not None:
            return json.loads(written)
    except (OSError, KeyError, ValueError, RuntimeError, RecursionError) as error:
        raise _damaged(path, error) from error
    if {"layers", "layer_names", "vars"} & found:
        raise ModelError(
            f"{path} holds the weights of a Keras model alone, not its layers",
            'load them into the model, and save that with model.save("model.keras")',
        )
    raise ModelError(f"{path} is an HDF5 file without a Keras model in it")


def _damaged(path: Path, error: BaseException) -> ModelError:
    return ModelError(
        f"{path} is not a whole Keras model: {one_line(error)}", "Save or copy it again"
    )


def _refuse_code(path: Path, config: Any) -> None:
    """Raise ModelError for what Keras could not load without running code."""
    lambdas, foreign = [], []
    for key, entry in _entries(config):
        inner = entry.get("config")
        name = entry.get("name") or (inner.get("name") if isinstance(inner, dict) else inner)
        if entry["class_name"] in _LAMBDAS:
            lambdas.append(repr(name) if isinstance(name, str) else "one without a name")
        elif not _is_own(key, entry):
            foreign.append(f"{entry['class_name']} ({name!r})")
    if lambdas:
        named = ", ".join(lambdas)
        raise ModelError(f"{path} has Lambda layers, which are Python code: {named}", _EXPORT)
    if foreign:
        raise ModelError(f"{path} has layers that are not Keras's: {', '.join(foreign)}", _EXPORT)


def _entries(config: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object that the JSON describes, with the key that it, or the list of it, is under."""
    pending = [("", config)]
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                yield key, value
                if value["class_name"] in _LAMBDAS:
                    continue
            pending.extend(reversed(value.items()))
        elif isinstance(value, list):
            pending.extend((key, item) for item in reversed(value))


def _is_own(key: str, entry: Mapping[str, Any]) -> bool:
    """Whether an object is of one of Keras's classes. Older files name no module, only the class."""
    import keras

    if "module" in entry:
        module = str(entry["module"])
        return module in ("builtins", "keras") or module.startswith("keras.")
    class_name = entry["class_name"]
    return key not in _LAYER_KEYS or class_name in _MODELS or hasattr(keras.layers, class_name)


def _output_names(model: Any) -> list[str]:
    """Keys where the model gives a dictionary, else names of layers."""
    import keras

    if isinstance(model, keras.Sequential):
        return [model.layers[-1].name]
    paths = [path for path, _ in keras.tree.flatten_with_path(model.output)]
    keys = ["_".join(key for key in path if isinstance(key, str)) for path in paths]
    return [key or layer for key, layer in zip(keys, model.output_names, strict=True)]
