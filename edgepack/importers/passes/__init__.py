"""Rewrites of the ONNX graph that let more models compile: each one a file, each a pure function.

A pass takes a model whose shapes have been inferred, changes it in place, and says whether it did.
What it does not recognise it leaves alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgepack.importers.passes.branches import inline_constant_branches, select_branches
from edgepack.importers.passes.constants import hoist_constants
from edgepack.importers.passes.gru import unroll_gru
from edgepack.importers.passes.loops import select_loops, unroll_loops
from edgepack.importers.passes.lstm import unroll_lstm
from edgepack.importers.passes.rnn import unroll_rnn
from edgepack.importers.passes.scan import unroll_scans

if TYPE_CHECKING:
    import onnx

Pass = Callable[["onnx.ModelProto"], bool]

EVERY_ROUND: tuple[Pass, ...] = (
    hoist_constants,
    inline_constant_branches,
    unroll_loops,
    unroll_scans,
    unroll_lstm,
    unroll_gru,
    unroll_rnn,
)
"""Applied after every simplification, in this order."""

WHEN_SETTLED: tuple[Pass, ...] = (select_branches, select_loops)
"""Applied when those find nothing more: a branch is first given every chance to fold away."""
