"""What exporters have spelled out in many operators, put back into the one that was meant.

ONNX files rarely hold a LayerNormalization, a GELU or a SiLU: they hold the arithmetic of one. One
operator is one kernel, which reads its operand once. A pattern is a function that is given a call
and what its operands were computed by, and returns an equal expression or None; the tuple below
is their order, and each call is tried until none applies.

graph           the walk over ``main``, and what patterns ask of it
tensor_code     operators that the importer has already lowered to loops: made operators again
arithmetic      neutral operands, exact divisions, clipping, powers
activations     GELU in both forms, SiLU, hard-swish
normalisation   layer and RMS normalisation
lookup          products with one-hot rows
whole_numbers   integers that are float32 before and after
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvm.ir import IRModule

__all__ = ["recognise"]


def recognise(module: IRModule) -> IRModule:
    """``module`` with every pattern replaced in ``main``; results agree to 1e-6 of their size.

    To be called on Relax operators whose constants are folded, before anything changes layouts. A
    ``main`` with branches is left as it is.
    """
    from edgepack.compiler.patterns import (
        activations,
        arithmetic,
        graph,
        lookup,
        normalisation,
        tensor_code,
        whole_numbers,
    )

    patterns = (
        *tensor_code.PATTERNS,
        *arithmetic.PATTERNS,
        *activations.PATTERNS,
        *normalisation.PATTERNS,
        *lookup.PATTERNS,
        *whole_numbers.PATTERNS,
    )
    return graph.rewritten(module, patterns)
