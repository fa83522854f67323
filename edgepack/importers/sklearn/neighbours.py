"""scikit-learn's estimators that go by distance, for skl2onnx: without a loop over the training data.

Neighbours have converters of our own, as skl2onnx's lose the weights of ``weights="distance"``. The
others are converted with an operator of ONNX Runtime's own, CDist, and that is then spelled out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgepack.importers.sklearn.nodes import Converter, Nodes

if TYPE_CHECKING:
    import numpy as np
    import onnx

Add = Callable[..., str]
"""Adds a node: operator, inputs, attributes; returns its output."""
_ROWS = (0, 1, -1)
"""For Reshape: from [rows, features] to [rows, 1, features]."""


def neighbour_converters() -> dict[type, Converter]:
    """By type of the estimator."""
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    return {KNeighborsClassifier: _classifier, KNeighborsRegressor: _regressor}


def by_distance() -> dict[type, dict[str, str]]:
    """Options of skl2onnx that have it use CDist."""
    from sklearn.decomposition import KernelPCA
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.neighbors import LocalOutlierFactor

    estimators = (GaussianProcessRegressor, KernelPCA, LocalOutlierFactor)
    return {estimator: {"optim": "cdist"} for estimator in estimators}


def _classifier(*arguments: Any) -> None:
    import numpy as np

    nodes = Nodes(*arguments)
    if nodes.estimator.outputs_2d_:
        raise nodes.refusal("it has several outputs")
    votes = np.eye(len(nodes.estimator.classes_))[nodes.estimator._y]
    _mean_of_neighbours(nodes, votes, nodes.outputs[1])
    nodes.label(nodes.outputs[1])


def _regressor(*arguments: Any) -> None:
    import numpy as np

    nodes = Nodes(*arguments)
    values = np.asarray(nodes.estimator._y, np.float64)
    _mean_of_neighbours(nodes, values.reshape(len(values), -1), nodes.outputs[0])


def _mean_of_neighbours(nodes: Nodes, values: np.ndarray, output: str) -> None:
    """The mean of the nearest rows of ``values`` [known, outputs], weighted as the estimator says."""
    import numpy as np

    estimator = nodes.estimator
    if estimator.weights not in ("uniform", "distance"):
        raise nodes.refusal("its weights are a function")
    known = np.asarray(estimator._fit_X, np.float32)
    every = _distances(
        nodes.add,
        nodes.add("Reshape", [nodes.features(), nodes.constant(_ROWS, "INT64")]),
        nodes.constant(known.ravel().tolist(), shape=known.shape),
        estimator.effective_metric_,
    )
    nearest, places = nodes.fresh("nearest"), nodes.fresh("places")
    count = nodes.constant([estimator.n_neighbors], "INT64")
    nodes.add_many("TopK", [every, count], [nearest, places], axis=1, largest=0, sorted=1)
    table = nodes.constant(values.ravel().tolist(), shape=values.shape)
    rows = nodes.add("Gather", [table, places], axis=0)
    if estimator.weights == "uniform":
        nodes.add("ReduceMean", [rows], output, axes=[1], keepdims=0)
        return
    weights = _weights(nodes, nearest)
    column = nodes.constant([-1, estimator.n_neighbors, 1], "INT64")
    weighted = nodes.add("Mul", [rows, nodes.add("Reshape", [weights, column])])
    axis = nodes.constant([1], "INT64")
    total = nodes.add("ReduceSum", [weights, axis], keepdims=1)
    nodes.add("Div", [nodes.add("ReduceSum", [weighted, axis], keepdims=0), total], output)


def _weights(nodes: Nodes, nearest: str) -> str:
    """One over the distance; where there are distances of 0, 1 for them and 0 for the others."""
    zero = nodes.constant([0.0])
    same = nodes.add("Cast", [nodes.add("Equal", [nearest, zero])], to=1)
    met = nodes.add("ReduceMax", [same], axes=[1], keepdims=1)
    inverse = nodes.add("Reciprocal", [nearest])
    return nodes.add("Where", [nodes.add("Greater", [met, zero]), same, inverse])


def expand_distances(model: onnx.ModelProto) -> None:
    """Replace every CDist by plain operators, in place."""
    import onnx

    kept: list[onnx.NodeProto] = []

    def add(op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{node.output[0]}/{op.lower()}"
        kept.append(onnx.helper.make_node(op, inputs, [output], output, **attributes))
        return output

    for node in model.graph.node:
        if node.op_type != "CDist":
            kept.append(node)
            continue
        shape = onnx.helper.make_tensor(
            f"{node.output[0]}/shape", onnx.TensorProto.INT64, [3], _ROWS
        )
        model.graph.initializer.append(shape)
        rows = add("Reshape", [node.input[0], shape.name])
        metric = next(attribute.s for attribute in node.attribute if attribute.name == "metric")
        _distances(add, rows, node.input[1], metric.decode(), node.output[0])
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _distances(add: Add, rows: str, known: str, metric: str, output: str = "") -> str:
    """Distances [rows, known] of rows [rows, 1, features] and known ones [known, features]."""
    reduction = {
        "chebyshev": "ReduceMax",
        "cityblock": "ReduceL1",
        "euclidean": "ReduceL2",
        "manhattan": "ReduceL1",
        "sqeuclidean": "ReduceSumSquare",
    }.get(metric)
    if reduction is None:
        raise NotImplementedError(f"the metric {metric!r}")
    difference = add("Sub", [rows, known])
    if metric == "chebyshev":
        difference = add("Abs", [difference])
    return add(reduction, [difference], output, axes=[2], keepdims=0)
