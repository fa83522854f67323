"""Cases in processes of their own: one that crashes or hangs takes no other with it."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

_DEADLINE = 120.0
"""Seconds that one case may take."""


class _Runner:
    """A process that takes names of cases, a line each, and answers with a line of JSON."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "conformance.runner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.current = ""
        self.since = 0.0

    def give(self, name: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        self.current, self.since = name, time.monotonic()

    def take(self) -> str:
        """The answer, or how the process ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            return f"the compiler ended with status {self.process.wait()}"
        return str(json.loads(line))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class _Pool:
    """Runners, each busy with one case."""

    def __init__(self, names: Sequence[str], say: Callable[[str, str], None]) -> None:
        self.pending = list(reversed(names))
        self.say = say
        self.found: dict[str, str] = {}
        self.selector = selectors.DefaultSelector()

    def start(self) -> None:
        """One more runner, if there is work."""
        if self.pending:
            runner = _Runner()
            assert runner.process.stdout is not None
            self.selector.register(runner.process.stdout, selectors.EVENT_READ, runner)
            runner.give(self.pending.pop())

    def finish(self, runner: _Runner, result: str, *, alive: bool) -> None:
        """Note a result; the runner goes on, or another takes its place."""
        self.found[runner.current] = result
        self.say(runner.current, result)
        if alive and self.pending:
            runner.give(self.pending.pop())
            return
        assert runner.process.stdout is not None
        self.selector.unregister(runner.process.stdout)
        runner.end()
        if not alive:
            self.start()

    def step(self) -> None:
        """Wait a moment for results, and end what takes too long."""
        for key, _ in self.selector.select(timeout=1.0):
            result = key.data.take()
            self.finish(key.data, result, alive=key.data.process.poll() is None)
        for key in list(self.selector.get_map().values()):
            if time.monotonic() - key.data.since > _DEADLINE:
                self.finish(key.data, f"no result within {_DEADLINE:.0f} s", alive=False)


def run(names: Sequence[str], jobs: int, say: Callable[[str, str], None]) -> dict[str, str]:
    """What ``attempt`` gives for each case, by name; ``say`` hears of each as it is done."""
    pool = _Pool(names, say)
    for _ in range(jobs):
        pool.start()
    while pool.selector.get_map():
        pool.step()
    pool.selector.close()
    return pool.found
