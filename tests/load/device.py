"""The device under load: fake models through the real installation, and what can be done to it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgepack.artefacts import GoldenVectors
from edgepack.trust import PrivateKey, new_key
from tests import package_samples as samples
from tests.load.client import MODELS, tag
from tests.native.fake_device import Device, FakeModel, state_of, wait_until


@dataclass
class Chaos:
    """What is done to the device, one thing at a time, and how often it was done."""

    device: Device
    work: Path
    source: random.Random
    key: PrivateKey = field(default_factory=new_key)
    newest: dict[int, int] = field(default_factory=dict)
    """The highest N of 1.N.0 that each model was ever installed in."""
    done: Counter[str] = field(default_factory=Counter)

    def set_up(self) -> None:
        """A device that trusts the key, with two versions of each model."""
        trust = self.device.root / "trust"
        trust.mkdir()
        (trust / "load.pub").write_bytes(self.key.public_key.to_pem())
        (self.device.root / "config.json").write_text(json.dumps({"target": "host"}))
        for model in range(MODELS):
            for _ in range(2):
                self.install(model)
        self.done.clear()

    def anything(self) -> None:
        """One of all that can happen, at random."""
        model = self.source.randrange(MODELS)
        actions = [self.kill] * 4 + [self.install] * 2 + [self.roll_back, self.reload]
        self.source.choice(actions)(model)

    def kill(self, _: int) -> None:
        """SIGKILL, for whichever worker."""
        workers = [pid for pid in self.device.workers() if state_of(pid) not in "ZX"]
        if not workers:
            return
        try:
            os.kill(self.source.choice(workers), signal.SIGKILL)
        except ProcessLookupError:  # it was replaced meanwhile
            return
        self.done["kills"] += 1

    def install(self, model: int) -> None:
        """A new version, by the agent's own command."""
        number = self.newest.get(model, 0) + 1
        self._command("install", str(self._package(model, number)))
        self.newest[model] = number
        self.done["installs"] += 1

    def roll_back(self, model: int) -> None:
        """To the version before; twice is back again."""
        self._command("rollback", f"m{model}")
        self.done["rollbacks"] += 1

    def reload(self, model: int) -> None:
        """Unload, and load after a moment in which requests are refused."""
        self._must("unload", model)
        for _ in range(5):
            assert self.device.ask("GET", "/v2/health/live")[0] == 200
        self._must("load", model)
        self.done["unloads"] += 1

    def settle(self) -> None:
        """Every model is loaded, and has a worker that runs."""
        for model in range(MODELS):
            self._must("load", model)
        wait_until(lambda: len(self.device.workers()) == MODELS)

    def _must(self, verb: str, model: int) -> None:
        status, answer = self.device.ask("POST", f"/v2/repository/models/m{model}/{verb}")
        assert status == 200, answer

    def _command(self, *words: str) -> None:
        command = self.device.command(*words)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, (words, done.stdout, done.stderr)

    def _package(self, model: int, number: int) -> Path:
        fake = FakeModel(tag=tag(model), weight=float(number))
        inputs = [np.full((2, 2), value, np.float32) for value in (0.5, 7.0)]
        golden = GoldenVectors(
            inputs=tuple({"x": x} for x in inputs),
            outputs=tuple(
                {"y": x + np.float32(number), "calls": np.array([run, tag(model)], np.int64)}
                for run, x in enumerate(inputs, 1)
            ),
            tolerance=1e-4,
            distinct=True,
        )
        path = self.work / f"m{model}.epk"
        package = samples.write(
            path,
            "host",
            name=f"m{model}",
            version=f"1.{number}.0",
            worker=fake.worker(),
            weights=fake.weights,
            inputs=fake.inputs,
            outputs=fake.outputs,
            golden=golden,
        )
        return samples.signed(package, self.key).path
