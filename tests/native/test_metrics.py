from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.native.fake_device import Device, FakeModel, request

pytestmark = pytest.mark.also_on("aarch64")

INFER = "/v2/models/m/infer"
M = (("model", "m"), ("version", "1.0.0"))


def scrape(device: Device) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels, read by Prometheus's own parser."""
    connection = device.connect()
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    text = answer.read().decode()
    connection.close()
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


@pytest.mark.also_on("armv7", "riscv64")
def test_requests_and_errors_are_counted_by_model_and_kind(idle: Device) -> None:
    with idle.serving():
        for _ in range(3):
            assert idle.ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200
        assert idle.ask("POST", INFER, {"inputs": []})[0] == 400
        assert idle.ask("POST", INFER, request([-1001, 0, 0, 0]))[0] == 500
        assert idle.ask("POST", "/v2/models/none/infer", request([1, 1, 1, 1]))[0] == 404
        found = scrape(idle)
    assert found["edgepack_requests_total", M] == 5
    errors = {
        dict(labels)["kind"]: value
        for (name, labels), value in found.items()
        if name == "edgepack_request_errors_total"
    }
    assert errors == {"invalid": 1, "timeout": 0, "failed": 1, "unavailable": 0}
    assert {dict(labels).get("model", "m") for _, labels in found} == {"m"}


def test_histograms_are_cumulative_and_hold_the_time_that_was_taken(idle: Device) -> None:
    with idle.serving():
        assert idle.ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200
        assert idle.ask("POST", INFER, request([-1004, 0, 0, 0]))[0] == 200  # takes 300 ms
        found = scrape(idle)
    for name in ("edgepack_queue_seconds", "edgepack_compute_seconds"):
        buckets = [
            (float(dict(labels)["le"]), value)
            for (sample, labels), value in found.items()
            if sample == f"{name}_bucket"
        ]
        assert buckets == sorted(buckets)
        assert (buckets[0][0], buckets[-2][0], buckets[-1][0]) == (50e-6, 10, float("inf"))
        assert [value for _, value in buckets] == sorted(value for _, value in buckets)
        assert found[f"{name}_count", M] == buckets[-1][1] == 2
    assert 0.3 <= found["edgepack_compute_seconds_sum", M] < 0.6
    le = (("le", "0.25"),)
    assert found["edgepack_compute_seconds_bucket", le + M] == 1


def resident_pages(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1])


def test_a_worker_that_died_is_counted_and_the_new_ones_memory_is_shown(idle: Device) -> None:
    with idle.serving():
        before = scrape(idle)
        assert idle.ask("POST", INFER, request([-1002, 0, 0, 0]))[0] == 500
        assert idle.ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200
        (worker,) = idle.workers()
        for _ in range(20):  # an emulator still takes memory, or gives it back
            pages = resident_pages(worker)
            found = scrape(idle)
            if resident_pages(worker) == pages:
                break
    assert before["edgepack_worker_restarts_total", M] == 0
    assert found["edgepack_worker_deaths_total", M] == 1
    assert found["edgepack_worker_restarts_total", M] == 1
    assert found["edgepack_worker_resident_memory_bytes", M] == pages * os.sysconf("SC_PAGE_SIZE")


def test_the_agents_own_figures_are_those_of_the_kernel(idle: Device) -> None:
    started = time.time()
    with idle.serving():
        connection = idle.connect()
        connection.ask("GET", "/v2")
        found = scrape(idle)
        assert idle.server is not None
        process = Path(f"/proc/{idle.server.pid}")
        fds = len(list((process / "fd").iterdir()))
        connection.close()
    # The connection that asked is gone by now, unless the agent is slow to close it.
    assert found["process_open_fds", ()] in (fds, fds + 1)
    assert 64 << 10 < found["process_resident_memory_bytes", ()] < 64 << 20
    assert 0 < found["process_cpu_seconds_total", ()] < 60
    assert abs(found["process_start_time_seconds", ()] - started) < 5
    assert found["edgepack_agent_info", (("version", "0.1.0"),)] == 1


def test_counters_outlast_a_reload_and_a_new_version_has_its_own(idle: Device) -> None:
    with idle.serving():
        assert idle.ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200
        assert idle.ask("POST", "/v2/repository/models/m/load")[0] == 200
        assert idle.ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200
        idle.install("m", {"1.0.0": FakeModel(), "2.0.0": FakeModel(tag=2)})
        assert idle.ask("POST", "/v2/repository/models/m/load")[0] == 200
        assert idle.ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200
        found = scrape(idle)
    assert found["edgepack_requests_total", M] == 2
    second = (("model", "m"), ("version", "2.0.0"))
    assert found["edgepack_requests_total", second] == 1
    assert ("edgepack_worker_resident_memory_bytes", second) in found
    assert ("edgepack_worker_resident_memory_bytes", M) not in found


def test_metrics_are_read_only(idle: Device) -> None:
    with idle.serving():
        assert idle.ask("POST", "/metrics", {})[0] == 405
