"""From a fitted estimator to ONNX: what skl2onnx is told, and what is set right before and after it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgepack.errors import ModelError
from edgepack.importers.classical_shapes import infer
from edgepack.importers.input_shapes import dims_of, dtype_name, fix_input_shapes
from edgepack.importers.onnx_file import one_line
from edgepack.importers.simplify import simplify
from edgepack.importers.sklearn.encoders import one_hot, one_hot_shape
from edgepack.importers.sklearn.neighbours import (
    by_distance,
    expand_distances,
    neighbour_converters,
)
from edgepack.importers.sklearn.nodes import no_conversion
from edgepack.importers.sklearn.trees import tree_converters

if TYPE_CHECKING:
    import onnx

_OPSET = {"": 17, "ai.onnx.ml": 3}

Output = tuple[str, tuple[int, ...]]
"""Element type, float32 or int64, and shape."""
Outputs = dict[str, Output]


def parts(estimator: Any) -> Iterator[Any]:
    """The estimator and the fitted ones that it passes its input through, innermost last."""
    yield estimator
    inner = [part for _, part in getattr(estimator, "steps", ())]
    inner += [part for _, part in getattr(estimator, "transformer_list", ())]
    inner += [part for _, part, _ in getattr(estimator, "transformers_", ())]
    inner += [getattr(estimator, "best_estimator_", None)]
    for part in inner:
        if part is not None and not isinstance(part, str):
            yield from parts(part)


def _refuse_unfaithful(part: Any) -> None:
    """Raise ModelError for what skl2onnx converts to something that answers otherwise."""
    name = type(part).__name__
    if name == "TunedThresholdClassifierCV":
        raise no_conversion(name, ": its threshold would be lost")
    if name == "CalibratedClassifierCV" and part.method == "isotonic":
        raise no_conversion(name, " with method='isotonic': its curves would become steps")
    if name == "SGDClassifier" and len(part.classes_) > 2 and hasattr(part, "predict_proba"):
        raise no_conversion(
            name,
            f" with loss={part.loss!r} and three classes: labels would come from rounded scores",
        )


def _prepare(part: Any) -> None:
    """Bring an estimator into the form that skl2onnx reads; its answers stay the same."""
    numbers = getattr(part, "_transformer_to_input_indices", None)
    if numbers is not None:  # columns of one matrix, whatever it was fitted on
        part.transformers_ = [
            (name, inner, [int(column) for column in numbers[name]])
            for name, inner, _ in part.transformers_
        ]
    if hasattr(part, "flatten_transform"):
        part.flatten_transform = False
    classes = vars(part).get("classes_")
    if getattr(getattr(classes, "dtype", None), "kind", "") == "b":
        part.classes_ = classes.astype(int)


def converted(estimator: Any) -> onnx.ModelProto:
    """As ONNX, input ``X`` float32 [batch, features]. Raises ModelError naming what has no conversion."""
    for part in parts(estimator):
        _refuse_unfaithful(part)
        _prepare(part)
    try:
        model = _by_skl2onnx(estimator)
    except ModelError:
        raise
    except Exception as error:  # its exceptions have no common type
        named = re.search(r"<class '[\w.]*?(\w+)'>", str(error))
        if named:
            raise no_conversion(named[1]) from error
        raise no_conversion(type(estimator).__name__, f": {one_line(error)}") from error
    foreign = [node.op_type for node in model.graph.node if node.domain == "com.microsoft"]
    if foreign:
        raise no_conversion(type(estimator).__name__, f": ONNX has no operator {foreign[0]}")
    _turn_margins(model, estimator)
    return model


def _by_skl2onnx(estimator: Any) -> onnx.ModelProto:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.base import is_classifier
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.svm import LinearSVC

    # Probabilities as a matrix, not as a list of dictionaries; LinearSVC knows no other way.
    options: dict[Any, dict[str, Any]] = {LinearSVC: {}, **by_distance()}
    final = list(parts(estimator))[-1]
    selects = hasattr(final, "get_support")
    if is_classifier(estimator) and not isinstance(final, LinearSVC) and not selects:
        options[id(estimator)] = {"zipmap": False}
    model: onnx.ModelProto = convert_sklearn(
        estimator,
        name="sklearn",
        initial_types=[("X", FloatTensorType([None, estimator.n_features_in_]))],
        options=options,
        target_opset=_OPSET,
        custom_conversion_functions={
            OneHotEncoder: one_hot,
            **tree_converters(),
            **neighbour_converters(),
        },
        custom_shape_calculators={OneHotEncoder: one_hot_shape},
    )
    expand_distances(model)
    return model


def _turn_margins(model: onnx.ModelProto, estimator: Any) -> None:
    """Give each class its own margin: ONNX's SVMClassifier swaps those of two classes."""
    from onnx import helper
    from sklearn.svm import SVC, NuSVC

    final = list(parts(estimator))[-1]
    if (
        not isinstance(final, SVC | NuSVC)
        or hasattr(final, "predict_proba")
        or len(final.classes_) > 2
    ):
        return
    scores = model.graph.output[1].name
    for node in model.graph.node:
        for i, output in enumerate(node.output):
            if output == scores:
                node.output[i] = "swapped"
    model.graph.node.append(helper.make_node("Neg", ["swapped"], [scores], name="margins"))


def correct_outputs(model: onnx.ModelProto, rows: int) -> Outputs:
    """Correct the ranks that skl2onnx notes; the outputs as they are for so many rows."""
    import onnx

    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    width = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    fix_input_shapes(fixed, {"X": (rows, width)})
    outputs = _outputs(infer(fixed, strict=False))
    if not all(outputs.values()):  # some follow from constants that must be folded first
        outputs = _outputs(infer(simplify(fixed), strict=False))
    found = {}
    for value in model.graph.output:
        known = outputs[value.name]
        if known is None or (known[1][0] != rows and math.prod(known[1]) != rows):
            raise no_conversion(
                "model", f": its output {value.name!r} has no row for each row of X"
            )
        found[value.name] = known
        for _ in known[1]:
            value.type.tensor_type.shape.dim.add()
    return found


def _outputs(inferred: onnx.ModelProto) -> dict[str, Output | None]:
    """None for what has no fixed shape or is no tensor with rows."""
    outputs: dict[str, Output | None] = {}
    for value in inferred.graph.output:
        dims = dims_of(value) or [""]
        shape = tuple(dim for dim in dims if isinstance(dim, int))
        dtype = dtype_name(value.type.tensor_type.elem_type)
        known = ("float32" if dtype == "float32" else "int64", shape)
        outputs[value.name] = known if len(shape) == len(dims) else None
    return outputs
