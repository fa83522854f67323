"""Times iterations of a session, and tells those that were preempted from those that were not."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.peers.protocol import Session

_BLOCK_NS = 2_000_000
"""The kernel's account is read once in so long, so that reading it does not disturb short runs."""
_WAIT_SHARE = 0.03
_WAIT_NS = 10_000
"""For each iteration: waking up costs some."""
_LEAST = 3


@dataclass(frozen=True, kw_only=True)
class Times:
    """Latencies in ns: those of undisturbed iterations, and how many there were in all."""

    undisturbed: tuple[int, ...]
    disturbed: tuple[int, ...]


def measure(session: Session, seconds: float) -> Times:
    """Run for ``seconds``, and at least three times."""
    undisturbed: list[int] = []
    disturbed: list[int] = []
    deadline = time.monotonic_ns() + int(seconds * 1e9)
    while time.monotonic_ns() < deadline or len(undisturbed) + len(disturbed) < _LEAST:
        before = waited_ns(session.pid)
        block = _block(session)
        waited = waited_ns(session.pid) - before
        limit = _WAIT_SHARE * sum(block) + _WAIT_NS * len(block)
        (undisturbed if waited <= limit else disturbed).extend(block)
    return Times(undisturbed=tuple(undisturbed), disturbed=tuple(disturbed))


def _block(session: Session) -> list[int]:
    times: list[int] = []
    end = time.monotonic_ns() + _BLOCK_NS
    while not times or time.monotonic_ns() < end:
        times.append(once(session))
    return times


def once(session: Session) -> int:
    """One inference in ns, by the engine's own clock where it has one."""
    begin = time.perf_counter_ns()
    own = session.run()
    end = time.perf_counter_ns()
    return end - begin if own is None else own


def waited_ns(pid: int) -> int:
    """How long the threads of a process were ready to run and did not (proc(5), schedstat); 0 if unknown."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[1])
        except (OSError, IndexError):
            continue  # the thread has ended, or the kernel keeps no such account
    return total


def peak_bytes(pid: int) -> int:
    """Peak resident memory so far.

    The kernel's peak is kept in batches of pages for each thread (proc(5)), which a small process never
    fills; what is resident now is counted exactly.
    """
    sizes = []
    for file, field in (("status", "VmHWM:"), ("smaps_rollup", "Rss:")):
        with suppress(OSError):  # a process may forbid to read its maps
            lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
            sizes += [int(line.split()[1]) for line in lines if line.startswith(field)]
    return max(sizes) * 1024
