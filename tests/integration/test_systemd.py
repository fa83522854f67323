"""The unit that ``device setup`` installs, started by a real systemd on a whole arm64 machine."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.integration.machines import arm64, models
from tests.integration.machines.arm64_device import EdgeDevice, X
from tests.integration.machines.ports import wait_until

pytestmark = pytest.mark.needs(*arm64.PROGRAMS)
UNIT = "edgepack-agent.service"
GROUP = f"/sys/fs/cgroup/system.slice/{UNIT}"
WATCHDOG = 8
"""Seconds, instead of the unit's minute."""
NUMBER = 1
"""Of the version that is installed."""


class Service(EdgeDevice):
    """The device, and what its systemd says of the agent."""

    def show(self) -> dict[str, str]:
        """The state of the unit."""
        names = "ActiveState,SubState,StatusText,MainPID,NRestarts,Result,UnitFileState"
        lines = self.run(f"systemctl show -p {names} {UNIT}").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def pid(self) -> str:
        """Of the agent."""
        return self.show()["MainPID"]

    def restarts(self) -> int:
        """How often systemd started it again by itself."""
        return int(self.show()["NRestarts"])

    def configure(self, name: str, text: str) -> None:
        """A drop-in for the unit, until the next boot."""
        folder = f"/run/systemd/system/{UNIT}.d"
        told = self.run(
            f"mkdir -p {folder}; printf '[Service]\\n{text}\\n' > {folder}/{name}.conf;"
            " systemctl daemon-reload"
        )
        assert told == ""

    def workers(self) -> list[str]:
        """All processes that run a worker, in whatever control group."""
        script = """
            for process in /proc/[0-9]*; do
              case "$(readlink $process/exe)" in
                /var/lib/edgepack/blobs/*) echo ${process#/proc/} ;;
              esac
            done
        """
        return self.run(script).split()

    def groups(self) -> list[str]:
        """Of the workers, within the unit's one."""
        return self.run(f"cd {GROUP} && echo worker-* | grep -v '[*]'").split()

    def outgrow(self, worker: str) -> None:
        """Lower the bound below what it has: the kernel ends it."""
        self.run(f"echo 0 > {GROUP}/worker-{worker}/memory.max")
        wait_until(lambda: worker not in self.workers(), 20, "the kernel has ended it")

    def assert_served_by_systemd(self) -> None:
        """The unit is active, and its model answers, from a worker in the one group that there is."""
        wait_until(lambda: self.show()["ActiveState"] == "active", 60, "the unit is active")
        self.assert_serves(NUMBER)
        (worker,) = self.workers()
        assert self.groups() == [f"worker-{worker}"]

    def ask(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        """What the served API answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.machine.http_port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(content))
            response = connection.getresponse()
            answer = response.read()
        assert response.status == 200, answer
        return dict(json.loads(answer or "{}"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("systemd")
    with arm64.machine(folder, arm64.SYSTEMD) as found:
        found.boot()
        service = Service(found, folder)
        # A file system of its own, with another one in it.
        service.run("mkdir /data; mount -t tmpfs a /data; mkdir /data/b; mount -t tmpfs b /data/b")
        assert service.set_up().service == UNIT
        service.push(service.package(NUMBER))
        yield service


def test_unit_is_active_when_systemd_was_told_that_models_are_served(service: Service) -> None:
    state = service.show()
    assert (state["ActiveState"], state["SubState"]) == ("active", "running")
    assert (state["UnitFileState"], state["NRestarts"]) == ("enabled", "0")
    service.assert_served_by_systemd()
    assert service.set_up().status.serving
    service.assert_served_by_systemd()
    again = service.show()
    assert again["MainPID"] != state["MainPID"]
    assert again["StatusText"] == "1 models, 1 of them served"


def test_agent_can_write_to_its_store_and_to_shared_memory_alone(service: Service) -> None:
    pid = service.pid()
    writable = set()
    for line in service.run(f"cat /proc/{pid}/mountinfo").splitlines():
        _, _, _, _, place, options, *_ = line.split()
        if "rw" in options.split(","):
            writable.add(place)
    private = {"/tmp", "/var/tmp"}
    # /proc is closed by what lies over it, and /dev/pts has no terminals of the agent.
    assert writable == {"/var/lib/edgepack", "/dev/shm", GROUP, "/proc", "/dev/pts", *private}
    try_ = f"nsenter -t {pid} -m touch"
    told = service.run(f"for d in /etc /run/systemd/system /data/b; do {try_} $d/x; done")
    assert told.count("Read-only file system") == 3, told
    assert "x" not in service.run(f"{try_} /tmp/x; ls /tmp").split()


def test_each_worker_has_a_control_group_within_the_units(service: Service) -> None:
    assert "each worker has a control group of its own" in service.run(f"journalctl -u {UNIT}")
    before = service.show()
    seen = set()
    for _ in range(2):
        service.assert_served_by_systemd()
        (worker,) = service.workers()
        names = ("pids.max", "memory.max", "memory.current")
        files = " ".join(f"worker-{worker}/{name}" for name in names)
        told = service.run(f"cd {GROUP}; cat agent/cgroup.procs {files}").split()
        agent, threads, limit, used = told
        assert (agent, threads) == (before["MainPID"], "72")
        assert 1 << 14 < int(used) < int(limit) < 1 << 28, "it was there before it took its memory"
        seen.add(worker)
        service.outgrow(worker)
    assert len(seen) == 2
    service.assert_served_by_systemd()
    assert "oom_kill 2" in service.run(f"cat {GROUP}/memory.events").splitlines()
    now = service.show()
    assert (now["MainPID"], now["ActiveState"]) == (before["MainPID"], "active")


def test_shared_memory_of_another_process_works(service: Service) -> None:
    """Of another user, too, which takes a capability that the unit must leave."""
    data = base64.b64encode(X.tobytes()).decode()
    service.run(
        f"cd /dev/shm; echo {data} | base64 -d > x; head -c {X.nbytes} /dev/zero > y;"
        " chmod 600 x y; chown 1000:1000 x y"
    )
    for name in ("x", "y"):
        region = {"key": f"/{name}", "offset": 0, "byte_size": X.nbytes}
        service.ask(f"/v2/systemsharedmemory/region/{name}/register", region)

    def tensor(name: str) -> dict[str, Any]:
        where = {"shared_memory_region": name, "shared_memory_byte_size": X.nbytes}
        return {"name": name, "datatype": "FP32", "shape": list(X.shape), "parameters": where}

    output = {"name": "y", "parameters": tensor("y")["parameters"]}
    service.ask("/v2/models/linear/infer", {"inputs": [tensor("x")], "outputs": [output]})
    answer = base64.b64decode(service.run("base64 /dev/shm/y; rm /dev/shm/[xy]"))
    got = np.frombuffer(answer, np.float32)
    expected = np.maximum(X @ models.weights(NUMBER), 0)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_killed_agent_is_started_again_and_leaves_no_worker(service: Service) -> None:
    restarts, old = service.restarts(), service.workers()
    service.run(f"kill -9 {service.pid()}")
    wait_until(lambda: service.restarts() == restarts + 1, 30, "systemd starts it again")
    service.assert_served_by_systemd()
    assert not {*old} & {*service.workers()}


def test_agent_that_hangs_is_killed_by_the_watchdog_and_started_again(service: Service) -> None:
    service.configure("watchdog", f"WatchdogSec={WATCHDOG}")
    service.run(f"systemctl restart {UNIT}")
    service.assert_served_by_systemd()
    seen: set[str] = set()

    def has_lived_on() -> bool:
        seen.add(service.run(f"systemctl show -p WatchdogTimestampMonotonic {UNIT}"))
        return len(seen) > 3  # signs of life, each within half of the time

    wait_until(has_lived_on, 60, "the agent tells the watchdog that it lives")
    assert service.restarts() == 0, "an agent that does not hang is left alone"
    old = service.workers()
    service.run(f"kill -STOP {service.pid()}")
    wait_until(lambda: service.restarts() == 1, 90, "systemd starts it again")
    service.assert_served_by_systemd()
    assert not {*old} & {*service.workers()}
    assert "Watchdog timeout" in service.run(f"journalctl -u {UNIT}")


def test_workers_of_an_agent_that_is_another_user_have_control_groups(service: Service) -> None:
    config = "/var/lib/edgepack/serve.json"
    service.run(f"""echo '{{"user":"1000:1000"}}' > {config}; systemctl restart {UNIT}""")
    service.assert_served_by_systemd()
    (worker,) = service.workers()
    for pid in (service.pid(), worker):
        users = service.run(f"grep -E '^(Uid|Gid|CapEff)' /proc/{pid}/status").split()
        assert users == ["Uid:", *["1000"] * 4, "Gid:", *["1000"] * 4, "CapEff:", "0" * 16]
    assert service.run(f"cat {GROUP}/worker-{worker}/pids.max").strip() == "72"
    service.run(f"rm {config}; systemctl restart {UNIT}")
    service.assert_served_by_systemd()


def test_stop_ends_workers_with_success_and_start_serves_again(service: Service) -> None:
    service.run(f"systemctl stop {UNIT}")
    assert service.workers() == []
    state = service.show()
    assert (state["ActiveState"], state["Result"]) == ("inactive", "success")
    service.run(f"systemctl start {UNIT}")
    service.assert_served_by_systemd()


def test_reboot_serves_what_was_installed(service: Service) -> None:
    # Later, by a timer: a reboot at once may end the connection before it has said how that went.
    reboot = "systemd-run --on-active=2 --timer-property=AccuracySec=100ms systemctl reboot"
    service.machine.reboot_in_order(lambda: service.run(reboot))
    service.assert_served_by_systemd()
    assert service.restarts() == 0
