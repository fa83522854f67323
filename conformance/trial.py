"""One case from end to end: a package is written, and its worker runs the case's data."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import onnx

from conformance.bounds import bounds_of
from conformance.cases import Arrays, Case
from edgepack import build, compiler, importers, package, padding, toolchain
from edgepack.artefacts import CheckResult, GoldenVectors, ImportedModel, Package
from edgepack.errors import EdgepackError
from edgepack.importers.passes.carried_types import carried_type
from edgepack.targets import load_target

_BFLOAT16_RTOL = 2**-6
"""Two units in the last place, which ONNX's own runner allows."""
_ENTERING = ("Cast", "CastLike")
"""Operators by which numbers enter a type: what they give has one right answer in every bit."""
_UNCHECKED = "the test compares the numbers itself"


def attempt(case: Case) -> str:
    """Empty where every set of data gives the outputs that ONNX says; else what went wrong."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as place:
        return _result(case, Path(place)).replace(f"{place}/", "")


def _result(case: Case, place: Path) -> str:
    try:
        return _attempt(case, place)
    except EdgepackError as error:
        return f"{type(error).__name__}: {error.message}"
    except Exception as error:  # a crash of the compiler is a result, too
        return f"{type(error).__name__} (not caught): {str(error)[:300]}"


def _attempt(case: Case, place: Path) -> str:
    path = place / "model.onnx"
    onnx.save(_without_empty_inputs(case), path)
    options = importers.ImportOptions(bounds=bounds_of(case))
    imported = importers.import_model(
        path, _shapes(case), options=options, is_supported=compiler.is_supported
    )
    opened = _package(imported, case, place / "model.epk")
    with build.worker_of(opened, opened.targets[0], threads=1) as worker:
        for number, (inputs, wanted) in enumerate(case.data):
            given = _carried(inputs)
            answer = padding.cut(
                imported.padded,
                worker.infer({spec.name: given[spec.name] for spec in opened.targets[0].inputs}),
            )
            for name, right in wanted.items():
                reason = difference(answer[name], right, case)
                if reason:
                    return f"set {number}, output {name!r}: {reason}"
    return ""


def _shapes(case: Case) -> dict[str, tuple[int, ...]]:
    """The shapes of the first data set, for those inputs whose shape the model leaves open."""
    given, _ = case.data[0]
    return {
        value.name: given[value.name].shape
        for value in case.model.graph.input
        if value.name in given and given[value.name].size and not _is_fixed(value)
    }


def _is_fixed(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    return tensor.HasField("shape") and all(dim.dim_value > 0 for dim in tensor.shape.dim)


def _package(imported: ImportedModel, case: Case, out: Path) -> Package:
    compiled = compiler.compile_model(imported, load_target("host"))
    native = toolchain.link_worker(compiled)
    given, wanted = case.data[0]
    inputs = {spec.name: given[spec.name] for spec in imported.inputs}
    golden = GoldenVectors(
        inputs=(_carried(inputs),),
        outputs=(padding.pad(imported.padded, _carried(wanted)),),
        tolerance=1e-3,
        distinct=False,
    )
    check = CheckResult(max_relative_error=0.0, vectors=0, skipped=_UNCHECKED)
    content = build.content_of(native, golden, check, imported)
    return package.write_package(out, name="case", version="1.0.0", models=[content])


def _without_empty_inputs(case: Case) -> onnx.ModelProto:
    """The model with inputs of no elements as constants: an application has nothing to pass."""
    given, _ = case.data[0]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for name, array in given.items():
        if array.size == 0:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def _carried(arrays: Arrays) -> Arrays:
    """The same values in the types in which a package passes them."""
    return {name: array.astype(_carrier(array)) for name, array in arrays.items()}


def _carrier(array: np.ndarray) -> str:
    """The element type, or the one that carries it."""
    carried = carried_type(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
    return array.dtype.name if carried is None else carried.carrier


def difference(answer: np.ndarray, right: np.ndarray, case: Case) -> str:
    """How the answer differs, as ONNX's own runner compares: shape, type, and ``allclose``.

    Where the right answer's type is carried by another: in every bit, but for bfloat16 computed.
    """
    if _carrier(right) != right.dtype.name:
        wanted = right.astype(_carrier(right))
        if right.dtype.name != "bfloat16" or case.operator in _ENTERING:
            return _bits_difference(answer, right, wanted)
        case = dataclasses.replace(case, rtol=max(case.rtol, _BFLOAT16_RTOL))
        right = wanted
    if answer.shape != right.shape or answer.dtype != right.dtype:
        return f"{answer.dtype}{list(answer.shape)}, not {right.dtype}{list(right.shape)}"
    if right.dtype.kind not in "fc":
        wrong = int(np.count_nonzero(answer != right))
        return f"{wrong} of {right.size} elements differ" if wrong else ""
    close = np.isclose(
        answer.astype(np.float64),
        right.astype(np.float64),
        rtol=case.rtol,
        atol=case.atol,
        equal_nan=True,
    )
    if close.all():
        return ""
    worst = np.unravel_index(np.argmax(~close), close.shape)
    return f"{np.count_nonzero(~close)} of {right.size} elements differ: {answer[worst]}, not {right[worst]}"


def _bits_difference(answer: np.ndarray, right: np.ndarray, wanted: np.ndarray) -> str:
    """``answer`` must have ``wanted``'s type and values; as ``right``'s type, ``right``'s bits."""
    if answer.shape != wanted.shape or answer.dtype != wanted.dtype:
        return f"{answer.dtype}{list(answer.shape)}, not {wanted.dtype}{list(wanted.shape)}"
    if not np.array_equal(answer, wanted, equal_nan=wanted.dtype.kind == "f"):
        return f"{np.count_nonzero(answer != wanted)} of {right.size} elements differ"
    same = answer.astype(right.dtype).tobytes() == right.tobytes()
    return "" if same else "signs of zeros or of NaNs differ"
