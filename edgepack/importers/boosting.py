"""The ONNX model of a boosted ensemble: its trees, and the link from their sums to the answer.

Names of inputs and outputs are those of the ONNX converters of these libraries. A regressor gives
``variable`` [batch, outputs], a classifier ``label`` (int64 [batch], the class's index) and
``probabilities`` [batch, classes].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgepack.errors import ModelError
from edgepack.importers.trees import Tree, ensemble_attributes

if TYPE_CHECKING:
    import numpy as np
    import onnx

_OPSET = 17
_ML_OPSET = 3
_IR_VERSION = 8

REGRESSION = ("identity", "exp", "sigmoid", "signed square", "softplus")
CLASSIFICATION = ("binary", "softmax", "one against all")


@dataclass(frozen=True, kw_only=True)
class Boosted:
    """What there is to know of a boosted ensemble."""

    trees: Sequence[Tree]
    mode: str
    features: int
    outputs: int
    """Sums that the trees make for each row."""
    link: str
    """One of REGRESSION or CLASSIFICATION."""
    base: Sequence[float] = ()
    """What each sum begins with; empty for zeros."""
    zero_is_missing: Sequence[int] = field(default=())
    """Features whose zeros count as NaN."""

    @property
    def classifies(self) -> bool:
        """Whether it gives a label and probabilities."""
        return self.link in CLASSIFICATION


def boosted_model(ensemble: Boosted) -> onnx.ModelProto:
    """As ONNX, input ``X`` float32 [batch, features]. Raises ModelError where there are no trees."""
    from onnx import TensorProto, helper

    if not ensemble.trees:
        raise ModelError("the model has no trees: its outputs could never change")
    graph = _Graph()
    features = _missing_zeros(graph, ensemble) if ensemble.zero_is_missing else "X"
    attributes = ensemble_attributes(ensemble.trees, ensemble.mode, ensemble.outputs)
    if ensemble.base:
        attributes["base_values"] = list(ensemble.base)
    single = ensemble.link == "identity"
    sums = graph.add(
        "TreeEnsembleRegressor",
        [features],
        "variable" if single else "sums",
        domain="ai.onnx.ml",
        **attributes,
    )
    if not single:
        (_probabilities if ensemble.classifies else _regression)(graph, ensemble.link, sums)
    width = ensemble.outputs + (ensemble.link == "binary")
    outputs = [_value("variable", TensorProto.FLOAT, width)]
    if ensemble.classifies:
        graph.add("ArgMax", ["probabilities"], "label", axis=1, keepdims=0)
        outputs = [
            _value("label", TensorProto.INT64),
            _value("probabilities", TensorProto.FLOAT, width),
        ]
    inputs = [_value("X", TensorProto.FLOAT, ensemble.features)]
    described = helper.make_graph(graph.nodes, "boosted", inputs, outputs, graph.initializers)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    return helper.make_model(described, opset_imports=opsets, ir_version=_IR_VERSION)


def _value(name: str, element: int, *columns: int) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, element, ["batch", *columns])


def answer(ensemble: Boosted, result: np.ndarray) -> dict[str, np.ndarray]:
    """The library's own result, as float32 outputs by ONNX name.

    ``result`` is what the link gives: values [batch, outputs], or probabilities, [batch, 1] of the
    second class for two classes.
    """
    import numpy as np

    result = result.reshape(len(result), -1).astype(np.float32)
    if not ensemble.classifies:
        return {"variable": result}
    if ensemble.link == "binary":
        result = np.concatenate([1 - result, result], axis=1)
    return {"label": result.argmax(axis=1), "probabilities": result}


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: float | list[float]) -> str:
        import numpy as np
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name


def _missing_zeros(graph: _Graph, ensemble: Boosted) -> str:
    limits = [-1.0] * ensemble.features
    for feature in ensemble.zero_is_missing:
        limits[feature] = 1e-35
    graph.add("Abs", ["X"], "magnitude")
    graph.add("LessOrEqual", ["magnitude", graph.constant("limits", limits)], "is_zero")
    return graph.add("Where", ["is_zero", graph.constant("missing", float("nan")), "X"], "features")


def _regression(graph: _Graph, link: str, sums: str) -> None:
    if link == "signed square":
        graph.add("Abs", [sums], "absolute")
        graph.add("Mul", [sums, "absolute"], "variable")
    else:
        operator = {"exp": "Exp", "sigmoid": "Sigmoid", "softplus": "Softplus"}[link]
        graph.add(operator, [sums], "variable")


def _probabilities(graph: _Graph, link: str, sums: str) -> None:
    if link == "softmax":
        graph.add("Softmax", [sums], "probabilities", axis=1)
    elif link == "one against all":
        graph.add("Sigmoid", [sums], "probabilities")
    else:
        graph.add("Sigmoid", [sums], "second")
        graph.add("Sub", [graph.constant("one", 1.0), "second"], "first")
        graph.add("Concat", ["first", "second"], "probabilities", axis=1)
