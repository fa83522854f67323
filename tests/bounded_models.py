"""Models whose shapes depend on data: imported with bounds, compiled, and held against ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgepack import padding
from edgepack.artefacts import ImportedModel
from edgepack.compiler import frontend, lower
from edgepack.compiler.attributes import ELIDED
from edgepack.compiler.plan import make_plan
from edgepack.importers import ImportOptions, import_model
from edgepack.targets import load_target
from tests import kernels

Arrays = dict[str, np.ndarray]


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """Names are separated by blanks; "-" is an input that is not given."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(operator, names, outputs.split(), **attributes)


def network(
    nodes: Sequence[onnx.NodeProto],
    inputs: Arrays,
    outputs: str,
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model with inputs as these arrays and outputs of any type and shape."""
    types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in inputs.items()}
    values = {name: np.asarray(value) for name, value in (constants or {}).items()}
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info(name, types[name], a.shape) for name, a in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs.split()],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    made = onnx.shape_inference.infer_shapes(made, data_prop=True)
    for value in made.graph.output:
        if value.type.WhichOneof("value") is None:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return made


def imported(model: onnx.ModelProto, bounds: Mapping[str, int] | None = None) -> ImportedModel:
    """The model as the compiler takes it."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model.onnx"
        onnx.save(model, path)
        return import_model(path, {}, options=ImportOptions(bounds=bounds or {}))


def same_as_runtime(model: onnx.ModelProto, inputs: Arrays) -> list[str]:
    """Hold the imported model against the original, both in ONNX Runtime; its operators."""
    found = imported(model)
    names, values = list(inputs), list(inputs.values())
    wanted = kernels.expected(model, names, values)
    actual = kernels.expected(found.model, names, values)
    assert [spec.shape for spec in found.outputs] == [value.shape for value in wanted]
    for ours, theirs in zip(actual, wanted, strict=True):
        assert kernels.error_of(ours, np.asarray(theirs)) <= 1e-6
    operators = [proto.op_type for proto in found.model.graph.node]
    assert not {"Loop", "Scan", "If"} & set(operators)
    return operators


def compiled(model: ImportedModel) -> kernels.Kernels:
    """Everything up to machine code, for this process."""
    import tvm
    from tvm import tirx

    target = load_target(kernels.PROFILES[-1])
    module = lower.lower(frontend.to_relax(model.model, target), target)
    functions = {
        variable: function
        for variable, function in module.functions.items()
        if isinstance(function, tirx.PrimFunc) and ELIDED not in (function.attrs or {})
    }
    with tvm.transform.PassContext(opt_level=3, config={"tirx.disable_assert": True}):
        built = tirx.build(tvm.IRModule(functions), target=lower.llvm_target(target))
    return kernels.Kernels(
        imported=model,
        plan=make_plan(module, model.inputs, model.outputs),
        functions=built,
        rules={},
    )


def answers(kernel: kernels.Kernels, inputs: Arrays) -> Arrays:
    """All outputs by name; they must not depend on what lies beside a tensor."""
    given = [inputs[spec.name] for spec in kernel.imported.inputs]
    found = kernels.run(kernel, given)
    apart = kernels.run(kernel, given, kernels._apart)
    for spec, one, other in zip(kernel.imported.outputs, found, apart, strict=True):
        assert one.tobytes() == other.tobytes(), f"{spec.name}: depends on what lies beside it"
    return {spec.name: value for spec, value in zip(kernel.imported.outputs, found, strict=True)}


def expected(model: onnx.ModelProto, kernel: kernels.Kernels, inputs: Arrays) -> Arrays:
    """What ONNX Runtime makes of the original, padded and counted."""
    names = [value.name for value in model.graph.output]
    values = kernels.expected(model, list(inputs), list(inputs.values()))
    return padding.pad(kernel.imported.padded, dict(zip(names, values, strict=True)))


def agree(
    model: onnx.ModelProto,
    sets: Sequence[Arrays],
    bounds: Mapping[str, int] | None = None,
    *,
    tolerance: float = 1e-5,
) -> list[dict[str, int]]:
    """Hold every output against ONNX Runtime's on each set; the counts of each set, by name."""
    kernel = compiled(imported(model, bounds))
    counts = []
    for inputs in sets:
        found, wanted = answers(kernel, inputs), expected(model, kernel, inputs)
        assert set(found) == set(wanted)
        for name, right in wanted.items():
            error = kernels.error_of(found[name], np.asarray(right))
            assert error <= tolerance, f"{name}: {found[name]} is not {right}"
        counters = padding.counts_of(kernel.imported.padded)
        counts.append({name: int(found[name]) for name in sorted(counters)})
    return counts


def differ(counts: Sequence[Mapping[str, int]]) -> bool:
    """Whether every count is another in every set, and somewhere above 0."""
    return all(
        len({each[name] for each in counts}) == len(counts) and max(c[name] for c in counts) > 0
        for name in counts[0]
    )


def normal(*shape: int, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    """Numbers of about unit size around ``shift``."""
    values = np.random.default_rng([len(shape), *shape, seed]).standard_normal(shape)
    return np.asarray(values + shift, np.float32)


def subgraph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Any]],
    outputs: str,
    constants: Mapping[str, Any] | None = None,
) -> onnx.GraphProto:
    """The body of a Loop or a Scan: inputs with type and shape.

    Outputs are float32, ``on`` and what begins with it bool, ``count`` and so on int64.
    """
    values = {name: np.asarray(value) for name, value in (constants or {}).items()}
    return helper.make_graph(
        list(nodes),
        "body",
        [
            helper.make_tensor_value_info(name, kind, shape)
            for name, (kind, shape) in inputs.items()
        ],
        [helper.make_tensor_value_info(name, _type_of(name), None) for name in outputs.split()],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )


def _type_of(name: str) -> int:
    if name.startswith("on"):
        return int(TensorProto.BOOL)
    return int(TensorProto.INT64 if name.startswith("count") else TensorProto.FLOAT)
