"""Which filtering a Winograd convolution uses in each direction."""

from __future__ import annotations

from dataclasses import dataclass

from edgepack.compiler.cook_toom import Filtering


@dataclass(frozen=True, kw_only=True)
class Form:
    """F(rows.outputs x columns.outputs, kernel)."""

    rows: Filtering
    columns: Filtering

    @property
    def products(self) -> int:
        """Products of one tile, for each pair of an input and an output channel."""
        return self.rows.inputs * self.columns.inputs
