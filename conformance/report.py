"""Results as a table by operator, on the terminal and in docs/operators.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conformance import scope
from conformance.cases import Case

DOCUMENT = Path(__file__).parents[1] / "docs" / "operators.md"
_BEGIN, _END = "<!-- conformance: begin -->", "<!-- conformance: end -->"


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Cases of one operator."""

    operator: str
    passed: int
    total: int


def tally(cases: Mapping[str, Case], results: Mapping[str, str]) -> list[Tally]:
    """Passes and totals of the cases that ran, by operator in alphabetical order."""
    passed: dict[str, int] = defaultdict(int)
    total: dict[str, int] = defaultdict(int)
    for name, result in results.items():
        operator = cases[name].operator
        total[operator] += 1
        passed[operator] += not result
    return [Tally(operator=o, passed=passed[o], total=total[o]) for o in sorted(total)]


def summary(tallies: list[Tally]) -> str:
    """One line for each operator, and the sum."""
    lines = [f"{t.operator:32}{t.passed:5} of {t.total}" for t in tallies]
    passed, total = sum(t.passed for t in tallies), sum(t.total for t in tallies)
    share = 100 * passed / max(total, 1)
    return "\n".join([*lines, f"{'all':32}{passed:5} of {total} ({share:.1f}%)"])


def write(cases: Mapping[str, Case], results: Mapping[str, str]) -> None:
    """Replace the part of docs/operators.md between the two marks."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    DOCUMENT.write_text(
        f"{before}{_BEGIN}\n{_tables(cases, results)}{_END}{after}", encoding="utf-8"
    )


def _tables(cases: Mapping[str, Case], results: Mapping[str, str]) -> str:
    tallies = tally(cases, results)
    passed, total = sum(t.passed for t in tallies), sum(t.total for t in tallies)
    lines = [
        f"{passed} of {total} cases pass ({100 * passed / total:.1f}%).",
        "",
        "| Operator | Passed | Cases |",
        "|---|---|---|",
        *(f"| {t.operator} | {t.passed} | {t.total} |" for t in tallies),
        "",
        "What fails, and why:",
        "",
        "| Case | Reason |",
        "|---|---|",
        *(
            f"| {name} | {result.replace('|', '/')} |"
            for name, result in sorted(results.items())
            if result
        ),
        "",
        "Cases out of scope:",
        "",
        "| Cases | Operators | Why |",
        "|---|---|---|",
    ]
    for word, why in scope.OUT_OF_SCOPE.items():
        found = [case for case in cases.values() if case.reason == word]
        operators = ", ".join(sorted({case.operator for case in found}))
        lines.append(f"| {len(found)} | {operators} | {why} |")
    return "\n".join([*lines, ""])
