"""How often a ``Loop`` runs, where no data decide it.

Its trip count is a constant and its condition stays true, or the condition is computed from constants,
the iteration's number, and values that every iteration computes from such: then it is computed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.importers.passes.constants import constant_tensor
from edgepack.importers.passes.inlining import outer_names

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from edgepack.importers.passes.editor import GraphEditor

_MOST_TRIPS = 4096
"""So many iterations are tried, at most, to find out when a computed condition becomes false."""

_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
_RANDOM |= {"RandomUniformLike"}


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A Loop node by its parts (ONNX operator Loop)."""

    node: onnx.NodeProto
    body: onnx.GraphProto
    carried: tuple[str, ...]
    """Initial values in the main graph."""

    @classmethod
    def of(cls, node: onnx.NodeProto) -> Loop | None:
        """The parts; None where node and body do not agree, which ONNX's checker does not look at."""
        bodies = [a.g for a in node.attribute if a.name == "body"]
        if node.op_type != "Loop" or node.domain or len(bodies) != 1 or len(node.input) < 2:
            return None
        loop = cls(node=node, body=bodies[0], carried=tuple(node.input[2:]))
        count = len(loop.carried)
        inputs, outputs = len(loop.body.input), len(loop.body.output)
        fits = inputs == 2 + count and 1 + count <= outputs == 1 + len(node.output)
        return loop if fits else None

    @property
    def limit(self) -> str:
        """The input with the greatest number of iterations; empty where there is none."""
        return str(self.node.input[0])

    @property
    def condition(self) -> str:
        """The input that says whether to start; empty for yes."""
        return str(self.node.input[1])


def trip_count(model: onnx.ModelProto, editor: GraphEditor, loop: Loop) -> int | None:
    """The number of iterations; None where data decide it, or where it would never end."""
    limit = greatest_count(editor, loop)
    start = _scalar(editor, loop.condition) if loop.condition else True
    if start is None or (loop.limit and limit is None):
        return None
    if not start:
        return 0
    if stays_true(editor, loop):
        return limit
    return _computed(model, editor, loop, limit)


def greatest_count(editor: GraphEditor, loop: Loop) -> int | None:
    """The constant trip count that the node states; None where it has none."""
    value = _scalar(editor, loop.limit) if loop.limit else None
    return None if value is None else max(int(value), 0)


def stays_true(editor: GraphEditor, loop: Loop) -> bool:
    """Whether the body gives a condition that is a constant true, or the one that it got."""
    producers = {name: node for node in loop.body.node for name in node.output}
    name = loop.body.output[0].name
    while name in producers and producers[name].op_type in ("Identity", "Cast"):
        name = producers[name].input[0]
    if name == loop.body.input[1].name:
        return True
    tensor = next((t for t in loop.body.initializer if t.name == name), None)
    if tensor is None and name in producers and producers[name].op_type == "Constant":
        tensor = constant_tensor(producers[name])
    value = editor.constant_value(name) if tensor is None else _array(tensor)
    return value is not None and value.size == 1 and bool(value.reshape(-1)[0])


def rank_of(value: onnx.ValueInfoProto) -> int:
    """The rank that a body declares for an input; 0 where it declares none."""
    return len(value.type.tensor_type.shape.dim)


def _computed(
    model: onnx.ModelProto, editor: GraphEditor, loop: Loop, limit: int | None
) -> int | None:
    """Run what the condition is computed from, until it is false."""
    import numpy as np
    from onnx.reference import ReferenceEvaluator

    part = _condition_part(model, editor, loop)
    if part is None:
        return None
    number, condition, *_ = (value.name for value in loop.body.input)
    names = [value.name for value in part.graph.input]
    initial = dict(zip([v.name for v in loop.body.input[2:]], loop.carried, strict=True))
    feed: dict[str, Any] = {
        name: editor.constant_value(initial[name]) for name in names if name in initial
    }
    feed[condition] = np.full([1] * rank_of(loop.body.input[1]), True)
    try:
        evaluator = ReferenceEvaluator(part)
        for trip in range(_MOST_TRIPS if limit is None else min(limit, _MOST_TRIPS)):
            feed[number] = np.full([1] * rank_of(loop.body.input[0]), trip, np.int64)
            found: Any = evaluator.run(None, {name: feed[name] for name in names})
            results = list(found)
            if not bool(np.asarray(results[0]).reshape(-1)[0]):
                return trip + 1
            feed[condition] = results[0]
            feed |= dict(zip([n for n in names if n in initial], results[1:], strict=True))
    except Exception:  # ONNX's evaluator raises anything; then the condition is not known
        return None
    return limit if limit is not None and limit <= _MOST_TRIPS else None


def _condition_part(
    model: onnx.ModelProto, editor: GraphEditor, loop: Loop
) -> onnx.ModelProto | None:
    """The part of the body that computes the condition, and carried values that it reads.

    None if data have a part in it. Outputs are the condition, then those carried values in order.
    """
    import onnx

    body = loop.body
    results = {v.name: r.name for v, r in zip(body.input[1:], body.output, strict=False)}
    producers = {name: node for node in body.node for name in node.output if name}
    inside = {tensor.name for tensor in body.initializer}
    pending, seen = [body.output[0].name], set()
    nodes, outside = set(), set()
    while pending:
        name = pending.pop()
        if name in seen or not name:
            continue
        seen.add(name)
        if name in producers:
            nodes.add(name)
            pending.extend(outer_names(producers[name]))
        elif name in results:
            pending.append(results[name])
        elif name not in inside and name != body.input[0].name:
            outside.add(name)
    constants = {name: editor.constant_value(name) for name in outside}
    carried = [
        (value, start)
        for value, start in zip(body.input[2:], loop.carried, strict=True)
        if value.name in seen
    ]
    kept = [node for node in body.node if nodes & set(node.output)]
    unknown = any(value is None for value in constants.values()) or any(
        editor.constant_value(start) is None for _, start in carried
    )
    if unknown or any(node.op_type in _RANDOM for node in kept):
        return None
    inputs = [value for value in body.input[:2] if value.name in seen]
    graph = onnx.helper.make_graph(
        kept,
        "condition",
        [*inputs, *(value for value, _ in carried)],
        [_untyped(body.output[0].name), *(_untyped(results[v.name]) for v, _ in carried)],
        [t for t in body.initializer if t.name in seen]
        + [
            onnx.numpy_helper.from_array(value, name)
            for name, value in constants.items()
            if value is not None
        ],
    )
    return onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )


def _untyped(name: str) -> onnx.ValueInfoProto:
    import onnx

    return onnx.ValueInfoProto(name=name)


def _scalar(editor: GraphEditor, name: str) -> Any:
    value = editor.constant_value(name)
    return None if value is None or value.size != 1 else value.reshape(-1)[0]


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)
