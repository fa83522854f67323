"""The upper bounds that a user declares, ``--bound NAME=N``: for which node each is."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from edgepack.errors import ModelError
from edgepack.importers.graphs import all_graphs, node_label

if TYPE_CHECKING:
    import onnx


def bound_of(node: onnx.NodeProto, bounds: Mapping[str, int]) -> int | None:
    """What was declared for a node, under its name or that of an output. Raises ModelError."""
    name = key_of(node, bounds)
    if name is None:
        return None
    if bounds[name] < 1:
        raise ModelError(
            f"the bound of {node_label(node)} cannot be {bounds[name]}", "It must be 1 or more"
        )
    return bounds[name]


def declared_or_stated(
    node: onnx.NodeProto, bounds: Mapping[str, int], natural: int | None, *, stated: bool
) -> int:
    """The declared bound; without one the natural one, where the model states it and it is no waste.

    ``natural`` is what can never be exceeded. Raises ModelError that shows the option.
    """
    declared = bound_of(node, bounds)
    if declared is not None:
        return declared if natural is None else min(declared, natural)
    if stated and natural is not None and natural <= _NATURAL_ROWS:
        return natural
    most = f": it can have {natural} rows at most" if natural is not None else ""
    raise ModelError(
        f"the output shape of {node_label(node)} depends on data",
        f"Add {option_for(node, natural)}{most}",
    )


_NATURAL_ROWS = 10_000


def key_of(node: onnx.NodeProto, bounds: Mapping[str, int]) -> str | None:
    """The name under which a bound was declared for a node."""
    return next((name for name in (node.name, *node.output) if name and name in bounds), None)


def option_for(node: onnx.NodeProto, most: int | None = None) -> str:
    """The option that gives a node a bound, with a number for example, which is ``most`` at most."""
    example = _EXAMPLE if most is None else min(_EXAMPLE, most)
    return f"--bound {node.name or node.output[0]}={example}"


_EXAMPLE = 100


def name_nodes(model: onnx.ModelProto) -> None:
    """Give each node without a name, that may take a bound, that of its first output.

    Simplification would invent one that is nowhere in the model.
    """
    for graph in all_graphs(model.graph):
        for node in graph.node:
            if node.op_type in TAKERS and not node.name:
                node.name = next((name for name in node.output if name), "")


TAKERS = ("Compress", "Loop", "NonMaxSuppression", "NonZero", "Range", "TopK", "Unique")
"""Operators whose output may have as many rows as data say."""


def refuse_unused(bounds: Mapping[str, int], used: Collection[str], names: Collection[str]) -> None:
    """Raise ModelError for a bound that no node took; ``names`` are those that could have."""
    for name in bounds:
        if name in used:
            continue
        close = difflib.get_close_matches(name, names, n=1)
        guess = f"Did you mean {close[0]!r}? " if close else ""
        listing = f"Nodes that take one: {', '.join(sorted(names))}" if names else "Leave it out"
        raise ModelError(
            f"--bound {name}: the model has no node {name!r} whose output shape depends on data",
            f"{guess}{listing}",
        )
