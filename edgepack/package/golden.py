"""golden.bin: the golden vectors, laid out so that a device reads them straight into its tensors.

    offset 0   8 bytes   "EPGV0001"
    offset 8   4 bytes   number of vectors, little-endian
    offset 12  52 bytes  zero
    offset 64            for each vector: each input, then each output, in the model's order

Tensors are dense, row-major, little-endian, one byte for a boolean, and each is padded with zeros to a
multiple of 64 bytes. Names, types and shapes stand in model.json.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgepack.artefacts import GoldenVectors, TensorSpec
from edgepack.canonical import MalformedError

if TYPE_CHECKING:
    import numpy as np

MAGIC = b"EPGV0001"
ALIGNMENT = 64
_HEADER = struct.Struct("<8sI52x")


def size(count: int, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> int:
    """Bytes of golden.bin with ``count`` vectors."""
    return _HEADER.size + count * vector_bytes((*inputs, *outputs))


def vector_bytes(tensors: Sequence[TensorSpec]) -> int:
    """Bytes of one vector of these tensors, padding included."""
    return sum(_padded(spec.nbytes) for spec in tensors)


def encode(
    golden: GoldenVectors, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> bytes:
    """Write the vectors; tensors that are not exactly as specified are a MalformedError."""
    if len(golden.inputs) != len(golden.outputs):
        raise MalformedError("golden vectors: as many inputs as outputs are needed")
    parts = [_HEADER.pack(MAGIC, len(golden.inputs))]
    for given, expected in zip(golden.inputs, golden.outputs, strict=True):
        for tensors, specs in ((given, inputs), (expected, outputs)):
            if set(tensors) != {spec.name for spec in specs}:
                raise MalformedError(
                    f"golden vectors: {sorted(tensors)} are not the model's tensors"
                )
            parts.extend(_encode_tensor(tensors[spec.name], spec) for spec in specs)
    return b"".join(parts)


def decode(
    data: bytes, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], tolerance: float
) -> GoldenVectors:
    """Read golden.bin. The arrays are read-only views of ``data``.

    ``distinct`` is worked out again: whether any two vectors' outputs differ by more than the
    tolerance.

    Raises:
        MalformedError: It is not golden.bin for these tensors.
    """
    count = check_header(data[: _HEADER.size], len(data), inputs, outputs)
    position = _HEADER.size
    given: list[dict[str, np.ndarray]] = []
    expected: list[dict[str, np.ndarray]] = []
    for _ in range(count):
        for specs, vectors in ((inputs, given), (outputs, expected)):
            tensors = {}
            for spec in specs:
                tensors[spec.name] = _decode_tensor(data, position, spec)
                position += _padded(spec.nbytes)
            vectors.append(tensors)
    return GoldenVectors(
        inputs=tuple(given),
        outputs=tuple(expected),
        tolerance=tolerance,
        distinct=any(_differ(a, b, tolerance) for a, b in _pairs(expected)),
    )


def check_header(
    header: bytes, length: int, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> int:
    """The number of vectors, from the first 64 bytes of a golden.bin of ``length`` bytes."""
    if len(header) < _HEADER.size or header[:8] != MAGIC:
        raise MalformedError("golden.bin does not begin with EPGV0001")
    count = int(_HEADER.unpack(header)[1])
    if header != _HEADER.pack(MAGIC, count):
        raise MalformedError("golden.bin has a header that is not zero after the count")
    if length != size(count, inputs, outputs):
        raise MalformedError(
            f"golden.bin is {length} bytes; {count} vectors of this model take"
            f" {size(count, inputs, outputs)}"
        )
    return count


def _padded(nbytes: int) -> int:
    return nbytes + -nbytes % ALIGNMENT


def _encode_tensor(tensor: np.ndarray, spec: TensorSpec) -> bytes:
    if tensor.dtype.name != spec.dtype or tensor.shape != spec.shape:
        raise MalformedError(
            f"golden vectors: {spec.name} is {tensor.dtype.name}{list(tensor.shape)},"
            f" the model's is {spec.dtype}{list(spec.shape)}"
        )
    little = tensor.astype(tensor.dtype.newbyteorder("<"), copy=False)
    return little.tobytes().ljust(_padded(spec.nbytes), b"\0")


def _decode_tensor(data: bytes, position: int, spec: TensorSpec) -> np.ndarray:
    import numpy as np

    end = position + spec.nbytes
    if any(data[end : position + _padded(spec.nbytes)]):
        raise MalformedError(f"golden.bin: the padding after {spec.name} is not zero")
    if spec.dtype == "bool" and not set(data[position:end]) <= {0, 1}:
        raise MalformedError(f"golden.bin: {spec.name} has a boolean that is neither 0 nor 1")
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    return np.frombuffer(memoryview(data)[position:end], dtype=dtype).reshape(spec.shape)


def _pairs(
    vectors: Sequence[dict[str, np.ndarray]],
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    return ((a, b) for i, a in enumerate(vectors) for b in vectors[i + 1 :])


def _differ(a: dict[str, np.ndarray], b: dict[str, np.ndarray], tolerance: float) -> bool:
    import numpy as np

    for name, ref in a.items():
        if ref.dtype.kind != "f":
            if not np.array_equal(ref, b[name]):
                return True
            continue
        one, other = ref.astype(np.float64), b[name].astype(np.float64)
        with np.errstate(invalid="ignore"):
            scale = max(float(np.max(np.abs(one))), 1e-30)
            if not np.max(np.abs(one - other)) <= tolerance * scale:
                return True
    return False
