"""A tensor of the graph, and the orders in which its elements exist in memory.

An *order* lists a tensor's axes, outermost first, as they lie in memory: (0, 1, 2, 3) is what ONNX
says, (0, 2, 3, 1) is channels last. Axes of extent 1 take no part in how elements lie, so that two
orders which differ only there are the same memory, seen through a reshape.
"""

from __future__ import annotations

import math
from typing import Any

Shape = tuple[int, ...]
Order = tuple[int, ...]
Forms = dict[Order, dict[Shape, Any]]


def channels_last(rank: int) -> Order:
    """N, the spatial axes, C; below rank 3 there is nothing to move."""
    return (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))


def shape_of(expression: Any) -> Shape:
    """The static shape of a Relax expression."""
    return tuple(int(extent) for extent in expression.ty.shape)


def significant(order: Order, shape: Shape) -> Order:
    """``order`` without axes of extent 1."""
    return tuple(axis for axis in order if shape[axis] != 1)


def without_ones(shape: Shape) -> Shape:
    """``shape`` without the axes of extent 1."""
    return tuple(extent for extent in shape if extent != 1)


class Emitter:
    """Emits bindings through a BlockBuilder; moves constants at once, so that nothing is left to do."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder
        self._positions: dict[Any, int] = {}
        self._constants: dict[tuple[Any, Order, Shape], Any] = {}

    def emit(self, expression: Any) -> Any:
        """Bind ``expression`` to a new variable."""
        variable = self._builder.emit(expression)
        self._positions[variable] = len(self._positions)
        return variable

    def position(self, variable: Any) -> int:
        """How late ``variable`` was bound; parameters and constants come first of all."""
        return self._positions.get(variable, -1)

    def reshape(self, expression: Any, shape: Shape) -> Any:
        """``expression`` seen as ``shape``; no binding if it has that shape."""
        from tvm import relax

        if shape_of(expression) == shape:
            return expression
        if is_constant(expression):
            return self._constant(expression, tuple(range(len(shape_of(expression)))), shape)
        return self.emit(relax.op.reshape(expression, shape))

    def permute(self, expression: Any, axes: Order) -> Any:
        """``expression`` with its axes reordered as by ``numpy.transpose``."""
        from tvm import relax

        if is_constant(expression):
            extents = shape_of(expression)
            return self._constant(expression, axes, tuple(extents[axis] for axis in axes))
        return self.emit(relax.op.permute_dims(expression, list(axes)))

    def _constant(self, constant: Any, axes: Order, shape: Shape) -> Any:
        """One copy however often it is asked for: weights may be large."""
        from tvm import relax

        key = (constant, axes, shape)
        if key not in self._constants:
            moved = constant.value.numpy().transpose(axes).reshape(shape)
            self._constants[key] = relax.const(moved, str(constant.ty.dtype))
        return self._constants[key]


def is_constant(expression: Any) -> bool:
    """Whether a Relax expression is a constant tensor."""
    from tvm import ir

    return isinstance(expression, ir.GenericConst)


class Tensor:
    """A value of the graph: its ONNX shape, and the expressions that hold its elements.

    Each expression is known by the order of its elements; its own shape may have axes merged, split
    or of extent 1 added, and is corrected by a reshape only when somebody needs it.
    """

    def __init__(
        self, emitter: Emitter, shape: Shape, forms: Forms, labels: Order | None = None
    ) -> None:
        self.shape = shape
        self._emitter = emitter
        # Shared with the transposes of this tensor; ``labels`` are what it calls this one's axes.
        self._forms = forms
        self._labels = tuple(range(len(shape))) if labels is None else labels

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def identity(self) -> Order:
        """ONNX's own order."""
        return tuple(range(self.rank))

    @property
    def constant(self) -> bool:
        """Whether its elements are known now, so that any order of them is free."""
        return any(is_constant(e) for form in self._forms.values() for e in form.values())

    @property
    def is_channels_last(self) -> bool:
        """Whether it has been made channels last; a constant has not, as any order of it is free."""
        last = channels_last(self.rank)
        if self.constant or last == self.identity or not self.has(last):
            return False
        if significant(last, self.shape) != significant(self.identity, self.shape):
            return True
        return shape_of(self.raw(last)) == tuple(self.shape[axis] for axis in last) != self.shape

    def has(self, order: Order) -> bool:
        """Whether its elements exist in ``order``, or would at no cost."""
        return self.constant or self._key(order) in self._forms

    def orders(self) -> list[Order]:
        """Every order its elements exist in, with axes of extent 1 where they are least in the way."""
        own = {label: axis for axis, label in enumerate(self._labels)}
        return [self.completed(tuple(own[label] for label in key)) for key in self._forms]

    def completed(self, order: Order) -> Order:
        """All axes in ``order``, which may lack axes of extent 1: a usual order where it can be."""
        for usual in (self.identity, channels_last(self.rank)):
            if significant(usual, self.shape) == significant(order, self.shape):
                return usual
        ones = tuple(axis for axis in self.identity if axis not in order)
        return (*ones, *order)

    def cost(self, order: Order) -> int:
        """How many elements must be moved before it exists in ``order``."""
        return 0 if self.has(order) else self.size

    def at(self, order: Order) -> Any:
        """An expression whose shape is the tensor's, its axes reordered as ``order`` says."""
        return self.shaped(order, tuple(self.shape[axis] for axis in order))

    def shaped(self, order: Order, shape: Shape) -> Any:
        """An expression with elements in ``order`` and any ``shape`` of as many elements."""
        raw = self.raw(order)
        form = self._forms[self._key(order)]
        if shape not in form:
            form[shape] = self._emitter.reshape(raw, shape)
        return form[shape]

    def raw(self, order: Order) -> Any:
        """An expression with elements in ``order``, of whatever shape it was made in."""
        key = self._key(order)
        if key not in self._forms:
            source = self.orders()[0]
            moved = self._emitter.permute(
                self.at(source), tuple(source.index(a) for a in self.completed(order))
            )
            self._forms[key] = {shape_of(moved): moved}
        return next(iter(self._forms[key].values()))

    def transposed(self, axes: Order) -> Tensor:
        """The tensor whose axis i is this one's axis ``axes[i]``: the same memory, renamed."""
        shape = tuple(self.shape[axis] for axis in axes)
        labels = tuple(self._labels[axis] for axis in axes)
        return Tensor(self._emitter, shape, self._forms, labels)

    def _key(self, order: Order) -> Order:
        return tuple(self._labels[axis] for axis in significant(order, self.shape))
