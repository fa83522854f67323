"""What exported programs and TorchScript have in common: ONNX with good names, and how they run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.artefacts import Infer, Tensors
from edgepack.errors import ModelError
from edgepack.importers.extras import quietly
from edgepack.importers.graphs import all_graphs, used_names
from edgepack.importers.onnx_file import one_line

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import torch

EXPORT_INSTEAD = 'torch.export.save(torch.export.export(model.eval(), args), "model.pt2")'
_FAST_PATH = ("aten._transformer_encoder_layer_fwd", "aten._native_multi_head_attention")
_OPERATOR = re.compile(
    r"OpOverload\(op='([\w.]+)'|Exporting the operator '([\w:]+)'|builtin op: ([\w:]+)"
)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A tensor that a model takes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | None, ...]
    """None for a dynamic dimension."""

    def example(self) -> torch.Tensor:
        """Always the same: noise, or ones, which any table has as an index and no mask hides."""
        import torch

        shape = [size or 1 for size in self.shape]
        if self.dtype.is_floating_point:
            noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
            return noise.to(self.dtype)
        return torch.ones(shape, dtype=self.dtype)


def to_onnx(program: torch.export.ExportedProgram) -> onnx.ModelProto:
    """The program as ONNX, with the names that the exporter gives. Raises ModelError."""
    import torch

    _refuse_training(program)
    try:
        converted = torch.onnx.export(program, dynamo=True, external_data=False, verbose=False)
        assert converted is not None
        return converted.model_proto
    except Exception as error:  # of any type: it wraps what its translations raise
        raise conversion_error(error) from error


def conversion_error(error: BaseException) -> ModelError:
    """What an exporter's error comes to; names the operator where it is about one."""
    innermost = error
    while innermost.__cause__ is not None:
        innermost = innermost.__cause__
    operator = _OPERATOR.search(str(innermost))
    if operator:
        name = next(filter(None, operator.groups())).replace("::", ".")
        hint = f"Export the model without it, with {EXPORT_INSTEAD}"
        if name in _FAST_PATH:
            hint = "Trace it outside of torch.no_grad(), where PyTorch takes a path of its own"
        return ModelError(f"unsupported operator: {name} has no counterpart in ONNX", hint)
    return ModelError(
        f"the model cannot be converted to ONNX: {last_line(innermost)}",
        f"Export it with {EXPORT_INSTEAD}",
    )


def last_line(error: BaseException) -> str:
    """Where PyTorch's errors say what happened, after the traceback of the model's own code."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(ValueError(lines[-1])) if lines else type(error).__name__


def output_names(paths: Sequence[Sequence[Any]], inputs: Sequence[str]) -> list[str]:
    """A name for each tensor that a model returns, by its path; none is an input's.

    ``output`` for a tensor alone, ``output_0``, ``output_1`` for a sequence, the keys of a dict.
    """
    names: list[str] = []
    for path in paths:
        words = [
            str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path
        ]
        if not path or hasattr(path[0], "idx"):
            words.insert(0, "output")
        name = "_".join(words)
        while name in (*names, *inputs):
            name = f"{name}_output"
        names.append(name)
    return names


def rename(model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Name the graph's inputs and outputs, and anew what else has one of these names."""
    graph = model.graph
    if (len(graph.input), len(graph.output)) != (len(inputs), len(outputs)):
        raise ModelError(
            f"the model cannot be converted to ONNX: of {len(inputs)} inputs and {len(outputs)} outputs"
            f" {len(graph.input)} and {len(graph.output)} are left",
            f"Export it with {EXPORT_INSTEAD}",
        )
    ends = [value.name for value in (*graph.input, *graph.output)]
    renamed = dict(zip(ends, (*inputs, *outputs), strict=True))
    wanted = set(renamed.values())
    for name in (used_names(graph) & wanted) - set(renamed):
        renamed[name] = f"{name}_inner"
        while renamed[name] in used_names(graph) | wanted:
            renamed[name] += "_"
    for nested in all_graphs(graph):
        for value in (*nested.input, *nested.output, *nested.value_info, *nested.initializer):
            value.name = renamed.get(value.name, value.name)
        for node in nested.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            node.output[:] = [renamed.get(name, name) for name in node.output]


def runner(
    call: Callable[[dict[str, torch.Tensor]], Any],
    parameters: Sequence[Parameter],
    outputs: Sequence[str],
) -> Infer:
    """A function that runs ``call`` on one thread, with NumPy arrays by name outside."""

    def run(inputs: Tensors) -> Tensors:
        import torch
        from torch.utils import _pytree

        tensors = {p.name: _tensor(inputs[p.name]).to(p.dtype) for p in parameters}
        with quietly(), torch.no_grad(), _one_thread():
            leaves = _pytree.tree_leaves(call(tensors))
            arrays = [_array(leaf) for leaf in leaves if leaf is not None]
        return dict(zip(outputs, arrays, strict=True))

    return run


def check_repeatable(run: Infer, parameters: Sequence[Parameter]) -> None:
    """Hold that the model answers the same inputs in the same way. Raises ModelError."""
    import numpy as np

    try:
        inputs = {parameter.name: _array(parameter.example()) for parameter in parameters}
        first, second = run(inputs), run(inputs)
    except Exception as error:  # the model's own code, or a check on its inputs
        raise ModelError(
            f"the model does not run on inputs of these shapes: {last_line(error)}",
            "Give others with --input, or export it with dynamic_shapes that allow these",
        ) from error
    for name in first:
        if not np.array_equal(first[name], second[name], equal_nan=first[name].dtype.kind == "f"):
            raise ModelError(
                f"output {name!r} differs from one run to the next on the same inputs:"
                " the model keeps a state, or was saved in training mode",
                f"Pass the state in and out as tensors; export it with {EXPORT_INSTEAD}",
            )


def _refuse_training(program: torch.export.ExportedProgram) -> None:
    """Batch normalisation by the batch's own statistics, though it has those of training."""
    import torch

    for node in program.graph.nodes:
        if node.target is torch.ops.aten.batch_norm.default and node.args[3] and node.args[5]:
            raise ModelError(
                f"the model was exported in training mode: {node.name} uses the batch's statistics",
                f"Export it with {EXPORT_INSTEAD}",
            )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums have one order then."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """A copy: a program may write to its inputs."""
    import torch

    return torch.tensor(array)


def _array(value: torch.Tensor | float) -> np.ndarray:
    import torch

    tensor = torch.as_tensor(value)
    # NumPy has none of the other floating-point types; float32 holds all their values.
    narrow = tensor.is_floating_point() and tensor.dtype not in (
        torch.float16,
        torch.float32,
        torch.float64,
    )
    array: np.ndarray = (tensor.float() if narrow else tensor).numpy()
    return array
