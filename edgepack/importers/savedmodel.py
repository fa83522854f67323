"""Importer of TensorFlow SavedModel folders: one signature of the model, variables as constants.

A SavedModel is a program in TensorFlow's operators, some of which write files. None of them runs but
those of the signature, and only where all of them do nothing else than compute.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.artefacts import SourceModel
from edgepack.errors import ModelError
from edgepack.importers.extras import quietly
from edgepack.importers.onnx_file import one_line
from edgepack.importers.protocol import ConvertedModel, ImportOptions
from edgepack.importers.tensorflow_graphs import (
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

_FILE = "saved_model.pb"
_TAG = "serve"
_DEFAULT = "serving_default"
_INITIAL_OPERATOR = "__saved_model_init_op"
_INITIAL_COLLECTIONS = ("legacy_init_op", "saved_model_main_op")
_HARMLESS = {
    "Assert",
    "Case",
    "If",
    "ReadVariableOp",
    "ResourceGather",
    "ResourceGatherNd",
    "StatefulPartitionedCall",
    "VarHandleOp",
    "VariableV2",
    "While",
}
"""Operators that have, or need, a state and do nothing with it but read."""


def recognise(path: Path) -> bool:
    """Whether the folder has a ``saved_model.pb``."""
    return path.is_dir() and (path / _FILE).is_file()


def convert(
    source: SourceModel, shapes: Mapping[str, tuple[int, ...]], options: ImportOptions
) -> ConvertedModel:
    """Convert one signature. Raises ModelError; ConfigError without TensorFlow."""
    import_tensorflow("a SavedModel")
    with quietly():
        loaded = _load(source.path)
        chosen = _choose(source.path, list(loaded.signatures), options.signature)
        signature = loaded.signatures[chosen]
        _refuse_effects(chosen, signature.graph.as_graph_def())
        inputs = [
            DeclaredInput(name=name, dtype=spec.dtype, shape=spec.shape)
            for name, spec in sorted(signature.structured_input_signature[1].items())
        ]
        arguments = [value.name for value in inputs]
        results = sorted(signature.structured_outputs)
        outputs = unique([*arguments, *results])[len(arguments) :]

        def call(*tensors: tf.Tensor) -> Sequence[tf.Tensor]:
            # By way of what was loaded: the signature alone does not keep its variables.
            answer = loaded.signatures[chosen](**dict(zip(arguments, tensors, strict=True)))
            return [answer[name] for name in results]

        model = convert_function(call, inputs, outputs, shapes)
    return ConvertedModel(
        model=model, original=runner(call, arguments, outputs), framework="TensorFlow"
    )


def _load(path: Path) -> Any:
    """Load the model, and nothing that would run while it is loaded. Raises ModelError."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    with tempfile.TemporaryDirectory() as folder:
        try:
            saved.ParseFromString((path / _FILE).read_bytes())
            _strip(path, saved)
            Path(folder, _FILE).write_bytes(saved.SerializeToString())
            for entry in path.iterdir():
                if entry.name != _FILE:
                    os.symlink(entry.resolve(), Path(folder, entry.name))
            tags = [list(graph.meta_info_def.tags) for graph in saved.meta_graphs]
            model = tf.saved_model.load(folder, next((t for t in tags if _TAG in t), tags[0]))
            if not hasattr(model, "signatures"):
                raise ValueError("it is not what tf.saved_model.save writes")
            return model
        except ModelError:
            raise
        except Exception as error:  # TensorFlow's exceptions have no common type
            reason = one_line(error).replace(folder, str(path))
            raise ModelError(
                f"TensorFlow cannot load {path}: {reason}",
                "Export or copy it again; operators of other libraries are not supported",
            ) from error


def _strip(path: Path, saved: Any) -> None:
    """Take out what initialises, what restores itself, and what optimizers remember.

    The last keeps TensorFlow from loading models that were trained with Keras 2.
    """
    if not saved.meta_graphs:
        raise ValueError("there is no graph in it")
    for graph in saved.meta_graphs:
        graph.signature_def.pop(_INITIAL_OPERATOR, None)
        for name in _INITIAL_COLLECTIONS:
            graph.collection_def.pop(name, None)
        for node in graph.object_graph_def.nodes:
            if node.WhichOneof("kind") == "resource":
                raise ModelError(
                    f"{path} has a lookup table, or another resource that is no variable",
                    "export the model without it: look up what it needs in the application",
                )
            node.saveable_objects.clear()
            del node.slot_variables[:]


def _refuse_effects(name: str, graph: Any) -> None:
    """Raise ModelError for operators that do something else than compute an output."""
    from tensorflow.python.framework import op_def_registry

    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    used = {node.op for body in bodies for node in body} - _HARMLESS
    known = [found for found in map(op_def_registry.get, used) if found is not None]
    acting = [found.name for found in known if found.is_stateful]
    if acting:
        raise ModelError(
            f"the signature {name!r} does more than compute its outputs: {', '.join(sorted(acting))}",
            "export the model without these operators; pass a state in and out as tensors",
        )


def _choose(path: Path, names: list[str], wanted: str) -> str:
    if not names:
        raise ModelError(
            f"{path} has no signatures: nothing in it says what its inputs are",
            "save it with tf.saved_model.save(model, folder, signatures=...)",
        )
    chosen = wanted or (names[0] if len(names) == 1 else _DEFAULT)
    if chosen not in names:
        raise ModelError(
            f"{path} has no signature {chosen!r}", f"signatures that it has: {', '.join(names)}"
        )
    return chosen
