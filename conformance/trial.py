"""One case from end to end: a package is written, and its worker runs the case's data."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx

from conformance.cases import Case
from edgepack import build, compiler, importers, package, toolchain
from edgepack.artefacts import CheckResult, GoldenVectors, ImportedModel
from edgepack.errors import EdgepackError
from edgepack.targets import load_target

_UNCHECKED = "the test compares the numbers itself"


def attempt(case: Case) -> str:
    """Empty where every set of data gives the outputs that ONNX says; else what went wrong."""
    try:
        with tempfile.TemporaryDirectory(prefix="conformance-") as place:
            return _attempt(case, Path(place))
    except EdgepackError as error:
        return f"{type(error).__name__}: {error.message}"
    except Exception as error:  # a crash of the compiler is a result, too
        return f"{type(error).__name__} (not caught): {str(error)[:300]}"


def _attempt(case: Case, place: Path) -> str:
    path = place / "model.onnx"
    onnx.save(case.model, path)
    imported = importers.import_model(path, _shapes(case))
    opened = _package(imported, case, place / "model.epk")
    with build.worker_of(opened, opened.targets[0], threads=1) as worker:
        for number, (inputs, wanted) in enumerate(case.data):
            answer = worker.infer(
                {spec.name: inputs[spec.name] for spec in opened.targets[0].inputs}
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
        if value.name in given and not _is_fixed(value)
    }


def _is_fixed(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    return tensor.HasField("shape") and all(dim.dim_value > 0 for dim in tensor.shape.dim)


def _package(imported: ImportedModel, case: Case, out: Path) -> package.Package:
    compiled = compiler.compile_model(imported, load_target("host"))
    native = toolchain.link_worker(compiled)
    inputs, outputs = case.data[0]
    golden = GoldenVectors(inputs=(inputs,), outputs=(outputs,), tolerance=1e-3, distinct=False)
    check = CheckResult(max_relative_error=0.0, vectors=0, skipped=_UNCHECKED)
    content = build.content_of(native, golden, check, imported)
    return package.write_package(out, name="case", version="1.0.0", models=[content])


def difference(answer: np.ndarray, right: np.ndarray, case: Case) -> str:
    """How the answer differs, as ONNX's own runner compares: shape, type, and ``allclose``."""
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
