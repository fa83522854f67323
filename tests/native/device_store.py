"""A device in a folder, driven by the real agent, and packages that its fake worker can run."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from edgepack.artefacts import Package
from edgepack.trust import PrivateKey
from tests import package_samples as samples
from tests.native.fake_device import Machine, host_machine

TARGET = "host"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Exit code and the one JSON object of a command."""

    code: int
    json: dict[str, Any]

    @property
    def refused(self) -> tuple[int, str]:
        """Exit code and check of a refusal."""
        assert self.json["ok"] is False, self.json
        assert self.json["reason"], self.json
        return self.code, self.json["check"]


@dataclass(frozen=True, kw_only=True)
class Device:
    """ROOT of one device, and the agent that works on it."""

    root: Path
    agent: Path
    machine: Machine = field(default_factory=host_machine)

    @property
    def target(self) -> str:
        """The name of what its packages are compiled for."""
        return self.machine.target.name

    def write(self, path: Path, *keys: PrivateKey, version: str, **more: Any) -> Package:
        """A signed package that it can run, once it was set up."""
        worker = self.machine.program(fake_worker(self.machine.target.zig_static_triple), self.root)
        values = {"worker": worker, "target": self.target, **more}
        return write(path, *keys, version=version, **values)

    def set_up(self, *keys: PrivateKey, target: str | None = None) -> None:
        target = target or self.target
        trust = self.root / "trust"
        trust.mkdir(parents=True, exist_ok=True)
        (self.root / "config.json").write_text(json.dumps({"target": target}))
        for key in keys:
            (trust / f"{key.public_key.key_id[:8]}.pub").write_bytes(key.public_key.to_pem())

    def command(self, *arguments: str | Path) -> list[str]:
        return [*self.machine.command(self.agent), "--root", str(self.root), *map(str, arguments)]

    def run(self, *arguments: str | Path) -> Answer:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        lines = done.stdout.splitlines()
        assert len(lines) == 1, (done.returncode, done.stdout, done.stderr)
        assert (done.returncode == 0) == (done.stderr == ""), done.stderr
        return Answer(code=done.returncode, json=json.loads(lines[0]))

    def installed(self, *arguments: str | Path) -> dict[str, Any]:
        """The answer of a command that must succeed."""
        answer = self.run(*arguments)
        assert answer.code == 0, answer.json
        return answer.json

    def current(self, name: str = "demo") -> str | None:
        """The installed version of a model."""
        for model in self.installed("status")["models"]:
            if model["name"] == name:
                return str(model["current"]["version"])
        return None

    def contents(self) -> dict[str, bytes]:
        """Every file under blobs/ and models/, to compare before and after."""
        files = [path for top in ("blobs", "models") for path in (self.root / top).rglob("*")]
        return {
            str(path.relative_to(self.root)): path.read_bytes() for path in files if path.is_file()
        }

    def assert_consistent(self) -> None:
        """All that a state names is there and whole, and nothing else is."""
        named = set()
        for state in self.root.glob("models/*/state.json"):
            value = json.loads(state.read_text())
            for installed in filter(None, (value["current"], value["previous"])):
                named |= {digits for key, digits in installed.items() if key != "version"}
        assert set(self.installed("blobs")["blobs"]) == named
        for digits in named:
            data = (self.root / "blobs" / "sha256" / digits).read_bytes()
            assert hashlib.sha256(data).hexdigest() == digits


@cache
def fake_worker(triple: str) -> bytes:
    """The bytes of fake_worker.c's executable."""
    source = Path(__file__).with_name("fake_worker.c")
    command = [sys.executable, "-m", "ziglang", "cc", "-target", triple, "-static", "-s", "-Os"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "worker"
        subprocess.run([*command, str(source), "-o", str(out)], check=True)
        return out.read_bytes()


def write(
    path: Path,
    *keys: PrivateKey,
    version: str,
    worker: bytes,
    weights: str = "good",
    target: str = TARGET,
    **more: Any,
) -> Package:
    """A signed package, for this machine if for no other, whose fake worker behaves as the weights say."""
    package = samples.write(
        path,
        target,
        version=version,
        worker=worker,
        weights=f"{weights} {version}".encode(),
        **more,
    )
    return samples.signed(package, *keys)


def publish(package: Package, place: Path) -> Path:
    """What the directory and S3 channels write: blobs by digest, and the envelope as the pointer."""
    (place / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    (place / "models").mkdir(exist_ok=True)
    for name, data in samples.unpack(package.path).items():
        if name.startswith("blobs/"):
            (place / name).write_bytes(data)
    assert package.envelope is not None
    (place / "models" / f"{package.name}.json").write_bytes(package.envelope)
    return place
