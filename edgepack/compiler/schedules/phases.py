"""A transposed convolution's sizes, and the phases that its strides leave.

Output positions that leave the same remainder by the stride see the same taps of the kernel, and walk
the input one pixel at a time. That remainder, counted from the whole result's or from the output's
first position, is the phase.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edgepack.compiler.operators import TRANSPOSED
from edgepack.compiler.schedules.expressions import loads
from edgepack.compiler.schedules.stages import Stage, shape_of

Taps = list[tuple[int, int]]
"""(kernel position, step from the phase's own input position)."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One direction, vertical or horizontal: extents in elements."""

    size: int
    out: int
    kernel: int
    stride: int
    padding: int

    def taps(self, phase: int) -> Taps:
        """What outputs ``phase``, ``phase + stride``, … take: output ``phase + stride * i`` reads
        input ``i + step`` under kernel position k.
        """
        found = []
        for k in range(self.kernel):
            distance = phase + self.padding - k
            if distance % self.stride == 0:
                found.append((k, distance // self.stride))
        return found

    def count(self, phase: int) -> int:
        """How many outputs the phase has."""
        return max(0, -(-(self.out - phase) // self.stride))

    @property
    def window(self) -> int:
        """Taps of a phase that has the most."""
        return -(-self.kernel // self.stride)

    @property
    def first(self) -> int:
        """Of the blocks of ``stride`` positions of the whole result, the first that is not all cut off."""
        return self.padding // self.stride

    @property
    def blocks(self) -> int:
        """How many blocks have a part in the output; each sees ``window`` inputs, all its phases the same."""
        return (self.out - 1 + self.padding) // self.stride - self.first + 1

    def place(self, block: int, phase: int) -> int:
        """The output position of a phase, from the whole result's first position, in block ``block``."""
        return (self.first + block) * self.stride + phase - self.padding

    def is_inside(self, blocks: tuple[int, int], phases: tuple[int, int]) -> bool:
        """Whether all ``phases`` of all ``blocks`` (first and last of each) are in the output."""
        return self.place(blocks[0], phases[0]) >= 0 and self.place(blocks[1], phases[1]) < self.out


@dataclass(frozen=True, kw_only=True, eq=False)
class Transposed:
    """A transposed convolution of [batch, rows, columns, channels] by [rows, columns, channels, results]."""

    data: Any
    weights: Any
    batch: int
    channels: int
    """Of one group, as ``out``."""
    out: int
    groups: int
    rows: Line
    columns: Line

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel is a group of its own."""
        return self.channels == self.out == 1 < self.groups

    @property
    def phases(self) -> int:
        """How many there are."""
        return self.rows.stride * self.columns.stride


def transposed_of(main: Stage) -> Transposed | None:
    """The transposed convolution that the stage is annotated with."""
    if TRANSPOSED not in main.annotations:
        return None
    described = json.loads(str(main.annotations[TRANSPOSED]))
    data, weights = [load.source for load in loads(main.value.b)]
    batch, *image, channels = shape_of(data)
    *kernel, _, out = shape_of(weights)
    groups = int(described["groups"])
    rows, columns = (
        Line(
            size=image[way],
            out=main.shape[1 + way],
            kernel=kernel[way],
            stride=described["strides"][way],
            padding=described["padding"][way],
        )
        for way in (0, 1)
    )
    return Transposed(
        data=data,
        weights=weights,
        batch=batch,
        channels=channels // groups,
        out=out,
        groups=groups,
        rows=rows,
        columns=columns,
    )
