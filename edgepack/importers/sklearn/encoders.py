"""scikit-learn's OneHotEncoder for skl2onnx, whose own cuts fractions off before it looks them up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgepack.importers.sklearn.nodes import Nodes, no_conversion

if TYPE_CHECKING:
    import numpy as np


def _columns(encoder: Any) -> list[np.ndarray]:
    """The categories of each feature that have a column, float32.

    Raises ModelError for what no float32 number is equal to.
    """
    import numpy as np

    if encoder._infrequent_enabled:
        raise no_conversion("OneHotEncoder", ": it puts rare categories together")
    columns = []
    for feature, categories in enumerate(encoder.categories_):
        if categories.dtype.kind not in "iufb":
            raise no_conversion("OneHotEncoder", ": its categories are no numbers")
        rounded = categories.astype(np.float32)
        if np.any(rounded != categories):
            raise no_conversion("OneHotEncoder", ": float32 cannot hold its categories")
        dropped = None if encoder.drop_idx_ is None else encoder.drop_idx_[feature]
        columns.append(rounded if dropped is None else np.delete(rounded, dropped))
    return columns


def one_hot_shape(operator: Any) -> None:
    """Set the width of the output: skl2onnx calls it before it converts."""
    from skl2onnx.common.data_types import FloatTensorType

    width = sum(map(len, _columns(operator.raw_operator)))
    batch = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = FloatTensorType([batch, width])


def one_hot(*arguments: Any) -> None:
    """Each feature, once for each of its categories, compared with that: a Converter."""
    import numpy as np
    from onnx import TensorProto

    nodes = Nodes(*arguments)
    columns = _columns(nodes.estimator)
    repeated = np.repeat(np.arange(len(columns)), [len(column) for column in columns])
    places = nodes.constant(repeated.tolist(), "INT64")
    wanted = nodes.constant(np.concatenate(columns).tolist())
    spread = nodes.add("Gather", [nodes.features(), places], axis=1)
    nodes.add(
        "Cast", [nodes.add("Equal", [spread, wanted])], nodes.outputs[0], to=TensorProto.FLOAT
    )
