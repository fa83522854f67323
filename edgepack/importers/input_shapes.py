"""Fixes a model's dynamic input dimensions by the shapes that the user gives."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgepack.artefacts import DTYPE_BYTES
from edgepack.errors import ModelError
from edgepack.importers.graphs import all_graphs
from edgepack.importers.passes.carried_types import CARRIED_TYPES, carrier_of

if TYPE_CHECKING:
    import onnx

Dim = int | str
"""A fixed size, or the name of a dynamic dimension; empty where it has none."""

_MAX_TENSOR_BYTES = 1 << 31


def fix_input_shapes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Give every input of the model a fixed shape, in place.

    ``shapes`` has an entry for each input with a dynamic dimension, and may have one for the others,
    which must then agree. Initializers that are also listed as inputs, as before IR version 4, are
    constants. Shapes noted in the file for anything but inputs are dropped: they are inferred anew.
    Raises ModelError.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if not inputs:
        raise ModelError("the model has no inputs: its outputs could never change")
    for value in inputs:
        _check_type(value)
    _refuse_unknown(inputs, shapes)
    missing = [
        value for value in inputs if value.name not in shapes and _has_dynamic(dims_of(value))
    ]
    if missing:
        raise _missing(missing)
    for value in inputs:
        if value.name in shapes:
            _fix(value, shapes[value.name], inputs)
    del graph.input[:]
    graph.input.extend(inputs)
    for nested in all_graphs(graph):
        del nested.value_info[:]
        for value in nested.output:
            for dim in value.type.tensor_type.shape.dim:
                dim.Clear()  # the rank stays: ONNX's checker asks for it


def dims_of(value: onnx.ValueInfoProto) -> list[Dim] | None:
    """The dimensions of a tensor, or None if not even its rank is known."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param
        for dim in value.type.tensor_type.shape.dim
    ]


def dtype_name(element_type: int) -> str:
    """NumPy's name of an ONNX element type; ONNX's own, in lower case, for one NumPy lacks."""
    import onnx

    if element_type not in onnx.TensorProto.DataType.values():
        return str(element_type)
    name: str = onnx.TensorProto.DataType.Name(element_type).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _check_type(value: onnx.ValueInfoProto) -> None:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        word = str(kind).removesuffix("_type").replace("_", " ")
        raise ModelError(f"input {value.name!r} is a {word}; edgepack takes tensors only")
    dtype = dtype_name(value.type.tensor_type.elem_type)
    if carrier_of(dtype) not in DTYPE_BYTES:
        raise ModelError(
            f"input {value.name!r} is of type {dtype}",
            f"Types that an input may have: {', '.join((*DTYPE_BYTES, *CARRIED_TYPES))}",
        )


def _refuse_unknown(
    inputs: list[onnx.ValueInfoProto], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    names = [value.name for value in inputs]
    for name in shapes:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            raise ModelError(
                f"the model has no input {name!r}",
                (f"Did you mean {close[0]!r}? " if close else "") + _listing(inputs),
            )


def _missing(missing: list[onnx.ValueInfoProto]) -> ModelError:
    described = []
    for value in missing:
        dims = dims_of(value)
        if dims is None:
            described.append(f"input {value.name!r} (of unknown rank)")
        else:
            axes = (f"{dim or 'unnamed'} (axis {i})" for i, dim in enumerate(dims) if _dynamic(dim))
            described.append(f"input {value.name!r}: {', '.join(axes)}")
    options = " ".join(f"--input {_option(value)}" for value in missing)
    return ModelError(f"dynamic dimensions must be fixed: {'; '.join(described)}", f"Add {options}")


def _option(value: onnx.ValueInfoProto) -> str:
    dims = dims_of(value)
    if dims is None:
        return f"{value.name}=DIM0,DIM1,..."
    words = []
    for axis, dim in enumerate(dims):
        word = re.sub(r"[^A-Z0-9]+", "_", str(dim).upper()).strip("_")
        named = bool(re.match(r"[A-Z]", word))
        words.append((word if named else f"DIM{axis}") if _dynamic(dim) else str(dim))
    return f"{value.name}={','.join(words)}"


def _fix(
    value: onnx.ValueInfoProto, shape: tuple[int, ...], inputs: list[onnx.ValueInfoProto]
) -> None:
    dims = dims_of(value)
    given = f"input {value.name!r} cannot have the shape {_text(shape)}"
    if dims is not None and len(dims) != len(shape):
        raise ModelError(f"{given}: it has {len(dims)} dimensions", _listing(inputs))
    for axis, size in enumerate(shape):
        if size < 1:
            raise ModelError(f"{given}: every dimension must be 1 or more", _listing(inputs))
        declared = dims[axis] if dims is not None else ""
        if not _dynamic(declared) and declared != size:
            raise ModelError(f"{given}: axis {axis} is {declared} in the model", _listing(inputs))
    dtype = dtype_name(value.type.tensor_type.elem_type)
    if math.prod(shape) * DTYPE_BYTES[carrier_of(dtype)] >= _MAX_TENSOR_BYTES:
        raise ModelError(f"{given}: it would take 2 GiB or more", _listing(inputs))
    value.type.tensor_type.shape.ClearField("dim")
    # An empty shape is a scalar, and must be there all the same.
    value.type.tensor_type.shape.SetInParent()
    for size in shape:
        value.type.tensor_type.shape.dim.add().dim_value = size


def _listing(inputs: list[onnx.ValueInfoProto]) -> str:
    words = []
    for value in inputs:
        dims = dims_of(value)
        shape = "unknown rank" if dims is None else _text(tuple(dim or "?" for dim in dims))
        words.append(f"{value.name} ({dtype_name(value.type.tensor_type.elem_type)} {shape})")
    return f"Inputs: {', '.join(words)}"


def _text(shape: tuple[Dim, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _dynamic(dim: Dim) -> bool:
    """A fixed dimension of 0 is as good as none: exporters write it for what they do not know."""
    return isinstance(dim, str) or dim == 0


def _has_dynamic(dims: list[Dim] | None) -> bool:
    return dims is None or any(map(_dynamic, dims))
