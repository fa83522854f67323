"""Parsers of the agent under changed inputs: a short run of ``make fuzz``, and the real agent's socket."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.native.fake_device import Device, UnixConnection, request, values, wait_until
from tests.native.fuzzing import (
    DOCUMENTS,
    PLANTED,
    REQUESTS,
    Fuzzer,
    FuzzFailure,
    http_requests,
    make,
)

INPUTS = dict.fromkeys(REQUESTS, 25_000) | dict.fromkeys(DOCUMENTS, 10_000) | {"package": 4_000}
INFER = "/v2/models/m/infer"


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Fuzzer:
    return make(tmp_path_factory.mktemp("fuzzer"))


@pytest.mark.parametrize("target", INPUTS)
def test_changed_inputs_neither_crash_nor_hang_a_parser_nor_touch_other_files(
    fuzzer: Fuzzer, target: str
) -> None:
    outcome = fuzzer.run(target, seed=2, iterations=INPUTS[target])
    # Some come through, and more than the seeds as they are: it is not always the first check.
    assert outcome.taken > INPUTS[target] / (500 if target == "package" else 40)


@pytest.mark.parametrize("target", PLANTED)
def test_the_fuzzer_finds_defects_that_were_planted(fuzzer: Fuzzer, target: str) -> None:
    with pytest.raises(FuzzFailure) as caught:
        fuzzer.run(target, seed=1, iterations=5_000)
    told = str(caught.value)
    if target == "planted-file":
        assert "outside/new" in told
        return
    start = int(told.split("--start ")[1].split()[0])
    assert (fuzzer.crashes / f"crash-{target}-1-{start}").stat().st_size > 0
    with pytest.raises(FuzzFailure):  # the numbers bring it back
        fuzzer.run(target, seed=1, start=start, iterations=1)


def test_an_agent_outlasts_changed_requests_and_keeps_nothing_of_them(idle: Device) -> None:
    seeds, source = [*http_requests()], random.Random(3)
    with idle.serving():
        connection = idle.connect()
        assert connection.ask("POST", INFER, request([1, 2, 3, 4]))[0] == 200
        _exchange(idle, seeds, source, 500)
        _put_right(connection)
        descriptors, resident = _descriptors(idle), _resident(idle)
        _exchange(idle, seeds, source, 3000)
        _put_right(connection)
        assert values(connection.ask("POST", INFER, request([1, 2, 3, 4]))[1])["y"] == [2, 3, 4, 5]
        wait_until(lambda: _descriptors(idle) <= descriptors)
        assert _resident(idle) < resident + (256 << 10)
        assert len(idle.workers()) == 1
        connection.close()


def _put_right(connection: UnixConnection) -> None:
    """Some of what was sent was right, and was done."""
    for path in ("/v2/repository/models/m/load", "/v2/systemsharedmemory/unregister"):
        assert connection.ask("POST", path)[0] == 200


def _exchange(device: Device, seeds: list[bytes], source: random.Random, count: int) -> None:
    for _ in range(count):
        content = bytearray(source.choice(seeds))
        for _ in range(source.randint(1, 6)):
            _change(content, seeds, source)
        answer = device.exchange(bytes(content))
        assert answer == b"" or answer.startswith(b"HTTP/1.1 "), answer[:200]


def _change(content: bytearray, seeds: list[bytes], source: random.Random) -> None:
    at = source.randrange(len(content) + 1)
    match source.randrange(6):
        case 0:
            content[at : at + 1] = bytes([source.randrange(256)])
        case 1:
            content[at : at + 1] = bytes([source.choice(b'\r\n "{}[],:0159-')])
        case 2:
            del content[at : at + source.randrange(1, 30)]
        case 3:
            content[at:at] = content[at : at + source.randrange(1, 60)] * source.randrange(1, 9)
        case 4:
            other = source.choice(seeds)
            start = source.randrange(len(other))
            content[at:at] = other[start : start + source.randrange(1, 200)]
        case _:
            digits = [index for index, byte in enumerate(content) if byte in b"0123456789"]
            if digits:
                place = source.choice(digits)
                content[place : place + 1] = source.choice([b"0", b"9", b"-1", b"65536", b"9" * 19])


def _pid(device: Device) -> int:
    assert device.server is not None
    return device.server.pid


def _descriptors(device: Device) -> int:
    return len(list(Path(f"/proc/{_pid(device)}/fd").iterdir()))


def _resident(device: Device) -> int:
    return int(Path(f"/proc/{_pid(device)}/statm").read_text().split()[1]) * 4096
