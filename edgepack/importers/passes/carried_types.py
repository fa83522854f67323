"""Element types that nothing after the importers knows, and the types that carry their values.

A package's tensors have NumPy's types. A tensor of bfloat16, float8 or float4 is carried as the same
numbers in float32, one of int4 or int2 in int8, one of uint4 or uint2 in uint8. Every operator then
works on it as it is; only where numbers enter such a type something has to be done (carried_nodes.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgepack.artefacts import DTYPE_BYTES
from edgepack.importers.graphs import all_graphs, all_tensors

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, kw_only=True)
class CarriedType:
    """An ONNX element type without a NumPy type of its own."""

    name: str
    """ONNX's, in lower case."""
    carrier: str
    """The NumPy name of the type that carries its values."""
    bits: int
    lowest: int = 0
    highest: int = 0
    """Of an integer type: its range."""
    in_onnxruntime: bool = True
    """Whether ONNX Runtime computes with it as ONNX says, on any CPU."""

    @property
    def is_integer(self) -> bool:
        """Whether it is one of the integer types."""
        return self.carrier != "float32"


CARRIED_TYPES = {
    carried.name: carried
    for carried in (
        CarriedType(name="bfloat16", carrier="float32", bits=16, in_onnxruntime=False),
        CarriedType(name="float8e4m3fn", carrier="float32", bits=8),
        CarriedType(name="float8e4m3fnuz", carrier="float32", bits=8),
        CarriedType(name="float8e5m2", carrier="float32", bits=8),
        CarriedType(name="float8e5m2fnuz", carrier="float32", bits=8),
        CarriedType(name="float8e8m0", carrier="float32", bits=8, in_onnxruntime=False),
        CarriedType(name="float4e2m1", carrier="float32", bits=4, in_onnxruntime=False),
        CarriedType(name="int4", carrier="int8", bits=4, lowest=-8, highest=7),
        CarriedType(name="uint4", carrier="uint8", bits=4, highest=15),
        CarriedType(
            name="int2", carrier="int8", bits=2, lowest=-2, highest=1, in_onnxruntime=False
        ),
        CarriedType(name="uint2", carrier="uint8", bits=2, highest=3, in_onnxruntime=False),
    )
}
"""By ONNX's name in lower case."""

_TYPE_ATTRIBUTES = {
    "dtype",
    "output_datatype",
    "output_dtype",
    "precision",
    "softmax_precision",
    "stash_type",
    "to",
}
"""Attributes of ONNX's operators that say an element type."""


def carrier_of(dtype: str) -> str:
    """The NumPy name of the type that carries ``dtype``; of any other type, the same."""
    carried = CARRIED_TYPES.get(dtype)
    return dtype if carried is None else carried.carrier


def carried_type(element_type: int) -> CarriedType | None:
    """The entry of an ONNX element type; None for one that carries itself."""
    import onnx

    if element_type not in onnx.TensorProto.DataType.values():
        return None
    return CARRIED_TYPES.get(onnx.TensorProto.DataType.Name(element_type).lower())


def carrier_type(element_type: int) -> int:
    """The ONNX element type that carries another; of one that carries itself, the same."""
    import numpy as np
    import onnx

    carried = carried_type(element_type)
    if carried is None:
        return element_type
    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(carried.carrier)))


def growth(element_type: int) -> int:
    """How many times larger a tensor becomes when it is carried."""
    carried = carried_type(element_type)
    return 1 if carried is None else DTYPE_BYTES[carried.carrier] * 8 // carried.bits


def type_attributes(node: onnx.NodeProto) -> Iterator[onnx.AttributeProto]:
    """The attributes of a node that say an element type to be carried."""
    for attribute in node.attribute if node.domain in ("", "ai.onnx") else ():
        if attribute.name in _TYPE_ATTRIBUTES and carried_type(attribute.i) is not None:
            yield attribute


def mentioned_types(model: onnx.ModelProto) -> set[str]:
    """Names of all types to be carried that inputs, constants or attributes bring into the model."""
    types = [value.type.tensor_type.elem_type for value in model.graph.input]
    types += [tensor.data_type for tensor in all_tensors(model)]
    for nodes in [*(graph.node for graph in all_graphs(model.graph)), *_function_nodes(model)]:
        for node in nodes:
            types += [attribute.i for attribute in type_attributes(node)]
    return {carried.name for carried in map(carried_type, types) if carried is not None}


def carry_declarations(graph: onnx.GraphProto) -> None:
    """Give every value of a graph, not of those nested in it, the type that carries its own."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        tensor = value.type.tensor_type
        if value.type.WhichOneof("value") == "tensor_type":
            tensor.elem_type = carrier_type(tensor.elem_type)


def carry_tensor(tensor: onnx.TensorProto) -> None:
    """Convert a constant whose data is loaded, in place."""
    from onnx import numpy_helper

    carried = carried_type(tensor.data_type)
    if carried is not None:
        array = numpy_helper.to_array(tensor).astype(carried.carrier)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _function_nodes(model: onnx.ModelProto) -> Iterator[list[onnx.NodeProto]]:
    """The nodes of the model's own functions, with those of graphs nested in them."""
    for function in model.functions:
        yield list(function.node)
        for node in function.node:
            for attribute in node.attribute:
                for nested in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                    yield from (list(graph.node) for graph in all_graphs(nested))
