from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from tests import operators
from tests.operators import FLOATS, SIGNED, UNSIGNED, any_of, node, normal, whole

NUMBERS = (*FLOATS, *SIGNED, *UNSIGNED)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_operands_that_broadcast(dtype: str) -> None:
    nodes = [
        node(operator, operands, f"{operator}_{operands.replace(' ', '')}")
        for operator in ("Add", "Sub", "Mul", "Div", "Max", "Min")
        for operands in ("a b", "a c", "c a")
    ]
    constant = {"c": np.array([3], dtype)}
    draws = {"a": whole(1, 9, 3, 1, 5, dtype=dtype), "b": whole(1, 9, 4, 1, dtype=dtype)}
    operators.agree(nodes, draws, constant)


@pytest.mark.parametrize("dtype", SIGNED)
def test_remainders_of_either_sign(dtype: str) -> None:
    nodes = [
        node("Mod", "a b", "floored"),
        node("Mod", "a b", "truncated", fmod=1),
        node("Mod", "a c", "by_a_constant"),
        node("Mod", "a d", "by_one_divisor"),
    ]
    draws = {
        "a": whole(-100, 100, 40, dtype=dtype),
        "b": lambda g: np.asarray(g.choice([-7, -3, -1, 1, 2, 9], 40)).astype(dtype),
        "d": whole(-9, -2, 1, dtype=dtype),
    }
    operators.agree(nodes, draws, {"c": np.array(-7, dtype)})


@pytest.mark.parametrize("dtype", UNSIGNED)
def test_remainders_and_shifts_of_unsigned_numbers(dtype: str) -> None:
    nodes = [
        node("Mod", "a b", "floored"),
        node("Mod", "a b", "truncated", fmod=1),
        node("BitShift", "a b", "left", direction="LEFT"),
        node("BitShift", "a b", "right", direction="RIGHT"),
        node("BitwiseNot", "a", "not"),
    ]
    draws = {"a": whole(0, 100, 7, 5, dtype=dtype), "b": whole(1, 7, 5, dtype=dtype)}
    operators.agree(nodes, draws)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64"])
def test_a_shift_by_all_bits_or_less_than_none_leaves_the_sign(dtype: str) -> None:
    bits = 8 * np.dtype(dtype).itemsize
    ends = np.iinfo(dtype)

    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        pairs = list(zip(inputs["a"].tolist(), inputs["b"].tolist(), strict=True))
        right = [a >> (b if b >= 0 else bits) for a, b in pairs]
        left = [(a << b if 0 <= b < bits else 0) % (1 << bits) for a, b in pairs]
        wrapped = [x - (1 << bits) if x > ends.max else x for x in left]
        return [np.array(right, dtype), np.array(wrapped, dtype)]

    draws = {
        "a": lambda g: g.integers(ends.min, ends.max, 40, dtype=dtype),
        "b": whole(max(-9, ends.min), bits + 9, 40, dtype=dtype),
    }
    nodes = [
        node("BitShift", "a b", "right", direction="RIGHT"),
        node("BitShift", "a b", "left", direction="LEFT"),
    ]
    operators.agree(nodes, draws, opset=28, oracle=wanted)


@pytest.mark.parametrize("dtype", FLOATS)
def test_remainders_of_floats(dtype: str) -> None:
    nodes = [node("Mod", "a b", "truncated", fmod=1), node("Mod", "e f", "floored")]
    edges = np.array([1, -1, 2.5, -2.5, 0, -0.0, 7], dtype)
    divisors = np.array([np.inf, -np.inf, 2, -2, 0, 3, -3], dtype)
    draws = {
        "a": normal(3, 40, dtype=dtype),
        "b": normal(40, dtype=dtype),
        "e": lambda g: np.asarray(g.permutation(edges)),
        "f": lambda g: np.asarray([g.permutation(divisors) for _ in range(5)]),
    }
    operators.agree(nodes, draws, opset=28)


@pytest.mark.parametrize("dtype", ["int32", "int64", "int8"])
def test_no_division_of_integers_stops_the_worker(dtype: str) -> None:
    lowest = np.iinfo(dtype).min
    span = -2 * int(lowest)

    def of_each(function: Callable[[int, int], int], inputs: operators.Arrays) -> np.ndarray:
        """In Python's integers, with 0 for what is divided by 0; the rest wraps."""
        pairs = zip(inputs["a"].tolist(), inputs["b"].tolist(), strict=True)
        exact = [function(a, b) if b else 0 for a, b in pairs]
        return np.array([(x - lowest) % span + lowest for x in exact], dtype)

    def quotient(a: int, b: int) -> int:
        return abs(a) // abs(b) * (1 if a * b > 0 else -1)

    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        return [of_each(quotient, inputs), of_each(lambda a, b: a % b, inputs)]

    draws = {
        "a": lambda g: np.asarray(g.choice([lowest, -7, 7, 0], 64)).astype(dtype),
        "b": lambda g: np.asarray(g.choice([0, -1, 3, lowest], 64)).astype(dtype),
    }
    nodes = [node("Div", "a b", "quotient"), node("Mod", "a b", "rest")]
    operators.agree(nodes, draws, oracle=wanted)


BASES = ("float32", "float64", "int32", "int64")


@pytest.mark.parametrize("base", BASES)
def test_powers_of_mixed_types(base: str) -> None:
    exponents = ("float32", "float64", "int32", "int64", "uint32", "uint64")
    nodes = [node("Pow", f"x {kind}", f"y_{kind}") for kind in exponents]
    nodes += [node("Pow", f"x {name}", f"y_{name}") for name in ("one", "two", "three", "four")]

    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        x = inputs["x"].astype("float64")
        powers = [x ** inputs[kind].astype("float64") for kind in exponents]
        return [p.astype(base) for p in (*powers, x, x**2, x**3, x**4)]

    draws = {kind: whole(0, 5, 3, 5, dtype=kind) for kind in exponents}
    draws["x"] = whole(1, 9, 3, 5, dtype=base)
    constants = {name: np.int64(i) for i, name in enumerate(("one", "two", "three", "four"), 1)}
    operators.agree(nodes, draws, constants, oracle=wanted)


def test_exponents_and_divisors_that_spread_along_the_last_axis() -> None:
    nodes = [node("Pow", "a b", "power"), node("Mod", "a c", "rest"), node("Mod", "f g", "float")]
    draws = {
        "a": whole(1, 9, 3, 1, 5, dtype="int32"),
        "b": whole(0, 5, 4, 1, dtype="int32"),
        "c": whole(-9, -1, 4, 1, dtype="int32"),
        "f": normal(4, 5, dtype="float16"),
        "g": normal(4, 1, dtype="float16"),
    }
    operators.agree(nodes, draws, opset=28)


def test_integer_powers_of_any_exponent() -> None:
    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        pairs = zip(inputs["x"].tolist(), inputs["e"].tolist(), strict=True)
        return [np.array([int(float(x) ** e) if x or e >= 0 else 0 for x, e in pairs], np.int64)]

    draws = {
        "x": lambda g: np.asarray(g.choice([-1, 1, 0], 200)),
        "e": lambda g: np.asarray(g.choice([-3, -2, 0, 1, 2, 62, 63, 64, 65, 1001], 200)),
    }
    operators.agree(node("Pow", "x e", "y"), draws, oracle=wanted)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_sums_and_extremes_of_several(count: int) -> None:
    shapes: list[tuple[int, ...]] = [(5,), (3, 1), (2, 1, 1), (1,)]
    names = " ".join("abcd"[:count])
    nodes = [node(operator, names, operator) for operator in ("Max", "Mean", "Min", "Sum")]
    draws = dict(zip("abcd"[:count], (normal(*shape) for shape in shapes), strict=False))
    operators.agree(nodes, draws, oracle=operators.onnxruntime)


@pytest.mark.parametrize("dtype", [*FLOATS, *SIGNED, *UNSIGNED])
def test_comparisons(dtype: str) -> None:
    names = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    nodes: list[onnx.NodeProto] = [node(operator, "a b", operator) for operator in names]
    operators.agree(nodes, {"a": any_of(dtype, 3, 1, 5), "b": any_of(dtype, 4, 1)})
