"""Functions of one number: elementary functions, activations, and tests of a value.

16-bit types are computed in float32: their own arithmetic would lose half of their digits, and the
vector code of elementary functions is float32's. Where TVM's lowering has none for a type, or loses
digits near zero, the C library's function is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgepack.compiler.frontend.converters.values import cast, widened
from edgepack.compiler.frontend.node import Converter, Node, constant, dtype_of

DOMAIN = ""

Formula = Callable[[Node, Any], Any]
"""The value of a function, given its wide operand; it emits what it uses twice."""


def _function(formula: Formula) -> Converter:
    """The converter of a function that takes and gives the same type."""

    def convert(node: Node) -> Any:
        data = widened(node, node.inputs[0])
        return cast(node.emit(formula(node, data)), node.dtype())

    return convert


def _named(operator: str) -> Converter:
    """A function that Relax has."""

    def formula(_: Node, data: Any) -> Any:
        from tvm import relax

        return getattr(relax.op, operator)(data)

    return _function(formula)


def _from_library(function: str, operator: str = "") -> Converter:
    """The C library's ``function``; Relax's ``operator``, if given, for float32."""

    def formula(node: Node, data: Any) -> Any:
        from tvm import relax, te, tirx

        dtype = dtype_of(data)
        if operator and dtype == "float32":
            return getattr(relax.op, operator)(data)
        name = f"{function}f" if dtype == "float32" else function

        def called(x: Any) -> Any:
            return te.compute(x.shape, lambda *at: tirx.call_pure_extern(dtype, name, x(*at)))

        return node.compute(called, data)

    return _function(formula)


def _exponential_below_zero(node: Node, x: Any, alpha: float, scale: float) -> Any:
    """alpha (e^(x / scale) - 1) below 0, x itself elsewhere."""
    from tvm import relax

    dtype = dtype_of(x)
    inner = x if scale == 1 else node.emit(relax.op.divide(x, constant(scale, dtype)))
    power = node.emit(relax.op.exp(inner))
    below = node.emit(relax.op.subtract(power, constant(1, dtype)))
    below = node.emit(relax.op.multiply(below, constant(alpha, dtype)))
    return relax.op.where(node.emit(relax.op.less(x, constant(0, dtype))), below, x)


def _elu(node: Node, x: Any) -> Any:
    return _exponential_below_zero(node, x, float(node.attributes.get("alpha", 1.0)), 1.0)


def _celu(node: Node, x: Any) -> Any:
    alpha = float(node.attributes.get("alpha", 1.0))
    return _exponential_below_zero(node, x, alpha, alpha)


def _selu(node: Node, x: Any) -> Any:
    from tvm import relax

    alpha = float(node.attributes.get("alpha", 1.67326319217681884765625))
    gamma = float(node.attributes.get("gamma", 1.05070102214813232421875))
    return relax.op.multiply(
        node.emit(_exponential_below_zero(node, x, alpha, 1.0)), constant(gamma, dtype_of(x))
    )


def _softplus(node: Node, x: Any) -> Any:
    """max(x, 0) + log(1 + e^-|x|), which cannot overflow."""
    from tvm import relax

    dtype = dtype_of(x)
    small = node.emit(relax.op.exp(node.emit(relax.op.negative(node.emit(relax.op.abs(x))))))
    logarithm = node.emit(relax.op.log(node.emit(relax.op.add(small, constant(1, dtype)))))
    return relax.op.add(node.emit(relax.op.maximum(x, constant(0, dtype))), logarithm)


def _mish(node: Node, x: Any) -> Any:
    from tvm import relax

    soft = node.emit(_softplus(node, x))
    return relax.op.multiply(x, node.emit(relax.op.tanh(soft)))


def _softsign(node: Node, x: Any) -> Any:
    from tvm import relax

    above = node.emit(relax.op.add(node.emit(relax.op.abs(x)), constant(1, dtype_of(x))))
    return relax.op.divide(x, above)


def _gelu(node: Node, x: Any) -> Any:
    from tvm import relax

    tanh = node.attributes.get("approximate", "none") == "tanh"
    return relax.op.nn.gelu_tanh(x) if tanh else relax.op.nn.gelu(x)


def _thresholded_relu(node: Node, x: Any) -> Any:
    from tvm import relax

    alpha = constant(float(node.attributes.get("alpha", 1.0)), dtype_of(x))
    above = node.emit(relax.op.greater(x, alpha))
    return relax.op.where(above, x, constant(0, dtype_of(x)))


def _shrink(node: Node) -> Any:
    """Towards zero by ``bias`` beyond ``lambd``, zero within; integers by way of float64."""
    from tvm import relax

    dtype = node.dtype()
    x = widened(node, node.inputs[0])
    if not dtype.startswith(("float", "bfloat")):
        x = node.emit(cast(x, "float64"))
    limit, bias = (
        float(node.attributes.get(name, default)) for name, default in (("lambd", 0.5), ("bias", 0))
    )
    kind = dtype_of(x)
    above = node.emit(relax.op.greater(x, constant(limit, kind)))
    below = node.emit(relax.op.less(x, constant(-limit, kind)))
    less = node.emit(relax.op.subtract(x, constant(bias, kind)))
    more = node.emit(relax.op.add(x, constant(bias, kind)))
    low = node.emit(relax.op.where(below, more, constant(0, kind)))
    return cast(node.emit(relax.op.where(above, less, low)), dtype)


def _is_infinite(node: Node) -> Any:
    """Whether a value is infinite, of the signs that the node asks for."""
    import numpy as np
    from tvm import relax

    x, dtype = node.inputs[0], node.dtype()
    signs = [("detect_positive", np.inf), ("detect_negative", -np.inf)]
    tests = [
        node.emit(relax.op.equal(x, constant(value, dtype)))
        for name, value in signs
        if node.attributes.get(name, 1)
    ]
    if not tests:
        return constant(np.zeros(node.shape(), bool))
    return tests[0] if len(tests) == 1 else relax.op.logical_or(*tests)


def _sign(node: Node) -> Any:
    """-1, 0 or 1; no unsigned number is below 0."""
    from tvm import relax

    x, dtype = node.inputs[0], node.dtype()
    if not dtype.startswith("uint"):
        return relax.op.sign(x)
    return relax.op.minimum(x, constant(1, dtype))


def _unless_unsigned(operator: str) -> Converter:
    """Abs and the like, which leave unsigned numbers as they are."""

    def convert(node: Node) -> Any:
        from tvm import relax

        x = node.inputs[0]
        return x if node.dtype().startswith("uint") else getattr(relax.op, operator)(x)

    return convert


_NAMED: Mapping[str, str] = {
    "Acos": "acos",
    "Acosh": "acosh",
    "Asin": "asin",
    "Asinh": "asinh",
    "Atan": "atan",
    "Cos": "cos",
    "Erf": "erf",
    "Exp": "exp",
    "Log": "log",
    "Sigmoid": "sigmoid",
    "Sin": "sin",
    "Sqrt": "sqrt",
    "Tan": "tan",
}

CONVERTERS: dict[str, Converter] = {
    **{operator: _named(name) for operator, name in _NAMED.items()},
    "Abs": _unless_unsigned("abs"),
    "Atanh": _from_library("atanh"),
    "Celu": _function(_celu),
    "Cosh": _from_library("cosh"),
    "Elu": _function(_elu),
    "Gelu": _function(_gelu),
    "IsInf": _is_infinite,
    "Mish": _function(_mish),
    "Selu": _function(_selu),
    "Shrink": _shrink,
    "Sign": _sign,
    "Sinh": _from_library("sinh"),
    "Softplus": _function(_softplus),
    "Softsign": _function(_softsign),
    "Tanh": _from_library("tanh", "tanh"),
    "ThresholdedRelu": _function(_thresholded_relu),
}
