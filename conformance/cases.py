"""ONNX's backend test cases as the compiler meets them: constants inside, data beside."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from conformance import scope

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model with one or more sets of inputs and the outputs that they must give."""

    name: str
    operator: str
    """The operator that the case is about: its model's first."""
    reason: str
    """Why it is out of scope: a key of scope.OUT_OF_SCOPE; empty where it is not."""
    model: onnx.ModelProto
    data: tuple[tuple[Arrays, Arrays], ...]
    rtol: float
    atol: float


@cache
def all_cases() -> dict[str, Case]:
    """Every case by name; ``EXPANDED`` ones, whose model is a function's body, count for the function."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        tests = [test for kind in KINDS for test in load_model_tests(kind=kind)]
    models = {test.name: test.model or onnx.load(f"{test.model_dir}/model.onnx") for test in tests}
    # The function itself, where there is such a case: it says which inputs are settings.
    plain = {name: models.get(name.partition("_expanded")[0], models[name]) for name in models}
    return {test.name: _case(test, models[test.name], plain[test.name]) for test in tests}


def _case(test: Any, model: onnx.ModelProto, plain: onnx.ModelProto) -> Case:
    reason = scope.reason_of(model)
    data = [] if reason else _data(test, model)
    inputs = [value.name for value in _inputs(model)]
    frozen = scope.constant_inputs(model) | (scope.constant_inputs(plain) & set(inputs))
    frozen = frozen if data else set()
    # Where a case has several sets, what they disagree on cannot be a constant.
    frozen = {n for n in frozen if all(_same(first[n], data[0][0][n]) for first, _ in data)}
    if frozen == set(inputs) and frozen:
        frozen.discard(inputs[0])
    if frozen:
        model = _with_constants(model, {name: data[0][0][name] for name in frozen})
    kept = [({n: a for n, a in given.items() if n not in frozen}, wanted) for given, wanted in data]
    return Case(
        name=test.name,
        operator=plain.graph.node[0].op_type if plain.graph.node else "(empty)",
        reason=reason,
        model=model,
        data=tuple(kept),
        rtol=test.rtol,
        atol=test.atol,
    )


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return first.dtype == second.dtype and np.array_equal(first, second)


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def _data(test: Any, model: onnx.ModelProto) -> list[tuple[Arrays, Arrays]]:
    inputs = [value.name for value in _inputs(model)]
    outputs = [value.name for value in model.graph.output]
    if test.data_sets is not None:
        return [(_arrays(inputs, i), _arrays(outputs, o)) for i, o in test.data_sets]
    folders = sorted(Path(test.model_dir).glob("test_data_set_*"))
    return [
        (_arrays(inputs, _read(f, "input", inputs)), _arrays(outputs, _read(f, "output", outputs)))
        for f in folders
    ]


def _arrays(names: list[str], values: Any) -> Arrays:
    return {name: _array(value) for name, value in zip(names, values, strict=False)}


def _array(value: Any) -> np.ndarray:
    """Some cases hold their data as protobuf, for types that NumPy lacks."""
    is_proto = isinstance(value, onnx.TensorProto)
    return numpy_helper.to_array(value) if is_proto else np.asarray(value)


def _read(folder: Path, kind: str, names: list[str]) -> list[np.ndarray]:
    paths = [folder / f"{kind}_{i}.pb" for i in range(len(names))]
    return [numpy_helper.to_array(onnx.load_tensor(str(path))) for path in paths if path.exists()]


def _with_constants(model: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """A copy of the model in which these inputs are initializers."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    kept = [value for value in changed.graph.input if value.name not in values]
    types = {value.name: value.type.tensor_type.elem_type for value in changed.graph.input}
    del changed.graph.input[:]
    changed.graph.input.extend(kept)
    for name, array in values.items():
        tensor = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        assert tensor.data_type == types[name], (name, tensor.data_type)
        changed.graph.initializer.append(tensor)
    changed.ir_version = max(changed.ir_version, 4)  # an initializer need not be an input
    return changed
