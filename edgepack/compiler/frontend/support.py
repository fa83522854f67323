"""Which operators have a converter, here or in TVM."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgepack.compiler.frontend.converters import CONVERTERS
from edgepack.errors import ModelError

if TYPE_CHECKING:
    import onnx

STANDARD_DOMAINS = ("", "ai.onnx")
_SHOWN = 3
"""So many nodes of each operator are named."""


def is_supported(domain: str, operator: str) -> bool:
    """Whether nodes of this operator can be converted at all."""
    from edgepack.compiler.frontend import tvm_importer

    domain = "" if domain in STANDARD_DOMAINS else domain
    return (domain, operator) in CONVERTERS or (not domain and tvm_importer.knows(operator))


def refuse_unsupported(model: onnx.ModelProto) -> None:
    """Raise ModelError naming every operator without a converter at once, with its nodes."""
    missing: dict[str, list[str]] = defaultdict(list)
    for node in _nodes(model.graph):
        if not is_supported(node.domain, node.op_type):
            operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            missing[operator].append(node.name or f"output {node.output[0]!r}")
    if missing:
        named = "; ".join(
            f"{operator} ({len(nodes)}x: {', '.join(nodes[:_SHOWN])}"
            f"{', …' if len(nodes) > _SHOWN else ''})"
            for operator, nodes in sorted(missing.items())
        )
        raise ModelError(
            f"unsupported operators: {named}",
            "export the model without them, or replace them by operators of docs/operators.md",
        )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of subgraphs as well."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            nested = [attribute.g] if attribute.HasField("g") else []
            for subgraph in [*nested, *attribute.graphs]:
                yield from _nodes(subgraph)
