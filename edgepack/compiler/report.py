"""What the compiler made of each call: which rule scheduled its kernel, and what it has to do.

A schedule rule leaves two attributes on the PrimFunc that it returns: its name, and the floating-point
operations of one call, a multiply-add counting as two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgepack.artefacts import KernelInfo
from edgepack.compiler.attributes import FLOPS, RULE

if TYPE_CHECKING:
    from tvm.ir import IRModule

    from edgepack.compiler.plan import KernelCall, Plan

GENERIC = "generic"
COPY = "copy"


def kernel_infos(plan: Plan, module: IRModule) -> tuple[KernelInfo, ...]:
    """One entry for each call of ``plan``, in order; ``module`` holds the kernels by global symbol."""
    functions = {
        str(function.attrs["global_symbol"]): function
        for function in module.functions.values()
        if function.attrs is not None and "global_symbol" in function.attrs
    }
    return tuple(_kernel_info(plan, call, functions) for call in plan.calls)


def _kernel_info(plan: Plan, call: KernelCall, functions: dict[str, Any]) -> KernelInfo:
    # A slot that a call has twice is still one tensor in memory.
    nbytes = sum(plan.slots[slot].spec.nbytes for slot in set(call.args))
    if call.symbol is None:
        return KernelInfo(name=COPY, rule=COPY, flops=0, nbytes=nbytes)
    attributes = functions[call.symbol].attrs
    return KernelInfo(
        name=call.symbol,
        rule=str(attributes[RULE]) if RULE in attributes else GENERIC,
        flops=int(attributes[FLOPS]) if FLOPS in attributes else 0,
        nbytes=nbytes,
    )
