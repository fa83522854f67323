from __future__ import annotations

import re

import pytest

from edgepack.artefacts import KernelInfo, TensorSpec
from edgepack.compiler import peak, report
from edgepack.compiler.lower import llvm_target
from edgepack.compiler.plan import KernelCall, Place, Plan, Slot
from edgepack.targets import Target, load_target, target_names

VECTOR = TensorSpec(name="", dtype="float32", shape=(8,))
SLOTS = tuple(Slot(place=Place.ARENA, offset=64 * i, spec=VECTOR) for i in range(3))


def test_a_call_has_the_rule_and_operations_that_its_kernel_carries() -> None:
    import tvm
    from tvm import tirx

    bare = tirx.PrimFunc([], tirx.Evaluate(tirx.IntImm("int32", 0)))
    scheduled = bare.with_attr(
        {"global_symbol": "conv", "edgepack.rule": "convolution", "edgepack.flops": 640}
    )
    other = bare.with_attr("global_symbol", "other")
    module = tvm.IRModule({"conv": scheduled, "other": other})
    calls = (
        KernelCall(symbol="conv", args=(0, 1, 2)),
        KernelCall(symbol="other", args=(1, 1)),
        KernelCall(symbol=None, args=(1, 2)),
    )
    plan = Plan(slots=SLOTS, calls=calls, arena_bytes=192, weights=b"")
    assert report.kernel_infos(plan, module) == (
        KernelInfo(name="conv", rule="convolution", flops=640, nbytes=96),
        KernelInfo(name="other", rule="generic", flops=0, nbytes=32),
        KernelInfo(name="copy", rule="copy", flops=0, nbytes=64),
    )


def assembly(target: Target) -> str:
    import tvm
    from tvm import tirx

    module = tvm.IRModule({peak.SYMBOL: peak.peak_function(target)})
    with tvm.transform.PassContext(opt_level=3, config={"tirx.disable_assert": True}):
        text: str = tirx.build(module, target=llvm_target(target)).inspect_source("asm")
    return text


MULTIPLIES = re.compile(
    r"\s(vfn?madd\w*ps|v?mulps|fmla|fmadd\.s|vmul\.f32|vfma\.f32|vmla\.f32|vfm\w+\.v\w)\s"
)
MEMORY = re.compile(r"\((%\w+|\w+)\)|\[(sp|r\d+|x\d+)[\],:]|vldm|vstm|vl\d|vs\dr")


@pytest.mark.parametrize("name", target_names())
def test_the_peak_kernels_loop_is_multiply_adds_in_registers_and_nothing_else(name: str) -> None:
    target = load_target(name)
    lines = assembly(target).splitlines()
    hits = [number for number, line in enumerate(lines) if MULTIPLIES.search(f"{line} ")]
    # LLVM unrolls it for some cores: then as often for every chain.
    assert hits
    assert len(hits) % peak.Peak.of(target).chains == 0, "some were taken out of the loop"
    loop = lines[hits[0] : hits[-1] + 1]
    assert not [line for line in loop if MEMORY.search(line)], "spilled"
