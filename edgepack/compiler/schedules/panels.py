"""Constant weights, laid out at compile time in the order in which a register tile reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index
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
