"""Loops that TVM's importer has written where it could have named an operator.

It imports Clip, Pad and Reverse as calls of loops over ONNX's layout, which nothing after it can see
through. What operator a loop nest was is read off its name, and proved by lowering that
operator again and comparing the loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgepack.compiler.patterns.graph import Graph, Pattern, shape_of

_BINARY = ("maximum", "minimum")
_PAD_MODES = {"pad": "constant", "mirror_pad": "reflect", "replicate_pad": "replicate"}


def _binary(graph: Graph, call: Any) -> Any:
    from tvm import relax, topi

    name, function, operands = _called(graph, call)
    if function is None or name not in _BINARY:
        return None
    lowering, operator = getattr(topi, name), getattr(relax.op, name)
    if len(operands) == 1:
        (value,) = _floats(function) or (None,)
        if value is None or not _is_lowering(function, operands, lambda x: lowering(x, value)):
            return None
        return operator(operands[0], relax.const(value, str(operands[0].ty.dtype)))
    return operator(*operands) if _is_lowering(function, operands, lowering) else None


def _flip(graph: Graph, call: Any) -> Any:
    from tvm import relax, topi

    name, function, operands = _called(graph, call)
    if function is None or name != "flip" or len(operands) != 1:
        return None
    for axis in range(len(shape_of(operands[0]) or ())):
        if _is_lowering(function, operands, lambda x, axis=axis: topi.flip(x, axis=axis)):
            return relax.op.flip(operands[0], axis)
    return None


def _pad(graph: Graph, call: Any) -> Any:
    from tvm import relax

    name, function, operands = _called(graph, call)
    if function is None or name not in _PAD_MODES or len(operands) != 1:
        return None
    before, after = shape_of(operands[0]), shape_of(call)
    if before is None or after is None:
        return None
    first = _first_read(function, [new - old for old, new in zip(before, after, strict=True)], name)
    if first is None:
        return None
    last = [new - old - pad for old, new, pad in zip(before, after, first, strict=True)]
    value = (_floats(function) or [0.0])[0] if name == "pad" else 0.0
    if not _is_lowering(function, operands, lambda x: _padded(name, x, first, last, value)):
        return None
    widths = [width for pair in zip(first, last, strict=True) for width in pair]
    return relax.op.nn.pad(operands[0], widths, _PAD_MODES[name], value)


def _padded(name: str, data: Any, first: Sequence[int], last: Sequence[int], value: float) -> Any:
    """As the importer calls TOPI."""
    from tvm import topi

    if name == "pad":
        return topi.nn.pad(data, list(first), list(last), value)
    if name == "mirror_pad":
        return topi.nn.mirror_pad(data, list(first), list(last), "REFLECT")
    return topi.nn.replicate_pad(data, list(first), list(last))


def _first_read(function: Any, padding: Sequence[int], name: str) -> list[int] | None:
    """The padding before each axis: told by where the loops read for an element at the start."""
    import tvm_ffi
    from tvm import ir, s_tir, sym, tirx

    blocks = [block for block in _found(function, s_tir.SBlock) if block.iter_vars]
    loads = _found(function, ir.TensorLoad)
    if len(blocks) != 1 or len(loads) != 1:
        return None
    analyzer, first = sym.Analyzer(), []
    for variable, index, width in zip(blocks[0].iter_vars, loads[0].indices, padding, strict=True):
        # The start of a constant or mirrored axis reads `padding` away from 0, its sign aside. In a
        # replicated axis element `width` is the first that cannot be padding any more.
        place = tirx.IntImm("int64", width if name == "replicate_pad" else 0)

        def at_place(other: Any, own: Any = variable.var, place: Any = place) -> Any:
            return place if other.same_as(own) else other

        read = analyzer.simplify(tvm_ffi.structural_map(index, (tirx.Var, at_place)))
        if not isinstance(read, tirx.IntImm):
            return None
        first.append(width - int(read) if name == "replicate_pad" else abs(int(read)))
    return first


def _found(function: Any, kind: type) -> list[Any]:
    """Every node of a type in a loop nest."""
    import tvm_ffi

    nodes: list[Any] = []
    tvm_ffi.structural_walk(function.body, (kind, nodes.append))
    return nodes


def _floats(function: Any) -> list[float]:
    """The floating-point numbers in a loop nest."""
    from tvm import tirx

    return [float(node.value) for node in _found(function, tirx.FloatImm)]


def _called(graph: Graph, call: Any) -> tuple[str, Any, list[Any]]:
    """The name without its number, the loops and the operands of a call of loops."""
    if getattr(call.op, "name", "") != "relax.call_tir":
        return "", None, []
    variable, operands = call.args[0], list(call.args[1].fields)
    return variable.name_hint.rstrip("0123456789"), graph.module[variable], operands


def _is_lowering(function: Any, operands: list[Any], lowering: Callable[..., Any]) -> bool:
    """Whether ``function`` is what ``lowering`` gives for these operands."""
    import tvm_ffi
    from tvm import relax, tirx

    builder = relax.BlockBuilder()
    parameters = [relax.Var(f"operand{i}", operand.ty) for i, operand in enumerate(operands)]
    with builder.function("main", parameters):
        builder.emit_func_output(builder.emit_te(lowering, *parameters))
    made = builder.finalize().functions.values()
    (expected,) = (candidate for candidate in made if isinstance(candidate, tirx.PrimFunc))
    return bool(tvm_ffi.structural_equal(function.body, expected.body, map_free_vars=True))


PATTERNS: tuple[Pattern, ...] = (_binary, _flip, _pad)
