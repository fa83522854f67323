"""How one speaks with a worker: the counterpart of runtime/worker/serve.zig.

Tensors lie in a shared file, inputs and then outputs, each at a multiple of 64 bytes. Messages of 16
bytes go over stdin and stdout, little-endian: a request is {u32 magic, u32 operation, u64 0}, a reply
{u32 magic, i32 status, i64 value}. A reply to OBSERVE is followed by one u64 for each call of the plan.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

from edgepack.artefacts import TensorSpec
from edgepack.errors import DeviceError

if TYPE_CHECKING:
    import numpy as np

MAGIC = 0x31575045
"""``EPW1`` as bytes."""
MAX_THREADS = 64
"""EP_MAX_THREADS of edgepack.h."""
REPLY_BYTES = 16
_REPLY = struct.Struct("<Iiq")
_REQUEST = struct.Struct("<IIQ")
_ALIGNMENT = 64
_PAGE = 4096


class Operation(IntEnum):
    """What can be asked of a worker, with what it answers."""

    RUN = 1
    """Run the model: nanoseconds."""
    OBSERVE = 2
    """The same, and the time of each call."""
    CLOCK = 3
    """The monotonic clock of its machine in nanoseconds."""
    MEMORY = 4
    """Peak resident memory in bytes."""
    PEAK = 5
    """What the core reaches in multiply-adds, measured now: FLOP/s."""


def request(operation: Operation) -> bytes:
    """The message that asks for ``operation``."""
    return _REQUEST.pack(MAGIC, operation, 0)


def reply_value(message: bytes, what: str) -> int:
    """The value of a reply; a DeviceError with ``what`` where it is not one, or tells of a failure."""
    magic, status, value = _REPLY.unpack(message)
    if magic != MAGIC or status != 0:
        raise DeviceError(f"the worker {what}: status {status}")
    return int(value)


def call_times(data: bytes) -> list[int]:
    """What follows the reply to OBSERVE: nanoseconds of each call."""
    return list(struct.unpack(f"<{len(data) // 8}Q", data))


def layout(specs: Sequence[TensorSpec]) -> tuple[list[int], int]:
    """Offset of each tensor in the shared file, and the file's size: whole pages."""
    offsets = []
    end = 0
    for spec in specs:
        offsets.append(end)
        end += spec.nbytes + (-spec.nbytes % _ALIGNMENT)
    return offsets, max(end + (-end % _PAGE), _PAGE)


def shared_file(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    values: Mapping[str, np.ndarray],
) -> bytes:
    """The shared file with every input in its place."""
    offsets, size = layout((*inputs, *outputs))
    content = bytearray(size)
    for spec, offset in zip(inputs, offsets, strict=False):
        content[offset : offset + spec.nbytes] = values[spec.name].tobytes()
    return bytes(content)
