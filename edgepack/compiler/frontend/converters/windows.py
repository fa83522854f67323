"""Where windows lie: kernels of convolutions and pools moving over the spatial axes of [N, C, ...]."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.compiler.frontend.node import Node

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Windows:
    """One entry for each spatial axis. Tap k of window o is at o * stride + k * dilation - before."""

    extents: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    """Padding that the model asks for; with ceil_mode the last windows reach further."""

    def first_alone(self) -> Windows:
        """The same over [extent, all others as one axis], with windows along the first axis only."""
        others = math.prod(self.extents[1:])
        neutral = {"extents": others, "outputs": others, "before": 0, "after": 0}
        fields = {
            field.name: (getattr(self, field.name)[0], neutral.get(field.name, 1))
            for field in dataclasses.fields(self)
        }
        return Windows(**fields)

    def without_first(self) -> Windows:
        """The same over all spatial axes but the first."""
        fields = {field.name: getattr(self, field.name)[1:] for field in dataclasses.fields(self)}
        return Windows(**fields)

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def is_volume(self) -> bool:
        """Whether they move over depth, height and width."""
        return self.rank == 3

    @property
    def reach(self) -> tuple[int, ...]:
        """How far the last window of each axis reaches beyond the data; at least 0."""
        ends = (
            (self.outputs[a] - 1) * self.strides[a] + self.dilations[a] * (self.kernel[a] - 1) + 1
            for a in range(self.rank)
        )
        return tuple(
            max(0, end - before - extent)
            for end, before, extent in zip(ends, self.before, self.extents, strict=True)
        )

    @property
    def padding(self) -> list[int]:
        """As Relax takes it: before each axis, then after each axis, exactly what is read."""
        return [*self.before, *self.reach]

    @property
    def taps(self) -> int:
        """Elements of a whole window."""
        return math.prod(self.kernel)

    def counts(self, *, padded: bool) -> np.ndarray:
        """How many taps of each window lie on the data, or with ``padded`` on its padding too."""
        import numpy as np

        total = np.ones((), np.int64)
        for axis in range(self.rank):
            places = (
                np.arange(self.outputs[axis])[:, None] * self.strides[axis]
                + np.arange(self.kernel[axis])[None, :] * self.dilations[axis]
                - self.before[axis]
            )
            low = -self.before[axis] if padded else 0
            high = self.extents[axis] + (self.after[axis] if padded else 0)
            inside = ((places >= low) & (places < high)).sum(axis=1)
            total = total[..., None] * inside
        return total

    def place(self, window: Sequence[Any], tap: Sequence[Any]) -> list[Any]:
        """Where a tap of a window lies on the data, in TIR; below 0 or beyond the end on padding."""
        return [
            window[axis] * self.strides[axis] + tap[axis] * self.dilations[axis] - self.before[axis]
            for axis in range(self.rank)
        ]

    def inside(self, place: Sequence[Any]) -> Any:
        """The condition that a place lies on the data; None where every one does."""
        from tvm import tirx

        conditions = []
        for axis in range(self.rank):
            if self.before[axis]:
                conditions.append(place[axis] >= 0)
            if self.reach[axis]:
                conditions.append(place[axis] < self.extents[axis])
        return tirx.all(*conditions) if conditions else None


def windows_of(node: Node, kernel: Sequence[int]) -> Windows:
    """The windows of a node with the attributes strides, dilations, pads and auto_pad."""
    rank, attributes = len(kernel), node.attributes
    extents, outputs = node.shape()[2:], node.outputs[0].shape[2:]
    if len(extents) != rank or len(outputs) != rank:
        raise node.unsupported(f"its kernel has {rank} axes, its data {len(extents)}")
    strides = tuple(attributes.get("strides", [1] * rank))
    dilations = tuple(attributes.get("dilations", [1] * rank))
    pads = list(attributes.get("pads", [0] * 2 * rank))
    mode = attributes.get("auto_pad", "NOTSET")
    if mode == "VALID":
        pads = [0] * 2 * rank
    elif mode.startswith("SAME"):
        totals = [
            max(0, (outputs[a] - 1) * strides[a] + dilations[a] * (kernel[a] - 1) + 1 - extents[a])
            for a in range(rank)
        ]
        first = [total // 2 if mode == "SAME_UPPER" else -(-total // 2) for total in totals]
        pads = [*first, *(total - part for total, part in zip(totals, first, strict=True))]
    if min(pads, default=0) < 0:
        raise node.unsupported("negative padding", "export the model with a Slice instead")
    return Windows(
        extents=tuple(extents),
        outputs=tuple(outputs),
        kernel=tuple(kernel),
        strides=strides,
        dilations=dilations,
        before=tuple(pads[:rank]),
        after=tuple(pads[rank:]),
    )
