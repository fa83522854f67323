"""Weights of a large model, set aside while its graph is worked on.

A protobuf message cannot be serialised beyond 2 GiB, and onnxsim, shape inference and the checker
all take serialised models. So the large tensors of a large model become graph inputs for as long as
that lasts; what is outside the file is read only when it is put back, once.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.errors import ModelError
from edgepack.importers.graphs import all_tensors, used_names
from edgepack.importers.onnx_file import one_line
from edgepack.importers.passes.carried_types import growth

if TYPE_CHECKING:
    import onnx

LARGE_MODEL_BYTES = 1 << 30
"""From here on weights are set aside. Serialising twice what is below still fits everywhere."""
_PACKED = re.compile(r"(?:U?INT|FLOAT)([24])(?!\d)")
"""Types of 2 and 4 bits, several in a byte; NumPy has them unpacked."""
LARGE_TENSOR_BYTES = 1 << 16
"""Smaller ones stay: among them are shapes and axes, which simplification must see."""


class Weights:
    """Initializers taken out of a model, by name, in the model's order."""

    def __init__(self, folder: Path, tensors: dict[str, onnx.TensorProto]) -> None:
        self._folder = folder
        self._tensors = tensors
        self.names = frozenset(tensors)

    @classmethod
    def detach(cls, model: onnx.ModelProto, folder: Path) -> Weights:
        """Load external weights, or set the large ones aside where the model is large.

        ``folder`` is where the model file is. Raises ModelError for weights that are not there.
        """
        import onnx

        sizes = (tensor_bytes(tensor) * growth(tensor.data_type) for tensor in all_tensors(model))
        large = sum(sizes) > LARGE_MODEL_BYTES
        taken: dict[str, onnx.TensorProto] = {}
        kept: list[onnx.TensorProto] = []
        if large:
            for tensor in model.graph.initializer:
                if tensor_bytes(tensor) < LARGE_TENSOR_BYTES:
                    kept.append(tensor)
                    continue
                model.graph.input.append(
                    onnx.helper.make_tensor_value_info(
                        tensor.name, tensor.data_type, list(tensor.dims)
                    )
                )
                taken[tensor.name] = onnx.TensorProto()
                taken[tensor.name].CopyFrom(tensor)
            del model.graph.initializer[:]
            model.graph.initializer.extend(kept)
        for tensor in all_tensors(model):
            _load(tensor, folder)
        return cls(folder, taken)

    def attach(self, model: onnx.ModelProto) -> None:
        """Put the tensors that are still used back, one after the other, loading what is outside."""
        used = used_names(model.graph)
        inputs = [value for value in model.graph.input if value.name not in self.names]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        while self._tensors:
            name = next(iter(self._tensors))
            tensor = self._tensors.pop(name)
            if name in used:
                model.graph.initializer.append(tensor)
                del tensor
                _load(model.graph.initializer[-1], self._folder)


def not_a_number_notes(model: onnx.ModelProto) -> tuple[str, ...]:
    """What to tell of weights that hold NaN, as after a training that diverged."""
    import numpy as np
    from onnx import numpy_helper

    notes = []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f" and np.isnan(array).any():
            count = int(np.isnan(array).sum())
            notes.append(f"the weights {tensor.name!r} hold NaN: {count} of {array.size} values")
    return tuple(notes)


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Size of a tensor's raw data, by its shape; strings have none."""
    import onnx

    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        return 0
    elements: int = math.prod(tensor.dims)
    packed = _PACKED.match(onnx.TensorProto.DataType.Name(tensor.data_type))
    if packed:
        return (elements * int(packed[1]) + 7) // 8
    return 0 if dtype.hasobject else elements * dtype.itemsize


def _load(tensor: onnx.TensorProto, folder: Path) -> None:
    """Read a tensor's data if it is outside, and hold that it is as much as its shape says."""
    import onnx
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    if not uses_external_data(tensor):
        _check_data(tensor)
        return
    size = tensor_bytes(tensor)
    lengths = [entry for entry in tensor.external_data if entry.key == "length"]
    for entry in lengths or [tensor.external_data.add(key="length", value=str(size))]:
        if entry.value != str(size):
            raise ModelError(
                f"the weights of {tensor.name!r} take {size} bytes, the model says {entry.value}"
            )
    try:
        load_external_data_for_tensor(tensor, os.fspath(folder))
    except (onnx.checker.ValidationError, OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the weights of {tensor.name!r} cannot be read: {one_line(error)}",
            "Keep the model's data files beside it",
        ) from error


def _check_data(tensor: onnx.TensorProto) -> None:
    import onnx

    try:
        # Decoding is the check; of what is large the size is enough, and costs less.
        if tensor.HasField("raw_data") and tensor_bytes(tensor) > LARGE_TENSOR_BYTES:
            fits = len(tensor.raw_data) == tensor_bytes(tensor)
        else:
            fits = onnx.numpy_helper.to_array(tensor) is not None
        reason = "its size is another"
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        fits, reason = False, one_line(error)
    if not fits:
        raise ModelError(
            f"the tensor {tensor.name!r} does not hold what its type and shape say: {reason}"
        )
