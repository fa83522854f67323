from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgepack.trust import PrivateKey
from tests.conftest import unavailable
from tests.native.collector import Collector
from tests.native.device_store import Device as PackageDevice
from tests.native.device_store import write
from tests.native.fake_device import Device, request, values, wait_until

USER, GROUP = 61234, 61235
INFER = "/v2/models/m/infer"


@pytest.fixture(autouse=True)
def as_root() -> None:
    if os.geteuid() != 0:
        unavailable("only root can become another user")


@pytest.fixture
def open_device(idle: Device) -> Device:
    """One whose ROOT others may enter, as /var/lib/edgepack."""
    idle.root.chmod(0o755)
    return idle


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_root_keeps_two_capabilities_and_gains_none(idle: Device) -> None:
    with idle.serving():
        assert idle.server is not None
        status = status_of(idle.server.pid)
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 1 << 1 | 1 << 10
        assert status["NoNewPrivs"] == "1"


@pytest.mark.parametrize("user", [f"{USER}:{GROUP}", "nobody"])
def test_another_user_serves_and_nothing_of_root_is_left(open_device: Device, user: str) -> None:
    with open_device.serving("--user", user):
        assert open_device.server is not None
        for process in (open_device.server.pid, *open_device.workers()):
            status = status_of(process)
            if user != "nobody":
                assert status["Uid"].split() == [str(USER)] * 4
                assert status["Gid"].split() == [str(GROUP)] * 4
            assert "0" not in status["Uid"].split()
            assert status["Groups"] == ""
            for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(status[kind], 16) == 0
        status_code, answer = open_device.ask("POST", INFER, request([1, 2, 3, 4]))
        assert (status_code, values(answer)["y"]) == (200, [2, 3, 4, 5])
        connection = open_device.connect()
        connection.request("GET", "/metrics")
        assert b"process_open_fds" in connection.getresponse().read()
        connection.close()
    assert (open_device.root / "run").stat().st_uid != 0
    assert open_device.root.stat().st_uid == 0


def test_what_root_installs_the_server_of_another_user_loads(
    tmp_path: Path, open_device: Device, agent: Path, worker: bytes, key: PrivateKey
) -> None:
    device = PackageDevice(root=open_device.root, agent=agent)
    device.set_up(key)
    with open_device.serving("--user", f"{USER}:{GROUP}"):
        for version in ("1.0.0", "1.1.0"):
            package = write(tmp_path / "a.epk", key, version=version, worker=worker)
            assert device.installed("install", package.path)["version"] == version
            index = open_device.ask("POST", "/v2/repository/index")[1]
            assert {"demo": version}.items() <= {e["name"]: e["version"] for e in index}.items()


def test_folders_of_captures_are_given_and_nothing_that_a_link_leads_to(
    open_device: Device,
) -> None:
    captures = open_device.root / "captures"
    (captures / "m").mkdir(parents=True)
    (captures / "n").symlink_to(open_device.root / "trust")
    with open_device.serving("--user", f"{USER}:{GROUP}"):
        owners = [path.stat().st_uid for path in (captures / "m", captures, captures / "n")]
        assert owners == [USER, 0, 0]


def test_what_a_server_of_root_left_in_run_is_not_in_the_way(open_device: Device) -> None:
    """Nor does root follow what the user may have put there."""
    with open_device.serving():
        pass
    precious = open_device.root / "precious"
    precious.write_text("x")
    precious.chmod(0o600)
    log = open_device.root / "run" / "agent.log"
    log.symlink_to(precious)
    os.chown(open_device.root / "run", USER, GROUP)
    with open_device.serving("--user", f"{USER}:{GROUP}"):
        assert open_device.ask("GET", "/v2/health/ready")[0] == 200
    assert (precious.read_text(), precious.stat().st_uid) == ("x", 0)
    assert (open_device.root / "run" / "serve.lock").stat().st_uid == USER


def test_another_user_captures_and_pushes_and_root_may_do_it_by_hand(open_device: Device) -> None:
    def capture(*arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            open_device.command("capture", *arguments), capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    capture("set", "m", '{"always":true}')
    with Collector().listening() as collector:
        config = open_device.root / "push.json"
        config.write_text(json.dumps({"url": collector.url, "interval_s": 1}))
        with open_device.serving("--user", f"{USER}:{GROUP}"):
            assert open_device.ask("POST", INFER, request([1, 2, 3, 4]))[0] == 200
            wait_until(lambda: len(collector.numbers()) == 1)
            wait_until(lambda: (open_device.root / "captures/m/pushed").exists())
            assert open_device.ask("POST", INFER, request([1, 2, 3, 4]))[0] == 200
            wait_until(lambda: len(collector.numbers()) == 2)
            assert capture("push") == {"ok": True, "records": 0}
            assert open_device.ask("POST", INFER, request([1, 2, 3, 4]))[0] == 200
            wait_until(lambda: len(collector.numbers()) == 3)
            config.chmod(0o600)
            config.touch()
            wait_until(lambda: "cannot be read" in (open_device.root / "stderr").read_text())
        assert sorted(set(collector.numbers())) == collector.numbers()
    assert capture("list")["device"] == (open_device.root / "captures/.device").read_text()


@pytest.mark.parametrize(
    ("user", "code", "word"),
    [
        ("no-such-user", 2, "no such user"),
        ("1:2:3", 2, "no UID:GID"),
        ("-1", 2, "no UID:GID"),
        ("4294967295", 2, "no UID:GID"),
    ],
)
def test_who_is_no_user_is_refused(idle: Device, user: str, code: int, word: str) -> None:
    command = idle.command("serve", "--user", user)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, word in done.stderr) == (code, True), done.stderr


def test_only_root_becomes_another(open_device: Device) -> None:
    subprocess.run(open_device.command("status"), check=True, stdout=subprocess.DEVNULL)
    # Not the one in the cache, which may be in root's home.
    program = Path(shutil.copy(open_device.agent, open_device.root / "edgepack-agent"))
    command = [str(program), "--root", str(open_device.root), "serve", "--user", "61299"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, user=USER, group=GROUP
    )
    assert (done.returncode, "only root" in done.stderr) == (10, True), done.stderr
