"""Kernels as formulas of one element, for what no Relax operator says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgepack.compiler.frontend.node import Node, constant_of, dtype_of, shape_of

Element = Callable[..., Any]
"""The result's element, given the operands' elements at the same place."""

_LARGEST = 1 << 62
"""TIR's literals are signed."""


def elementwise(node: Node, element: Element, *operands: Any) -> Any:
    """``element`` of Relax tensors that broadcast to one another; its type is the result's.

    A constant of one element is a literal in the formula, which is simplified for it.
    """
    import numpy as np

    shape = np.broadcast_shapes(*(shape_of(operand) for operand in operands))
    literals = [_literal(operand) for operand in operands]
    if all(literal is not None for literal in literals):
        literals = [None] * len(operands)

    def kernel(*tensors: Any) -> Any:
        from tvm import te

        def at(*place: Any) -> Any:
            remaining = iter(tensors)
            return element(
                *(
                    _aligned(next(remaining), place) if literal is None else literal
                    for literal in literals
                )
            )

        return te.compute(shape, at)

    loaded = [o for o, literal in zip(operands, literals, strict=True) if literal is None]
    return node.compute(kernel, *loaded)


def _literal(operand: Any) -> Any:
    """The only element of a constant; None for other operands."""
    from tvm import tirx

    value = constant_of(operand)
    if value is None or value.size != 1 or abs(value.astype("float64").item()) >= _LARGEST:
        return None
    return tirx.const(value.item(), dtype_of(operand))


def _aligned(tensor: Any, at: Sequence[Any]) -> Any:
    """The element that meets position ``at`` when ``tensor`` is broadcast."""
    own = at[len(at) - len(tensor.shape) :]
    return tensor(
        *(0 if int(n) == 1 else place for n, place in zip(tensor.shape, own, strict=True))
    )


def number(value: float, like: Any) -> Any:
    """A TIR constant of the type of a TIR expression."""
    from tvm import tirx

    return tirx.const(value, like.ty.dtype)
