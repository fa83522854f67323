"""Bytes of a signed package are flipped everywhere; the agent refuses each, and keeps its store."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from edgepack.trust import PrivateKey
from tests.native.device_store import Device, publish

TRUST = {"package": 7, "digest": 8, "signature": 8, "key": 8, "statement": 8, "version": 8}

pytestmark = pytest.mark.also_on("aarch64")


@pytest.fixture
def serving(tmp_path: Path, device: Device, key: PrivateKey) -> Device:
    device.write(tmp_path / "1.0.0.epk", key, version="1.0.0")
    device.installed("install", tmp_path / "1.0.0.epk")
    return device


def test_one_flipped_byte_anywhere_is_refused(
    tmp_path: Path, serving: Device, key: PrivateKey
) -> None:
    package = serving.write(tmp_path / "a.epk", key, version="2.0.0")
    good = package.path.read_bytes()
    path = tmp_path / "flipped.epk"
    path.write_bytes(good)
    before = serving.contents()
    # Every 512-byte block at a stride that is no divisor of it: headers, documents, contents, padding,
    # end. All of the blocks, about 1,000 positions in them; emulated, every fourth.
    checks: dict[str, int] = {}
    stride = max(1, len(good) // 1000) | 1
    positions = range(0, len(good), stride * (4 if serving.machine.emulator else 1) | 1)
    with path.open("r+b", buffering=0) as file:
        for position in positions:
            file.seek(position)
            file.write(bytes([good[position] ^ (1 << (position % 8))]))
            done = subprocess.run(
                serving.command("install", path), capture_output=True, check=False
            )
            answer = json.loads(done.stdout)
            assert answer["ok"] is False, position
            assert done.returncode == TRUST[answer["check"]], (position, answer)
            checks[answer["check"]] = checks.get(answer["check"], 0) + 1
            file.seek(position)
            file.write(good[position : position + 1])
    assert serving.contents() == before
    assert {"package", "digest"} <= set(checks), checks
    assert serving.installed("install", path)["version"] == "2.0.0"  # nothing was left flipped


def test_every_byte_of_a_signed_pointer_counts(
    tmp_path: Path, serving: Device, key: PrivateKey
) -> None:
    package = serving.write(tmp_path / "a.epk", key, version="2.0.0")
    place = publish(package, tmp_path / "place")
    pointer = place / "models" / "demo.json"
    good = pointer.read_bytes()
    before = serving.contents()
    for position in range(0, len(good), 7):
        bad = bytearray(good)
        bad[position] ^= 1 << (position % 8)
        pointer.write_bytes(bad)
        answer = serving.run("pull", place, "demo")
        assert answer.refused[1] in TRUST, (position, answer.json)
    assert serving.contents() == before
    pointer.write_bytes(good)
    assert serving.installed("pull", place, "demo")["models"][0]["version"] == "2.0.0"


def test_every_truncation_is_refused(tmp_path: Path, serving: Device, key: PrivateKey) -> None:
    package = serving.write(tmp_path / "a.epk", key, version="2.0.0")
    good = package.path.read_bytes()
    path = tmp_path / "cut.epk"
    before = serving.contents()
    for length in [*range(0, len(good), 509), len(good) - 1]:
        path.write_bytes(good[:length])
        assert serving.run("install", path).refused == (7, "package"), length
    path.write_bytes(good + b"\0")
    assert serving.run("install", path).refused == (7, "package")
    assert serving.contents() == before
