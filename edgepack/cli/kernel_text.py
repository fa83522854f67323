"""Tables of a model's kernels: what ``compile --report`` and ``bench --profile`` show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgepack.cli.output import columns

_NAME = 60
"""Characters of a kernel's name in a table; a fused kernel's may be hundreds."""


def report(result: Mapping[str, Any]) -> str:
    """For each target, which rule took each call's kernel and what it has to do."""
    return "\n\n".join(_target_report(target) for target in result["targets"])


def _target_report(target: Mapping[str, Any]) -> str:
    head = ("CALL", "KERNEL", "RULE", "MFLOP", "KB")
    rows = (
        (
            number,
            _short(kernel["name"]),
            kernel["rule"],
            round(kernel["flops"] / 1e6, 2),
            round(kernel["bytes"] / 1e3, 1),
        )
        for number, kernel in enumerate(target["kernels"])
    )
    return f"{target['name']}\n" + columns([head, *rows])


def profile(found: Mapping[str, Any]) -> str:
    """The ``profile`` of ``bench``: a line for each call, in the plan's order."""
    head = ("CALL", "KERNEL", "RULE", "TIME us", "SHARE %", "GFLOP/s", "PEAK %", "GB/s")
    rows = (
        (
            call["call"],
            _short(call["name"]),
            call["rule"],
            round(call["time_us"], 1),
            _percent(call["share"]),
            _rounded(call["gflops"]),
            _percent(call["peak_share"]),
            _rounded(call["gbytes_per_s"]),
        )
        for call in found["calls"]
    )
    peak = found["peak_gflops"]
    measured = "not measured" if peak is None else f"{peak:.1f} GFLOP/s"
    return (
        f"{columns([head, *rows])}\n\n{found['total_us']:,.1f} us in all calls,"
        f" medians of {found['iterations']} iterations; peak of multiply-adds: {measured}"
    )


def _short(name: str) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def _percent(share: float | None) -> float | str:
    return "-" if share is None else round(100 * share, 1)


def _rounded(value: float | None) -> float | str:
    return "-" if value is None else round(value, 1)
