"""What a query of an Attention may see: masks, bands of positions, lengths of sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgepack.compiler.frontend.converters.values import (
    bound,
    cast,
    filled,
    reshaped,
    widened,
    working_type,
)
from edgepack.compiler.frontend.node import Node, constant, dtype_of, shape_of

MASK, PAST_KEY, PAST_VALUE, LENGTHS = 3, 4, 5, 6
"""Inputs that may be missing."""


@dataclass(frozen=True, kw_only=True)
class _Band:
    """The keys that a query may see by its position p: from p - left to p + right; None: no end.

    The first query is at ``offset``; where ``from_end``, at that plus the length of its sequence.
    """

    left: int | None
    right: int | None
    offset: int
    from_end: bool

    def is_everything(self, queries: int, keys: int) -> bool:
        """Whether no key is hidden from any query."""
        low = self.left is None or self.offset + queries - 1 - self.left <= 0
        return low and (self.right is None or self.offset + self.right >= keys - 1)

    def leaves_some(self, queries: int, keys: int) -> bool:
        """Whether every query sees a key."""
        for position in (self.offset, self.offset + queries - 1):
            first = 0 if self.left is None else max(0, position - self.left)
            last = keys - 1 if self.right is None else min(keys - 1, position + self.right)
            if first > last:
                return False
        return True

    def allows(self, query: Any, key: Any, length: Any) -> list[Any]:
        """The conditions under which ``query`` sees ``key``, in TIR."""
        position = query + self.offset + (length if self.from_end else 0)
        conditions = []
        if self.left is not None:
            conditions.append(key >= position - self.left)
        if self.right is not None:
            conditions.append(key <= position + self.right)
        return conditions


def masked(node: Node, scores: Any) -> tuple[Any, Any]:
    """Scores with -inf where a query must not look, and which rows have nothing else, or None.

    Scores are [batch, heads, queries, keys]; rows are found by the mask alone, as ONNX says.
    """
    queries, keys = shape_of(scores)[2:]
    band = _band(node, queries)
    if node.has(MASK) or node.has(LENGTHS):
        return _biased(node, scores, band)
    if band.is_everything(queries, keys):
        return scores, None
    hidden = node.compute(partial(_within_band, band=band), scores, name="attention_band")
    if band.leaves_some(queries, keys):
        return hidden, None
    nothing = filled([1, 1, 1, 1], 0, working_type(node.dtype()))
    return hidden, _empty_rows(node, _restricted(node, nothing, band, (queries, keys)))


def _band(node: Node, queries: int) -> _Band:
    sizes = [int(node.attributes.get(f"{side}_window_size", -1)) for side in ("left", "right")]
    left, right = (size if size >= 0 else None for size in sizes)
    if node.attributes.get("is_causal", 0):
        right = 0
    past = node.has(PAST_KEY)
    from_end = node.has(LENGTHS) and not past
    offset = -queries if from_end else node.shape(PAST_KEY)[2] if past else 0
    return _Band(left=left, right=right, offset=offset, from_end=from_end)


def _within_band(scores: Any, band: _Band) -> Any:
    """-inf outside the band."""
    from tvm import te, tirx

    nothing = tirx.const(-math.inf, scores.dtype)

    def element(*at: Any) -> Any:
        seen = tirx.all(*band.allows(at[-2], at[-1], None))
        return tirx.Select(seen, scores(*at), nothing)

    return te.compute(scores.shape, element, name="attention_band")


def _biased(node: Node, scores: Any, band: _Band) -> tuple[Any, Any]:
    """Scores plus the mask, in which the band and what is behind given lengths are -inf."""
    from tvm import relax

    queries, keys = shape_of(scores)[2:]
    mask = _mask(node, keys, working_type(node.dtype()))
    if node.has(LENGTHS) or not band.is_everything(queries, keys):
        mask = _restricted(node, mask, band, (queries, keys))
    total = node.emit(relax.op.add(widened(node, scores), mask))
    return bound(node, cast(total, node.dtype())), _empty_rows(node, mask)


def _mask(node: Node, keys: int, dtype: str) -> Any:
    """What is added to scores, of four axes; keys that it does not reach are hidden."""
    from tvm import relax

    if not node.has(MASK):
        return filled([1, 1, 1, 1], 0, dtype)
    mask, shape = node.inputs[MASK], node.shape(MASK)
    if node.dtype(MASK) == "bool":
        mask = relax.op.where(mask, constant(0, dtype), constant(-math.inf, dtype))
    else:
        mask = cast(mask, dtype)
    mask = bound(node, reshaped(bound(node, mask), [1] * (4 - len(shape)) + list(shape)))
    missing = keys - (shape[-1] if shape else 1)
    if missing > 0:
        widths = [0] * 7 + [missing]
        mask = node.emit(relax.op.nn.pad(mask, widths, "constant", -math.inf))
    return mask


def _restricted(node: Node, mask: Any, band: _Band, extents: tuple[int, int]) -> Any:
    """The mask with -inf outside the band and behind the length of each sequence."""
    lengths = [node.inputs[LENGTHS]] if node.has(LENGTHS) else []
    function = partial(_hidden, band=band, extents=extents)
    return node.compute(function, mask, *lengths, name="attention_mask")


def _hidden(mask: Any, *lengths: Any, band: _Band, extents: Sequence[int]) -> Any:
    from tvm import te, tirx

    given = [int(extent) for extent in mask.shape]
    batch = int(lengths[0].shape[0]) if lengths else given[0]
    nothing = tirx.const(-math.inf, mask.dtype)

    def element(*at: Any) -> Any:
        where = [place if extent > 1 else 0 for place, extent in zip(at, given, strict=True)]
        length = lengths[0](at[0]) if lengths else None
        seen = band.allows(at[2], at[3], length)
        if lengths:
            seen.append(at[3] < length)
        return tirx.Select(tirx.all(*seen), mask(*where), nothing)

    return te.compute((batch, given[1], *extents), element, name="attention_mask")


def _empty_rows(node: Node, mask: Any) -> Any:
    """Which rows have no key at all, by the mask alone.

    A maximum of the mask itself would not tell: it starts at the lowest number, which is not -inf.
    """
    from tvm import relax

    seen = node.emit(relax.op.greater(mask, constant(-math.inf, dtype_of(mask))))
    most = node.emit(relax.op.max(node.emit(relax.op.astype(seen, "float32")), [-1], keepdims=True))
    return node.emit(relax.op.equal(most, constant(0, "float32")))
