"""One captured request, and the format in which records follow one another.

A record is a head of 32 bytes, its JSON, and its tensors, as docs/capture.md has it. The format is
read here with suspicion: whatever a cut connection, a full disk or a bad flash made of the bytes, what
comes out is records that were written, or none.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgepack import naming
from edgepack.artefacts import DTYPE_BYTES, TensorSpec

if TYPE_CHECKING:
    import numpy as np

HEAD = struct.Struct("<4sIQQII")
MAGIC = b"EPC1"
MAX_JSON_BYTES = 64 << 10
MAX_BODY_BYTES = 1 << 30
_CHUNK = 1 << 20
_MAX_NOISE = 64 << 10
"""What a login shell may print before the first record."""

DATATYPES = {
    **{"BOOL": "bool", "FP16": "float16", "FP32": "float32", "FP64": "float64"},
    **{f"INT{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
"""NumPy's name of each element type by the protocol's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptureRecord:
    """A request that a device answered and kept, with its answer."""

    number: int
    """Rises within a device's captures of a model, with gaps; no number is used twice."""
    model: str
    version: str
    manifest: str
    """Hex digits of the digest of the target manifest that answered."""
    time: int
    """Milliseconds since 1970 by the device's clock, which may have been wrong."""
    boot: str
    """The kernel's name for the start of the device; ``boot_ms`` counts from it."""
    boot_ms: int
    reason: str
    """Why it was kept: the name of a rule."""
    caller: dict[str, Any] | None
    """What the program that asked had to say of its request."""
    inputs: dict[str, np.ndarray]
    """By name, in the model's shapes and dtypes (one of artefacts.DTYPE_BYTES)."""
    outputs: dict[str, np.ndarray]
    """The same of what was answered."""


@dataclass
class RecordStream:
    """The whole records of a stream, in its order; iterate once.

    ``read(n)`` gives up to n bytes, and none at the end only. A record that is whole but damaged is
    passed over and counted; at one that is cut off, or where no record begins, the stream ends.
    """

    read: Callable[[int], bytes]
    after: int = 0
    """Numbers up to this one are passed over."""
    model: str | None = None
    """Whose records they must be, if that is known."""
    skip_noise: bool = False
    """Look for the first record behind up to 64 KiB of other bytes."""
    damaged: int = 0
    torn: bool = False
    """Whether the stream ended within a record."""
    total_bytes: int = 0
    """Of the whole records that came."""
    _ahead: bytes = field(default=b"", repr=False)

    def __iter__(self) -> Iterator[CaptureRecord]:
        last = self.after
        if self.skip_noise and not self._find_first():
            return
        while head := self._head():
            json_bytes, body_bytes, number, crc = head
            description, body = self._exactly(json_bytes), self._exactly(body_bytes)
            if len(description) < json_bytes or len(body) < body_bytes:
                self.torn = True
                return
            self.total_bytes += HEAD.size + json_bytes + body_bytes
            whole = zlib.crc32(body, zlib.crc32(description)) == crc
            record = parse(number, description, body) if whole else None
            if record is None or (self.model is not None and record.model != self.model):
                self.damaged += 1
            elif number > last:
                last = number
                yield record

    def _head(self) -> tuple[int, int, int, int] | None:
        data = self._exactly(HEAD.size)
        head = decode_head(data)
        self.torn = head is None and bool(data)
        return head

    def _exactly(self, size: int) -> bytes:
        """So many bytes, fewer only at the end; no more is ever taken than has come."""
        found = bytearray(self._ahead[:size])
        self._ahead = self._ahead[size:]
        while len(found) < size:
            chunk = self.read(min(size - len(found), _CHUNK))
            if not chunk:
                break
            found += chunk
        return bytes(found)

    def _find_first(self) -> bool:
        """Leave the stream at the first head; False where there is none."""
        seen, at = b"", 0
        while at < _MAX_NOISE:
            if len(seen) < at + HEAD.size:
                if not (chunk := self.read(_CHUNK)):
                    return False
                seen += chunk
            elif decode_head(seen[at : at + HEAD.size]):
                self._ahead = seen[at:]
                return True
            else:
                found = seen.find(MAGIC, at + 1)
                at = found if found >= 0 else len(seen) - len(MAGIC) + 1
        return False


def decode_head(data: bytes) -> tuple[int, int, int, int] | None:
    """(json_bytes, body_bytes, number, crc); None where no record begins with these 32 bytes."""
    if len(data) < HEAD.size:
        return None
    magic, json_bytes, body_bytes, number, crc, own_crc = HEAD.unpack(data)
    if magic != MAGIC or own_crc != zlib.crc32(data[:28]):
        return None
    if not (0 < json_bytes <= MAX_JSON_BYTES and body_bytes <= MAX_BODY_BYTES):
        return None
    return json_bytes, body_bytes, number, crc


def encode(number: int, description: dict[str, Any], body: bytes) -> bytes:
    """A record as devices write it; for tests and for who brings captures from elsewhere."""
    text = json.dumps(description, separators=(",", ":")).encode()
    crc = zlib.crc32(body, zlib.crc32(text))
    head = HEAD.pack(MAGIC, len(text), len(body), number, crc, 0)[:28]
    return head + struct.pack("<I", zlib.crc32(head)) + text + body


def parse(number: int, description: bytes, body: bytes) -> CaptureRecord | None:
    """The record with this JSON and these tensors; None where they do not make one."""
    try:
        data = json.loads(description)
        specs = {kind: _specs(data[kind]) for kind in ("inputs", "outputs")}
        if not naming.is_name(data["model"]):
            return None
        naming.parse_version(data["version"])
        caller = data["caller"]
        if sum(spec.nbytes for kind in specs.values() for spec in kind) != len(body):
            return None
        tensors = _arrays(specs, body)
        return CaptureRecord(
            number=number,
            model=data["model"],
            version=data["version"],
            manifest=str(data["manifest"]),
            time=_count(data["time"]),
            boot=str(data["boot"]),
            boot_ms=_count(data["boot_ms"]),
            reason=str(data["reason"]),
            caller=None if caller is None else dict(caller),
            inputs=tensors["inputs"],
            outputs=tensors["outputs"],
        )
    except (LookupError, TypeError, ValueError, RecursionError):
        return None


def _specs(listed: list[dict[str, Any]]) -> list[TensorSpec]:
    specs = []
    for entry in listed:
        shape = tuple(map(_count, entry["shape"]))
        spec = TensorSpec(name=str(entry["name"]), dtype=DATATYPES[entry["datatype"]], shape=shape)
        if spec.nbytes != entry["bytes"] or spec.nbytes > MAX_BODY_BYTES:
            raise ValueError(spec.name)
        specs.append(spec)
    if len({spec.name for spec in specs}) != len(specs):
        raise ValueError("two tensors have one name")
    return specs


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise ValueError(value)
    return value


def _arrays(specs: dict[str, list[TensorSpec]], body: bytes) -> dict[str, dict[str, np.ndarray]]:
    import numpy as np

    stream, found = io.BytesIO(body), dict[str, "dict[str, np.ndarray]"]()
    for kind, tensors in specs.items():
        found[kind] = {}
        for spec in tensors:
            dtype = np.dtype(spec.dtype).newbyteorder("<")
            flat = np.frombuffer(stream.read(spec.nbytes), dtype, math.prod(spec.shape))
            found[kind][spec.name] = flat.reshape(spec.shape)
    return found


assert set(DATATYPES.values()) == set(DTYPE_BYTES)
