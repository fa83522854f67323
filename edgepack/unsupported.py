"""The error that names every operator of a model that cannot be compiled, all at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from edgepack.errors import ModelError

if TYPE_CHECKING:
    import onnx

IsSupported = Callable[[str, str], bool]
"""Whether an operator can be compiled, by domain (empty for ONNX's own) and name."""

_SHOWN = 3
"""So many nodes of each operator are named."""


def refuse_unsupported(model: onnx.ModelProto, is_supported: IsSupported) -> None:
    """Raise ModelError with every operator that is not supported, how often, and in which nodes."""
    missing: dict[str, list[str]] = defaultdict(list)
    for node in _nodes(model.graph):
        domain = "" if node.domain == "ai.onnx" else node.domain
        if not is_supported(domain, node.op_type):
            operator = f"{domain}.{node.op_type}" if domain else node.op_type
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
