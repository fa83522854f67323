"""TorchScript: what torch.jit.save writes.

A module that was scripted says nothing of its inputs but their names; one that was traced has their
types and shapes with it.
"""

from __future__ import annotations

import io
import itertools
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.errors import ModelError
from edgepack.importers.onnx_file import one_line
from edgepack.importers.protocol import ConvertedModel
from edgepack.importers.pytorch_archive import check_script
from edgepack.importers.pytorch_onnx import (
    EXPORT_INSTEAD,
    Parameter,
    check_repeatable,
    conversion_error,
    last_line,
    output_names,
    rename,
    runner,
    to_onnx,
)

if TYPE_CHECKING:
    import onnx
    import torch

_MAX_ATTEMPTS = 250
_ABOUT_TYPES = re.compile(r"dtype|scalar type|Long|Float|Bool")
_LEGACY_OPSET = 17


def convert_script(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> ConvertedModel:
    """Load and convert; inputs have the names of forward's parameters. Raises ModelError."""
    from torch.utils import _pytree

    module = _load(path)
    names = _tensor_names(module, shapes)
    traced = _traced_inputs(path, names)
    _refuse_missing(module, [name for name in names if name not in shapes and name not in traced])
    parameters, returned = _first_that_runs(
        module,
        {name: shapes[name] if name in shapes else traced[name][1] for name in names},
        [tuple(traced[name][0] for name in names)] if traced else _possible_types(len(names)),
    )
    leaves = _pytree.tree_leaves_with_path(returned)
    outputs = output_names([path for path, leaf in leaves if leaf is not None], names)
    original = runner(lambda tensors: module(**tensors), parameters, outputs)
    check_repeatable(original, parameters)
    model = _to_onnx(module, parameters)
    rename(model, names, outputs)
    types = ", ".join(f"{p.name} as {str(p.dtype).removeprefix('torch.')}" for p in parameters)
    note = f"this TorchScript module does not say what types its inputs have: it is given {types}"
    return ConvertedModel(
        model=model,
        original=original,
        framework="PyTorch",
        notes=() if traced else (note,),
    )


def _load(path: Path) -> torch.jit.ScriptModule:
    import torch

    try:
        check_script(path)
        load: Callable[..., torch.jit.ScriptModule] = torch.jit.load
        return load(os.fspath(path), map_location="cpu").eval()
    except ModelError:
        raise
    except Exception as error:  # of any type: whatever a damaged file leads to
        if "builtin op" in str(error):
            raise conversion_error(error) from error
        raise ModelError(
            f"{path} is not a TorchScript module that PyTorch {torch.__version__} can load:"
            f" {one_line(error)}",
            "Save it again with torch.jit.save, or export it with torch.export.export",
        ) from error


def _tensor_names(
    module: torch.jit.ScriptModule, shapes: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """Parameters of forward that become inputs: tensors, and optional ones that have a shape."""
    names = []
    for argument in _arguments(module):
        if str(argument.type) == "Tensor" or (
            str(argument.type) == "Optional[Tensor]" and argument.name in shapes
        ):
            names.append(argument.name)
        elif not argument.has_default_value():
            raise ModelError(
                f"forward's parameter {argument.name!r} is of type {argument.type}, not a tensor",
                f"Export it with {EXPORT_INSTEAD}",
            )
    return names


def _arguments(module: torch.jit.ScriptModule) -> Sequence[Any]:
    if not hasattr(module, "forward"):
        raise ModelError("the TorchScript module has no method forward")
    forward: Any = module.forward
    arguments: Sequence[Any] = forward.schema.arguments[1:]  # the first is the module itself
    return arguments


def _refuse_missing(module: torch.jit.ScriptModule, missing: Sequence[str]) -> None:
    if missing:
        listing = ", ".join(f"{a.type} {a.name}" for a in _arguments(module))
        raise ModelError(
            f"this TorchScript module does not say what shapes its inputs have: forward({listing})",
            f"Add {' '.join(f'--input {name}=DIM0,DIM1,...' for name in missing)}",
        )


def _possible_types(count: int) -> Iterator[tuple[torch.dtype, ...]]:
    """Types for so many inputs, the most likely first: as few as can be are not float32."""
    import torch

    for others in range(count + 1):
        for places in itertools.combinations(range(count), others):
            for kinds in itertools.product((torch.int64, torch.bool, torch.int32), repeat=others):
                chosen = dict(zip(places, kinds, strict=True))
                yield tuple(chosen.get(i, torch.float32) for i in range(count))


def _first_that_runs(
    module: torch.jit.ScriptModule,
    shapes: Mapping[str, tuple[int, ...]],
    possible: Iterable[tuple[torch.dtype, ...]],
) -> tuple[list[Parameter], Any]:
    """Inputs on which the module runs, and what it returns then."""
    import torch

    reasons: list[str] = []
    for dtypes in itertools.islice(possible, _MAX_ATTEMPTS):
        parameters = [
            Parameter(name=name, dtype=dtype, shape=shape)
            for (name, shape), dtype in zip(shapes.items(), dtypes, strict=True)
        ]
        try:
            with torch.no_grad():
                return parameters, module(**{p.name: p.example() for p in parameters})
        except Exception as error:  # whatever the module raises
            reasons.append(last_line(error))
    told = next((reason for reason in reasons if not _ABOUT_TYPES.search(reason)), reasons[0])
    raise ModelError(
        f"the TorchScript module does not run on inputs of these shapes: {told}",
        "Check the shapes given with --input",
    )


def _to_onnx(module: torch.jit.ScriptModule, parameters: Sequence[Parameter]) -> onnx.ModelProto:
    """By running it once, or, where its flow depends on data, by PyTorch's older exporter."""
    import torch

    tensors = tuple(parameter.example() for parameter in parameters)
    names = [parameter.name for parameter in parameters]

    class Module(torch.nn.Module):
        """What torch.export takes; the script stays out of its sight, its tensors are constants."""

        def forward(self, *values: torch.Tensor) -> Any:
            return module(**dict(zip(names, values, strict=True)))

    try:
        program = torch.export.export(Module().eval(), tensors, strict=False)
    except Exception as error:  # as torch.export passes it on
        model = _to_onnx_by_graph(module, tensors)
        if model is None:
            raise conversion_error(error) from error
        return model
    for node in program.graph.nodes:
        if node.target is torch.ops.aten._convolution.default:  # as traces have it
            node.target, node.args = torch.ops.aten.convolution.default, node.args[:9]
    return to_onnx(program)


def _to_onnx_by_graph(
    module: torch.jit.ScriptModule, tensors: tuple[torch.Tensor, ...]
) -> onnx.ModelProto | None:
    """With branches as ``If``; None for what the older exporter does not know."""
    import onnx
    import torch

    content: Any = io.BytesIO()
    try:
        torch.onnx.export(module, tensors, content, dynamo=False, opset_version=_LEGACY_OPSET)
    except Exception:  # the reason to tell is why the newer one failed
        return None
    return onnx.load_from_string(content.getvalue())


def _traced_inputs(
    path: Path, names: Sequence[str]
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Type and shape of each input of a traced module; empty for one that was scripted."""
    import torch

    try:
        reader = torch._C.PyTorchFileReader(os.fspath(path))
        traced = _TracedInputs(io.BytesIO(reader.get_record("traced_inputs.pkl"))).load()["forward"]
        return {
            name: (getattr(torch, storage).dtype, tuple(shape))
            for name, (storage, shape) in zip(names, traced, strict=True)
        }
    except Exception:  # of any type: it has no such record, or inputs that are no plain tensors
        return {}


class _TracedInputs(pickle.Unpickler):
    """Knows tensors without their values, as (storage type, shape), and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name.endswith("Storage"):
            return name
        known = {
            "torch.jit._pickle.restore_type_tag": lambda value, _: value,
            "torch._utils._rebuild_tensor_v2": lambda storage, _, shape, *rest: (storage, shape),
            "collections.OrderedDict": OrderedDict,
        }
        if f"{module}.{name}" not in known:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return known[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> str:
        return str(pid[1])
