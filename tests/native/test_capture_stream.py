"""`edgepack-agent capture list` and `read`, from folders as bad as they come."""

from __future__ import annotations

import io
import os
import random
import subprocess
from pathlib import Path

import pytest

from edgepack.captures import RecordStream
from tests.capture_samples import raw, segment
from tests.native.fake_device import Device

pytestmark = pytest.mark.also_on("aarch64")


@pytest.fixture
def device(blank: Device) -> Device:
    return blank


@pytest.fixture
def folder(device: Device) -> Path:
    return device.root / "captures" / "m"


def run(device: Device, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = device.command("capture", *(("read", *arguments) if arguments else ("list",)))
    return subprocess.run(command, capture_output=True, check=False, timeout=60)


def streamed(device: Device, *arguments: str) -> list[int]:
    """The numbers that are streamed, every byte of which belongs to a whole record."""
    done = run(device, "m", *arguments)
    assert done.returncode == 0, done.stderr
    stream = RecordStream(io.BytesIO(done.stdout).read)
    found = [record.number for record in stream]
    assert (stream.torn, stream.damaged, stream.total_bytes) == (False, 0, len(done.stdout))
    return found


def test_records_are_streamed_from_any_number_on(device: Device, folder: Path) -> None:
    segment(folder, [1, 2, 3])
    segment(folder, [1025])
    assert streamed(device) == [1, 2, 3, 1025]
    assert streamed(device, "--after", "2") == [3, 1025]
    assert streamed(device, "--after", "1025") == []
    assert streamed(device, "--after", str(2**64 - 1)) == []
    assert run(device, "m").stdout == b"".join(map(raw, (1, 2, 3, 1025)))


def test_a_stream_ends_before_it_is_longer_than_asked_but_has_one_record(
    device: Device, folder: Path
) -> None:
    segment(folder, [1, 2])
    segment(folder, [3, 4])
    sizes = [len(raw(number)) for number in (1, 2, 3, 4)]
    for count in range(1, 5):
        limit = sum(sizes[:count])
        assert streamed(device, "--max-bytes", str(limit)) == [1, 2, 3, 4][:count]
        assert streamed(device, "--max-bytes", str(limit - 1)) == [1, 2, 3, 4][: max(1, count - 1)]


def test_the_list_tells_numbers_and_sizes(device: Device, folder: Path) -> None:
    assert run(device).stdout == b'{"device":null,"models":[]}\n'
    paths = [segment(folder, [3, 4]), segment(folder, [1025, 1026])]
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    (folder.parent / "empty").mkdir()
    (folder.parent / "push.json").write_text("{}")
    (folder.parent / "Not A Name").mkdir()
    size = sum(path.stat().st_size for path in paths)
    done = run(device)
    id = (folder.parent / ".device").read_text()
    assert len(id) == 32
    model = f'{{"name":"m","first":3,"last":1025,"bytes":{size}}}'
    assert done.stdout.decode() == f'{{"device":"{id}","models":[{model}]}}\n'
    assert run(device).stdout == done.stdout


def test_a_model_without_captures_is_a_state_that_is_told(device: Device, folder: Path) -> None:
    for _ in range(2):
        done = run(device, "m")
        assert done.returncode == 10
        assert done.stderr == b"edgepack-agent: state: nothing was captured of m\n"
        folder.parent.mkdir(exist_ok=True)
    folder.mkdir()
    assert streamed(device) == []


def test_numbers_that_went_are_told_on_stderr(device: Device, folder: Path) -> None:
    segment(folder, [9, 10])
    assert run(device, "m").stderr == b"gone 1 8\n"
    assert run(device, "m", "--after", "8").stderr == b""
    assert run(device, "m", "--after", "9").stderr == b""


def test_a_segment_torn_at_any_byte_and_damaged_anywhere_gives_whole_records_only(
    device: Device, folder: Path
) -> None:
    segment(folder, [9])
    path = segment(folder, [1, 2, 3])
    data, one, two = path.read_bytes(), len(raw(1)), len(raw(1) + raw(2))
    for cut in range(0, len(data), 37):
        path.write_bytes(data[:cut])
        assert streamed(device) == [*[1, 2, 3][: (cut >= one) + (cut >= two)], 9]
    for at in range(one, two, 11):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
        assert streamed(device) == ([1, 9] if at < one + 32 else [1, 3, 9])


def test_no_bytes_whatever_crash_the_agent(device: Device, folder: Path) -> None:
    chance = random.Random(0)
    path = segment(folder, range(1, 9))
    data = path.read_bytes()
    for _ in range(100):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 4, 400))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged[: chance.randrange(len(damaged))])
        found = streamed(device)
        assert found == sorted(set(found))
        assert run(device).returncode == 0
    path.write_bytes(os.urandom(1 << 20))
    assert streamed(device) == []


def test_what_is_no_segment_is_passed_over(device: Device, folder: Path) -> None:
    segment(folder, [5])
    (folder / f"{6:016x}.seg").mkdir()
    (folder / f"{7:016x}.seg").symlink_to(folder / "absent")
    os.mkfifo(folder / "fifo.seg")
    (folder / "pushed").write_text("x")
    assert streamed(device) == [5]


def test_a_reader_that_goes_away_ends_the_agent(device: Device, folder: Path) -> None:
    for first in range(1, 2000, 100):
        segment(folder, range(first, first + 100), size=1000)
    command = device.command("capture", "read", "m")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert len(process.stdout.read(1000)) == 1000
        process.stdout.close()
        assert process.wait(20) != 0


@pytest.mark.parametrize("more", [["--after"], ["--after", "x"], ["--max-bytes", "-1"], ["n"]])
def test_a_wrong_command_line_is_one_line_and_the_usage(device: Device, more: list[str]) -> None:
    done = run(device, "m", *more)
    assert done.returncode == 2
    assert done.stderr.startswith(b"edgepack-agent: usage: ")
    assert b"capture read NAME [--after NUMBER] [--max-bytes N]" in done.stderr
