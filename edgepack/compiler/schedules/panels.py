"""Operands laid out in the order in which a register tile reads them: constants, and copies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import flat_index, index
from edgepack.compiler.schedules.nest import Packing, Request
from edgepack.compiler.schedules.register_tile import Panel


class PackedPanels:
    """[group][panel][term][lane]: ``groups`` times ``panels``, each of ``depth`` terms.

    ``order`` are the source's axes, permuted so that the results' axis is the last and those of the
    terms come before it.
    """

    def __init__(
        self,
        request: Request,
        source: Any,
        order: Sequence[int],
        panels: Sequence[Panel],
        depth: int,
        groups: int = 1,
        layout: str = "panels",
        **arguments: Any,
    ) -> None:
        from tvm import tirx

        self.panels, self.depth = panels, depth
        self.group_elements = sum(panel.count * panel.padded for panel in panels) * depth
        self.buffer = tirx.decl_buffer((groups * self.group_elements,), source.dtype, source.name)
        request.memory.replace(source, self.buffer)
        self.packing = Packing(
            parameter=source,
            layout=layout,
            arguments=arguments
            | {
                "order": list(order),
                "groups": groups,
                "panels": [[p.count, p.width, p.padded] for p in panels],
            },
        )

    def at(
        self,
        panel: Panel,
        which: Any,
        term: Any,
        offset: int,
        lanes: int,
        group: Any = None,
    ) -> Any:
        """``lanes`` weights of a term, from lane ``offset`` of panel number ``which`` on."""
        before = sum(p.count * p.padded for p in self.panels if p.start < panel.start) * self.depth
        at = index(before + offset) + (which * index(self.depth) + term) * index(panel.padded)
        if group is not None:
            at = group * index(self.group_elements) + at
        return emit.load(self.buffer, emit.lanes_of(at, lanes))


class CopiedPanel:
    """[thread][term][lane]: the panel of a computed operand that each thread is at work on.

    ``depth`` are the extents of the terms. ``slot`` is the number of the thread, to be set first.
    """

    def __init__(self, panels: Sequence[Panel], depth: Sequence[int], tasks: int) -> None:
        widest = max(panel.width for panel in panels)
        self.depth = list(depth)
        self.stride = -(-math.prod(depth) * widest // _LINE) * _LINE
        self.buffer = emit.registers(max(1, tasks) * self.stride, "float32", "panel")
        self.slot: Any = index(0)

    def made(self, panel: Panel, load: Callable[[list[Any], int, int], Any]) -> Any:
        """The copy of a panel; ``load(term, offset, lanes)`` gives what is copied."""

        def term(reduced: list[Any]) -> list[Any]:
            return [
                emit.store(
                    self.buffer,
                    self._place(panel, reduced, vector.offset, vector.lanes),
                    load(reduced, vector.offset, vector.lanes),
                )
                for vector in panel.vectors
            ]

        return emit.grid(self.depth, term, 1)

    def at(self, panel: Panel, reduced: list[Any], offset: int, lanes: int) -> Any:
        """``lanes`` of a term, from lane ``offset`` of the panel on."""
        return emit.load(self.buffer, self._place(panel, reduced, offset, lanes))

    def _place(self, panel: Panel, reduced: list[Any], offset: int, lanes: int) -> Any:
        term = flat_index(self.depth, reduced) * index(panel.width)
        return emit.lanes_of(self.slot * index(self.stride) + term + index(offset), lanes)


_LINE = 16
"""Elements of four bytes in a cache line: no two threads' panels share one."""
