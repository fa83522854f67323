"""An installation is cut, or the system fails it, at every single system call that changes anything.

Emulated, where strace sees the emulator's calls, which are the agent's and a few of its own: at every
fourth.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from edgepack.trust import PrivateKey
from tests.conftest import unavailable
from tests.native.device_store import Device

pytestmark = pytest.mark.also_on("aarch64")

CHANGING = (
    *("openat", "write", "writev", "pwrite64", "fsync", "fchmod", "ftruncate", "mkdirat"),
    *(
        "rename",
        "renameat",
        "renameat2",
        "unlink",
        "unlinkat",
        "rmdir",
        "flock",
        "fork",
        "clone",
        "mmap",
    ),
)
FAILING = {
    "write": ("ENOSPC", "EIO"),
    "writev": ("ENOSPC", "EIO"),
    "pwrite64": ("ENOSPC", "EIO"),
    "fsync": ("EIO", "ENOSPC"),
    "fchmod": ("EPERM",),
    "mkdirat": ("ENOSPC",),
    "rename": ("EIO", "ENOSPC"),
    "renameat": ("EIO", "ENOSPC"),
    "renameat2": ("EIO", "ENOSPC"),
    "openat": ("EMFILE", "EACCES"),
    "flock": ("ENOLCK",),
}
# strace names all system calls of any architecture it knows; "?" before a name skips an unknown one.


def trace(
    device: Device, *arguments: str | Path, inject: str = ""
) -> subprocess.CompletedProcess[str]:
    options = ["strace", "-qq", "-o", str(device.root.parent / "trace")]
    if inject:
        options += ["-e", f"inject={inject}"]
    return subprocess.run(
        [*options, *device.command(*arguments)], capture_output=True, text=True, check=False
    )


def calls(device: Device) -> Counter[str]:
    lines = (device.root.parent / "trace").read_text().splitlines()
    names = (re.match(r"(\w+)\(", line) for line in lines)
    return Counter(match.group(1) for match in names if match)


def numbers(device: Device, count: int) -> range:
    """Which calls of one name, of so many, are tried."""
    return range(1, count + 1, 4 if device.machine.emulator else 1)


def assert_whole(device: Device, versions: set[str]) -> str:
    """What is current is one of these, and all its blobs are there. The version."""
    current = device.current()
    assert current in versions
    state = json.loads((device.root / "models/demo/state.json").read_text())
    for installed in filter(None, (state["current"], state["previous"])):
        for digits in (value for key, value in installed.items() if key != "version"):
            assert (device.root / "blobs/sha256" / digits).exists()
    return str(current)


@pytest.fixture
def versions(
    tmp_path: Path, device: Device, key: PrivateKey
) -> tuple[Device, Path, Path, Counter[str]]:
    """A device with 1.0.0; the packages of 1.0.0 and 2.0.0; how often 2.0.0 calls what."""
    paths = tmp_path / "1.epk", tmp_path / "2.epk"
    device.write(paths[0], key, version="1.0.0")
    device.write(paths[1], key, version="2.0.0")
    device.installed("install", paths[0])
    done = trace(device, "install", paths[1])
    if done.returncode != 0 and not done.stdout:
        unavailable(f"strace may not trace here: {done.stderr.strip()}")
    counted = calls(device)
    assert counted["fsync"] > 5
    start_again(device, paths[0])
    return device, *paths, counted


def start_again(device: Device, first: Path) -> None:
    """Back to 1.0.0 alone, without anything that a version before it left."""
    (device.root / "models/demo/state.json").unlink(missing_ok=True)
    device.installed("install", first)
    device.assert_consistent()


@pytest.mark.needs("strace")
def test_killed_anywhere_the_old_or_the_new_version_is_there(
    versions: tuple[Device, Path, Path, Counter[str]],
) -> None:
    device, first, second, counted = versions
    seen: Counter[str] = Counter()
    for name in CHANGING:
        for number in numbers(device, counted[name]):
            done = trace(device, "install", second, inject=f"{name}:signal=KILL:when={number}")
            where = f"{name} {number}"
            assert done.stdout == "", where
            seen[assert_whole(device, {"1.0.0", "2.0.0"})] += 1
            # The next command clears what was left, and finishes.
            assert device.installed("install", second)["version"] == "2.0.0", where
            device.assert_consistent()
            start_again(device, first)
    assert seen["1.0.0"] > (20 if device.machine.emulator else 50), seen
    assert seen["2.0.0"] > 0, seen


@pytest.mark.needs("strace")
def test_failed_anywhere_by_the_system_the_answer_is_true(
    versions: tuple[Device, Path, Path, Counter[str]],
) -> None:
    device, first, second, counted = versions
    failures = 0
    for name, errors in FAILING.items():
        for error in errors:
            for number in numbers(device, counted[name]):
                done = trace(
                    device, "install", second, inject=f"{name}:error={error}:when={number}"
                )
                where = f"{name} {number} {error}: {done.stdout}{done.stderr}"
                assert done.returncode in (0, 1, 7, 8, 10), where
                current = assert_whole(device, {"1.0.0", "2.0.0"})
                if done.stdout:
                    answer = json.loads(done.stdout)
                    assert answer["ok"] == (done.returncode == 0) == (current == "2.0.0"), where
                    failures += not answer["ok"]
                device.installed("install", second)
                device.assert_consistent()
                start_again(device, first)
    assert failures > (5 if device.machine.emulator else 20)


@pytest.mark.needs("strace")
def test_a_rollback_killed_anywhere_leaves_one_of_the_two(
    versions: tuple[Device, Path, Path, Counter[str]],
) -> None:
    device, _, second, _ = versions
    device.installed("install", second)
    trace(device, "rollback")
    counted = calls(device)
    for name in CHANGING:
        for number in numbers(device, counted[name]):
            before = device.current()
            trace(device, "rollback", inject=f"{name}:signal=KILL:when={number}")
            after = assert_whole(device, {"1.0.0", "2.0.0"})
            if after == before:
                device.installed("rollback")
            device.assert_consistent()
