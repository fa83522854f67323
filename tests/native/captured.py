"""Reads captures by docs/capture.md alone: no part of edgepack, so that the format is what the page says."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HEAD = struct.Struct("<4sIQQII")
DTYPES = {"BOOL": "bool", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"} | {
    f"{kind}INT{bits}": f"<{letter}{bits // 8}"
    for kind, letter in (("", "i"), ("U", "u"))
    for bits in (8, 16, 32, 64)
}


@dataclass(frozen=True, kw_only=True)
class Record:
    """One captured request."""

    number: int
    json: dict[str, Any]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


def segments(folder: Path) -> list[Path]:
    """In order of their numbers."""
    return sorted(folder.glob("*.seg"))


def records(folder: Path) -> list[Record]:
    """All whole records of a model, oldest first."""
    found: list[Record] = []
    for segment in segments(folder):
        for record in in_segment(segment.read_bytes()):
            assert found or int(segment.stem, 16) == record.number
            found.append(record)
    return found


def in_segment(data: bytes) -> Iterator[Record]:
    """Up to the first record that is not whole."""
    while len(data) >= HEAD.size:
        magic, json_bytes, body_bytes, number, crc, head_crc = HEAD.unpack_from(data)
        if magic != b"EPC1" or zlib.crc32(data[:28]) != head_crc:
            return
        end = HEAD.size + json_bytes + body_bytes
        if len(data) < end or zlib.crc32(data[HEAD.size : end]) != crc:
            return
        description = json.loads(data[HEAD.size : HEAD.size + json_bytes])
        body = data[HEAD.size + json_bytes : end]
        tensors = []
        for tensor in description["inputs"] + description["outputs"]:
            raw, body = body[: tensor["bytes"]], body[tensor["bytes"] :]
            array = np.frombuffer(raw, DTYPES[tensor["datatype"]]).reshape(tensor["shape"])
            tensors.append((tensor["name"], array))
        assert body == b""
        count = len(description["inputs"])
        yield Record(
            number=number,
            json=description,
            inputs=dict(tensors[:count]),
            outputs=dict(tensors[count:]),
        )
        data = data[end:]
