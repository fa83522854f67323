"""The original: scikit-learn's own answers, laid out as the outputs of the ONNX model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgepack.artefacts import Infer, Tensors
from edgepack.errors import ModelError
from edgepack.importers.extras import quietly
from edgepack.importers.onnx_file import one_line
from edgepack.importers.sklearn.conversion import Outputs, parts
from edgepack.importers.sklearn.nodes import no_conversion

if TYPE_CHECKING:
    import numpy as np


def original(estimator: Any, outputs: Outputs) -> Infer:
    """Runs the estimator on float32 rows of ``X``. Raises ModelError where ONNX has other outputs."""
    methods = _methods(estimator, len(outputs))

    def run(inputs: Tensors) -> Tensors:
        with quietly():
            answers = _call(methods, inputs["X"])
        return {
            name: _laid_out(answer, dtype, shape, estimator)
            for answer, (name, (dtype, shape)) in zip(answers, outputs.items(), strict=True)
        }

    return run


def _methods(estimator: Any, outputs: int) -> list[Callable[[np.ndarray], Any]]:
    """What gives each output, as skl2onnx orders them."""
    from sklearn.base import is_classifier

    selects = hasattr(list(parts(estimator))[-1], "get_support")
    names = ["predict", "predict_proba", "decision_function"]
    if selects or not hasattr(estimator, "predict"):
        names = ["transform"]
    elif not is_classifier(estimator):
        names.append("transform")
    found = [getattr(estimator, name) for name in names if hasattr(estimator, name)]
    if outputs > min(len(found), 2):
        raise no_conversion(type(estimator).__name__, f": {outputs} outputs would come of it")
    return found[:outputs]


def _call(methods: Sequence[Callable[[np.ndarray], Any]], rows: np.ndarray) -> list[Any]:
    import numpy as np

    reasons = []
    # Some take numbers of that type alone that they were fitted on.
    for dtype in (np.float64, np.float32):
        try:
            return [method(rows.astype(dtype)) for method in methods]
        except ValueError as error:
            reasons.append(error)
    raise ModelError(
        f"scikit-learn refuses the input: {one_line(reasons[0])}",
        "give inputs that it takes with --check",
    ) from reasons[0]


def _laid_out(answer: Any, dtype: str, shape: tuple[int, ...], estimator: Any) -> np.ndarray:
    """scikit-learn's answer as ONNX gives it: labels by number, margins for both of two classes."""
    import numpy as np

    array = answer.toarray() if hasattr(answer, "toarray") else np.asarray(answer)
    if array.dtype.kind in "OUS":
        array = np.searchsorted(estimator.classes_, array)
    if array.ndim == 1 and math.prod(shape) == 2 * len(array):
        array = np.stack([-array, array], axis=1)
    if array.size != math.prod(shape):
        raise no_conversion(
            type(estimator).__name__, f": ONNX gives {list(shape)} for {list(array.shape)}"
        )
    return array.astype(dtype).reshape(shape)
