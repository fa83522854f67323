"""What converters of our own for scikit-learn's estimators add to the model that skl2onnx makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgepack.errors import ModelError

Converter = Callable[..., None]
"""Adds the nodes of an estimator; skl2onnx calls it with its scope, operator and container."""


def no_conversion(name: str, reason: str = "") -> ModelError:
    """The error for an estimator; to be raised."""
    return ModelError(
        f"scikit-learn's {name} cannot be converted to ONNX{reason}",
        "docs/models.md says which estimators can",
    )


class Nodes:
    """The nodes of one estimator; made of the arguments of a converter."""

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        self._scope, self._container = scope, container
        self.estimator = operator.raw_operator
        self.outputs: list[str] = [output.full_name for output in operator.outputs]
        self._input = operator.inputs[0]
        if len(operator.inputs) > 1:
            raise self.refusal("its columns come from several steps")

    def refusal(self, reason: str) -> ModelError:
        """The error for what the estimator has that ONNX cannot be given; to be raised."""
        return no_conversion(type(self.estimator).__name__, f": {reason}")

    def add(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Add a node with one output and return that; its name is fresh unless given."""
        output = output or self._scope.get_unique_variable_name(op.lower())
        self.add_many(op, inputs, [output], **attributes)
        return output

    def add_many(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> None:
        """Add a node with several outputs."""
        name = self._scope.get_unique_operator_name(op)
        self._container.add_node(op, list(inputs), list(outputs), name=name, **attributes)

    def fresh(self, word: str) -> str:
        """A name that no value has."""
        name: str = self._scope.get_unique_variable_name(word)
        return name

    def constant(
        self, values: Sequence[float | bytes], kind: str = "FLOAT", shape: Sequence[int] = ()
    ) -> str:
        """Add a constant, a vector unless ``shape`` says otherwise."""
        from onnx import TensorProto

        name = self.fresh("constant")
        data_type = TensorProto.DataType.Value(kind)
        self._container.add_initializer(name, data_type, list(shape) or [len(values)], list(values))
        return name

    def features(self) -> str:
        """The estimator's input, as float32."""
        from onnx import TensorProto

        name: str = self._input.full_name
        if type(self._input.type).__name__ == "FloatTensorType":
            return name
        return self.add("Cast", [name], to=TensorProto.FLOAT)

    def label(self, scores: str) -> None:
        """Add the class of the greatest score, the first one of several, as the first output."""
        import numpy as np

        classes = self.estimator.classes_
        index = self.add("ArgMax", [scores], axis=1, keepdims=0)
        if classes.dtype.kind in "OUS":
            names = self.constant([str(name).encode() for name in classes], "STRING")
        else:
            names = self.constant(np.asarray(classes).astype(np.int64).tolist(), "INT64")
        self.add("Gather", [names, index], self.outputs[0], axis=0)
