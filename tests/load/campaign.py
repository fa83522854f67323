"""A day of load in miniature: clients ask in every way while workers are killed and versions change.

What must hold: every answer is that of the version it names; every request is answered; what is refused is
refused for a reason that was given to it; and after it all the agent is no larger than before.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.load.client import MODELS, WAYS
from tests.load.device import Chaos
from tests.native.fake_device import Device, host_machine, state_of, temporary_device

REPOSITORY = Path(__file__).parents[2]
CLIENTS = 8
WARM_UP = 0.25
"""Of the time; what the agent keeps for later requests, it has by then."""
MAX_GROWTH = 256 << 10


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What the agent holds while nothing is done to it but requests."""

    resident: int
    descriptors: int
    threads: int
    zombies: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was seen."""

    seconds: float
    counts: Counter[str]
    done: Counter[str]
    failures: list[str]
    before: Footprint
    after: Footprint
    left_over: list[str]
    """Shared memory and blobs that nobody has a use for any more."""
    slowest: float

    def trouble(self) -> list[str]:
        """What should not be."""
        counts, done = self.counts, self.done
        found = [f"{counts[kind]} {kind}" for kind in ("wrong", "lost", "other") if counts[kind]]
        if counts["killed"] > done["kills"]:
            found.append(f"{counts['killed']} runs ended by {done['kills']} kills")
        # While a worker pauses after a second death in a row, each client may ask in vain.
        if counts["restarting"] > 200 * done["kills"]:
            found.append(f"{counts['restarting']} refused while a worker was started again")
        refused = counts["unloaded"] + counts["full"] + counts["restarting"] + counts["killed"]
        if refused > counts["right"]:
            found.append(f"{refused} refused, and {counts['right']} answered")
        grown = self.after.resident - self.before.resident
        if grown > MAX_GROWTH:
            found.append(f"{grown} bytes of memory more than after the warm-up")
        for name in ("descriptors", "threads", "zombies"):
            if getattr(self.after, name) > getattr(self.before, name):
                found.append(f"more {name} than after the warm-up")
        return [*found, *self.left_over, *self.failures]

    def table(self) -> str:
        """For people."""
        total = sum(self.counts.values())
        rows = [
            ("seconds", f"{self.seconds:.0f}"),
            ("requests", f"{total}, {total / self.seconds:.0f} a second"),
            *((f"  {kind}", str(count)) for kind, count in sorted(self.counts.items())),
            ("slowest answer", f"{self.slowest * 1e3:.0f} ms"),
            *((kind, str(count)) for kind, count in sorted(self.done.items())),
            (
                "resident memory",
                f"{self.before.resident >> 10} KiB, then {self.after.resident >> 10}",
            ),
            ("descriptors", f"{self.before.descriptors}, then {self.after.descriptors}"),
            ("threads", f"{self.before.threads}, then {self.after.threads}"),
        ]
        return "\n".join(f"{name:<20}{value}" for name, value in rows)


def run(seconds: float, *, seed: int) -> Report:
    """Raises AssertionError where something that must succeed did not."""
    machine = host_machine()
    shared = _shared_memory()
    with (
        temporary_device(machine.agent(), machine) as device,
        tempfile.TemporaryDirectory() as work,
    ):
        chaos = Chaos(device=device, work=Path(work), source=random.Random(seed))
        chaos.set_up()
        with device.serving("--tcp", "0"):
            clients = [_start(device, number, seed) for number in range(CLIENTS)]
            try:
                began = time.monotonic()
                before = _disturb(chaos, began + WARM_UP * seconds)
                after = _disturb(chaos, began + seconds)
                answers = [_end(client) for client in clients]
                took = time.monotonic() - began
            finally:
                for client in clients:
                    client.kill()
        left_over = [f"left in /dev/shm: {name}" for name in _shared_memory() - shared]
        left_over += [f"left in the store: {name}" for name in _unnamed_blobs(device)]
    return Report(
        seconds=took,
        counts=sum((Counter(answer["counts"]) for answer in answers), Counter[str]()),
        done=chaos.done,
        failures=[failure for answer in answers for failure in answer["failures"]],
        before=before,
        after=after,
        left_over=left_over,
        slowest=max(answer["slowest"] for answer in answers),
    )


def _disturb(chaos: Chaos, until: float) -> Footprint:
    """Until then; afterwards all is in order again, but for the clients, who go on."""
    pause = threading.Event()
    while time.monotonic() < until:
        chaos.anything()
        pause.wait(chaos.source.uniform(0, 0.2))
    chaos.settle()
    return _footprint(chaos.device)


def _start(device: Device, number: int, seed: int) -> subprocess.Popen[str]:
    way = WAYS[number % len(WAYS)]
    over_tcp = way != "shared" and number % 2 == 1
    address = device.tcp_address if over_tcp else str(device.socket)
    command = [sys.executable, "-m", "tests.load.client", way, address, str(1000 * seed + number)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _end(client: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = client.communicate(timeout=60)
    assert client.returncode == 0, f"a client ended with {client.returncode}"
    answer: dict[str, Any] = json.loads(output)
    return answer


def _footprint(device: Device) -> Footprint:
    """The least of a few looks: a command that has just ended may still be connected."""
    assert device.server is not None
    process = Path(f"/proc/{device.server.pid}")
    looks = []
    for _ in range(20):
        looks.append(
            Footprint(
                resident=int((process / "statm").read_text().split()[1])
                * os.sysconf("SC_PAGE_SIZE"),
                descriptors=len(list((process / "fd").iterdir())),
                threads=len(list((process / "task").iterdir())),
                zombies=sum(state_of(pid) == "Z" for pid in device.workers()),
            )
        )
        threading.Event().wait(0.02)
    return min(looks, key=lambda it: (it.descriptors, it.threads, it.zombies, it.resident))


def _shared_memory() -> set[str]:
    """Of clients, and of workers where there is no memfd."""
    return {
        path.name
        for path in Path("/dev/shm").glob("edgepack*")
        if path.name.startswith(("edgepack-load", "edgepack."))
    }


def _unnamed_blobs(device: Device) -> set[str]:
    named = set()
    for model in range(MODELS):
        state = json.loads((device.root / "models" / f"m{model}" / "state.json").read_text())
        for version in filter(None, (state["current"], state["previous"])):
            named |= {digits for kind, digits in version.items() if kind != "version"}
    return {path.name for path in (device.root / "blobs" / "sha256").iterdir()} ^ named
