"""What TVM says of a tensor, as a TensorSpec."""

from __future__ import annotations

from typing import Any

from edgepack.artefacts import TensorSpec
from edgepack.errors import CompileError


def tensor_spec(name: str, tensor_type: Any) -> TensorSpec:
    """Shape and dtype of a Relax tensor type; every dimension is an integer by now."""
    try:
        shape = tuple(int(extent) for extent in tensor_type.shape)
    except (TypeError, ValueError) as error:
        raise CompileError(f"a shape is not known before the model runs: {tensor_type}") from error
    return TensorSpec(name=name, dtype=str(tensor_type.dtype), shape=shape)
