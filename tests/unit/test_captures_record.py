from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest

from edgepack.captures import CaptureRecord, RecordStream
from edgepack.captures.record import DATATYPES, HEAD, encode
from tests.capture_samples import facts, raw


def records(data: bytes, **options: Any) -> tuple[list[CaptureRecord], RecordStream]:
    stream = RecordStream(io.BytesIO(data).read, **options)
    return list(stream), stream


def numbers(data: bytes, **options: Any) -> list[int]:
    return [record.number for record in records(data, **options)[0]]


def test_a_record_is_read_as_it_was_written() -> None:
    (one, two), stream = records(raw(1) + raw(2, reason="below", version="1.2.3"))
    assert (one.number, one.model, one.version, one.reason) == (1, "m", "1.0.0", "always")
    assert (one.time, one.boot_ms, one.caller) == (1_700_000_000_001, 1, {"line": "3"})
    assert (two.reason, two.version, two.caller) == ("below", "1.2.3", None)
    np.testing.assert_array_equal(one.inputs["x"], [[1, 2, 3]])
    np.testing.assert_array_equal(one.outputs["y"], [[-1, -2, -3]])
    assert one.outputs["count"].shape == ()
    assert (stream.damaged, stream.torn) == (0, False)
    assert stream.total_bytes == len(raw(1)) + len(raw(2, reason="below", version="1.2.3"))


@pytest.mark.parametrize("dtype", DATATYPES.values())
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3)])
def test_every_datatype_and_shape_comes_back(dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(np.prod(shape, dtype=int)) % 2).astype(dtype).reshape(shape)
    ((record,), _) = records(raw(1, inputs={"a/b:0": array}, outputs={}))
    assert record.inputs["a/b:0"].dtype == array.dtype
    np.testing.assert_array_equal(record.inputs["a/b:0"], array)


def test_a_stream_that_is_cut_at_any_byte_gives_what_came_whole() -> None:
    whole = [raw(number) for number in (1, 2, 3)]
    data = b"".join(whole)
    ends = [sum(map(len, whole[:count])) for count in range(4)]
    for length in range(len(data) + 1):
        found, stream = records(data[:length])
        complete = sum(end <= length for end in ends[1:])
        assert [record.number for record in found] == [1, 2, 3][:complete]
        assert stream.torn == (length not in ends)


def test_a_record_with_any_bit_changed_is_never_taken_for_whole() -> None:
    before, middle, after = raw(1), raw(2), raw(3)
    wanted = {facts(record) for record in records(before + middle + after)[0]}
    for index in range(len(middle)):
        for bit in range(8):
            damaged = bytearray(middle)
            damaged[index] ^= 1 << bit
            found, stream = records(before + bytes(damaged) + after)
            assert {facts(record) for record in found} < wanted
            # A head that is none ends the stream: nobody knows where the next one is.
            assert [r.number for r in found] == ([1] if index < HEAD.size else [1, 3])
            assert (stream.torn, stream.damaged) == ((True, 0) if index < HEAD.size else (False, 1))


def test_numbers_that_do_not_rise_are_passed_over() -> None:
    data = b"".join(map(raw, (3, 7, 7, 1, 8)))
    assert numbers(data) == [3, 7, 8]
    assert numbers(data, after=7) == [8]


def test_records_of_another_model_are_no_records() -> None:
    found, stream = records(raw(1) + raw(2, model="other") + raw(3), model="m")
    assert [record.number for record in found] == [1, 3]
    assert stream.damaged == 1


def test_what_a_login_shell_prints_is_passed_over() -> None:
    noise = b"Welcome to pi!\nEPC1 is the magic " + raw(9)[:31]
    assert numbers(noise + raw(1) + raw(2), skip_noise=True) == [1, 2]
    assert numbers(noise + raw(1)) == []
    assert numbers(noise, skip_noise=True) == []
    assert numbers(b"", skip_noise=True) == []
    assert numbers(b"x" * (1 << 20) + raw(1), skip_noise=True) == []
    large = b"".join(raw(number, size=100_000) for number in (1, 2, 3))
    assert numbers(large, skip_noise=True) == numbers(noise + large, skip_noise=True) == [1, 2, 3]


def test_a_first_record_is_found_whatever_the_pieces_are_that_come() -> None:
    data = b"Welcome! EPC1" + raw(9)[:31] + b"EPEPC1" + raw(1) + raw(2)
    for size in (1, 2, 3, 5, 31, 33, 1000):
        rest = io.BytesIO(data)
        stream = RecordStream(lambda wanted: rest.read(min(wanted, size)), skip_noise=True)  # noqa: B023
        assert [record.number for record in stream] == [1, 2]


TENSOR: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [2], "bytes": 8}
WRONG_TENSORS: list[dict[str, Any]] = [
    {"bytes": 4},
    {"shape": [3]},
    {"shape": [-2]},
    {"shape": [2.0]},
    {"shape": [True, 2]},
    {"shape": [1 << 40, 1 << 40]},
    {"shape": "2"},
    {"datatype": "BYTES"},
    {"datatype": []},
]
WRONG: list[dict[str, Any]] = [{"inputs": [TENSOR | wrong]} for wrong in WRONG_TENSORS] + [
    {"inputs": [TENSOR, TENSOR]},
    {"inputs": 1},
    {"inputs": {"x": TENSOR}},
    {"outputs": [TENSOR]},
    {"model": "../m"},
    {"model": 7},
    {"version": "1"},
    {"time": -1},
    {"time": "now"},
    {"time": 1 << 70},
    {"boot_ms": None},
    {"caller": 3},
    {"caller": "text"},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_a_record_that_makes_no_sense_is_left_out_though_its_checksum_is_right(
    change: dict[str, Any],
) -> None:
    good: dict[str, Any] = {
        **{"model": "m", "version": "1.0.0", "manifest": "ab", "time": 1, "boot": "b"},
        **{"boot_ms": 1, "reason": "always", "caller": None, "inputs": [TENSOR], "outputs": []},
    }
    assert numbers(encode(1, good, bytes(8))) == [1]
    body = bytes(16 if change.get("inputs") == [TENSOR, TENSOR] else 8)
    found, stream = records(encode(1, good | change, body) + raw(2))
    assert [record.number for record in found] == [2]
    assert stream.damaged == 1


@pytest.mark.parametrize("text", [b"[]", b"{}", b"\xff", b"[" * 60_000, b'{"model":"m"}'])
def test_json_that_is_none_or_another_is_left_out(text: bytes) -> None:
    head = HEAD.pack(b"EPC1", len(text), 0, 1, zlib.crc32(text), 0)[:28]
    data = head + struct.pack("<I", zlib.crc32(head)) + text
    assert numbers(data + raw(2)) == [2]


def test_a_head_that_promises_much_takes_no_memory_for_it() -> None:
    head = HEAD.pack(b"EPC1", 2, 1 << 30, 1, 0, 0)[:28]
    asked = []

    def read(size: int) -> bytes:
        asked.append(size)
        return (
            (head + struct.pack("<I", zlib.crc32(head)) + b"{}")[:size] if len(asked) == 1 else b""
        )

    assert list(RecordStream(read)) == []
    assert max(asked) <= 1 << 20


@pytest.mark.parametrize(
    ("json_bytes", "body_bytes"), [(0, 0), ((64 << 10) + 1, 0), (2, (1 << 30) + 1)]
)
def test_lengths_beyond_the_formats_are_no_head(json_bytes: int, body_bytes: int) -> None:
    head = HEAD.pack(b"EPC1", json_bytes, body_bytes, 1, 0, 0)[:28]
    found, stream = records(head + struct.pack("<I", zlib.crc32(head)) + bytes(100))
    assert (found, stream.torn) == ([], True)


def test_a_records_bytes_are_these() -> None:
    data = encode(1025, {}, b"abcd")
    assert data[:32] == bytes.fromhex(
        "455043310200000004000000000000000104000000000000d26aa31d4bee1efe"
    )
    assert data[32:] == b"{}abcd"
