"""What a converter is given: an ONNX node with its operands as Relax expressions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.artefacts import TensorSpec
from edgepack.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from edgepack.targets import Target

Converter = Callable[["Node"], Any]
"""Gives the node's output as a Relax expression, or a list of them where there are several.

Of several outputs, trailing ones that the model does not ask for may be missing.
"""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node of the graph, all shapes known."""

    operator: str
    label: str
    """For messages: ``Conv 'block1/conv'``."""
    opset: int
    """Version of the operator's domain."""
    inputs: tuple[Any, ...]
    """Relax expressions; None for an optional input that is not given."""
    attributes: dict[str, Any]
    """Values as Python has them: int, float, str, lists of these, numpy arrays for tensors."""
    outputs: tuple[TensorSpec, ...]
    """Inferred types of the outputs; one that is not wanted has no name, an unknown type no dtype."""
    builder: Any
    """relax.BlockBuilder that collects the bindings."""
    proto: onnx.NodeProto
    target: Target | None = None
    """What the model is compiled for, where that is known."""
    givers: tuple[Node | None, ...] = ()
    """The nodes that gave the inputs; None for one that no node gave."""
    readers: int = 0
    """How often the outputs are read: by nodes, and as outputs of the model."""

    def has(self, index: int) -> bool:
        """Whether input ``index`` is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def optional(self, index: int) -> Any:
        """Input ``index``, or None."""
        return self.inputs[index] if self.has(index) else None

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """Shape of an input."""
        return shape_of(self.inputs[index])

    def dtype(self, index: int = 0) -> str:
        """Element type of an input, by its NumPy name."""
        return dtype_of(self.inputs[index])

    def giver(self, index: int) -> Node | None:
        """The node that gave input ``index``."""
        return self.givers[index] if index < len(self.givers) else None

    def constant(self, index: int) -> np.ndarray | None:
        """The value of an input that is known now; None for any other and where it is not given."""
        return constant_of(self.optional(index))

    def known(self, index: int, what: str) -> np.ndarray:
        """The value of input ``index``. Raises ModelError where it comes only with a request."""
        value = self.constant(index)
        if value is None:
            raise ModelError(
                f"{self.label}: its {what} (input {index}) must be known when the model is compiled",
                "export the model with it as a constant",
            )
        return value

    def emit(self, expression: Any) -> Any:
        """Bind an expression to a variable, so that it is computed once however often it is used."""
        return self.builder.emit(expression)

    def compute(self, function: Callable[..., Any], *operands: Any, name: str = "") -> Any:
        """A kernel out of tensor expressions: ``function`` takes and gives te.Tensors.

        ``operands`` may be Relax expressions, numbers, and anything hashable that ``function`` takes.
        """
        hint = name or self.operator.lower()
        return self.emit(self.builder.call_te(function, *operands, primfunc_name_hint=hint))

    def unsupported(self, reason: str, hint: str = "") -> ModelError:
        """The error for a form of the operator that cannot be compiled; to be raised."""
        return ModelError(
            f"{self.label} is not supported: {reason}", hint or "export the model without it"
        )


def shape_of(expression: Any) -> tuple[int, ...]:
    """Shape of a Relax expression with a static tensor type."""
    return tuple(int(extent) for extent in expression.ty.shape)


def dtype_of(expression: Any) -> str:
    """Element type of a Relax expression of tensor type, by its NumPy name."""
    return str(expression.ty.dtype)


def constant_of(expression: Any) -> np.ndarray | None:
    """The value of a Relax constant; None for anything else, None included."""
    from tvm import ir

    if not isinstance(expression, ir.GenericConst):
        return None
    value: np.ndarray = expression.value.numpy()
    return value


def constant(value: np.ndarray | Sequence[Any] | float, dtype: str = "") -> Any:
    """A Relax constant of ``dtype``, or of the type that NumPy gives the value."""
    import numpy as np
    import tvm
    from tvm import relax

    array = np.asarray(value, dtype or None)
    # Of a NumPy array relax.const would make int32 where it is int64.
    return relax.const(tvm.runtime.tensor(np.ascontiguousarray(array).reshape(array.shape)))
