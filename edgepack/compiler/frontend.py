"""ONNX to Relax through TVM's own importer, with errors that name the node."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from edgepack.compiler.foreign import reason
from edgepack.errors import CompileError, ModelError

if TYPE_CHECKING:
    import onnx
    from tvm.ir import IRModule

_HANDLED_BY_IMPORTER = {"Constant", "If"}
"""Node types that TVM's importer treats outside its table of converters."""


def to_relax(model: onnx.ModelProto) -> IRModule:
    """Convert a checked model with fixed shapes; weights become constants of ``main``.

    Raises ModelError naming every operator without a converter at once, with its nodes.
    """
    from tvm.relax.frontend.onnx import from_onnx

    _refuse_unsupported(model)
    try:
        return from_onnx(model, keep_params_in_input=False)
    except Exception as error:  # TVM's converters raise anything, from KeyError to InternalError
        raise CompileError(
            f"the model could not be converted to Relax: {reason(error)}",
            "inspect the node with `edgepack inspect MODEL`; a simpler export may avoid it",
        ) from error


def _refuse_unsupported(model: onnx.ModelProto) -> None:
    from tvm.relax.frontend.onnx import onnx_frontend

    known = set(onnx_frontend._get_convert_map()) | _HANDLED_BY_IMPORTER
    missing: dict[str, list[str]] = defaultdict(list)
    for graph in _graphs(model.graph):
        for node in graph.node:
            if node.domain not in ("", "ai.onnx") or node.op_type not in known:
                operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
                missing[operator].append(node.name or f"output {node.output[0]!r}")
    if missing:
        named = "; ".join(
            f"{operator} ({len(nodes)}x: {', '.join(nodes[:3])}{', …' if len(nodes) > 3 else ''})"
            for operator, nodes in sorted(missing.items())
        )
        raise ModelError(
            f"unsupported operators: {named}",
            "export the model without them, or replace them by operators of docs/models.md",
        )


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """The graph and every subgraph that a node's attributes hold, at any depth."""
    found = [graph]
    for node in graph.node:
        for attribute in node.attribute:
            nested = [attribute.g] if attribute.HasField("g") else []
            for subgraph in [*nested, *attribute.graphs]:
                found.extend(_graphs(subgraph))
    return found
