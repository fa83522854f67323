"""Models whose shapes depend on data, made static: rows up to a bound, and how many there are.

Operators such as NonZero and NonMaxSuppression give as many rows as data say. Each gets an upper bound,
from the user or from the model itself. Rows that are not there are padding; a walk over the graph
follows which axes are padded and by how much, operator by operator:

sources      where such rows come from
rowwise      what works on each row alone, so that padding stays padding
reductions   what mixes rows, once padding counts for nothing
reshaping    what arranges elements anew
selecting    what picks, joins and appends rows
values       computations with the sizes themselves

An operator that is in none of them is refused by name. Outputs are zero beyond the rows that there are,
and one more output tells their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgepack.artefacts import PaddedAxis
from edgepack.errors import ModelError
from edgepack.importers.bounded import reductions, reshaping, rowwise, selecting, values
from edgepack.importers.bounded.outputs import pad_outputs
from edgepack.importers.bounded.sources import SOURCES, is_source
from edgepack.importers.bounded.walk import Rule, Walk
from edgepack.importers.bounds import refuse_unused
from edgepack.importers.graphs import subgraphs, used_names
from edgepack.importers.static_shapes import check_node, value_types

if TYPE_CHECKING:
    import onnx

_OLDEST_OPSET = 9
"""The first with Where, and with comparisons of integers."""

_RULES: dict[str, Rule] = {
    **rowwise.RULES,
    **reductions.RULES,
    **reshaping.RULES,
    **selecting.RULES,
    **values.SHAPES,
}
FOLLOWED = frozenset((*_RULES, *values.RULES))
"""Operators that a walk may do away with, so that whether they can be compiled is seen after it."""
_OWN_DOMAINS = ("", "ai.onnx", "edgepack")


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """What came of a walk."""

    changed: bool
    padded: Mapping[str, tuple[PaddedAxis, ...]]
    """Outputs that are padded, by name."""
    notes: tuple[str, ...]
    """Which outputs are padded, for the user."""


def bound_shapes(model: onnx.ModelProto, bounds: Mapping[str, int]) -> Bounded:
    """Make every shape that depends on data a fixed one, in place.

    Raises ModelError for an operator without a bound, and for one through which rows cannot be followed.
    """
    walk = Walk(model, bounds)
    if not any(is_source(walk, node) for node in model.graph.node):
        refuse_unused(bounds, (), ())
        return Bounded(changed=False, padded={}, notes=())
    if walk.opset < _OLDEST_OPSET:
        raise ModelError(
            f"the model has shapes that depend on data and uses opset {walk.opset};"
            f" bounds need {_OLDEST_OPSET} or newer",
            "Export it with a newer opset",
        )
    types = value_types(model)

    def rewrite(node: onnx.NodeProto) -> bool:
        if is_source(walk, node):
            SOURCES[node.domain, node.op_type](walk, node)
            return True
        return _follow(walk, node, types)

    walk.editor.replace(rewrite)
    walk.sink = model.graph.node.append
    padded = pad_outputs(walk)
    refuse_unused(bounds, walk.used, walk.takers)
    return Bounded(changed=True, padded=padded, notes=tuple(walk.notes))


def _follow(walk: Walk, node: onnx.NodeProto, types: Mapping[str, onnx.ValueInfoProto]) -> bool:
    """Apply the rule of a node that reads what the walk changed; False for any other."""
    known = [name for name in node.input if name and walk.is_known(name)]
    if any(walk.is_known(name) for graph in subgraphs(node) for name in used_names(graph)):
        raise walk.refuse(node, "a graph inside it reads them")
    if not known:
        check_node(node, types)
        return False
    rule = _rule_of(walk, node, known) if node.domain in _OWN_DOMAINS else None
    if rule is not None:
        rule(walk, node)
    elif any(walk.tensor(name).padded for name in known):
        raise walk.refuse(node, "it is not known to work on each row alone")
    else:
        walk.keep(node)
    return True


def _rule_of(walk: Walk, node: onnx.NodeProto, known: list[str]) -> Rule | None:
    """The rule of a node; None where it has none, or needs none."""
    tensors = [walk.tensor(name) for name in known]
    if any(tensor.padded for tensor in tensors):
        return _RULES.get(node.op_type)
    if all(tensor.values is None for tensor in tensors):
        return None
    if node.op_type in values.RULES and walk.tensor(node.input[0]).values is not None:
        return values.RULES[node.op_type]
    return _RULES.get(node.op_type)
