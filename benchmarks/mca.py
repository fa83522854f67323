"""How near the hot loops come to the peak of ARM cores that are not at hand: ``make mca``.

A model is compiled for the profile of each core; llvm-mca then simulates, for its heaviest kernels,
the loop that does most of the work, as if all data were in the first cache. 100% is what the same
simulation gives for multiply-adds that depend on nothing, so that what LLVM's model of a core lacks
(A72 and A76 get the A57's in LLVM 14) counts on both sides.

For the Cortex-A53, which issues in order, there is a second share, without a wait that llvm-mca adds
of itself (in_order.py).

    python -m benchmarks.mca --cpu cortex-a72 --models mobilenet_v2 --kernels 10
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import in_order
from benchmarks.disassembly import Instruction, Loop, functions, innermost_loops
from edgepack.artefacts import CompiledModel, KernelInfo

PROFILES = {
    "cortex-a53": "raspberrypi3",
    "cortex-a72": "raspberrypi4",
    "cortex-a76": "raspberrypi5",
}
"""The profile whose code is looked at, by its core as LLVM names it."""

_IN_ORDER = ("cortex-a53",)
_MODELS = ("mobilenet_v2", "resnet50")
_ITERATIONS = 200
_TRIPS = 16
"""How often a loop is thought to run: more often than one loop has more multiply-adds than another."""
_PEAK_CHAINS = 24
"""More independent multiply-adds than latency times pipes of any core; registers are 32."""

_SYMBOLS = ("__tvm_ffi_{}", "{}_compute_")
"""What TVM calls a kernel's code; the body of a parallel loop has no symbol and follows the second."""


@dataclass(frozen=True, kw_only=True)
class Cycles:
    """Cycles of one iteration."""

    simulated: float
    """As llvm-mca has it."""
    in_order: float | None
    """As in_order.py has it; None for cores that issue out of order."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """The main loop of one kernel on one core."""

    kernel: KernelInfo
    calls: int
    loop: Loop
    cycles: Cycles
    peak: float
    """Float32 multiply-adds that the core does in a cycle, at best."""

    @property
    def share(self) -> float:
        """Of the core's peak, as llvm-mca has it."""
        return self.loop.multiply_adds / self.cycles.simulated / self.peak

    @property
    def share_in_order(self) -> float | None:
        """The same, as in_order.py has it."""
        if self.cycles.in_order is None:
            return None
        return self.loop.multiply_adds / self.cycles.in_order / self.peak


def main() -> None:
    """Print a table for every model and core asked for."""
    options = _options()
    for program in ("llvm-objdump", options.mca):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: apt-get install llvm")
    for name in options.models:
        for cpu in options.cpu:
            compiled = compile_for(name, PROFILES[cpu])
            rows = list(analyse(compiled, cpu, options.kernels, options.mca))
            print(table(name, cpu, rows), end="\n\n", flush=True)


def compile_for(name: str, profile: str) -> CompiledModel:
    """One of the benchmark's models for a profile."""
    from benchmarks.models import prepare
    from edgepack import compiler, importers
    from edgepack.targets import load_target
    from edgepack.toolchain import cache_directory

    model = prepare(name, cache_directory() / "benchmarks")
    imported = importers.import_model(model.onnx, {})
    return compiler.compile_model(imported, load_target(profile))


def analyse(compiled: CompiledModel, cpu: str, kernels: int, mca: str) -> Iterator[Row]:
    """The heaviest kernels by the operations of all their calls, the heaviest first."""
    calls = Counter(call.name for call in compiled.calls)
    known = {call.name: call for call in compiled.calls}
    weights = sorted(known.values(), key=lambda k: (-k.flops * calls[k.name], k.name))
    heaviest = [kernel for kernel in weights[:kernels] if kernel.flops]
    code = functions(disassemble(compiled.kernels))
    candidates = {kernel.name: main_loops(_code_of(code, kernel.name)) for kernel in heaviest}
    found = [(name, loop) for name, loops in candidates.items() for loop in loops]
    ideal, *cycles = simulate([_peak_loop(), *(loop for _, loop in found)], cpu, mca)
    peak = _PEAK_CHAINS * 4 / ideal.simulated
    rows: dict[str, Row] = {}
    for (name, loop), count in zip(found, cycles, strict=True):
        row = Row(kernel=known[name], calls=calls[name], loop=loop, cycles=count, peak=peak)
        if name not in rows or row.share < rows[name].share:
            rows[name] = row
    yield from rows.values()


def main_loops(code: Sequence[Instruction]) -> list[Loop]:
    """The innermost loops that do the most multiply-adds: all that do as many.

    How often a loop runs is taken from how deep it stands. A kernel's other loops are the edges of
    its tiles, and the transforms before and after a Winograd product.
    """
    loops = list(innermost_loops(code))
    weights = [loop.multiply_adds * _TRIPS**loop.depth for loop in loops]
    return [loop for loop, own in zip(loops, weights, strict=True) if own and own == max(weights)]


def disassemble(kernels: bytes) -> str:
    """What llvm-objdump prints for an object file."""
    with tempfile.NamedTemporaryFile(suffix=".o") as file:
        file.write(kernels)
        file.flush()
        return _output(["llvm-objdump", "--disassemble", "--no-show-raw-insn", file.name])


def simulate(loops: Sequence[Loop], cpu: str, mca: str) -> list[Cycles]:
    """One iteration of each loop on ``cpu``, in a long run of them."""
    cycles = []
    with tempfile.TemporaryDirectory(prefix="edgepack-mca-") as directory:
        for loop in loops:
            file = Path(directory) / "loop.s"
            file.write_text(loop.assembly() + "\n")
            options = [f"-mcpu={cpu}", f"-iterations={_ITERATIONS}", "-json"]
            said = json.loads(_output([mca, "-mtriple=aarch64", *options, str(file)]))
            (region,) = said["CodeRegions"]
            simulated = region["SummaryView"]["TotalCycles"] / _ITERATIONS
            alone = in_order.simulate(loop.body, said) if cpu in _IN_ORDER else None
            cycles.append(Cycles(simulated=simulated, in_order=alone))
    return cycles


def table(model: str, cpu: str, rows: Sequence[Row]) -> str:
    """The rows as Markdown, under a line that sums them up."""
    if not rows:
        return f"{model}, {cpu}: no kernel has a loop of multiply-adds"
    shares = [row.share for row in rows]
    title = (
        f"{model}, {cpu}: {len(rows)} kernels, share of peak {min(shares):.0%} to {max(shares):.0%}, "
        f"{sum(row.loop.spills > 0 for row in rows)} with stack accesses in the main loop; "
        f"peak {rows[0].peak:.2g} multiply-adds a cycle"
    )
    head = ("kernel", "rule", "calls", "MFLOP each", "instructions", "multiply-adds")
    lines: list[tuple[str, ...]] = [
        (*head, "cycles", "share of peak", "stack accesses", "in order")
    ]
    lines.append(("---",) * len(lines[0]))
    lines += [_cells(row) for row in rows]
    return "\n".join([title, "", *(f"| {' | '.join(line)} |" for line in lines)])


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.kernel.name,
        row.kernel.rule,
        str(row.calls),
        f"{row.kernel.flops / 1e6:.1f}",
        str(len(row.loop.body)),
        str(row.loop.multiply_adds),
        f"{row.cycles.simulated:.1f}",
        f"{row.share:.0%}",
        str(row.loop.spills),
        "" if row.share_in_order is None else f"{row.share_in_order:.0%}",
    )


def _code_of(code: Mapping[str, Sequence[Instruction]], name: str) -> list[Instruction]:
    return [item for symbol in _SYMBOLS for item in code.get(symbol.format(name), ())]


def _peak_loop() -> Loop:
    """Multiply-adds that wait for nothing."""
    return Loop(
        body=tuple(
            Instruction(address=4 * i, mnemonic="fmla", operands=f"v{i}.4s, v30.4s, v31.4s")
            for i in range(_PEAK_CHAINS)
        )
    )


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} failed: {done.stderr.strip()}")
    return done.stdout


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mca", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--cpu", nargs="+", choices=PROFILES, default=list(PROFILES))
    parser.add_argument("--models", nargs="+", default=_MODELS, metavar="MODEL")
    parser.add_argument("--kernels", type=int, default=10, help="the heaviest so many")
    parser.add_argument("--mca", default="llvm-mca", help="another version of llvm-mca")
    return parser.parse_args()


if __name__ == "__main__":
    main()
