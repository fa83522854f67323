"""The models of a pipeline, each converted by its own importer, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.artefacts import SourceModel
from edgepack.errors import ConfigError, EdgepackError, ModelError
from edgepack.importers.input_shapes import dims_of
from edgepack.importers.labels import tensors_only
from edgepack.importers.pipeline.declaration import Declaration, Port
from edgepack.importers.protocol import ConvertedModel, ImportOptions
from edgepack.importers.settle import settle

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ConvertedMember:
    """One of the models as ONNX, its weights loaded."""

    source: SourceModel
    converted: ConvertedModel

    @property
    def inputs(self) -> dict[str, onnx.ValueInfoProto]:
        """Inputs by name, constants left out."""
        graph = self.converted.model.graph
        constants = {tensor.name for tensor in graph.initializer}
        return {value.name: value for value in graph.input if value.name not in constants}

    @property
    def outputs(self) -> dict[str, onnx.ValueInfoProto]:
        """Outputs by name."""
        return {value.name: value for value in self.converted.model.graph.output}


def convert_members(
    path: Path, declaration: Declaration, shapes: Mapping[str, Shape], options: ImportOptions
) -> dict[str, ConvertedMember]:
    """Convert every model, in an order in which each knows the shapes that feed it.

    ``shapes`` are those of the inputs of the whole. Raises what the models' importers raise, with the
    model's name in front.
    """
    members: dict[str, ConvertedMember] = {}
    known: dict[Port, Shape] = {}
    unknown: dict[str, EdgepackError] = {}
    for name in declaration.order():
        given = _given(name, declaration, shapes, known)
        try:
            member = _convert(path, declaration, name, given, options)
        except (ConfigError, ModelError) as error:
            # Perhaps for want of a shape: then why another model could not give it is the reason.
            feeding = [declaration.source_of(name, key) for key in declaration.models[name].inputs]
            reasons = [
                unknown[p.model] for p in feeding if isinstance(p, Port) and p.model in unknown
            ]
            raise next(iter(reasons), _in(name, error)) from error
        fixed = {key: shape for key, shape in given.items() if key in member.inputs}
        try:
            known |= _output_shapes(name, declaration, member, fixed, options)
        except ModelError as error:
            unknown[name] = _in(name, _outside(name, member, declaration, error))
        members[name] = member
    return members


def _in(name: str, error: EdgepackError) -> EdgepackError:
    return type(error)(f"model {name!r}: {error.message}", error.hint)


def _outside(
    name: str, member: ConvertedMember, declaration: Declaration, error: ModelError
) -> ModelError:
    """The error with inputs of the model called as they are outside of the pipeline."""
    message, hint = error.message, error.hint
    for tensor in member.inputs:
        source = declaration.source_of(name, tensor)
        if isinstance(source, str):
            message = message.replace(f"'{inner(name, tensor)}'", f"'{source}'")
            hint = hint.replace(f"{inner(name, tensor)}=", f"{source}=")
    return ModelError(message, hint)


def _convert(
    path: Path,
    declaration: Declaration,
    name: str,
    given: Mapping[str, Shape],
    options: ImportOptions,
) -> ConvertedMember:
    import onnx

    # A pipeline's models are of any format, so it needs the registry that it is in.
    from edgepack.importers import convert

    declared = declaration.models[name]
    file = path.parent / declared.file
    own = replace(options, signature=declared.signature or options.signature)
    source, converted = convert(file, given, declared.format, own)
    if source.format == "pipeline":
        raise ModelError("a pipeline's models cannot be pipelines", "Write one file for all models")
    labels = tensors_only(converted.model)
    if converted.folder is not None:
        try:
            onnx.load_external_data_for_model(converted.model, str(converted.folder))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise ModelError(f"the weights of {file} cannot be read: {error}") from error
    notes = (*converted.notes, *labels)
    return ConvertedMember(source=source, converted=replace(converted, notes=notes))


def _given(
    name: str, declaration: Declaration, shapes: Mapping[str, Shape], known: Mapping[Port, Shape]
) -> dict[str, Shape]:
    """Shapes of a model's inputs as far as they are known before it is read."""
    given = {key: shape for key, shape in shapes.items() if _keeps_its_name(name, key, declaration)}
    for tensor in declaration.models[name].inputs:
        source = declaration.source_of(name, tensor)
        if isinstance(source, Port) and source in known:
            given[tensor] = known[source]
        elif isinstance(source, str) and source in shapes:
            given[tensor] = shapes[source]
    return given


def _keeps_its_name(name: str, tensor: str, declaration: Declaration) -> bool:
    """Whether an input of the whole may be this model's input of the same name."""
    elsewhere = {
        source for member in declaration.models.values() for source in member.inputs.values()
    }
    return tensor not in declaration.models[name].inputs and tensor not in elsewhere


def _output_shapes(
    name: str,
    declaration: Declaration,
    member: ConvertedMember,
    fixed: Mapping[str, Shape],
    options: ImportOptions,
) -> dict[Port, Shape]:
    """Shapes of those outputs that other models read; what they are at most where data decide."""
    ports = [
        declaration.source_of(other, tensor)
        for other, declared in declaration.models.items()
        for tensor in declared.inputs
    ]
    read = {port for port in ports if isinstance(port, Port) and port.model == name}
    outputs = member.outputs
    if all(port.tensor in outputs and _is_fixed(outputs[port.tensor]) for port in read):
        return {port: _shape(outputs[port.tensor]) for port in read if port.tensor in outputs}
    model = prefixed(name, member.converted.model)
    shapes = {inner(name, tensor): shape for tensor, shape in fixed.items()}
    own = {key: bound for key, bound in options.bounds.items() if key.startswith(inner(name, ""))}
    specs = settle(model, None, shapes, bounds=own).outputs
    return {port: spec.shape for port in read for spec in specs if spec.name == inner(*port.names)}


def inner(model: str, tensor: str) -> str:
    """The name that a tensor, or a node, of a model has in the whole."""
    return f"{model}/{tensor}"


def prefixed(name: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model with names as they are in the whole."""
    import onnx.compose

    changed: onnx.ModelProto = onnx.compose.add_prefix(model, prefix=inner(name, ""))
    return changed


def _is_fixed(value: onnx.ValueInfoProto) -> bool:
    dims = dims_of(value)
    return dims is not None and all(isinstance(dim, int) and dim > 0 for dim in dims)


def _shape(value: onnx.ValueInfoProto) -> Shape:
    return tuple(int(dim) for dim in dims_of(value) or ())
