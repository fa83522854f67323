"""Operators of ai.onnx.ml that look values up: LabelEncoder and OneHotEncoder, without strings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgepack.compiler.frontend.converters.values import bound, reshaped
from edgepack.compiler.frontend.node import Converter, Node, constant
from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index

if TYPE_CHECKING:
    import numpy as np

DOMAIN = "ai.onnx.ml"

_NAN_AS_KEY = 4
"""The version from which on a key NaN means every NaN; before, nothing is equal to it."""


def _label_encoder(node: Node) -> Any:
    import numpy as np

    keys, values = _table(node, "keys"), _table(node, "values")
    if len(keys) != len(values) or not len(keys):
        raise node.unsupported(f"it has {len(keys)} keys and {len(values)} values")
    if str(keys.dtype) != node.dtype():
        raise node.unsupported(f"its keys are {keys.dtype}, its input {node.dtype()}")
    default = _default(node, values.dtype)
    nan = np.isnan(keys)
    missing = values[nan][:1] if node.opset >= _NAN_AS_KEY and nan.any() else default
    known, place = np.unique(keys[~nan], return_inverse=True)
    _refuse_contradictions(node, place, values[~nan])
    found = np.zeros(len(known), values.dtype)
    found[place] = values[~nan]
    if not len(known):
        known, found = np.zeros(1, keys.dtype), default
    results = np.concatenate([found, default, missing])
    shape = node.shape()
    flat = bound(node, reshaped(node.inputs[0], (int(np.prod(shape)),)))
    answer = node.compute(_search, flat, constant(known), constant(results))
    return bound(node, reshaped(answer, shape))


def _refuse_contradictions(node: Node, place: np.ndarray, values: np.ndarray) -> None:
    """Of a repeated key ONNX takes the last value, ONNX Runtime the first."""
    import numpy as np

    first = np.zeros(len(place), values.dtype)
    first[place[::-1]] = values[::-1]
    if np.any(first[place] != values):
        raise node.unsupported("a key occurs twice, with different values")


def _table(node: Node, name: str) -> np.ndarray:
    """The attribute keys_… or values_…, of whatever type it is given in."""
    import numpy as np

    tensor = node.attributes.get(f"{name}_tensor")
    if isinstance(tensor, np.ndarray) and tensor.dtype.kind in "if":
        return tensor.ravel()
    for kind, dtype in (("int64s", np.int64), ("floats", np.float32)):
        values = node.attributes.get(f"{name}_{kind}", ())
        if len(values):
            return np.asarray(values, dtype)
    raise node.unsupported(f"its {name} are strings", "use integers in place of strings")


def _default(node: Node, dtype: np.dtype) -> np.ndarray:
    """The value of what is no key, as an array of one."""
    import numpy as np

    tensor = node.attributes.get("default_tensor")
    if isinstance(tensor, np.ndarray) and tensor.size == 1 and tensor.dtype == dtype:
        return tensor.reshape(1)
    if dtype.kind == "i":
        return np.full(1, node.attributes.get("default_int64", -1), dtype)
    return np.full(1, node.attributes.get("default_float", -0.0), dtype)


def _search(x: Any, keys: Any, results: Any) -> Any:
    """For each of ``x`` [n] the result of the key that it equals; ``keys`` [k] are ascending.

    ``results`` [k + 2] ends with those of no key and of NaN. The search halves the keys as often for
    every value.
    """
    from tvm import te

    count = int(keys.shape[0])

    def body(inputs: list[Any], outputs: list[Any]) -> Any:
        def element(position: list[Any]) -> list[Any]:
            return _Sought(inputs, position[0], count).statements(outputs[0])

        return emit.grid([int(x.shape[0])], element, 1)

    return te.extern(
        (x.shape[0],), [x, keys, results], body, name="search", dtype=str(results.dtype)
    )


class _Sought:
    """One value and how far the search for it has come."""

    def __init__(self, inputs: list[Any], at: Any, count: int) -> None:
        self.at, self.count = at, count
        self.values, self.keys, self.results = inputs
        # In memory: of a named value TVM would make an expression that doubles with every step.
        self.place = emit.registers(1, "int64", "place")

    def statements(self, out: Any) -> list[Any]:
        """Find the key and store its result."""
        from tvm import tirx

        statements = [*emit.allocate([self.place]), self._go_to(index(0))]
        value = emit.bind(emit.load(self.values, self.at), "value", statements)
        length = self.count
        while length > 1:
            half = length // 2
            statements.append(self._advance(value, half - 1, half))
            length -= half
        statements.append(self._advance(value, 0, 1))
        statements.append(self._go_to(tirx.min(self._here(), index(self.count - 1))))
        found = tirx.Select(self._key(0) == value, self._here(), index(self.count))
        if str(self.values.dtype).startswith("float"):
            found = tirx.Select(tirx.isnan(value), index(self.count + 1), found)
        statements.append(self._go_to(found))
        return [*statements, emit.store(out, self.at, emit.load(self.results, self._here()))]

    def _here(self) -> Any:
        return emit.load(self.place, index(0))

    def _go_to(self, place: Any) -> Any:
        return emit.store(self.place, index(0), place)

    def _key(self, ahead: int) -> Any:
        return emit.load(self.keys, self._here() + index(ahead))

    def _advance(self, value: Any, ahead: int, step: int) -> Any:
        """Pass over ``step`` keys if the one ``ahead`` is still below."""
        from tvm import tirx

        beyond = self._here() + index(step)
        return self._go_to(tirx.Select(self._key(ahead) < value, beyond, self._here()))


def _one_hot_encoder(node: Node) -> Any:
    from tvm import te, tirx

    categories = [int(value) for value in node.attributes.get("cats_int64s", ())]
    if not categories:
        raise node.unsupported("its categories are strings", "use integers in place of strings")
    if len(set(categories)) != len(categories):
        raise node.unsupported("a category is listed twice")
    table, sought = _categories(categories, node.dtype())

    def encode(x: Any, kinds: Any) -> Any:
        def at(*place: Any) -> Any:
            return tirx.Cast("float32", sought(x(*place[:-1])) == kinds(place[-1]))

        return te.compute((*x.shape, len(categories)), at)

    return node.compute(encode, node.inputs[0], constant(table))


def _categories(categories: list[int], dtype: str) -> tuple[np.ndarray, Any]:
    """The categories in the type to compare in, and what to compare them with.

    Floats are truncated as floats: of those that no integer holds a conversion could make anything.
    """
    import numpy as np
    from tvm import tirx

    if not dtype.startswith("float"):
        return np.array(categories, np.int64), lambda x: tirx.Cast("int64", x)
    as_floats = np.array(categories).astype(dtype)
    exact = [int(value) == wanted for value, wanted in zip(as_floats, categories, strict=True)]
    return np.where(exact, as_floats, np.nan).astype(dtype), tirx.trunc


CONVERTERS: dict[str, Converter] = {
    "LabelEncoder": _label_encoder,
    "OneHotEncoder": _one_hot_encoder,
}
