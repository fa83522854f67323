"""Exported programs: what torch.export.save writes."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.artefacts import Infer
from edgepack.errors import ModelError
from edgepack.importers.onnx_file import one_line
from edgepack.importers.protocol import ConvertedModel
from edgepack.importers.pytorch_archive import EXPORTED, check_program, no_pickled_code, refusal
from edgepack.importers.pytorch_onnx import (
    EXPORT_INSTEAD,
    Parameter,
    check_repeatable,
    output_names,
    rename,
    runner,
    to_onnx,
)

if TYPE_CHECKING:
    import torch


def convert_program(path: Path, form: str, shapes: Mapping[str, tuple[int, ...]]) -> ConvertedModel:
    """Load and convert; inputs have the names of forward's parameters. Raises ModelError."""
    program = _load(path, form)
    parameters = _parameters(program)
    names = [parameter.name for parameter in parameters]
    outputs = output_names(_output_paths(program), names)
    original = _original(program, parameters, outputs)
    fixed = [_fixed(parameter, shapes.get(parameter.name)) for parameter in parameters]
    if all(None not in parameter.shape for parameter in fixed):
        check_repeatable(original, fixed)
    model = to_onnx(program)
    rename(model, names, outputs)
    return ConvertedModel(model=model, original=original, framework="PyTorch")


def _load(path: Path, form: str) -> torch.export.ExportedProgram:
    import torch
    from torch.export.pt2_archive._package import load_pt2

    try:
        check_program(path, form)
        with no_pickled_code():
            if form == EXPORTED:  # torch.export.load would hide what is wrong
                return load_pt2(path).exported_programs["model"]
            return torch.export.load(path)
    except ModelError:
        raise
    except pickle.UnpicklingError as error:
        raise refusal(path, "a pickle of more than tensors, which can run code") from error
    except Exception as error:  # of any type: whatever a damaged file leads to
        raise ModelError(
            f"{path} is not an exported program that PyTorch {torch.__version__} can load:"
            f" {one_line(error)}",
            f"Export it again with {EXPORT_INSTEAD}",
        ) from error


def _parameters(program: torch.export.ExportedProgram) -> list[Parameter]:
    """The user's inputs that are tensors, or numbers that may vary."""
    import torch
    from torch.export.graph_signature import ConstantArgument

    values = {node.name: node.meta["val"] for node in program.graph.find_nodes(op="placeholder")}
    parameters = []
    for spec in _user_inputs(program):
        if isinstance(spec, ConstantArgument):
            continue
        value = values[spec.name]
        if isinstance(value, torch.Tensor):
            sizes: tuple[Any, ...] = value.shape
            shape = tuple(size if isinstance(size, int) else None for size in sizes)
            parameters.append(Parameter(name=spec.name, dtype=value.dtype, shape=shape))
        elif isinstance(value, torch.SymInt):
            parameters.append(Parameter(name=spec.name, dtype=torch.int64, shape=()))
        else:
            raise ModelError(f"input {spec.name!r} is a {type(value).__name__}, not a tensor")
    return parameters


def _user_inputs(program: torch.export.ExportedProgram) -> list[Any]:
    from torch.export.graph_signature import InputKind

    specs = program.graph_signature.input_specs
    return [spec.arg for spec in specs if spec.kind == InputKind.USER_INPUT]


def _output_paths(program: torch.export.ExportedProgram) -> list[Any]:
    """The path to each output but None in what forward returns."""
    from torch.export.graph_signature import ConstantArgument, OutputKind
    from torch.utils import _pytree

    structure = program.call_spec.out_spec
    specs = program.graph_signature.output_specs
    arguments = [spec.arg for spec in specs if spec.kind == OutputKind.USER_OUTPUT]
    returned = _pytree.tree_unflatten(arguments, structure)
    paths = []
    for path, argument in _pytree.tree_leaves_with_path(returned):
        if not isinstance(argument, ConstantArgument):
            paths.append(path)
        elif argument.value is not None:
            raise ModelError(
                f"output {_pytree.keystr(path)} is the constant {argument.value!r}",
                "Export a model that returns tensors only",
            )
    return paths


def _fixed(parameter: Parameter, shape: tuple[int, ...] | None) -> Parameter:
    """With the shape that the user gave, where it fits at all."""
    known = parameter.shape
    if shape is None or len(shape) != len(known):
        return parameter
    if any(size not in (None, given) for size, given in zip(known, shape, strict=True)):
        return parameter
    return replace(parameter, shape=shape)


def _original(
    program: torch.export.ExportedProgram, parameters: list[Parameter], outputs: list[str]
) -> Infer:
    from torch.export.graph_signature import ConstantArgument, SymIntArgument
    from torch.utils import _pytree

    module = program.module()
    arguments = _user_inputs(program)
    structure = program.call_spec.in_spec

    def call(tensors: dict[str, torch.Tensor]) -> Any:
        def value(argument: Any) -> Any:
            if isinstance(argument, ConstantArgument):
                return argument.value
            tensor = tensors[argument.name]
            return int(tensor) if isinstance(argument, SymIntArgument) else tensor

        args, kwargs = _pytree.tree_unflatten(map(value, arguments), structure)
        return module(*args, **kwargs)

    return runner(call, parameters, outputs)
