"""Follows sizes that depend on data through a graph, node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgepack.errors import ModelError
from edgepack.importers.bounded.nodes import name_of
from edgepack.importers.bounded.sizes import Count, Size, counted
from edgepack.importers.bounded.tensors import Tensor, infer, of_constant, of_type
from edgepack.importers.bounds import declared_or_stated, key_of
from edgepack.importers.graphs import node_label
from edgepack.importers.passes.editor import GraphEditor
from edgepack.importers.static_shapes import is_static, value_types

if TYPE_CHECKING:
    import numpy as np
    import onnx

Rule = Callable[["Walk", "onnx.NodeProto"], None]
"""Emits what stands for a node and tells the walk of its outputs. Raises ModelError."""


class Walk:
    """One walk over a model's main graph; the model is changed."""

    def __init__(self, model: onnx.ModelProto, bounds: Mapping[str, int]) -> None:
        self.model = model
        self.editor = GraphEditor(model)
        self.bounds = bounds
        self.used: set[str] = set()
        """Names of declared bounds that were taken."""
        self.takers: set[str] = set()
        """Names of nodes that can take one."""
        self.notes: list[str] = []
        self._types = value_types(model)
        self._tensors: dict[str, Tensor] = {}
        self._values: dict[Size, str] = {}
        self._derived: dict[tuple[Size, ...], Size] = {}
        """Minima of two sizes, and sizes that are not negative: the same ones are one count."""
        self._masks: dict[tuple[Size, int, int], str] = {}
        self.sink: Callable[[onnx.NodeProto], None] = self.editor.adopt

    def is_known(self, name: str) -> bool:
        """Whether a value comes from a node that was emitted here."""
        return name in self._tensors

    def tensor(self, name: str) -> Tensor:
        """What is known of a value, which has to be a tensor of known type."""
        if name in self._tensors:
            return self._tensors[name]
        constant = self.constant(name)
        if constant is not None:
            return of_constant(constant)
        given = self._types.get(name)
        assert given is not None
        assert is_static(given), name
        return of_type(given.type.tensor_type)

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a constant; None for anything else."""
        return self.editor.constant_value(name)

    def integers(self, name: str) -> list[Size] | None:
        """All elements of an integer vector or scalar; None where one is not known."""
        values = self._followed(name)
        if values is None or any(value is None for value in values):
            return None
        return [value for value in values if value is not None]

    def numbers(self, name: str) -> list[int] | None:
        """All elements of an integer vector or scalar that are the same for every request."""
        sizes = self.integers(name)
        if sizes is None or not all(size.is_fixed for size in sizes):
            return None
        return [size.constant for size in sizes]

    def _followed(self, name: str) -> tuple[Size | None, ...] | None:
        if name in self._tensors:
            return self._tensors[name].values
        constant = self.constant(name)
        return None if constant is None else of_constant(constant).values

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        return self.editor.opset

    def shapes_of(self, node: onnx.NodeProto) -> list[tuple[int, ...]]:
        """The shapes of a node's outputs in the compiled model; of one not wanted, nothing."""
        found = self._inferred(node)
        return [found[name].shape if name else () for name in node.output]

    def keep(
        self,
        node: onnx.NodeProto,
        *sizes: Sequence[Size],
        values: Sequence[Size | None] | None = None,
    ) -> None:
        """Emit a node; ``sizes`` are those of its outputs, where it is not all that inference gives.

        ``values`` are the elements of the first output.
        """
        found = self._inferred(node)
        for i, name in enumerate(node.output):
            if not name:
                continue
            given = found[name]
            known = Tensor(
                element=given.element,
                sizes=tuple(sizes[i]) if i < len(sizes) else given.sizes,
                values=tuple(values) if values and not i else None,
            )
            if known.shape != given.shape:
                raise self.refuse(node, f"the shape of {name!r} does not follow from its inputs")
            self._tensors[name] = known
        self.sink(node)

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        sizes: Sequence[Size] | None = None,
        output: str = "",
        **attributes: Any,
    ) -> str:
        """Emit a node with one output and return that; its name is fresh unless given."""
        import onnx

        name = output or self.editor.fresh(op.lower())
        label = self.editor.fresh("node")
        node = onnx.helper.make_node(op, inputs, [name], name=label, **attributes)
        self.keep(node, *([] if sizes is None else [sizes]))
        return name

    def put(
        self, op: str, inputs: Sequence[str], outputs: Mapping[str, Tensor], **attributes: Any
    ) -> None:
        """Emit a node of the domain ``edgepack``."""
        import onnx

        from edgepack.importers.own_operators import DOMAIN, declare

        declare(self.model)
        label = self.editor.fresh("node")
        node = onnx.helper.make_node(
            op, inputs, list(outputs), name=label, domain=DOMAIN, **attributes
        )
        self._tensors.update(outputs)
        self.sink(node)

    def rename(self, name: str, other: str) -> None:
        """What is known of ``name`` is true of ``other``; the caller has renamed it in the graph."""
        self._tensors[other] = self._tensors.pop(name)
        self._values = {s: other if v == name else v for s, v in self._values.items()}

    def numeral(self, value: Any, dtype: Any = "int64") -> str:
        """A constant."""
        import numpy as np

        return self.editor.constant("constant", np.array(value, dtype))

    def reshape(self, value: str, sizes: Sequence[Size], output: str = "") -> str:
        """Emit a Reshape; the elements that are not padding must stay where they are."""
        shape = self.numeral([size.most for size in sizes])
        return self.emit("Reshape", [value, shape], sizes, output)

    def count(self, value: str, most: int, label: str) -> Size:
        """The size that an int64 scalar in the graph counts."""
        return counted(Count(value=value, most=most, label=label))

    def scalar(self, size: Size) -> str:
        """An int64 scalar with a size's value."""
        if size.is_fixed:
            return self.numeral(size.constant)
        if size not in self._values:
            total = ""
            for count, factor in size.terms:
                term = count.value
                if factor != 1:
                    term = self.emit("Mul", [term, self.numeral(factor)])
                total = self.emit("Add", [total, term]) if total else term
            if size.constant:
                total = self.emit("Add", [total, self.numeral(size.constant)])
            self._values[size] = total
        return self._values[size]

    def vector(self, sizes: Sequence[Size], output: str = "") -> str:
        """An int64 vector with the values of sizes."""
        name = self.numeral([size.constant for size in sizes])
        for count in dict.fromkeys(count for size in sizes for count, _ in size.terms):
            factors = self.numeral([dict(size.terms).get(count, 0) for size in sizes])
            name = self.emit("Add", [name, self.emit("Mul", [factors, count.value])])
        name = self.emit("Identity", [name], output=output)
        self._tensors[name] = replace(self._tensors[name], values=tuple(sizes))
        return name

    def least_of(self, first: Size, second: Size) -> Size:
        """The smaller of two sizes."""
        if first == second or first.most <= second.least:
            return first
        if second.most <= first.least:
            return second
        both = (first, second)
        if both not in self._derived:
            pair = [self.scalar(size) for size in both]
            smaller = self.emit("Where", [self.emit("Less", pair), *pair])
            most = min(first.most, second.most)
            self._derived[both] = self._derive(smaller, most, first.plus(second))
        return self._derived[both]

    def not_negative(self, size: Size) -> Size:
        """A size, or 0 where it would be negative."""
        if size.least >= 0:
            return size
        if (size,) not in self._derived:
            value, zero = self.scalar(size), self.numeral(0)
            above = self.emit("Where", [self.emit("Less", [value, zero]), zero, value])
            self._derived[size,] = self._derive(above, max(size.most, 0), size)
        return self._derived[size,]

    def _derive(self, value: str, most: int, origin: Size) -> Size:
        label = next((count.label for count, _ in origin.terms), "")
        return counted(Count(value=value, most=most, label=label, is_source=False))

    def mask(self, size: Size, most: int, behind: int) -> str:
        """Booleans [most, 1, ...] with ``behind`` ones, true for the first ``size`` rows."""
        import numpy as np

        key = (size, most, behind)
        if key not in self._masks:
            rows = self.numeral(np.arange(most).reshape([most, *[1] * behind]))
            self._masks[key] = self.emit("Less", [rows, self.scalar(size)])
        return self._masks[key]

    def masked(self, value: str, axes: Sequence[int], fill: Any) -> str:
        """``value`` with ``fill`` beyond the true size of ``axes``."""
        import numpy as np

        tensor = self.tensor(value)
        for axis in axes:
            size = tensor.sizes[axis]
            if size.is_fixed:
                continue
            mask = self.mask(size, size.most, tensor.rank - 1 - axis)
            number = self.numeral(np.array(fill).astype(tensor.dtype), tensor.dtype)
            value = self.emit("Where", [mask, value, number], tensor.sizes)
        return value

    def refuse(self, node: onnx.NodeProto, reason: str) -> ModelError:
        """The error for a node through which sizes cannot be followed; to be raised."""
        labels = sorted(
            {
                count.label
                for name in node.input
                if name
                for size in self._sizes_in(name)
                for count, _ in size.terms
            }
        )
        origin = f" (rows of {', '.join(labels)})" if labels else ""
        return ModelError(
            f"{node_label(node)} takes a number of rows that depends on data{origin}: {reason}",
            "Cut the model before this node, or export it with a fixed number of rows",
        )

    def bound(self, node: onnx.NodeProto, natural: int | None, *, stated: bool) -> int:
        """The bound of a node: the declared one, or the natural one where the model states it.

        ``natural`` is what can never be exceeded. Raises ModelError that shows the option.
        """
        self.takers.add(name_of(node))
        self.used.add(key_of(node, self.bounds) or "")
        return declared_or_stated(node, self.bounds, natural, stated=stated)

    def _sizes_in(self, name: str) -> list[Size]:
        tensor = self._tensors.get(name)
        if tensor is None:
            return []
        return [*tensor.sizes, *(size for size in tensor.values or () if size is not None)]

    def _inferred(self, node: onnx.NodeProto) -> dict[str, Tensor]:
        names = [name for name in node.input if name]
        tensors = {name: self.tensor(name) for name in names}
        constants = {name: self.constant(name) for name in names}
        known = {name: value for name, value in constants.items() if value is not None}
        try:
            return infer(node, tensors, known, self.model.opset_import)
        except ModelError:
            # ONNX infers some operators' shapes only within a model.
            before = [self._types.get(name) for name in node.output if name]
            if any(t.padded for t in tensors.values()) or not all(map(is_static, before)):
                raise
            return {v.name: of_type(v.type.tensor_type) for v in before if v is not None}
