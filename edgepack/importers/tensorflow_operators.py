"""Operators of TensorFlow, and with TFL_ of TensorFlow Lite, in ONNX's: those that tf2onnx lacks.

Two are here that it has: it takes TruncateDiv for a division and ResizeArea for one of nearest pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Handler = Callable[[Any, Any, str, list[Any]], None]
"""What tf2onnx calls: with its graph, its node, and two things that we do not need."""


@dataclass(frozen=True, kw_only=True)
class _Writer:
    """Writes ONNX nodes in the place of one of TensorFlow's."""

    graph: Any
    node: Any

    @property
    def inputs(self) -> list[str]:
        return list(self.node.input)

    def emit(self, operator: str, *inputs: str | float, **attributes: Any) -> str:
        """A node, and the name of what it gives; numbers become constants of the input's type."""
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        made = self.graph.make_node(operator, names, attr=attributes, skip_conversion=True)
        return str(made.output[0])

    def constant(self, value: float, dtype: str = "") -> str:
        import numpy as np
        from tf2onnx import utils

        array = np.array(value, dtype or self.dtype)
        return str(self.graph.make_const(utils.make_name("constant"), array).output[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the first input."""
        import numpy as np
        from tf2onnx import utils

        element_type = self.graph.get_dtype(self.node.input[0])
        dtype: np.dtype[Any] = np.dtype(utils.map_onnx_to_numpy_type(element_type))
        return dtype


def _erfc(write: _Writer) -> str:
    return write.emit("Sub", 1, write.emit("Erf", *write.inputs))


def _expm1(write: _Writer) -> str:
    """``tanh(x / 2) (exp(x) + 1)``, which does not cancel near 0."""
    (x,) = write.inputs
    powers = write.emit("Add", write.emit("Exp", x), 1)
    return write.emit("Mul", write.emit("Tanh", write.emit("Mul", x, 0.5)), powers)


def _log1p(write: _Writer) -> str:
    return write.emit("Log", write.emit("Add", *write.inputs, 1))


def _gelu(write: _Writer) -> str:
    (x,) = write.inputs
    if write.node.get_attr_value("approximate"):
        cube = write.emit("Mul", write.emit("Mul", x, x), x)
        inner = write.emit("Add", x, write.emit("Mul", cube, 0.044715))
        curve = write.emit("Tanh", write.emit("Mul", inner, (2 / 3.141592653589793) ** 0.5))
    else:
        curve = write.emit("Erf", write.emit("Mul", x, 0.5**0.5))
    return write.emit("Mul", write.emit("Mul", x, 0.5), write.emit("Add", curve, 1))


def _clip(low: float, high: float) -> Callable[[_Writer], str]:
    return lambda write: write.emit("Clip", *write.inputs, low, high)


def _zero_where(place: int, operator: str, function: str = "") -> Callable[[_Writer], str]:
    """``x operator function(y)``, and 0 where the input at ``place`` is 0."""

    def body(write: _Writer) -> str:
        x, y = write.inputs
        value = write.emit(operator, x, write.emit(function, y) if function else y)
        return write.emit("Where", write.emit("Equal", write.inputs[place], 0), 0, value)

    return body


def _truncated_division(write: _Writer) -> str:
    quotient = write.emit("Div", *write.inputs)
    if write.dtype.kind != "f":
        return quotient
    up, down = write.emit("Ceil", quotient), write.emit("Floor", quotient)
    return write.emit("Where", write.emit("Less", quotient, 0), up, down)


def _norm(write: _Writer) -> str:
    import onnx

    x, axes = write.inputs
    axes = write.emit("Cast", axes, to=onnx.TensorProto.INT64)
    return write.emit("ReduceL2", x, axes, keepdims=int(write.node.get_attr_value("keep_dims")))


def _rank(write: _Writer) -> str:
    return write.constant(write.graph.get_rank(write.node.input[0]), "int32")


_WRITTEN: Mapping[str, Callable[[_Writer], str]] = {
    "Erfc": _erfc,
    "EuclideanNorm": _norm,
    "Expm1": _expm1,
    "Log1p": _log1p,
    "MulNoNan": _zero_where(1, "Mul"),
    "Rank": _rank,
    "TFL_GELU": _gelu,
    "TFL_RELU_0_TO_1": _clip(0, 1),
    "TFL_RELU_N1_TO_1": _clip(-1, 1),
    "TruncateDiv": _truncated_division,
    "Xdivy": _zero_where(0, "Div"),
    "Xlogy": _zero_where(0, "Mul", "Log"),
}
_REFUSED = ("ResizeArea",)


def _handler(body: Callable[[_Writer], str]) -> Handler:
    def handle(graph: Any, node: Any, name: str, arguments: list[Any]) -> None:
        types = {"shapes": node.output_shapes, "dtypes": node.output_dtypes}
        value = body(_Writer(graph=graph, node=node))
        graph.remove_node(node.name)
        graph.make_node("Identity", [value], outputs=node.output, name=node.name, **types)

    return handle


def _leave(graph: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """Keep the node: whoever finds one that is not ONNX's says so."""


HANDLERS: Mapping[str, Handler] = {
    **{name: _handler(body) for name, body in _WRITTEN.items()},
    **dict.fromkeys(_REFUSED, _leave),
}
"""By the name of the operator."""
