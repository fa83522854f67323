"""Captures of requests: which, what they hold, and that nothing else suffers by them."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.trust import PrivateKey
from tests.conftest import unavailable
from tests.native import captured, device_store
from tests.native.captured import Record
from tests.native.fake_device import (
    Device,
    FakeModel,
    UnixConnection,
    request,
    values,
    wait_until,
)
from tests.native.test_metrics import scrape

INFER = "/v2/models/m/infer"
CAPTURES = "/v2/models/m/captures"
ASKED = {"capture": True}


pytestmark = pytest.mark.also_on("aarch64")


@pytest.fixture
def device(idle: Device) -> Device:
    return idle


def command(device: Device, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        device.command("capture", *arguments), capture_output=True, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout)


def set_rules(device: Device, rules: dict[str, Any], name: str = "m") -> None:
    code, answer = command(device, "set", name, json.dumps(rules))
    assert (code, answer["ok"]) == (0, True), answer


def infer(device: Device, x: list[float], **parameters: Any) -> dict[str, Any]:
    answer: dict[str, Any]
    status, answer = device.ask("POST", INFER, request(x, parameters=parameters))
    assert status == 200, answer
    return answer


def told(answer: dict[str, Any]) -> int | None:
    """The number of the capture, as the answer has it."""
    number: int | None = answer.get("parameters", {}).get("capture")
    return number


def written(device: Device, name: str = "m") -> list[Record]:
    """All records, once the server has them on the disk."""
    assert device.ask("POST", f"/v2/models/{name}/captures/sync")[0] == 200
    return captured.records(device.root / "captures" / name)


def counts(device: Device) -> dict[str, Any]:
    answer: dict[str, Any]
    status, answer = device.ask("GET", CAPTURES)
    assert status == 200
    return answer


# ---- which requests ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, [None] * 6),
        ({"always": True}, ["always"] * 6),
        ({"every": 3}, ["every", None, None, "every", None, None]),
        ({"rate": 1}, ["rate"] * 6),
        ({"below": {"output": "y", "value": 1}}, [None, "below", "below", None, None, None]),
        ({"above": {"output": "y", "value": 2.5}}, [None, None, "above", "above", None, "above"]),
        ({"above": {"output": "calls", "value": 4}}, [None, None, None, None, "above", "above"]),
        ({"nan": True}, [None, None, None, None, "nan", None]),
        (
            {"every": 4, "below": {"output": "y", "value": 1}, "nan": True},
            ["every", "below", "below", None, "nan", None],
        ),
    ],
)
def test_a_request_is_captured_where_a_condition_holds(
    device: Device, rules: dict[str, Any], expected: list[str | None]
) -> None:
    nan: Any = None  # as JSON has it
    sent: list[list[Any]] = [
        [1, 1, 1, 1],
        [1, -2, 1, 1],
        [-5, 1, 1, 9],
        [1, 1, 1, 2],
        [nan] * 4,
        [1, 1, 1, 1e30],
    ]
    set_rules(device, rules)
    with device.serving():
        numbers = [told(infer(device, x)) for x in sent]
        found = written(device)
    assert [number is not None for number in numbers] == [why is not None for why in expected]
    assert [record.json["reason"] for record in found] == [why for why in expected if why]
    assert [record.number for record in found] == [n for n in numbers if n is not None]


def test_a_rate_captures_about_that_share(device: Device) -> None:
    set_rules(device, {"rate": 0.25})
    with device.serving():
        connection = device.connect()
        for _ in range(800):
            assert connection.ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200
        connection.close()
        share = len(written(device)) / 800
    assert 0.15 < share < 0.35  # six standard deviations


def test_what_asks_to_be_captured_is_unless_captures_are_off(device: Device) -> None:
    with device.serving():
        assert told(infer(device, [1, 1, 1, 1])) is None
        assert told(infer(device, [1, 1, 1, 1], capture=False)) is None
        answer = infer(device, [1, 2, 3, 4], capture=True, capture_json={"line": 3, "ü": [None]})
        (record,) = written(device)
        assert answer["parameters"] == {"capture": record.number}
        assert record.json["caller"] == {"line": 3, "ü": [None]}
        assert record.json["reason"] == "asked"
        assert command(device, "off", "m") == (0, {"ok": True, "model": "m", "serving": True})
        answer = infer(device, [1, 2, 3, 4], capture=True)
        assert answer["parameters"] == {
            "capture": None,
            "capture_reason": "captures of this model are off",
        }
        set_rules(device, {})
        assert told(infer(device, [1, 1, 1, 1], capture=True)) == record.number + 1


def test_what_the_caller_adds_goes_with_captures_by_rule_too(device: Device) -> None:
    set_rules(device, {"every": 2})
    with device.serving():
        for index in range(4):
            infer(device, [1, 1, 1, 1], capture_json={"index": index})
        assert [record.json["caller"] for record in written(device)] == [{"index": 0}, {"index": 2}]


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"capture": 1}, "capture is not true or false"),
        ({"capture": True, "capture_json": []}, "capture_json is not an object"),
        ({"capture": True, "capture_json": None}, "capture_json is not an object"),
        ({"capture_json": {"a": "x" * 4096}}, "capture_json is longer than 4096 bytes"),
    ],
)
def test_parameters_that_are_wrong_are_refused(
    device: Device, parameters: dict[str, Any], reason: str
) -> None:
    with device.serving():
        body = request([1, 1, 1, 1], parameters=parameters)
        assert device.ask("POST", INFER, body) == (400, {"error": reason})


def test_rules_outlast_the_server_and_each_start_begins_a_segment(device: Device) -> None:
    set_rules(device, {"always": True})
    numbers: list[int] = []
    for _ in range(3):
        with device.serving():
            numbers += [told(infer(device, [1, 1, 1, 1])) or 0 for _ in range(2)]
    folder = device.root / "captures" / "m"
    assert [record.number for record in captured.records(folder)] == numbers
    assert len(captured.segments(folder)) == 3
    assert numbers == sorted(set(numbers))


# ---- what a capture holds ------------------------------------------------------------------------


def test_a_capture_holds_what_was_sent_and_answered_bit_for_bit(device: Device) -> None:
    model = FakeModel(all_dtypes=True)
    device.install("all", {"3.1.4": model})
    generator = np.random.default_rng(7)
    sent = {}
    for spec in model.inputs:
        raw = generator.integers(0, 2 if spec.dtype == "bool" else 256, spec.nbytes, np.uint8)
        sent[spec.name] = raw.tobytes()
    names = {spec.name: captured_datatype(spec.dtype) for spec in model.inputs}
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": spec.name,
                    "datatype": names[spec.name],
                    "shape": list(spec.shape),
                    "parameters": {"binary_data_size": spec.nbytes},
                }
                for spec in model.inputs
            ],
            "parameters": {"binary_data_output": True, "capture": True},
        }
    ).encode()
    before = time.time_ns() // 10**6
    with device.serving():
        connection = device.connect()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        body = head + b"".join(sent.values())
        connection.request("POST", "/v2/models/all/infer", body=body, headers=headers)
        answer = connection.getresponse()
        length = int(answer.headers["Inference-Header-Content-Length"])
        described, received = json.loads(answer.read(length)), answer.read()
        connection.close()
        (record,) = written(device, "all")
    assert record.number == told(described)
    assert {name: array.tobytes() for name, array in record.inputs.items()} == sent
    assert b"".join(array.tobytes() for array in record.outputs.values()) == received
    assert list(record.outputs) == [output["name"] for output in described["outputs"]]
    assert [list(a.shape) for a in record.inputs.values()] == [list(s.shape) for s in model.inputs]
    told_json = record.json
    assert (told_json["model"], told_json["version"]) == ("all", "3.1.4")
    state = json.loads((device.root / "models" / "all" / "state.json").read_text())
    assert told_json["manifest"] == state["current"]["manifest"]
    assert before <= told_json["time"] <= time.time_ns() // 10**6
    assert told_json["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert 0 < told_json["boot_ms"] <= time.clock_gettime(time.CLOCK_BOOTTIME) * 1000


def captured_datatype(dtype: str) -> str:
    """As the protocol names it."""
    return {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"}.get(
        dtype, dtype.upper()
    )


def test_a_new_version_begins_a_segment_and_counts_for_itself(device: Device) -> None:
    set_rules(device, {"always": True})
    with device.serving():
        infer(device, [1, 1, 1, 1])
        device.install("m", {"1.0.0": FakeModel(), "2.0.0": FakeModel(tag=2)})
        assert device.ask("POST", "/v2/repository/models/m/load")[0] == 200
        infer(device, [1, 1, 1, 1])
        infer(device, [1, 1, 1, 1])
        assert [record.json["version"] for record in written(device)] == ["1.0.0", "2.0.0", "2.0.0"]
        found = scrape(device)
    for version, count in (("1.0.0", 1), ("2.0.0", 2)):
        labels = (("model", "m"), ("outcome", "written"), ("version", version))
        assert found["edgepack_captures_total", labels] == count
    assert len(captured.segments(device.root / "captures" / "m")) == 2


def test_only_owner_and_group_may_read_captures(device: Device) -> None:
    with device.serving():
        infer(device, [1, 1, 1, 1], capture=True)
        written(device)
    folder = device.root / "captures"
    (segment,) = captured.segments(folder / "m")
    modes = [path.stat().st_mode & 0o777 for path in (folder, folder / "m", segment)]
    assert modes == [0o750, 0o750, 0o640]


# ---- where a capture is --------------------------------------------------------------------------


def test_the_server_says_of_each_number_where_its_capture_is(device: Device) -> None:
    def state(number: int) -> str:
        status, answer = device.ask("GET", f"{CAPTURES}/{number}")
        return str(answer["state"]) if status == 200 else f"{status}"

    set_rules(device, {"max_bytes": 65536})
    with device.serving():
        assert state(1) == "404"
        first = told(infer(device, [1, 1, 1, 1], capture=True))
        assert first is not None
        wait_until(lambda: state(first) == "kept")
        assert [state(first + 1), state(0)] == ["404", "404"]
        numbers = [told(infer(device, [1, 1, 1, 1], capture=True)) for _ in range(200)]
        last = numbers[-1]
        assert last is not None
        wait_until(lambda: state(last) == "kept")
        assert state(first) == "dropped"
        kept = [record.number for record in written(device)]
        assert [state(number) for number in (kept[0], kept[0] - 1)] == ["kept", "dropped"]
        # What a power cut takes away: the end of the newest segment.
        newest = captured.segments(device.root / "captures" / "m")[-1]
        newest.write_bytes(newest.read_bytes()[:-1])
        assert [state(last), state(last - 1)] == ["lost", "kept"]
        told_counts = counts(device)
    assert told_counts["written"] == 201
    assert (told_counts["first"], told_counts["next"]) == (kept[0], last + 1)
    assert told_counts["count"] == len(kept) - 1
    assert told_counts["rules"] == {"max_bytes": 65536}


def test_the_command_tells_the_same_with_and_without_a_server(device: Device) -> None:
    assert command(device, "status", "m")[1]["count"] == 0
    set_rules(device, {"every": 2})
    with device.serving():
        for _ in range(4):
            infer(device, [1, 1, 1, 1])
        written(device)
        served = command(device, "status", "m")
        assert served == (0, counts(device))
        assert command(device, "status") == (0, {"models": [served[1]]})
    alone = command(device, "status", "m")[1]
    same = ("model", "rules", "first", "count", "bytes", "segments", "oldest_time", "newest_time")
    assert {key: alone[key] for key in same} == {key: served[1][key] for key in same}
    assert (alone["next"], alone["count"]) == (1025, 2)


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("set", "m", "{"), 2, "not well-formed"),
        (("set", "m", '{"evry":1}'), 2, 'no field "evry"'),
        (("set", "m", '{"below":{"output":"z","value":1}}'), 2, 'no output "z"'),
        (("set", "other", "{}"), 10, "no version of other"),
        (("set", "../m", "{}"), 2, "no name"),
        (("on", "m"), 2, "capture takes set, off, status"),
        (("off",), 2, "needs a model"),
    ],
)
def test_a_command_that_is_wrong_changes_nothing(
    device: Device, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    answer = command(device, *arguments)
    assert (answer[0], answer[1]["ok"]) == (code, False)
    assert reason in answer[1]["reason"]
    assert not (device.root / "captures").exists()


def test_rules_that_cannot_be_followed_capture_nothing_and_are_told(device: Device) -> None:
    set_rules(device, {"always": True})
    rules = device.root / "captures" / "m" / "rules.json"
    rules.write_text('{"always":')
    with device.serving():
        assert told(infer(device, [1, 1, 1, 1])) is None
        trouble = counts(device)["trouble"]
        assert device.ask("GET", "/v2/models/none/captures")[0] == 404
    assert trouble == "rules.json cannot be followed: nothing is captured"
    assert "m: nothing is captured" in (device.root / "stderr").read_text()


# ---- limits --------------------------------------------------------------------------------------


def test_limits_hold_and_every_client_is_answered_under_load(device: Device) -> None:
    set_rules(device, {"always": True, "max_bytes": 200_000})
    folder = device.root / "captures" / "m"
    numbers: list[int] = []
    sizes: list[int] = []

    def ask_often() -> None:
        connection = device.connect()
        for _ in range(250):
            status, answer = connection.ask("POST", INFER, request([1, 1, 1, 1]))
            assert status == 200
            number = told(answer)
            if number is not None:
                numbers.append(number)
        connection.close()

    with device.serving():
        clients = [threading.Thread(target=ask_often) for _ in range(8)]
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            sizes.append(size_of(folder))
        for client in clients:
            client.join()
        found = [record.number for record in written(device)]
        told_counts = counts(device)
    assert len(sizes) > 10
    assert 200_000 * 3 // 4 < max(sizes) <= 200_000
    assert size_of(folder) > 200_000 * 3 // 4
    assert len(numbers) == len(set(numbers))
    assert told_counts["written"] + told_counts["dropped"] == 2000
    assert told_counts["written"] == len(numbers)
    assert found == sorted(numbers)[-len(found) :]


def size_of(folder: Path) -> int:
    """Bytes of all segments, none of which went while they were counted and others grew beside it."""
    while True:
        found = captured.segments(folder)
        with suppress(FileNotFoundError):
            total = sum(segment.stat().st_size for segment in found)
            if captured.segments(folder)[: len(found)] == found:
                return total


def test_what_is_older_than_it_may_be_goes(device: Device) -> None:
    set_rules(device, {"max_age_s": 2})
    with device.serving():
        first = told(infer(device, [1, 1, 1, 1], capture=True))
        assert [record.number for record in written(device)] == [first]

        def is_gone() -> bool:
            infer(device, [1, 1, 1, 1], capture=True)
            return first not in [record.number for record in written(device)]

        wait_until(is_gone)
        assert written(device)
        assert counts(device)["oldest_time"] > (time.time() - 6) * 1000


def test_a_smaller_limit_holds_at_once_and_off_deletes_nothing(device: Device) -> None:
    folder = device.root / "captures" / "m"
    with device.serving():
        set_rules(device, {"max_bytes": 1 << 20})
        for _ in range(300):
            infer(device, [1, 1, 1, 1], capture=True)
        assert len(written(device)) == 300
        before = size_of(folder)
        assert before > 100_000
        assert command(device, "off", "m")[0] == 0
        assert device.ask("POST", f"{CAPTURES}/sync")[0] == 200
        assert size_of(folder) == before
        set_rules(device, {"max_bytes": 100_000})
        wait_until(lambda: size_of(folder) <= 100_000)
        assert counts(device)["bytes"] > 0
    with device.serving():
        assert counts(device)["bytes"] == size_of(folder) > 0


def test_segments_that_somebody_deletes_are_missed_by_nobody(device: Device) -> None:
    with device.serving():
        for _ in range(3):
            infer(device, [1, 1, 1, 1], capture=True)
        assert len(written(device)) == 3
        for segment in captured.segments(device.root / "captures" / "m"):
            segment.unlink()
        number = told(infer(device, [1, 1, 1, 1], capture=True))
        assert [record.number for record in written(device)] == [number]
        assert counts(device)["count"] == 1


def test_status_counts_the_room_that_captures_take(device: Device) -> None:
    with device.serving():
        before = device.ask("GET", "/v2/status")[1]["disk_used"]
        infer(device, [1, 1, 1, 1], capture=True)
        written(device)
        folder = device.root / "captures" / "m"
        taken = sum(path.stat().st_size for path in folder.iterdir())
        assert device.ask("GET", "/v2/status")[1]["disk_used"] == before + taken


# ---- what fails ----------------------------------------------------------------------------------


def test_requests_go_on_where_captures_cannot_be_written(device: Device) -> None:
    (device.root / "captures").write_text("in the way")
    with device.serving():
        for _ in range(3):
            answer = infer(device, [1, 1, 1, 1], capture=True)
            assert answer["parameters"] == {"capture": None, "capture_reason": "NotDir"}
            assert values(answer)["y"] == [2, 2, 2, 2]
        told_counts = counts(device)
        assert (told_counts["failed"], told_counts["trouble"]) == (3, "NotDir")
        labels = (("model", "m"), ("outcome", "failed"), ("version", "1.0.0"))
        assert scrape(device)["edgepack_captures_total", labels] == 3
    log = (device.root / "stderr").read_text()
    assert log.count("m: captures cannot be written: NotDir") == 1


def test_a_file_that_may_not_grow_costs_captures_and_nothing_else(device: Device) -> None:
    with device.serving():
        first = told(infer(device, [1, 1, 1, 1], capture=True))
        assert len(written(device)) == 1
        assert device.server is not None
        limits = resource.prlimit(device.server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(device.server.pid, resource.RLIMIT_FSIZE, (1200, limits[1]))
        numbers = [told(infer(device, [1, 1, 1, 1], capture=True)) for _ in range(5)]
        found = [record.number for record in written(device)]
        assert found == [first, numbers[0]]
        told_counts = counts(device)
        assert (told_counts["failed"], told_counts["last_failure"]) == (4, "FileTooBig")
        failed = device.ask("GET", f"{CAPTURES}/{numbers[-1]}")[1]
        assert failed == {"number": numbers[-1], "state": "failed", "reason": "FileTooBig"}
        resource.prlimit(device.server.pid, resource.RLIMIT_FSIZE, limits)
        last = told(infer(device, [1, 1, 1, 1], capture=True))
        assert [record.number for record in written(device)] == [first, numbers[0], last]
    log = (device.root / "stderr").read_text()
    assert len(re.findall("captures are lost", log)) == 1


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    mounted = ["mount", "-t", "tmpfs", "-o", f"size={size}", "edgepack", str(place)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode != 0:
        unavailable("only root may mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.needs("mount", "umount")
def test_captures_leave_room_on_the_disk_and_give_theirs_to_others(device: Device) -> None:
    large = FakeModel(elements=65536)
    device.install("large", {"1.0.0": large})
    folder = device.root / "captures"
    folder.mkdir()
    with small_disk(folder, "12m"), device.serving():
        body = request([1.0] * 65536, parameters=ASKED)

        def ask() -> int | None:
            status, answer = device.ask("POST", "/v2/models/large/infer", body)
            assert status == 200
            return told(answer)

        numbers = [ask() for _ in range(12)]  # half a MiB each, where 4 MiB may be taken
        found = [record.number for record in written(device, "large")]
        assert found == numbers[-len(found) :]
        assert 4 <= len(found) < 8
        assert free_bytes(folder) >= 8 << 20
        (folder / "other").write_bytes(b"x" * (4 << 20))
        late = ask()
        assert written(device, "large") == []
        told_late = device.ask("GET", f"/v2/models/large/captures/{late}")[1]
        assert told_late["state"] == "failed"
        assert told_late["reason"] == "too little room is left on the disk"
        assert device.ask("GET", "/v2/models/large/captures")[1]["dropped"] == 1
        (folder / "other").unlink()
        assert ask() in [record.number for record in written(device, "large")]


def free_bytes(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_bsize


@pytest.mark.needs("mount", "umount")
def test_an_installation_takes_the_room_of_captures_if_that_is_enough(
    tmp_path: Path, agent: Path, worker: bytes, key: PrivateKey
) -> None:
    store = device_store.Device(root=tmp_path / "device", agent=agent)
    store.root.mkdir()
    with small_disk(store.root, "8m"):
        store.set_up(key)
        segments = [store.root / f"captures/{name}/{n:016x}.seg" for name in "ab" for n in (1, 2)]
        for age, segment in enumerate(segments):
            segment.parent.mkdir(parents=True, exist_ok=True)
            segment.write_bytes(b"x" * (1 << 20))
            os.utime(segment, (10**9 - age, 10**9 - age))

        def install(version: str, size: int) -> device_store.Answer:
            path = tmp_path / f"{version}.epk"
            weights = "good" + "x" * size
            device_store.write(path, key, version=version, worker=worker, weights=weights)
            return store.run("install", path)

        assert install("1.0.0", 10 << 20).refused == (10, "disk")
        assert all(segment.exists() for segment in segments), "in vain"
        assert install("1.0.0", 3 << 20).code == 0
        # The older of those that no server can be writing to.
        assert [segment.exists() for segment in segments] == [True, True, False, True]
        assert install("1.0.1", 3 << 20).code == 0
        assert sum(segment.exists() for segment in segments) < 3


@pytest.mark.parametrize("seed", range(3))
def test_an_agent_that_is_killed_leaves_whole_records_and_uses_no_number_twice(
    device: Device, seed: int
) -> None:
    generator = random.Random(seed)
    set_rules(device, {"always": True})
    given: list[int] = []
    for _ in range(6):
        with device.serving():
            assert device.server is not None
            clients = [Client(device) for _ in range(3)]
            wanted = generator.randrange(1, 400)
            wait_until(partial(have_numbers, clients, wanted))
            device.server.send_signal(signal.SIGKILL)
            device.server.wait()
            for client in clients:
                client.thread.join()
                given += client.numbers
    folder = device.root / "captures" / "m"
    found = [record.number for record in captured.records(folder)]
    assert len(set(given)) == len(given)
    assert found == sorted(set(found))
    assert len(found) > len(given) // 2
    with device.serving():
        number = told(infer(device, [1, 1, 1, 1]))
        assert number is not None
        assert number > max(given + found)
        assert [record.number for record in written(device)] == [*found, number]


def have_numbers(clients: list[Client], wanted: int) -> bool:
    return sum(len(client.numbers) for client in clients) >= wanted


class Client:
    """Asks again and again until the server goes."""

    def __init__(self, device: Device) -> None:
        self.numbers: list[int] = []
        self.thread = threading.Thread(target=self._run, args=(device.connect(),))
        self.thread.start()

    def _run(self, connection: UnixConnection) -> None:
        try:
            while True:
                number = told(connection.ask("POST", INFER, request([1, 1, 1, 1]))[1])
                if number is not None:
                    self.numbers.append(number)
        except (OSError, http.client.HTTPException):  # it was killed
            connection.close()
