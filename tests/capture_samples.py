"""Captures as a device keeps them, made by hand: records, segments, and a device that streams them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.artefacts import CapturedModel, DeviceCaptures
from edgepack.captures.record import DATATYPES, CaptureRecord, encode
from edgepack.errors import ChannelError

NAMES = {dtype: name for name, dtype in DATATYPES.items()}
Arrays = dict[str, "np.ndarray[Any, Any]"]


def tensors(number: int, size: int = 3) -> tuple[Arrays, Arrays]:
    """Inputs and outputs that tell the number."""
    x = np.arange(size, dtype=np.float32)[None] + number
    return {"x": x}, {"y": -x, "count": np.array(number, np.int64)}


def raw(
    number: int,
    *,
    inputs: Arrays | None = None,
    outputs: Arrays | None = None,
    model: str = "m",
    size: int = 3,
    **changes: Any,
) -> bytes:
    """A record's bytes."""
    made = tensors(number, size)
    given = {"inputs": made[0] if inputs is None else inputs}
    given["outputs"] = made[1] if outputs is None else outputs
    description = {
        "model": model,
        "version": "1.0.0",
        "manifest": "ab" * 32,
        "time": 1_700_000_000_000 + number,
        "boot": "6e2a4c1a-0000-4000-8000-000000000001",
        "boot_ms": number,
        "reason": "always",
        "caller": {"line": "3"} if number % 2 else None,
    }
    for kind, arrays in given.items():
        description[kind] = [
            {
                "name": name,
                "datatype": NAMES[array.dtype.name],
                "shape": list(array.shape),
                "bytes": array.nbytes,
            }
            for name, array in arrays.items()
        ]
    body = b"".join(a.tobytes() for arrays in given.values() for a in arrays.values())
    return encode(number, description | changes, body)


def segment(folder: Path, numbers: Sequence[int], **changes: Any) -> Path:
    """A segment of these records, as the agent names it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{numbers[0]:016x}.seg"
    path.write_bytes(b"".join(raw(number, **changes) for number in numbers))
    return path


def facts(record: CaptureRecord) -> tuple[Any, ...]:
    """All of a record in a form that compares."""
    arrays = [
        (kind, name, array.dtype.name, array.shape, array.tobytes())
        for kind, found in (("in", record.inputs), ("out", record.outputs))
        for name, array in found.items()
    ]
    told = (record.number, record.model, record.version, record.manifest, record.time)
    return *told, record.boot, record.boot_ms, record.reason, repr(record.caller), *arrays


@dataclass
class Recording:
    """A source in memory, for pull(): streams ``records`` and may break off."""

    records: dict[str, dict[int, bytes]]
    device: str = "0123456789abcdef0123456789abcdef"
    name: str = "pi"
    cut: int | None = None
    """Lose the connection after so many bytes of a stream."""
    noise: bytes = b""
    asked: list[tuple[str, int]] = field(default_factory=list)

    def listing(self) -> DeviceCaptures:
        """What is in ``records``."""
        models = (
            CapturedModel(name=name, first=min(r), last=max(r), bytes=sum(map(len, r.values())))
            for name, r in sorted(self.records.items())
            if r
        )
        return DeviceCaptures(device=self.device, models=tuple(models))

    @contextlib.contextmanager
    def open(self, model: str, after: int) -> Iterator[RecordedStream]:
        """The records beyond a number."""
        self.asked.append((model, after))
        there = self.records[model]
        data = self.noise + b"".join(there[number] for number in sorted(there) if number > after)
        gone = [(after + 1, min(there) - 1)] if min(there) > after + 1 else []
        yield RecordedStream(data if self.cut is None else data[: self.cut], self.cut, gone)


@dataclass
class RecordedStream:
    """Bytes in pieces of odd sizes."""

    data: bytes
    cut: int | None
    gone: list[tuple[int, int]]

    def read(self, size: int) -> bytes:
        """Up to 1000 bytes; at the end, or the connection is lost there."""
        piece, self.data = self.data[: min(size, 1000)], self.data[min(size, 1000) :]
        if not piece and self.cut is not None:
            raise ChannelError("pi: the connection was lost", "Try again")
        return piece
