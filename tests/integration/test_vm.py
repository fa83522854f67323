"""Pushes to a whole arm64 machine, and cuts of its power."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from edgepack.artefacts import SignedPackage
from edgepack.channels import device
from edgepack.channels.ssh_session import Session
from edgepack.errors import ChannelError, DeviceError
from tests.integration.machines import arm64
from tests.integration.machines.arm64_device import TARGET, URL, EdgeDevice
from tests.integration.machines.ports import wait_until

pytestmark = pytest.mark.needs(*arm64.PROGRAMS)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeDevice]:
    folder = tmp_path_factory.mktemp("machine")
    with arm64.machine(folder) as found:
        found.boot()
        edge = EdgeDevice(found, folder)
        edge.set_up()
        yield edge


def test_power_cut_right_after_setup_leaves_an_agent_that_serves(edge: EdgeDevice) -> None:
    edge.set_up()
    edge.machine.cut_power()
    edge.machine.boot()
    wait_until(lambda: edge.status().serving, 30, "the agent serves after the boot")


def test_real_model_is_pushed_and_answers_on_arm64(edge: EdgeDevice) -> None:
    status = edge.status()
    assert (status.arch, status.target) == ("aarch64", TARGET)
    first = edge.push(edge.package(1))
    assert first.detail["changed"] is True
    edge.assert_serves(1)
    second = edge.push(edge.package(2))
    assert second.skipped_blobs >= 1
    edge.assert_serves(2)
    rolled = device.rollback(URL, options=edge.options)
    assert rolled["version"] == "1.0.1"
    edge.assert_serves(1)
    edge.push(edge.package(2))


def test_package_of_another_architecture_is_refused(edge: EdgeDevice) -> None:
    with pytest.raises(DeviceError, match="raspberrypi4") as caught:
        edge.push(edge.package(3, "x86-64-v2"))
    assert caught.value.check == "target"


def test_reboot_serves_what_was_installed(edge: EdgeDevice) -> None:
    number = edge.number()
    edge.machine.cut_power()
    edge.machine.boot()
    wait_until(lambda: edge.status().serving, 30, "the agent serves after the boot")
    edge.assert_serves(number)


def test_clock_of_1970_and_one_far_ahead_hinder_no_install_and_no_start(edge: EdgeDevice) -> None:
    for clock in ("2099-12-31T23:59:00", "1970-01-01T00:01:00"):
        number = edge.number()
        edge.machine.cut_power()
        edge.machine.boot(clock)
        wait_until(lambda: edge.status().serving, 30, "the agent serves after the boot")
        year = time.gmtime(edge.status().time / 1000).tm_year
        assert abs(year - int(clock[:4])) <= 1, "the machine has this clock"
        edge.assert_serves(number)
        edge.push(edge.package(number + 1))
        edge.assert_serves(number + 1)
    number = edge.number()
    edge.machine.cut_power()
    edge.machine.boot()
    wait_until(lambda: edge.status().serving, 30, "the agent serves after the boot")
    edge.assert_serves(number)


def test_workers_get_control_groups_where_the_agent_has_one_to_itself(edge: EdgeDevice) -> None:
    """As a unit with Delegate= has; this machine has no systemd, so its shell makes the group."""
    root, group = "/var/lib/edgepack", "/sys/fs/cgroup/edgepack"
    start = f"""
        mount -t cgroup2 none /sys/fs/cgroup
        echo '+memory +pids' > /sys/fs/cgroup/cgroup.subtree_control
        mkdir {group}
        kill $(pidof edgepack-agent)
        while pidof edgepack-agent; do sleep 0.1; done
        (echo 0 > {group}/cgroup.procs
         exec setsid {root}/bin/edgepack-agent --root {root} serve) > /run/log 2>&1 < /dev/null &
    """
    tell = f"""
        cd {group}; ls -d worker-*
        cat agent/cgroup.procs; pidof edgepack-agent
        cat worker-*/cgroup.procs worker-*/pids.max worker-*/memory.max worker-*/memory.peak
    """

    number = edge.number()
    edge.run(start)
    wait_until(lambda: edge.status().serving, 30, "the agent serves in its group")
    workers = set()
    for _ in range(2):
        edge.assert_serves(number)
        told = edge.run(tell).split()
        name, in_group, agent, worker, threads, limit, peak = told
        assert (in_group, name, threads) == (agent, f"worker-{worker}", "72"), told
        assert 0 < int(peak) < int(limit) < 1 << 28, told
        workers.add(worker)
        edge.run(f"kill -9 {worker}")
    assert len(workers) == 2, "the group of a worker that is gone is gone, too"
    edge.machine.cut_power()
    edge.machine.boot()
    wait_until(lambda: edge.status().serving, 30, "the agent serves after the boot")


MOMENTS = (0.05, 0.3, 0.5, 0.7, 0.9, 1.1)
"""Of the time that an install takes when nothing goes wrong."""


def test_power_cut_in_an_install_leaves_one_whole_version_and_the_next_push_works(
    edge: EdgeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    installing = threading.Event()
    run = Session.run

    def announce(self: Session, command: Any, **options: Any) -> Any:
        if "install" in command:
            installing.set()
        return run(self, command, **options)

    monkeypatch.setattr(Session, "run", announce)
    first = 100
    package = edge.package(first)
    started = time.monotonic()
    edge.push(package)
    seconds = time.monotonic() - started
    outcomes = []
    for number, moment in enumerate(MOMENTS, start=first + 1):
        package = edge.package(number)
        installing.clear()
        errors: list[Exception] = []

        def attempt(package: SignedPackage = package, errors: list[Exception] = errors) -> None:
            try:
                edge.push(package, connect_timeout=20, install_timeout=20)
            except ChannelError as error:
                errors.append(error)

        thread = threading.Thread(target=attempt)
        thread.start()
        assert installing.wait(60)
        thread.join(moment * seconds)
        edge.machine.cut_power()
        thread.join(60)
        assert not thread.is_alive()
        edge.machine.boot()
        wait_until(lambda: edge.status().serving, 30, "the agent serves after the power cut")
        now = edge.number()
        assert now in ((number - 1, number) if errors else (number,)), "what was said is durable"
        edge.assert_serves(now)
        outcomes.append((bool(errors), now == number))
        edge.push(package)
        edge.assert_serves(number)
        assert edge.leftovers() == []
    assert (True, False) in outcomes, "no cut came before the switch"
    assert any(new for _, new in outcomes), "no cut came after the switch"
