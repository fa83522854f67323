"""Several ONNX models as one graph, every name of a model with the model's name in front."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgepack.errors import ModelError
from edgepack.importers.input_shapes import dims_of, dtype_name
from edgepack.importers.onnx_file import OLDEST_OPSET, opset_of, with_opset
from edgepack.importers.pipeline.declaration import Port, Wiring
from edgepack.importers.pipeline.members import ConvertedMember, inner, prefixed

if TYPE_CHECKING:
    import onnx


def compose(members: Mapping[str, ConvertedMember], wiring: Wiring) -> onnx.ModelProto:
    """One model in which Identity nodes join what is connected. Raises ModelError."""
    import onnx

    _check_types(members, wiring)
    opset = max(_opset(member.converted.model) for member in members.values())
    joined = onnx.ModelProto(ir_version=max(m.converted.model.ir_version for m in members.values()))
    joined.graph.name = "pipeline"
    opsets: dict[str, int] = {}
    feeding = {port: name for name, ports in wiring.inputs.items() for port in ports} | {
        port: inner(*source.names) for port, source in wiring.connections.items()
    }
    for name, member in members.items():
        model = prefixed(name, _with_opset(name, member.converted.model, opset))
        for entry in model.opset_import:
            domain = "" if entry.domain == "ai.onnx" else entry.domain
            if opsets.setdefault(domain, entry.version) != entry.version:
                raise ModelError(
                    f"model {name!r} uses version {entry.version} of {domain}, another one version"
                    f" {opsets[domain]}",
                    "Export both for the same version",
                )
        for tensor in member.inputs:
            port = Port(model=name, tensor=tensor)
            joined.graph.node.append(
                onnx.helper.make_node("Identity", [feeding[port]], [inner(*port.names)])
            )
        joined.graph.node.extend(model.graph.node)
        joined.graph.initializer.extend(model.graph.initializer)
        joined.graph.sparse_initializer.extend(model.graph.sparse_initializer)
        joined.functions.extend(model.functions)
    joined.opset_import.extend(onnx.helper.make_opsetid(*entry) for entry in opsets.items())
    for name, ports in wiring.inputs.items():
        value = joined.graph.input.add()
        value.CopyFrom(members[ports[0].model].inputs[ports[0].tensor])
        value.name = name
    for name, port in wiring.outputs.items():
        joined.graph.node.append(onnx.helper.make_node("Identity", [inner(*port.names)], [name]))
        value = joined.graph.output.add()
        value.CopyFrom(members[port.model].outputs[port.tensor])
        value.name = name
    return joined


def _opset(model: onnx.ModelProto) -> int:
    return opset_of(model) or OLDEST_OPSET


def _with_opset(name: str, model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model for the newest opset that any of the models has."""
    own = _opset(model)
    if own == opset:
        return model
    why = f"model {name!r} uses opset {own}, another one opset {opset}, and it cannot be converted"
    return with_opset(model, opset, why, opset)


def _check_types(members: Mapping[str, ConvertedMember], wiring: Wiring) -> None:
    for port, source in wiring.connections.items():
        _check_fit(
            port,
            members[port.model].inputs[port.tensor],
            source,
            members[source.model].outputs[source.tensor],
        )
    for ports in wiring.inputs.values():
        for port in ports[1:]:
            _check_fit(
                port,
                members[port.model].inputs[port.tensor],
                ports[0],
                members[ports[0].model].inputs[ports[0].tensor],
            )


def _check_fit(
    port: Port, value: onnx.ValueInfoProto, source: Port, given: onnx.ValueInfoProto
) -> None:
    """Raise ModelError where type or shape of two tensors that are one cannot be the same."""
    kinds = [dtype_name(each.type.tensor_type.elem_type) for each in (value, given)]
    dims = [dims_of(each) for each in (value, given)]
    if kinds[0] == kinds[1] and (dims[0] is None or dims[1] is None or _fit(dims[0], dims[1])):
        return
    texts = [
        f"{kind}[{','.join(str(dim or '?') for dim in each or ())}]"
        for kind, each in zip(kinds, dims, strict=True)
    ]
    raise ModelError(
        f"{port} is {texts[0]}, but {source}, which it is given, is {texts[1]}",
        "Put a model between them that converts",
    )


def _fit(first: list[int | str], second: list[int | str]) -> bool:
    return len(first) == len(second) and all(
        one == other or isinstance(one, str) or isinstance(other, str) or 0 in (one, other)
        for one, other in zip(first, second, strict=True)
    )
