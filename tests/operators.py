"""Operators against an oracle, on values that a test chooses: types and cases that kernels.check has not.

Networks are built from drawn inputs, whose shapes and types they take; outputs have what ONNX infers.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgepack.targets import load_target
from tests import kernels

Arrays = dict[str, np.ndarray]
Draw = Callable[[np.random.Generator], np.ndarray]
"""Another array for every generator."""
Oracle = Callable[[onnx.ModelProto, Arrays], Sequence[Any]]

BEST = kernels.PROFILES[-1]
FLOATS = ("float16", "float32", "float64")
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
EVERY_TYPE = (*FLOATS, *SIGNED, *UNSIGNED, "bool")
TOLERANCES = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-12}


def normal(*shape: int, dtype: str = "float32", positive: bool = False) -> Draw:
    """Numbers of about unit size."""

    def draw(generator: np.random.Generator) -> np.ndarray:
        values = np.asarray(generator.standard_normal(shape))
        return np.asarray(np.abs(values) + 0.1 if positive else values).astype(dtype)

    return draw


def whole(low: int, high: int, *shape: int, dtype: str = "int64") -> Draw:
    """Whole numbers from ``low`` to below ``high``."""
    return lambda generator: np.asarray(generator.integers(low, high, shape)).astype(dtype)


def any_of(dtype: str, *shape: int) -> Draw:
    """Values that suit a type."""
    if dtype.startswith("float"):
        return normal(*shape, dtype=dtype)
    low, high = (0, 2) if dtype == "bool" else (0 if dtype.startswith("u") else -9, 10)
    return whole(low, high, *shape, dtype=dtype)


def ints(*values: int) -> np.ndarray:
    """A shape, axes, or places."""
    return np.array(values, np.int64)


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """Names are separated by blanks; "-" is an input that is not given."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(operator, names, outputs.split(), **attributes)


def network(
    nodes: Sequence[onnx.NodeProto],
    inputs: Arrays,
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 21,
) -> onnx.ModelProto:
    """A model whose outputs are those of all nodes that no other node reads."""
    read = {name for proto in nodes for name in proto.input}
    made = [name for proto in nodes for name in proto.output if name and name not in read]
    graph = helper.make_graph(
        list(nodes),
        "network",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in made],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 10
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def reference(model: onnx.ModelProto, inputs: Arrays) -> Sequence[Any]:
    """What ONNX's own evaluator makes of them."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return list(ReferenceEvaluator(model).run(None, inputs))


def onnxruntime(model: onnx.ModelProto, inputs: Arrays) -> Sequence[Any]:
    """What ONNX Runtime makes of them."""
    return kernels.expected(model, list(inputs), list(inputs.values()))


def agree(
    nodes: Sequence[onnx.NodeProto] | onnx.NodeProto,
    draws: Mapping[str, Draw],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 21,
    oracle: Oracle = reference,
    tolerance: float = math.nan,
    profile: str = BEST,
    generic: bool = False,
    varies: bool = True,
) -> kernels.Kernels:
    """Compile once, run on two sets of inputs, and hold every output against the oracle's.

    ``tolerance`` is for floating-point outputs, by default that of the type. ``generic`` says that a
    kernel keeps loops of its own; ``varies`` that outputs differ between the inputs.
    """
    sets = [_drawn(draws, seed) for seed in (1, 2)]
    listed = [nodes] if isinstance(nodes, onnx.NodeProto) else nodes
    model = network(listed, sets[0], constants, opset=opset)
    compiled = kernels.compile_network(model, load_target(profile))
    assert ("generic" in " ".join(compiled.rules_called)) == generic, compiled.rules_called
    answers = [_checked(compiled, model, inputs, oracle, tolerance) for inputs in sets]
    if varies:
        assert any(a.tobytes() != b.tobytes() for a, b in zip(*answers, strict=True))
    return compiled


def _drawn(draws: Mapping[str, Draw], seed: int) -> Arrays:
    generator = np.random.default_rng(seed)
    return {name: draw(generator) for name, draw in draws.items()}


def _checked(
    compiled: kernels.Kernels,
    model: onnx.ModelProto,
    inputs: Arrays,
    oracle: Oracle,
    tolerance: float,
) -> list[np.ndarray]:
    """The outputs, once they have been found to be the oracle's, whatever lies beside a tensor."""
    given = [inputs[spec.name] for spec in compiled.imported.inputs]
    answers = kernels.run(compiled, given)
    apart = kernels.run(compiled, given, kernels._apart)
    wanted = [np.asarray(array) for array in oracle(model, inputs)]
    for spec, ours, theirs, again in zip(
        compiled.imported.outputs, answers, wanted, apart, strict=True
    ):
        bound = TOLERANCES.get(spec.dtype, 0.0) if math.isnan(tolerance) else tolerance
        error = kernels.error_of(ours, theirs)
        assert error <= bound, f"{spec.name}: error {error:.3g} by {compiled.rules_called}"
        assert ours.tobytes() == again.tobytes(), f"{spec.name}: depends on what lies beside it"
    return answers
