"""Loops of AArch64 machine code, out of what ``llvm-objdump --disassemble`` prints."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_SYMBOL = re.compile(r"^([0-9a-f]+) <(.+)>:$")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")
_PLACE = re.compile(r"(0x[0-9a-f]+) <[^>]*>$")
_BRANCHES = re.compile(r"b|b\.[a-z]{2}|cbn?z|tbn?z")
_MULTIPLY_ADD = re.compile(r"f(mla|mls|madd|msub|nmadd|nmsub)")
_VECTOR = re.compile(r"v\d+\.(2|4)s\b")
# x29 is a pointer like any other: TVM's code keeps no frame pointer.
_STACK = re.compile(r"\[sp\b")


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction: ``operands`` as printed, an address in it without the symbol that follows."""

    address: int
    mnemonic: str
    operands: str

    @property
    def target(self) -> int | None:
        """Where a direct branch inside a function goes; None for all others."""
        if not _BRANCHES.fullmatch(self.mnemonic):
            return None
        return int(self.operands.rsplit(None, 1)[-1], 16)

    @property
    def multiply_adds(self) -> int:
        """Float32 multiply-adds that it does: one for each lane."""
        if not _MULTIPLY_ADD.fullmatch(self.mnemonic):
            return 0
        vector = _VECTOR.match(self.operands)
        return int(vector[1]) if vector else int(self.operands.startswith("s"))

    @property
    def on_the_stack(self) -> bool:
        """Whether it reads or writes the stack: what a spilled register costs."""
        return _STACK.search(self.operands) is not None


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The body of an innermost loop, from the target of its backward branch to that branch."""

    body: tuple[Instruction, ...]
    depth: int = 1
    """Loops that it stands in, itself among them."""

    @property
    def multiply_adds(self) -> int:
        """Float32 multiply-adds of one iteration."""
        return sum(instruction.multiply_adds for instruction in self.body)

    @property
    def spills(self) -> int:
        """Instructions that touch the stack."""
        return sum(instruction.on_the_stack for instruction in self.body)

    def assembly(self) -> str:
        """The body as source text, with labels for the branches; those that leave it go to its end."""
        targets = {i.target for i in self.body if i.target is not None}
        inside = {i.address for i in self.body}
        lines = []
        for instruction in self.body:
            if instruction.address in targets:
                lines.append(f".L{instruction.address:x}:")
            operands = instruction.operands
            if instruction.target is not None:
                label = f".L{instruction.target:x}" if instruction.target in inside else ".Lend"
                operands = " ".join([*operands.split()[:-1], label])
            lines.append(f"{instruction.mnemonic} {operands}")
        return "\n".join([*lines, ".Lend:"])


def functions(text: str) -> Mapping[str, Sequence[Instruction]]:
    """The instructions that follow each symbol, by its name."""
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if symbol := _SYMBOL.match(line):
            current = found.setdefault(symbol[2], [])
        elif parsed := _INSTRUCTION.match(line):
            operands = _PLACE.sub(r"\1", parsed[3].split("//")[0].strip())
            address = int(parsed[1], 16)
            current.append(Instruction(address=address, mnemonic=parsed[2], operands=operands))
    return found


def innermost_loops(code: Sequence[Instruction]) -> Iterator[Loop]:
    """Every loop that holds no other: from the target of a backward branch to the branch."""
    places = {instruction.address: index for index, instruction in enumerate(code)}
    ends: dict[int, int] = {}
    for index, instruction in enumerate(code):
        first = (
            places.get(instruction.target, index + 1)
            if instruction.target is not None
            else index + 1
        )
        if first <= index:
            ends[first] = index
    for first, last in sorted(ends.items()):
        if not any(first < start <= last for start in ends):
            depth = sum(start <= first and last <= end for start, end in ends.items())
            yield Loop(body=tuple(code[first : last + 1]), depth=depth)
