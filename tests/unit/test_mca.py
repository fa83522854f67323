from __future__ import annotations

import pytest

from benchmarks import mca
from benchmarks.disassembly import Instruction, Loop, functions, innermost_loops

DISASSEMBLY = """
/tmp/kernels.o:\tfile format elf64-littleaarch64

Disassembly of section .text:

0000000000000000 <__tvm_ffi_dense>:
       0:      \tb\t0x10 <dense_compute_>

0000000000000010 <dense_compute_>:
      10:      \tmov\tx9, #8
      14:      \tld1r\t{ v2.4s }, [x29], #4
      18:      \tldp\tq0, q1, [x2], #32
      1c:      \tfmla\tv3.4s, v0.4s, v2.s[0]
      20:      \tfmla\tv4.2s, v0.2s, v2.s[1]
      24:      \tcbz\tx5, 0x2c <dense_compute_+0x1c>
      28:      \tfmadd\ts5, s6, s7, s5
      2c:      \tldr\tq6, [sp, #16]
      30:      \tadrp\tx8, 0x5000 <dense_compute_+0x10>
      34:      \tsubs\tx1, x1, #1
      38:      \tb.ne\t0x14 <dense_compute_+0x4>
      3c:      \tsubs\tx9, x9, #1 // a comment
      40:      \tb.ne\t0x10 <dense_compute_>
      44:      \tfmla\tv3.4s, v0.4s, v1.4s
      48:      \ttbnz\tw0, #3, 0x44 <dense_compute_+0x34>
      4c:      \tret

0000000000000050 <other_compute_>:
      50:      \tfmadd\td5, d6, d7, d5
      54:      \tb.lt\t0x50 <other_compute_>
"""


def loops() -> list[Loop]:
    return list(innermost_loops(functions(DISASSEMBLY)["dense_compute_"]))


def test_functions_are_split_at_symbols() -> None:
    found = functions(DISASSEMBLY)
    assert list(found) == ["__tvm_ffi_dense", "dense_compute_", "other_compute_"]
    assert [len(code) for code in found.values()] == [1, 16, 2]


def test_only_loops_without_a_loop_inside_are_found() -> None:
    assert [(loop.body[0].address, loop.body[-1].address) for loop in loops()] == [
        (0x14, 0x38),
        (0x44, 0x48),
    ]


def test_multiply_adds_are_counted_by_float32_lanes() -> None:
    assert [loop.multiply_adds for loop in loops()] == [4 + 2 + 1, 4]
    assert [loop.depth for loop in loops()] == [2, 1]
    (double,) = innermost_loops(functions(DISASSEMBLY)["other_compute_"])
    assert double.multiply_adds == 0


def test_stack_accesses_are_counted() -> None:
    assert [loop.spills for loop in loops()] == [1, 0]


def test_the_main_loop_stands_deepest_and_has_the_most_multiply_adds() -> None:
    (main,) = mca.main_loops(functions(DISASSEMBLY)["dense_compute_"])
    assert main == loops()[0]
    first = "      44:      \tfmla\tv3.4s, v0.4s, v1.4s\n"
    more = "".join(first.replace("44:", f"{address:x}:") for address in (0x44, 0x45, 0x46))
    shallow = functions(DISASSEMBLY.replace(first, more))["dense_compute_"]
    assert max(loop.multiply_adds for loop in innermost_loops(shallow)) > main.multiply_adds
    assert mca.main_loops(shallow) == [main]
    assert mca.main_loops(functions(DISASSEMBLY)["__tvm_ffi_dense"]) == []


def test_assembly_has_a_label_for_every_branch() -> None:
    lines = loops()[0].assembly().splitlines()
    assert lines[0] == ".L14:"
    assert "cbz x5, .L2c" in lines
    assert lines[lines.index(".L2c:") + 1] == "ldr q6, [sp, #16]"
    assert "adrp x8, 0x5000" in lines
    assert lines[-2:] == ["b.ne .L14", ".Lend:"]


def code(*lines: str) -> Loop:
    parsed = (line.split(" ", 1) for line in lines)
    return Loop(
        body=tuple(
            Instruction(address=4 * number, mnemonic=mnemonic, operands=operands)
            for number, (mnemonic, operands) in enumerate(parsed)
        )
    )


FREE = [f"fmla v{i}.4s, v30.4s, v31.4s" for i in range(24)]


@pytest.mark.needs("llvm-mca")
@pytest.mark.parametrize("cpu", mca.PROFILES)
def test_the_simulation_tells_a_chain_from_independent_multiply_adds(cpu: str) -> None:
    bodies = [code(*FREE), code(*[FREE[0]] * 24), loops()[0]]
    fast, slow, real = mca.simulate(bodies, cpu, "llvm-mca")
    assert fast.simulated <= 25
    assert slow.simulated > 2 * fast.simulated
    assert real.simulated > 0


@pytest.mark.needs("llvm-mca")
@pytest.mark.parametrize(
    ("loop", "cycles"),
    [
        pytest.param(FREE, 24, id="one multiply-add a cycle"),
        pytest.param([*FREE[:12], "ldr q28, [x0, #16]", *FREE[12:]], 24, id="a load beside them"),
        pytest.param([*FREE[:12], "add x3, x4, x5", *FREE[12:]], 24, id="an integer beside them"),
        pytest.param(
            [*FREE, "fadd v25.4s, v23.4s, v29.4s"], 34, id="a sum that waits for the last"
        ),
        pytest.param(["ldr q30, [x0, #16]", *FREE], 28, id="all wait for the load"),
        pytest.param(["ldr q30, [x0], #16", "ldr q29, [x0]"], 4, id="the base is written"),
        pytest.param(["fmla v0.4s, v30.4s, v31.4s"], 10, id="the sum is read"),
        pytest.param(["subs x1, x1, #1", "b.ne 0x0"], 3, id="the flags are read"),
    ],
)
def test_a_core_in_order_waits_for_operands_and_units_alone(loop: list[str], cycles: int) -> None:
    (answer,) = mca.simulate([code(*loop)], "cortex-a53", "llvm-mca")
    assert answer.in_order == pytest.approx(cycles, abs=1)


def test_every_core_is_that_of_its_profile() -> None:
    from edgepack.targets import load_target

    assert {cpu: load_target(profile).cpu for cpu, profile in mca.PROFILES.items()} == {
        cpu: cpu for cpu in mca.PROFILES
    }
