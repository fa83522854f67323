"""``bench`` and ``compile --report``: here, under qemu-user, and on a device over a real sshd."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgepack.bench import bench_package
from edgepack.channels import ChannelOptions
from edgepack.errors import ConfigError, DeviceError
from edgepack.package import read_package
from tests import networks
from tests.integration.machines import sshd
from tests.integration.machines.local_device import LocalDevice, local_device
from tests.integration.machines.models import compile_linear, signed
from tests.integration.machines.sshd import SSHServer, ssh_server

Edgepack = Callable[..., subprocess.CompletedProcess[str]]
QEMU = "qemu-aarch64-static"


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, edgepack_json: Callable[..., Any]
) -> tuple[Path, Any]:
    """A package for this machine and a Raspberry Pi 4, and what ``compile --report --json`` said."""
    folder = tmp_path_factory.mktemp("bench")
    model = networks.save(networks.convolutional(), folder / "model.onnx")
    package = folder / "model.epk"
    targets = ("-t", "host", "-t", "raspberrypi4")
    return package, edgepack_json("compile", model, *targets, "-o", package, "--report")


def assert_is_a_profile(profile: dict[str, Any], kernels: list[dict[str, Any]]) -> None:
    calls = profile["calls"]
    assert [call["call"] for call in calls] == list(range(len(kernels)))
    assert [(c["name"], c["rule"]) for c in calls] == [(k["name"], k["rule"]) for k in kernels]
    assert sum(call["share"] for call in calls) == pytest.approx(1)
    assert sum(call["time_us"] for call in calls) == pytest.approx(profile["total_us"])
    assert all(call["time_us"] > 0 and call["gbytes_per_s"] > 0 for call in calls)
    for call, kernel in zip(calls, kernels, strict=True):
        assert (call["gflops"] is not None) == (kernel["flops"] > 0)
        if kernel["flops"]:
            reached = kernel["flops"] / call["time_us"] / 1e3
            assert call["gflops"] == pytest.approx(reached)
            assert call["peak_share"] == pytest.approx(reached / profile["peak_gflops"])
    assert profile["peak_gflops"] > 0
    assert profile["iterations"] >= 3


def assert_is_a_bench(said: dict[str, Any], threads: int) -> None:
    assert said["threads"] == threads
    latency = said["latency_ms"]
    assert 0 < latency["min"] <= latency["median"] <= latency["p95"]
    assert said["cold_start_ms"] >= said["ready_ms"] > 0
    assert said["peak_rss_bytes"] > 0
    assert said["iterations"] >= 3


def test_the_report_names_rule_and_cost_of_every_kernel(
    made: tuple[Path, Any], edgepack: Edgepack, tmp_path: Path
) -> None:
    package, said = made
    for target, packaged in zip(said["targets"], read_package(package).targets, strict=True):
        assert target["kernels"]
        assert target["kernels"] == [call.to_dict() for call in packaged.calls]
        for kernel in target["kernels"]:
            assert kernel["name"]
            assert kernel["rule"]
            assert kernel["flops"] >= 0
            assert kernel["bytes"] > 0
    model = package.with_name("model.onnx")
    done = edgepack("compile", model, "-t", "host", "--report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for kernel in said["targets"][0]["kernels"]:
        assert kernel["name"][:40] in done.stdout
    assert "MFLOP" in done.stdout


def test_without_report_the_kernels_are_not_in_the_answer(
    made: tuple[Path, Any], edgepack_json: Callable[..., Any], tmp_path: Path
) -> None:
    model = made[0].with_name("model.onnx")
    said = edgepack_json("compile", model, "-t", "host", cwd=tmp_path)
    assert "kernels" not in said["targets"][0]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bench_measures_on_the_threads_that_were_asked_for(
    threads: int, made: tuple[Path, Any], edgepack_json: Callable[..., Any]
) -> None:
    said = edgepack_json("bench", made[0], "--threads", str(threads), "--seconds", "0.2")
    assert_is_a_bench(said, threads)
    assert "profile" not in said
    # Weights and arena, the tensors, and less than 2 MB beside them.
    assert said["peak_rss_bytes"] < said["weights_bytes"] + said["arena_bytes"] + 2_000_000


@pytest.mark.parametrize("threads", ["0", "65"])
def test_a_number_of_threads_that_no_worker_has_is_a_usage_error(
    threads: str, made: tuple[Path, Any], edgepack: Edgepack
) -> None:
    assert edgepack("bench", made[0], "--threads", threads).returncode == 2


def test_the_profile_has_a_line_for_every_call_and_its_share_of_the_measured_peak(
    made: tuple[Path, Any], edgepack: Edgepack, edgepack_json: Callable[..., Any]
) -> None:
    package, compiled = made
    said = edgepack_json("bench", package, "--profile", "--seconds", "0.2")
    assert_is_a_bench(said, 1)
    kernels = compiled["targets"][0]["kernels"]
    assert_is_a_profile(said["profile"], kernels)
    done = edgepack("bench", package, "--profile", "--seconds", "0.1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["CALL", "KERNEL", "RULE"]
    assert lines[len(kernels)].split()[0] == str(len(kernels) - 1)


@pytest.mark.needs(QEMU)
def test_the_profile_works_for_another_processor(
    made: tuple[Path, Any], edgepack_json: Callable[..., Any]
) -> None:
    package, compiled = made
    options = ("--target", "raspberrypi4", "--threads", "2", "--seconds", "0.1")
    said = edgepack_json("bench", package, "--profile", *options)
    assert said["emulated"] is True
    assert_is_a_bench(said, 2)
    assert_is_a_profile(said["profile"], compiled["targets"][1]["kernels"])


# ---- on a device ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd")) as found:
        yield found


@pytest.fixture
def device(server: SSHServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalDevice]:
    """A device, and the SSH configuration that leads to it for the command line."""
    with local_device(server) as found:
        monkeypatch.setenv("EDGEPACK_SSH_CONFIG", str(found.options.ssh_config))
        yield found


def temporary() -> set[Path]:
    return set(Path("/tmp").glob("tmp.*"))


@pytest.mark.needs(*sshd.PROGRAMS)
def test_a_package_is_measured_on_a_device_which_is_left_as_it_was(
    device: LocalDevice, made: tuple[Path, Any], edgepack_json: Callable[..., Any]
) -> None:
    package, compiled = made
    before = temporary()
    blobs = sorted((device.root / "blobs").rglob("*"))
    options = ("--device", device.url, "--threads", "2", "--seconds", "0.2")
    said = edgepack_json("bench", package, "--profile", *options)
    assert (said["target"], said["device"], said["emulated"]) == ("host", device.url, False)
    assert_is_a_bench(said, 2)
    assert_is_a_profile(said["profile"], compiled["targets"][0]["kernels"])
    assert temporary() <= before
    assert sorted((device.root / "blobs").rglob("*")) == blobs
    assert device.status().models == ()


@pytest.mark.needs(*sshd.PROGRAMS)
def test_blobs_that_the_device_has_are_used_where_they_are(
    device: LocalDevice, tmp_path: Path
) -> None:
    package = signed(compile_linear(tmp_path, "1.0.0", "host"))
    device.push(package)
    store = device.root / "blobs" / "sha256"
    (kept,) = (target.weights for target in package.package.targets)
    (store / kept.removeprefix("sha256:")).chmod(0o644)
    # Weights of another size under that name: the worker that is given them must refuse.
    (store / kept.removeprefix("sha256:")).write_bytes(b"not the weights")
    with pytest.raises(DeviceError, match="weights"):
        bench_package(
            package.package, target=None, threads=1, seconds=0.1, device=device.url,
            options=device.options,
        )  # fmt: skip


@pytest.mark.needs(*sshd.PROGRAMS)
def test_a_machine_without_an_agent_is_measured_when_the_target_is_named(
    server: SSHServer, made: tuple[Path, Any], tmp_path: Path
) -> None:
    before = temporary()
    options = ChannelOptions(ssh_config=server.client_config("bare"))
    url = f"ssh://device{tmp_path}/nothing"
    said = bench_package(
        read_package(made[0]), target="host", threads=1, seconds=0.1, device=url, options=options
    )
    assert_is_a_bench(said, 1)
    assert temporary() <= before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs(*sshd.PROGRAMS)
def test_what_a_device_cannot_run_is_a_clear_error_and_leaves_nothing_there(
    device: LocalDevice, made: tuple[Path, Any], tmp_path: Path
) -> None:
    before = temporary()
    opened = read_package(made[0])

    def bench(target: str | None, package: Any = opened) -> None:
        bench_package(
            package,
            target=target,
            threads=1,
            seconds=0.1,
            device=device.url,
            options=device.options,
        )

    with pytest.raises(ConfigError, match="nothing"):
        bench("nothing")
    only_pi = compile_linear(tmp_path, "1.0.0", "raspberrypi4")
    with pytest.raises(ConfigError, match=r"raspberrypi4|host"):
        bench(None, only_pi)
    if not Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists():
        with pytest.raises(DeviceError, match=r"format|cannot execute"):
            bench("raspberrypi4")
    assert temporary() <= before
