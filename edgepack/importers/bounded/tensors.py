"""What is known of a value: its type, the true size of each axis, and elements that are sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgepack.importers.bounded.sizes import Size, fixed
from edgepack.importers.static_shapes import is_static, not_static

if TYPE_CHECKING:
    import numpy as np
    import onnx

INT64 = 7
"""onnx.TensorProto.INT64."""
_FEW = 64
"""Integer tensors up to this many elements may be shapes: their elements are followed."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """What is known of a value."""

    element: int
    """ONNX element type."""
    sizes: tuple[Size, ...]
    """Of each axis; the compiled model's tensor has the greatest, and is padded beyond the true one."""
    values: tuple[Size | None, ...] | None = None
    """The elements of an integer scalar or vector, as far as they are known."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the compiled model."""
        return tuple(size.most for size in self.sizes)

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.sizes)

    @property
    def padded(self) -> list[int]:
        """Axes whose size depends on data."""
        return [axis for axis, size in enumerate(self.sizes) if not size.is_fixed]

    @property
    def numbers(self) -> list[int] | None:
        """All elements of an integer vector or scalar that are the same for every request."""
        if self.values is None:
            return None
        known = [value.constant for value in self.values if value is not None and value.is_fixed]
        return known if len(known) == len(self.values) else None

    @property
    def dtype(self) -> np.dtype:
        """The element type, as NumPy has it."""
        import onnx

        return onnx.helper.tensor_dtype_to_np_dtype(self.element)


def scalar_of(size: Size) -> Tensor:
    """What is known of an int64 scalar that tells a size."""
    return Tensor(element=INT64, sizes=(), values=(size,))


def of_constant(constant: np.ndarray) -> Tensor:
    """What is known of a constant."""
    import onnx

    few = constant.ndim <= 1 and constant.size <= _FEW and constant.dtype.kind in "iub"
    return Tensor(
        element=int(onnx.helper.np_dtype_to_tensor_dtype(constant.dtype)),
        sizes=tuple(fixed(extent) for extent in constant.shape),
        values=tuple(fixed(value) for value in constant.reshape(-1)) if few else None,
    )


def infer(
    node: onnx.NodeProto,
    tensors: Mapping[str, Tensor],
    constants: Mapping[str, np.ndarray],
    opsets: Sequence[onnx.OperatorSetIdProto],
) -> dict[str, Tensor]:
    """The outputs of a node for inputs as they are in the compiled model. Raises ModelError."""
    import onnx

    domain = "" if node.domain == "ai.onnx" else node.domain
    versions = {"" if e.domain == "ai.onnx" else e.domain: e.version for e in opsets}
    types = {
        name: onnx.helper.make_tensor_type_proto(tensor.element, tensor.shape)
        for name, tensor in tensors.items()
    }
    data = {
        name: onnx.helper.make_tensor(name, tensor.element, tensor.shape, tensor.numbers)
        for name, tensor in tensors.items()
        if tensor.numbers is not None
    }
    for name, constant in constants.items():
        if constant.size <= _FEW:
            data[name] = onnx.numpy_helper.from_array(constant, name)
    try:
        schema = onnx.defs.get_schema(node.op_type, versions[domain], domain)
        inferred = onnx.shape_inference.infer_node_outputs(
            schema, node, types, data, opset_imports=list(opsets)
        )
    except (onnx.defs.SchemaError, onnx.shape_inference.InferenceError, KeyError) as error:
        raise not_static(node, None) from error
    return {name: _output(node, name, inferred.get(name)) for name in node.output if name}


def _output(node: onnx.NodeProto, name: str, found: onnx.TypeProto | None) -> Tensor:
    import onnx

    value = onnx.ValueInfoProto(name=name)
    if found is not None:
        value.type.CopyFrom(found)
    if not is_static(value):
        raise not_static(node, value)
    return of_type(value.type.tensor_type)


def of_type(found: onnx.TypeProto.Tensor) -> Tensor:
    """What is known of a value of fixed shape."""
    return Tensor(
        element=found.elem_type, sizes=tuple(fixed(dim.dim_value) for dim in found.shape.dim)
    )
