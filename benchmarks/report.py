"""RESULTS.md: tables of what was measured, on what, and when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.models import MODELS
from benchmarks.peers import PEERS, SELF
from benchmarks.results import TOLERANCE, Figures, Results, geometric_mean, ratios


def render(results: Results) -> str:
    """The whole report, as Markdown."""
    sections = [
        "# edgepack beside its peers",
        _method(results),
        _machine(results),
        *(_latency(results, threads) for threads in thread_counts(results)),
        _starts(results),
        _sizes(results),
        _failures(results),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def thread_counts(results: Results) -> list[int]:
    """In rising order."""
    return sorted({figures.threads for figures in results.figures})


def models(results: Results) -> list[str]:
    """In the order in which they were measured."""
    return list(dict.fromkeys(figures.model for figures in results.figures))


def engines(results: Results) -> list[str]:
    """edgepack first, then as they are registered."""
    present = {figures.engine for figures in results.figures}
    return [engine for engine in PEERS if engine in present]


def _title(model: str) -> str:
    return MODELS[model].title if model in MODELS else model


def _method(results: Results) -> str:
    share = (
        " The share of the FMA peak counts the operations that the model asks for: an algorithm that needs"
        " fewer of them (Winograd's) can exceed 100%."
    )
    return (
        "Written by `make bench`. Every engine computes the same float32 model at batch 1 in a process of"
        f" its own, bound to as many cores as it has threads: {results.rounds} rounds of"
        f" {results.seconds:g} s for each, in another order every round. A latency is the median of all"
        " iterations that were not preempted (`~`: of all, as there were too few). Times hold only within"
        " this run; ratios are what to compare: under 1, edgepack is faster. `wrong`: on one of two inputs"
        f" the answer differs from ONNX Runtime's by more than {TOLERANCE:g} of its largest value; `fails`:"
        " the engine cannot convert or run the model. Neither counts in a ratio."
        + (share if results.peak_gflops else "")
    )


def _machine(results: Results) -> str:
    packages = [
        f"{name} {version}" for engine in engines(results)
        for name, version in results.versions.get(engine, {}).items()
    ]  # fmt: skip
    return "; ".join([*results.about.values(), ", ".join(packages)]) + "."


def _latency(results: Results, threads: int) -> str:
    """One row a model: every engine's median, and edgepack's ratios."""
    present = engines(results)
    head = ["model", "GFLOP", *(f"{PEERS[engine].TITLE} ms" for engine in present)]
    head += ["to ONNX Runtime", "to the best peer"]
    if results.peak_gflops:
        head.append("share of FMA peak")
    rows = []
    for model in models(results):
        flops = results.flops.get(model, 0)
        row = [_title(model), _digits(flops / 1e9)]
        row += [cell(results.of(engine, model, threads)) for engine in present]
        row += [_ratio(value) for value in ratios(results, model, threads)]
        if results.peak_gflops:
            row.append(_share(results, model, threads))
        rows.append(row)
    rows.append(_means(results, threads, len(head)))
    cores = "one thread" if threads == 1 else f"{threads} threads"
    return f"## Latency, {cores}\n\n" + table(head, rows)


def _means(results: Results, threads: int, width: int) -> list[str]:
    pairs = [ratios(results, model, threads) for model in models(results)]
    means = [_ratio(geometric_mean(column)) for column in zip(*pairs, strict=True)]
    row = ["geometric mean", *[""] * (width - 1)]
    start = 2 + len(engines(results))
    row[start : start + 2] = [f"**{mean}**" if mean else "" for mean in means]
    return row


def _share(results: Results, model: str, threads: int) -> str:
    ours = results.of(SELF, model, threads)
    if ours is None or not ours.right or not results.flops.get(model):
        return ""
    reached = results.flops[model] / (ours.median_ms * 1e6)
    return f"{100 * reached / (results.peak_gflops * threads):.0f}%"


def _starts(results: Results) -> str:
    """Cold start and memory with one thread."""
    threads = thread_counts(results)[0]
    present = [engine for engine in engines(results) if PEERS[engine].START_COMPARES]
    head = ["model", *(f"{PEERS[engine].TITLE} ms / MB" for engine in present)]
    rows = []
    for model in models(results):
        found = (results.of(engine, model, threads) for engine in present)
        rows.append([_title(model), *map(_start, found)])
    return (
        "## Cold start and memory\n\n"
        "From the process's start to the first answer with a warm page cache, and peak resident memory"
        " after it. edgepack's is the whole worker process. The peers are loaded from Python: its own"
        " start and memory, and NumPy's, are left out.\n\n" + table(head, rows)
    )


def _start(figures: Figures | None) -> str:
    if figures is None or figures.failure:
        return ""
    return f"{_digits(figures.cold_start_ms)} / {_digits(figures.resident_bytes / 1e6)}"


def _sizes(results: Results) -> str:
    """Libraries once, then what each model takes, and how long making that took."""
    present = engines(results)
    shipped = {engine: results.shipped.get(engine, 0) for engine in present}
    libraries = [(PEERS[e].TITLE, f"{size / 1e6:.1f}") for e, size in shipped.items() if size]
    found = {(c.engine, c.model): c for c in results.conversions}
    converting = [
        e for e in present if any(c.engine == e and c.seconds > 0.05 for c in found.values())
    ]
    head = ["model", *(f"{PEERS[e].TITLE} s / MB" for e in converting), *_COSTS]
    rows = []
    for model in models(results):
        row = [_title(model)]
        for engine in converting:
            made = found.get((engine, model))
            usable = made is not None and not made.failure
            row.append(f"{made.seconds:.1f} / {made.bytes / 1e6:.2f}" if made and usable else "")
        costs = results.costs.get(model, {})
        row += [f"{costs[key] / 1000:.0f}" if key in costs else "" for key in _COSTS.values()]
        rows.append(row)
    return (
        "## Size, and time to compile\n\n"
        "What a device needs beside the models: the libraries, or edgepack's agent.\n\n"
        + table(("engine", "MB"), libraries)
        + "\n\nSeconds to compile or convert, and the size of the file that comes of it; of edgepack's"
        " package also its parts.\n\n" + table(head, rows)
    )


def _failures(results: Results) -> str:
    """Each reason once for an engine and a model."""
    rows = {}
    for item in results.figures:
        reason = item.failure or ("" if item.right else f"error {item.error:.2g}")
        if reason:
            title = _title(item.model)
            reason = reason.replace("|", "\\|")
            rows[(item.engine, item.model)] = (PEERS[item.engine].TITLE, title, reason)
    return "## What fails\n\n" + table(("engine", "model", "reason"), rows.values()) if rows else ""


_COSTS = {
    "worker KB": "worker_bytes",
    "code KB": "code_bytes",
    "weights KB": "weights_bytes",
    "arena KB": "arena_bytes",
}


def cell(figures: Figures | None) -> str:
    """A latency, or why there is none."""
    if figures is None:
        return ""
    if figures.failure:
        return "fails"
    if not figures.right:
        return "wrong"
    return ("" if figures.settled else "~") + _digits(figures.median_ms)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
