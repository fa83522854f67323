"""The core's peak, as a kernel: multiply-adds that wait for nothing but their own registers.

    for i in ITERATIONS:
        acc[0] += acc[0] * x;  acc[1] += acc[1] * x;  ...         one vector register each

A profile sets the speed of each kernel against it. It is compiled like the others and stands in the
same object, so that it uses what they may use. Its sizes: a multiply-add takes 4 cycles on Zen and
recent Intel cores and on Cortex-A76, 7 to 8 on Cortex-A72 and A53, and a core starts up to two of them a
cycle (the vendors' optimization guides), so between 8 and 16 chains are needed to fill it. 24 are taken
where the register file has room, else as many as leave six registers free: without a fused multiply-add
(SSE, ARMv7) products need registers of their own, and with fewer free ones LLVM spills.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc

    from edgepack.targets import Target

SYMBOL = "edgepack_peak"
ITERATIONS = 20_000
"""Under a millisecond natively."""
_MAX_CHAINS = 24
_FREE_REGISTERS = 6


@dataclass(frozen=True)
class Peak:
    """Sizes of a target's peak kernel."""

    chains: int
    lanes: int

    @classmethod
    def of(cls, target: Target) -> Peak:
        """As many chains as the register file holds, each of one vector."""
        chains = min(_MAX_CHAINS, target.vector_registers - _FREE_REGISTERS)
        return cls(chains=chains, lanes=max(1, target.vector_bits // 32))

    @property
    def values(self) -> int:
        """float32 elements of the kernel's argument: the accumulators, then x."""
        return (self.chains + 1) * self.lanes

    @property
    def flops(self) -> int:
        """Floating-point operations of one call."""
        return 2 * self.chains * self.lanes * ITERATIONS


def peak_function(target: Target) -> PrimFunc:
    """The kernel: float32[values] is read, and its accumulators written back so that all is needed.

    x is an operand of each multiplication and not of the sum: an addend that does not change would
    need a move before each multiply-add on ARM, and a product that does not change leaves the loop.
    """
    from tvm import tirx

    peak = Peak.of(target)
    data = tirx.decl_buffer((peak.values,), "float32", name="data")
    # A buffer each, and not of scope "local": TVM would ask a runtime for memory.
    accumulators = [
        tirx.decl_buffer((peak.lanes,), "float32", name=f"accumulator{chain}")
        for chain in range(peak.chains)
    ]

    def vector(buffer: Any, start: int = 0) -> Any:
        return buffer.vload([start], f"float32x{peak.lanes}" if peak.lanes > 1 else "float32")

    starts = [chain * peak.lanes for chain in range(peak.chains)]
    x = vector(data, peak.chains * peak.lanes)
    step = [held.vstore([0], vector(held) + vector(held) * x) for held in accumulators]
    loop = tirx.For(tirx.Var("i", "int32"), 0, ITERATIONS, tirx.ForKind.SERIAL, tirx.SeqStmt(step))
    both = list(zip(accumulators, starts, strict=True))
    body = tirx.SeqStmt(
        [
            *(tirx.AllocBuffer(held) for held in accumulators),
            *(held.vstore([0], vector(data, start)) for held, start in both),
            loop,
            *(data.vstore([start], vector(held)) for held, start in both),
        ]
    )
    return tirx.PrimFunc([data], body).with_attr(
        {"global_symbol": SYMBOL, "tirx.noalias": True, "tirx.is_scheduled": True}
    )
