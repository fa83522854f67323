"""The reference: the original model in ONNX Runtime, whose answers a compiled model must reproduce.

A model newer than the installed ONNX Runtime is given to it as the newest version that it knows, if
none of the model's operators changed in between; the file itself stays as it is. What it refuses all
the same is run by the evaluator that the standard itself defines its operators with (onnx.reference),
slowly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack import padding
from edgepack.artefacts import ImportedModel, Infer, Tensors
from edgepack.errors import ModelError

if TYPE_CHECKING:
    import onnx

_EXACT = "session.x64quantprecision"
"""Without it products of bytes saturate at 16 bits on x86-64 CPUs that lack VNNI."""
_APART = "session.disable_quant_qdq"
"""Keeps DequantizeLinear, an operator and QuantizeLinear three operators of numbers."""
_QUANTISING = ("QuantizeLinear", "DynamicQuantizeLinear")
_OPSETS_BACK = 6
"""How many opsets older than the model's ONNX Runtime may be."""


def is_quantised(imported: ImportedModel) -> bool:
    """Whether numbers become integers in between: the last bit of one may then make a whole step."""
    return any(node.op_type in _QUANTISING for node in imported.model.graph.node)


def reference(imported: ImportedModel, *, optimise: bool) -> Infer:
    """A function that runs the model as it was before edgepack changed it.

    With ``optimise`` quantised layers are computed as the integers that they are meant to be, without it
    as the numbers that they are spelled with. Outputs whose shape depends on data are padded and
    counted, as a package gives them. Otherwise as run_onnx().
    """
    added = padding.counts_of(imported.padded)
    names = [spec.name for spec in imported.outputs if spec.name not in added]
    path, content, joined = imported.source.path, imported.reference, is_quantised(imported)
    run = run_onnx(path, content, names, optimise=optimise, joined=joined)
    return padding.through(imported.padded, run)


def run_onnx(
    path: Path,
    content: bytes | None,
    names: Sequence[str],
    *,
    optimise: bool,
    joined: bool = False,
) -> Infer:
    """A function that gives the outputs ``names`` of an ONNX model, on one thread.

    Sums then have one order. ``content`` stands for the file at ``path`` where the model is not in it
    as it is. ``optimise`` lets ONNX Runtime rewrite the graph, as it does by default; then ``joined``
    lets it make one operator of integers of a layer between DequantizeLinear and QuantizeLinear.
    Raises ModelError where nothing can load the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry(_EXACT, "1")
    options.add_session_config_entry(_APART, "0" if joined else "1")
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    session = _session(path, content, options)

    def run(inputs: Tensors) -> Tensors:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run


def _session(path: Path, content: bytes | None, options: Any) -> Any:
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(content or str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions have no common type
        reason = error
    folder = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(folder, str(path.parent))
    for older in _restamped(path, content):
        try:
            return onnxruntime.InferenceSession(older, options, providers=providers)
        except Exception:  # as above; the first reason is the one to tell
            continue
    try:
        return _evaluator(path, content)
    except Exception:  # the evaluator's have none either
        raise ModelError(
            f"ONNX Runtime cannot load {path}: {str(reason).splitlines()[0]}",
            "a model that ONNX Runtime refuses has no reference; export it for an older opset",
        ) from reason


def _evaluator(path: Path, content: bytes | None) -> Any:
    """What ONNX's own definitions compute; its ``run`` is called as a session's."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(
        onnx.load(path) if content is None else onnx.load_from_string(content)
    )


def _restamped(path: Path, content: bytes | None) -> Iterator[bytes]:
    """The model stamped with older and older versions in which its operators are the same."""
    import onnx

    if content is not None:
        model = onnx.load_from_string(content)
    else:
        model = onnx.load(path, load_external_data=False)
    stamp = next((entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)
    if stamp is None:
        return
    newest = stamp.version
    for version in range(newest, newest - _OPSETS_BACK, -1):
        if not _same_operators(model.graph, newest, version):
            return
        stamp.version = version
        model.ir_version = onnx.helper.find_min_ir_version_for([stamp], ignore_unknown=True)
        yield model.SerializeToString()


def _same_operators(graph: onnx.GraphProto, newer: int, older: int) -> bool:
    """Whether every operator means the same in both opsets, in subgraphs too."""
    import onnx

    for node in graph.node:
        subgraphs = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
        if not all(_same_operators(subgraph, newer, older) for subgraph in subgraphs):
            return False
        if node.domain not in ("", "ai.onnx"):
            continue
        try:
            schemas = [onnx.defs.get_schema(node.op_type, version) for version in (newer, older)]
        except onnx.defs.SchemaError:
            return False
        if schemas[0].since_version != schemas[1].since_version:
            return False
    return True
