"""Activation functions of LSTM, GRU and RNN, by the names that ONNX gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.compiler.frontend.node import Node
from edgepack.compiler.schedules import mathematics

Function = Callable[[Any, float, float], Any]


def _called(name: str, x: Any) -> Any:
    """An elementary function: arithmetic for float32, else a call."""
    from tvm import tirx

    value = getattr(mathematics, name)(x)
    return getattr(tirx, name)(x) if value is None else value


def _exp(x: Any) -> Any:
    return _called("exp", x)


def _tanh(x: Any) -> Any:
    return _called("tanh", x)


def _sigmoid(x: Any) -> Any:
    return _called("sigmoid", x)


def _larger(x: Any, bound: float) -> Any:
    from tvm import tirx

    return tirx.max(x, tirx.const(bound, str(x.ty)))


def _within(x: Any, low: float, high: float) -> Any:
    from tvm import tirx

    return _larger(tirx.min(x, tirx.const(high, str(x.ty))), low)


def _chosen(condition: Any, value: Any, other: Any) -> Any:
    from tvm import tirx

    return tirx.Select(condition, value, other)


def _softplus(x: Any) -> Any:
    from tvm import tirx

    small = _exp(-tirx.abs(x))
    value = mathematics.log(small + 1.0)
    return _larger(x, 0.0) + (tirx.log(small + 1.0) if value is None else value)


def _softsign(x: Any) -> Any:
    from tvm import tirx

    return x / (tirx.abs(x) + 1.0)


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """A function of x, alpha and beta; the defaults are those that it takes, none or up to two."""

    function: Function
    defaults: tuple[float, ...] = ()


_KINDS = {
    "affine": _Kind(function=lambda x, a, b: x * a + b, defaults=(1.0, 0.0)),
    "elu": _Kind(
        function=lambda x, a, b: _chosen(x < 0.0, (_exp(x) - 1.0) * a, x), defaults=(1.0,)
    ),
    "hardsigmoid": _Kind(
        function=lambda x, a, b: _within(x * a + b, 0.0, 1.0), defaults=(0.2, 0.5)
    ),
    "leakyrelu": _Kind(function=lambda x, a, b: _chosen(x < 0.0, x * a, x), defaults=(0.01,)),
    "relu": _Kind(function=lambda x, a, b: _larger(x, 0.0)),
    "scaledtanh": _Kind(function=lambda x, a, b: _tanh(x * b) * a, defaults=(1.0, 1.0)),
    "sigmoid": _Kind(function=lambda x, a, b: _sigmoid(x)),
    "softplus": _Kind(function=lambda x, a, b: _softplus(x)),
    "softsign": _Kind(function=lambda x, a, b: _softsign(x)),
    "tanh": _Kind(function=lambda x, a, b: _tanh(x)),
    "thresholdedrelu": _Kind(function=lambda x, a, b: _chosen(x > a, x, x * 0.0), defaults=(1.0,)),
}


def activations(node: Node, usual: Sequence[str], directions: int) -> list[list[Any]]:
    """The functions of each direction, each of one TIR expression. Raises ModelError.

    The attributes activation_alpha and activation_beta have an entry for each function that takes
    one, as ONNX Runtime reads them.
    """
    names = [str(name).lower() for name in node.attributes.get("activations", ())]
    names = names or [name.lower() for name in usual] * directions
    unknown = [name for name in names if name not in _KINDS]
    if unknown or len(names) != len(usual) * directions:
        raise node.unsupported(f"activations {', '.join(names)}")
    given = [list(node.attributes.get(f"activation_{word}", ())) for word in ("alpha", "beta")]
    functions = [_bound(_KINDS[name], given) for name in names]
    return [functions[i * len(usual) : (i + 1) * len(usual)] for i in range(directions)]


def _bound(kind: _Kind, given: list[list[float]]) -> Callable[[Any], Any]:
    parameters = [0.0, 0.0]
    for number, default in enumerate(kind.defaults):
        parameters[number] = float(given[number].pop(0)) if given[number] else default
    alpha, beta = parameters
    return lambda x: kind.function(x, alpha, beta)
