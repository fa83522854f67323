"""A core that issues in order and writes results as they come, by llvm-mca's own figures.

llvm-mca makes an instruction of an in-order core wait until it can write its result after those
ahead of it (LLVM's InOrderIssueStage.cpp, where the model of the core does not set RetireOOO, as that
of the Cortex-A53 does not): a load behind a multiply-add then waits six cycles, and so does an
addition of integers. Kernels for that core interleave just these, and it runs them side by side. Here
an instruction waits for its operands, its unit and a slot of issue alone; latencies, units and width
are what llvm-mca reports for each instruction.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.disassembly import Instruction

_REGISTER = re.compile(r"\b([wxvqdsbh])(\d+)\b")
_WRITES_BASE = re.compile(r"\]!|\], ")
_SETS_FLAGS = re.compile(r"(add|sub|and|bic|adc|sbc)s|f?cmpe?|cmn|tst|f?ccmp")
_READS_FLAGS = re.compile(r"b\..*|f?cs\w+|cset\w*|cin[cv]|cneg|f?ccmp|adcs?|sbcs?")
_WRITES_NOTHING = re.compile(r"st\w+|f?cmpe?|cmn|tst|f?ccmp|b|b\..*|cbn?z|tbn?z|prfm|ret|nop")
_READS_ITS_RESULT = re.compile(r"u?s?ml[as]l?2?|fml[as]|bi[ft]|bsl|ins|movk|bfm|bfi|bfxil")
_FLAGS = "flags"
_ITERATIONS = 50
"""As many are left out before the measured ones: what is loaded before a loop is then forgotten."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What llvm-mca says of one instruction: cycles to its result, slots, and cycles of each unit."""

    latency: int
    slots: int
    """Of the width of issue."""
    units: Mapping[str, float]


def simulate(body: Sequence[Instruction], said: Mapping[str, Any]) -> float:
    """Cycles of one iteration of a loop, by the JSON that llvm-mca printed for it alone."""
    target, (region,) = said["TargetInfo"], said["CodeRegions"]
    width = int(region["SummaryView"]["DispatchWidth"])
    return cycles(body, costs(region, target), pools(target), width)


def costs(region: Mapping[str, Any], target: Mapping[str, Any]) -> list[Cost]:
    """The costs in one code region and the target's description of llvm-mca's JSON."""
    # Two units of one kind have one name with a number behind; which one is used is left open.
    names = [str(name).split(".")[0] for name in target["Resources"]]
    listed = region["InstructionInfoView"]["InstructionList"]
    units: list[dict[str, float]] = [defaultdict(float) for _ in listed]
    for use in region["ResourcePressureView"]["ResourcePressureInfo"]:
        if use["InstructionIndex"] < len(listed):
            units[use["InstructionIndex"]][names[use["ResourceIndex"]]] += use["ResourceUsage"]
    return [
        Cost(latency=item["Latency"], slots=item["NumMicroOpcodes"], units=used)
        for item, used in zip(listed, units, strict=True)
    ]


def pools(target: Mapping[str, Any]) -> dict[str, int]:
    """How many units there are of each kind."""
    counts: dict[str, int] = defaultdict(int)
    for name in target["Resources"]:
        counts[str(name).split(".")[0]] += 1
    return dict(counts)


def cycles(
    body: Sequence[Instruction], costs: Sequence[Cost], units: Mapping[str, int], width: int
) -> float:
    """Cycles of one iteration of a loop in a long run of them."""
    free = {name: [0.0] * count for name, count in units.items()}
    ready: dict[str, float] = defaultdict(float)
    issued: list[float] = [0.0] * width
    start = 0.0
    for iteration in range(2 * _ITERATIONS):
        if iteration == _ITERATIONS:
            start = issued[-1]
        for instruction, cost in zip(body, costs, strict=True):
            reads, writes = _registers(instruction)
            chosen = [(free[name], free[name].index(min(free[name]))) for name in cost.units]
            # Not before the one ahead, and in a later cycle than the one a whole width ahead.
            operands = [ready[name] for name in reads]
            units_free = [unit[index] for unit, index in chosen]
            when = max([issued[-1], issued[0] + 1, *operands, *units_free])
            for (unit, index), used in zip(chosen, cost.units.values(), strict=True):
                unit[index] = when + used
            ready.update(dict.fromkeys(writes, when + cost.latency))
            issued = [*issued, *[when] * cost.slots][-width:]
    return (issued[-1] - start) / _ITERATIONS


def _registers(instruction: Instruction) -> tuple[set[str], set[str]]:
    """What an instruction reads and what it writes; the condition flags count as a register."""
    mnemonic, operands = instruction.mnemonic, instruction.operands
    found = [_name(*match) for match in _REGISTER.findall(operands)]
    results = 0 if _WRITES_NOTHING.fullmatch(mnemonic) else 1
    if mnemonic.startswith("ld"):
        results = len(_REGISTER.findall(operands.split("[")[0]))
    reads, writes = set(found[results:]), set(found[:results])
    if _READS_ITS_RESULT.fullmatch(mnemonic) or "[" in operands.split(",")[0]:
        reads |= writes
    if _WRITES_BASE.search(operands):
        base = _REGISTER.findall(operands.split("[")[-1])
        writes |= {_name(*match) for match in base[:1]}
    if _SETS_FLAGS.fullmatch(mnemonic):
        writes.add(_FLAGS)
    if _READS_FLAGS.fullmatch(mnemonic):
        reads.add(_FLAGS)
    return reads, writes


def _name(kind: str, number: str) -> str:
    return f"{'x' if kind in 'wx' else 'v'}{number}"
