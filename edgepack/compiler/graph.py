"""What passes over a Relax function's bindings ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def count_uses(bindings: Sequence[Any], result: Any) -> dict[Any, int]:
    """How often each variable is read, by bindings and as a result."""
    from tvm import ir, relax

    found: dict[Any, int] = {}

    def count(node: Any) -> None:
        if isinstance(node, ir.Var):
            found[node] = found.get(node, 0) + 1

    for binding in bindings:
        relax.analysis.post_order_visit(binding.value, count)
    relax.analysis.post_order_visit(result, count)
    return found
