"""Reads a PyTorch checkpoint without PyTorch: the stream of pickles that torch.save wrote before 1.6.

magic number, protocol version, system description, the object (tensors name their storage by a
persistent id), the list of storage keys, then per key a little-endian int64 count and its values.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


def load(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a state dictionary, by name. ValueError for any other file."""
    import numpy as np

    with path.open("rb") as file:
        if _Tensors(file).load() != _MAGIC:
            raise ValueError(f"{path} is not a checkpoint of the old form")
        for _ in ("protocol version", "system description"):
            _Tensors(file).load()
        tensors: dict[str, _Tensor] = _Tensors(file).load()
        storages = {}
        kinds = {tensor.key: tensor.kind for tensor in tensors.values()}
        for key in _Tensors(file).load():
            count = int.from_bytes(file.read(8), "little")
            dtype = np.dtype(_DTYPES[kinds[key]])
            storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return {name: tensor.values(storages[tensor.key]) for name, tensor in tensors.items()}


class _Tensor:
    """A view of a storage, as torch._utils._rebuild_tensor_v2 is called for it."""

    def __init__(
        self, storage: tuple[str, str], offset: int, shape: tuple[int, ...],
        strides: tuple[int, ...], *_: object,
    ) -> None:  # fmt: skip
        self.kind, self.key = storage
        self.offset, self.shape, self.strides = offset, shape, strides

    def values(self, storage: np.ndarray) -> np.ndarray:
        import numpy as np

        strides = [stride * storage.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(storage[self.offset :], self.shape, strides)
        return np.array(view)


class _Tensors(pickle.Unpickler):
    """Knows tensors and dictionaries and nothing else: a pickle can otherwise call anything."""

    def __init__(self, file: io.BufferedReader) -> None:
        super().__init__(file)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _DTYPES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in a checkpoint")

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        """``("storage", kind, key, device, count, None)``."""
        return pid[1], pid[2]
