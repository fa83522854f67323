"""Models of ai.onnx.ml for tests, and whether a compiled one agrees with ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgepack.targets import load_target
from tests import kernels
from tests.kernels import Arrays, Kernels

DOMAIN = "ai.onnx.ml"

Value = tuple[str, Any, tuple[int, ...]]
"""Name, element type and shape of a value."""
Attributes = dict[str, Any]


def floats(values: Any) -> list[float]:
    """Numbers as a float attribute holds them."""
    return [float(np.float32(value)) for value in np.ravel(values)]


def one_node(
    operator: str,
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 4,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node called ``it``; ``constants`` are further inputs that it holds itself."""
    held = constants or {}
    node = helper.make_node(
        operator,
        [*(name for name, _, _ in inputs), *held],
        [name for name, _, _ in outputs],
        name="it",
        domain=DOMAIN,
        **attributes,
    )
    graph = helper.make_graph(
        [node],
        "g",
        [_info(value) for value in inputs],
        [_info(value) for value in outputs],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    versions = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, opset)]
    return helper.make_model(graph, opset_imports=versions, ir_version=8)


def _info(value: Value) -> onnx.ValueInfoProto:
    name, dtype, shape = value
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
    )


def classifier(
    operator: str, dtype: Any, shape: tuple[int, int], columns: int, **attributes: Any
) -> onnx.ModelProto:
    """A node with the outputs y, the labels, and z, scores in so many columns."""
    rows = shape[0]
    outputs: list[Value] = [("y", np.int64, (rows,)), ("z", np.float32, (rows, columns))]
    return one_node(operator, [("x", dtype, shape)], outputs, **attributes)


def regressor(
    operator: str, dtype: Any, shape: tuple[int, int], columns: int, **attributes: Any
) -> onnx.ModelProto:
    """A node with the float32 output z in so many columns."""
    outputs: list[Value] = [("z", np.float32, (shape[0], columns))]
    return one_node(operator, [("x", dtype, shape)], outputs, **attributes)


def features(
    generator: np.random.Generator, shape: tuple[int, ...], dtype: Any, nan: bool = False
) -> np.ndarray:
    """Small integers, which meet thresholds exactly, among other numbers; with ``nan``, some NaN."""
    values = generator.integers(-3, 4, shape).astype(np.float64)
    if np.dtype(dtype).kind == "f":
        kind = generator.random(shape)
        values = np.where(kind < 0.5, generator.standard_normal(shape), values)
        values[(kind > 0.85) & nan] = np.nan
    return np.asarray(values.astype(dtype))


def agree(
    network: onnx.ModelProto,
    *inputs: np.ndarray,
    target: str = kernels.PROFILES[-1],
    tolerance: float = 1e-5,
) -> tuple[Arrays, Kernels]:
    """Compile, run, and compare with ONNX Runtime, labels exactly: what came out, and the kernels.

    Tensors that lie apart must give the same bytes: nothing beside them is read.
    """
    compiled = kernels.compile_network(network, load_target(target))
    answer = kernels.run(compiled, inputs)
    names = [spec.name for spec in compiled.imported.inputs]
    wanted = kernels.expected(network, names, list(inputs))
    for spec, ours, theirs in zip(compiled.imported.outputs, answer, wanted, strict=True):
        error = kernels.error_of(ours, theirs)
        assert error <= tolerance, f"{spec.name}: error {error:.3g}"
    again = kernels.run(compiled, inputs, kernels._apart)
    assert [a.tobytes() for a in answer] == [a.tobytes() for a in again]
    return answer, compiled


@cache
def data_set(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Features (float32) and labels of a data set that scikit-learn brings along."""
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    return np.asarray(bunch.data, np.float32), np.asarray(bunch.target)


def exported(estimator: Any, name: str, rows: int) -> tuple[onnx.ModelProto, np.ndarray]:
    """A scikit-learn estimator that has learned a data set, as ONNX, and rows that are not in it."""
    from skl2onnx import to_onnx
    from sklearn import base

    data, labels = data_set(name)
    data, labels = data[::2], labels[::2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn and skl2onnx, about their own futures
        estimator.fit(data, labels)
        plain = {"zipmap": False} if base.is_classifier(estimator) else None
        versions = {"": 17, DOMAIN: 3}
        network = to_onnx(estimator, data[:rows], options=plain, target_opset=versions)
    (value,) = network.graph.input
    value.type.tensor_type.shape.dim[0].dim_value = rows
    noise = np.random.default_rng(rows).normal(0, 0.05, (rows, data.shape[1]))
    step = max(1, len(data) // rows)
    return network, (data[::step][:rows] * (1 + noise)).astype(np.float32)
