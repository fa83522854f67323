"""AGENT.md: each figure of the agent beside what was set out to reach."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from benchmarks import machine

SMALL_MODELS = ("tiny_ad", "tiny_kws")
"""The tiniest first."""
MAX_OVERHEAD_US = 60
MIN_REQUESTS = 5000
MAX_IDLE = 4 << 20
MAX_EXECUTABLE = 900_000
WORKER_ALLOWANCE = 2 << 20


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Of one model, one way and a number of clients."""

    model: str
    way: str
    clients: int
    median_us: float
    p99_us: float
    kernel_us: float
    """Mean of what the worker measured around the kernels."""
    worker_us: float
    """Median of a run through the worker alone, see worker_load.c."""
    per_second: float


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Memory of one model's worker after requests."""

    model: str
    resident: int
    weights: int
    arena: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """All that is measured."""

    latencies: list[Latency]
    idle: dict[str, int]
    """Resident bytes of the agent, by what it serves."""
    workers: list[Worker]
    sizes: dict[str, int]
    """Of the executable, by target."""


def render(figures: Figures) -> str:
    """Markdown, each figure beside what was set out to reach."""
    about = machine.describe()
    tools = f"edgepack {version('edgepack')}, ziglang {version('ziglang')}"
    lines = [
        "# What the agent costs",
        "",
        "Written by `make bench-agent`. Requests come from `benchmarks/agent_load.c`, over edgepack's C",
        "client, the Unix socket and kept connections; it, the agent and the workers share two cores.",
        "Each figure is the median of rounds in which all of them took turns. An overhead is the median",
        "answer less the median run through the worker alone (without agent and HTTP), and less the",
        "kernels' own mean time, as the worker measures it while the agent asks.",
        "",
        f"{'; '.join(about.values())}; {tools}.",
        "",
        "## Requests",
        "",
        "| model | tensors | clients | median µs | 99% µs | over worker µs | over kernels µs | requests/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for it in figures.latencies:
        over = ["", ""]
        if it.clients == 1:
            over = [f"{it.median_us - less:.0f}" for less in (it.worker_us, it.kernel_us)]
        way = "in binary" if it.way == "bytes" else "in shared memory"
        lines.append(
            f"| {it.model} | {way} | {it.clients} | {it.median_us:.0f} | {it.p99_us:.0f} "
            f"| {over[0]} | {over[1]} | {it.per_second:.0f} |"
        )
    lines += [
        "",
        "## Memory and size",
        "",
        "| what | bytes | limit | |",
        "| --- | --- | --- | --- |",
    ]
    for what, value in figures.idle.items():
        lines.append(_row(f"agent, resident, {what}", value, MAX_IDLE))
    for worker in figures.workers:
        limit = worker.weights + worker.arena + WORKER_ALLOWANCE
        lines.append(
            _row(
                f"worker of {worker.model}, resident (weights, arena, 2 MiB)",
                worker.resident,
                limit,
            )
        )
    for target, size in figures.sizes.items():
        bound = MAX_EXECUTABLE if target.startswith("aarch64") else None
        lines.append(_row(f"executable for {target}", size, bound))
    lines += ["", *_judged(figures), ""]
    return "\n".join(lines)


def _row(what: str, value: int, limit: int | None) -> str:
    if limit is None:
        return f"| {what} | {value:,} | | |"
    return f"| {what} | {value:,} | {limit:,} | {'held' if value <= limit else 'MISSED'} |"


def _judged(figures: Figures) -> list[str]:
    tiny = SMALL_MODELS[0]
    most = max(it.per_second for it in figures.latencies if it.model == tiny)
    lines = []
    for it in figures.latencies:
        for what, less in (("worker alone", it.worker_us), ("kernels", it.kernel_us)):
            if it.clients > 1:
                continue
            over = it.median_us - less
            held = "held" if over <= MAX_OVERHEAD_US else "MISSED"
            told = f"{over:.0f} of {MAX_OVERHEAD_US} µs: {held}."
            lines.append(f"- {it.model}, {it.way}, over the {what} ({less:.0f} µs): {told}")
    held = "held" if most >= MIN_REQUESTS else "MISSED"
    lines.append(f"- Requests a second of {tiny}: {most:.0f} of at least {MIN_REQUESTS}: {held}.")
    return lines
