"""``bench``: how long a package's worker takes, what it takes, and where the time goes.

Latency is the worker's own time for a run. Cold start is from just before the process is made to its
first answer. Peak memory is the kernel's count for the process (VmHWM), the mapped weights included.
Here a worker is asked run by run; on a device it gets all its requests at once (remote_worker.py).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from edgepack import build, package, worker_protocol
from edgepack.artefacts import GoldenVectors, KernelInfo, Package, PackagedTarget
from edgepack.channels import ChannelOptions
from edgepack.errors import DeviceError
from edgepack.worker import emulator_for
from edgepack.worker_protocol import REPLY_BYTES, Operation

_LEAST = 3
"""Iterations that are measured however long one takes."""
_MOST_ANSWERED = 1 << 20
"""Bytes of answers of one command on a device."""
_SPARE_SECONDS = 120.0
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to measure, and for how long."""

    opened: Package
    target: PackagedTarget
    vectors: GoldenVectors
    threads: int
    seconds: float
    profile: bool


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of one worker; times in nanoseconds."""

    ready: int
    cold_start: int
    runs: list[int]
    peak_rss: int
    """Bytes."""
    calls: list[list[int]]
    """For each observed run the time of each call; empty unless a profile was asked for."""
    peak_flops: int
    """FLOP/s of one core; 0 where it was not measured."""


def bench_package(
    opened: Package,
    *,
    target: str | None,
    threads: int,
    seconds: float,
    profile: bool = False,
    device: str | None = None,
    options: ChannelOptions | None = None,
) -> dict[str, Any]:
    """The fields of ``bench --json``, on the first golden vector's inputs.

    With ``profile``, as long again with every call timed. On ``device``, an ssh:// URL, without it
    here, under qemu-user for another CPU. Raises ConfigError, DeviceError, ChannelError.
    """
    options = options or ChannelOptions()
    wanted = target if device is None or target else _target_of(device, options)
    chosen = build.choose_target(opened, wanted)
    job = Job(
        opened=opened,
        target=chosen,
        vectors=package.read_golden(opened, chosen),
        threads=threads,
        seconds=seconds,
        profile=profile,
    )
    measured = _measure_here(job) if device is None else _measure_there(job, device, options)
    result = _result(chosen, measured, threads)
    result["device"] = device
    result["emulated"] = device is None and bool(emulator_for(build.profile_of(chosen)))
    if profile:
        result["profile"] = layers(chosen.calls, measured, threads)
    return result


def _result(target: PackagedTarget, measured: Measured, threads: int) -> dict[str, Any]:
    times = sorted(measured.runs)
    return {
        "target": target.name,
        "threads": threads,
        "latency_ms": {
            "median": statistics.median(times) / 1e6,
            "p95": times[min(len(times) - 1, int(len(times) * 0.95))] / 1e6,
            "min": times[0] / 1e6,
        },
        "ready_ms": measured.ready / 1e6,
        "cold_start_ms": measured.cold_start / 1e6,
        "peak_rss_bytes": measured.peak_rss,
        "iterations": len(times),
        "worker_bytes": target.sizes[target.worker],
        "weights_bytes": target.sizes[target.weights],
        "arena_bytes": target.model["arena_bytes"],
    }


def layers(calls: Sequence[KernelInfo], measured: Measured, threads: int) -> dict[str, Any]:
    """The ``profile`` of ``bench --json``: a line for each call, its median time, what that comes to.

    Shares are fractions of 1. What would divide by nothing, or was not counted, is null: GFLOP/s
    where a kernel's operations are not known, its share of the peak where that was not measured.
    """
    medians = [statistics.median(times) for times in zip(*measured.calls, strict=True)]
    total = sum(medians)
    peak = measured.peak_flops * threads
    lines = []
    for number, (kernel, ns) in enumerate(zip(calls, medians, strict=True)):
        known = kernel.flops > 0 and ns > 0
        lines.append(
            {
                "call": number,
                "name": kernel.name,
                "rule": kernel.rule,
                "time_us": ns / 1e3,
                "share": ns / total if total else 0.0,
                "gflops": kernel.flops / ns if known else None,
                "peak_share": kernel.flops / ns * 1e9 / peak if known and peak else None,
                "gbytes_per_s": kernel.nbytes / ns if ns else None,
            }
        )
    return {
        "peak_gflops": peak / 1e9 or None,
        "iterations": len(measured.calls),
        "total_us": total / 1e3,
        "calls": lines,
    }


# ---- here ------------------------------------------------------------------------------------------


def _measure_here(job: Job) -> Measured:
    with build.worker_of(job.opened, job.target, threads=job.threads) as worker:
        worker.write(job.vectors.inputs[0])
        worker.run()
        cold_start = time.monotonic_ns() - worker.started_ns
        runs = _repeat(worker.run, job.seconds)
        peak_rss = worker.peak_rss_bytes()
        calls: list[list[int]] = []
        peak_flops = 0
        if job.profile:
            peak_flops = worker.peak_flops()
            calls = _repeat(lambda: worker.observe(len(job.target.calls)), job.seconds)
        return Measured(
            ready=worker.ready_ns,
            cold_start=cold_start,
            runs=runs,
            peak_rss=peak_rss,
            calls=calls,
            peak_flops=peak_flops,
        )


def _repeat(measure: Callable[[], _T], seconds: float) -> list[_T]:
    results: list[_T] = []
    deadline = time.monotonic() + seconds
    while len(results) < _LEAST or time.monotonic() < deadline:
        results.append(measure())
    return results


# ---- on a device -----------------------------------------------------------------------------------


def _target_of(device: str, options: ChannelOptions) -> str:
    from edgepack.channels import device as operations

    return operations.status(device, options=options).target


def _measure_there(job: Job, device: str, options: ChannelOptions) -> Measured:
    """Two commands on the device: a cold start that tells how often to run, and the measurement."""
    from edgepack.channels.remote_worker import remote_worker

    calls = len(job.target.calls)
    tensors = worker_protocol.shared_file(
        job.target.inputs, job.target.outputs, job.vectors.inputs[0]
    )
    with remote_worker(
        device, job.opened, job.target, contents=package, tensors=tensors, options=options
    ) as worker:

        def serve(operations: Sequence[Operation]) -> Answers:
            requests = b"".join(map(worker_protocol.request, operations))
            timeout = 3 * job.seconds + _SPARE_SECONDS
            answered = worker.serve(requests, threads=job.threads, timeout=timeout)
            return Answers(operations, answered, calls)

        started = [Operation.CLOCK, Operation.RUN, Operation.CLOCK]
        cold = serve([*started, *[Operation.RUN] * _LEAST])
        one = min(cold.values(Operation.RUN))
        runs = _how_often(job.seconds, one, REPLY_BYTES)
        observed = _how_often(job.seconds, one, REPLY_BYTES + 8 * calls) if job.profile else 0
        asked = [Operation.RUN] * (runs + 1) + [Operation.MEMORY]
        asked += [Operation.PEAK, *[Operation.OBSERVE] * observed] if job.profile else []
        warm = serve(asked)
    ready, first = cold.values(Operation.CLOCK)
    return Measured(
        ready=ready - cold.started,
        cold_start=first - cold.started,
        runs=warm.values(Operation.RUN)[1:],
        peak_rss=warm.values(Operation.MEMORY)[0],
        calls=warm.calls,
        peak_flops=warm.values(Operation.PEAK)[0] if job.profile else 0,
    )


def _how_often(seconds: float, one: int, answer_bytes: int) -> int:
    """Runs of ``one`` ns that fill ``seconds``, with answers that one command may give."""
    most = max(_LEAST, _MOST_ANSWERED // answer_bytes)
    return min(most, max(_LEAST, int(seconds * 1e9 / max(one, 1))))


class Answers:
    """A worker's answers to ``operations``, with two before them: the clock, and that it is ready."""

    def __init__(self, operations: Sequence[Operation], data: bytes, calls: int) -> None:
        """Take ``data`` apart; a DeviceError where it ends too early or tells of a failure."""
        self._operations = operations
        self._data = data
        self._taken = 0
        self.calls: list[list[int]] = []
        self.started = self._reply()
        self._reply()
        self._values = []
        for operation in operations:
            self._values.append(self._reply())
            if operation is Operation.OBSERVE:
                self.calls.append(worker_protocol.call_times(self._take(8 * calls)))

    def values(self, operation: Operation) -> list[int]:
        """What it answered to every such request, in order."""
        answers = zip(self._operations, self._values, strict=True)
        return [value for asked, value in answers if asked is operation]

    def _reply(self) -> int:
        return worker_protocol.reply_value(self._take(REPLY_BYTES), "failed on the device")

    def _take(self, size: int) -> bytes:
        start, self._taken = self._taken, self._taken + size
        if len(self._data) < self._taken:
            raise DeviceError("the worker's answers end too early", "Try again")
        return self._data[start : self._taken]
