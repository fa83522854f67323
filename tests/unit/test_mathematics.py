from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import tirx

from edgepack.compiler.lower import llvm_target
from edgepack.compiler.schedules import mathematics
from edgepack.compiler.schedules.mathematics import inverse, trigonometry
from edgepack.targets import load_target

COUNT = 1 << 20
SMALLEST_NORMAL = 2.0**-126

# With and without fused multiply-adds.
HERE = [
    name for name in ("x86-64-v2", "x86-64-v3", "aarch64-generic") if load_target(name).runs_here()
]
VECTORS = {"x86-64-v2": 4, "x86-64-v3": 8, "x86-64-v4": 16, "raspberrypi4": 4, "armv7-neon": 4}

Function = Callable[[Any], Any]


def sigmoid(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x > 0, 1, small) / (1 + small))


def softplus(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def on_arm(function: Function) -> Function:
    """The arithmetic that ``function`` is where division is slow."""

    def there(x: Any) -> Any:
        with llvm_target(load_target("aarch64-generic")):
            return function(x)

    return there


REFERENCES: dict[str, tuple[Function, Function, float]] = {
    "exp": (mathematics.exp, np.exp, 2e-7),
    "sigmoid": (mathematics.sigmoid, sigmoid, 3e-7),
    "tanh": (mathematics.tanh, np.tanh, 4e-7),
    "erf": (mathematics.erf, np.vectorize(math.erf, otypes=[np.float64]), 4.5e-7),
    "sigmoid on ARM": (on_arm(mathematics.sigmoid), sigmoid, 3e-7),
    "tanh on ARM": (on_arm(mathematics.tanh), np.tanh, 5e-7),
    "erf on ARM": (on_arm(mathematics.erf), np.vectorize(math.erf, otypes=[np.float64]), 5.5e-7),
    "log": (mathematics.log, np.log, 3e-7),
    "softplus": (mathematics.softplus, softplus, 3e-7),
    "atan": (inverse.atan, np.arctan, 3e-7),
    "asin": (inverse.asin, np.arcsin, 3e-7),
    "rsqrt": (mathematics.rsqrt, lambda x: 1 / np.sqrt(x), 1.2e-7),
}

ANGLES: dict[str, tuple[Function, Function]] = {
    "sin": (trigonometry.sin, np.sin),
    "cos": (trigonometry.cos, np.cos),
    "tan": (trigonometry.tan, np.tan),
}
"""Functions whose errors are absolute."""
OTHERS: dict[str, tuple[Function, Function]] = {
    "acos": (inverse.acos, np.arccos),
    "nearbyint": (inverse.nearbyint, np.rint),
}
FURTHEST_ANGLE = 2.0**28

FUNCTIONS = {name: function for name, (function, *_) in (REFERENCES | ANGLES | OTHERS).items()}


def elementwise(function: Function, count: int, lanes: int) -> tirx.PrimFunc:
    """Y[i] = function(X[i]) in vectors of ``lanes``."""
    source = tirx.decl_buffer((count,), "float32", name="X")
    result = tirx.decl_buffer((count,), "float32", name="Y")
    i, lane = tirx.Var("i", "int32"), tirx.Var("lane", "int32")
    place = i * lanes + lane
    store = tirx.BufferStore(result, function(tirx.BufferLoad(source, [place])), [place])
    vector = tirx.For(lane, 0, lanes, tirx.ForKind.VECTORIZED, store)
    loop = tirx.For(i, 0, count // lanes, tirx.ForKind.SERIAL, vector)
    return tirx.PrimFunc([source, result], loop).with_attr("tirx.noalias", True)


def build(function: tirx.PrimFunc, target: str) -> Any:
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    with tvm.transform.PassContext(opt_level=3, config={"tirx.disable_assert": True}):
        return tirx.build(module, target=llvm_target(load_target(target)))


def computed(function: Function, x: np.ndarray, target: str, lanes: int = 8) -> np.ndarray:
    result = tvm.runtime.tensor(np.zeros_like(x))
    build(elementwise(function, len(x), lanes), target)["kernel"](tvm.runtime.tensor(x), result)
    return np.asarray(result.numpy())


def all_magnitudes() -> np.ndarray:
    """Floats of every exponent and both signs, evenly over their bits; all infinities and zeros."""
    bits = np.linspace(0, 2**32 - 1, COUNT - 2**18).astype(np.uint32)
    hot = np.linspace(-20, 20, 2**18 - 8).astype(np.float32)
    ends = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.5], np.float32)
    return np.concatenate([bits.view(np.float32), hot, ends])


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("name", REFERENCES)
def test_floats_of_every_magnitude_are_within_the_error_that_is_stated(
    name: str, target: str
) -> None:
    function, reference, bound = REFERENCES[name]
    x = all_magnitudes()
    with np.errstate(all="ignore"):
        wanted = reference(x.astype(np.float64))
        rounded = wanted.astype(np.float32)
    answer = computed(function, x, target)
    normal = np.isfinite(rounded) & (np.abs(rounded) >= SMALLEST_NORMAL)
    error = np.abs(answer[normal] / wanted[normal] - 1)
    assert error.max() <= bound, f"{error.max()} at {x[normal][error.argmax()]}"
    tiny = np.abs(rounded) < SMALLEST_NORMAL
    assert (np.abs(answer[tiny]) <= SMALLEST_NORMAL).all()
    special = ~normal & ~tiny
    np.testing.assert_array_equal(answer[special], rounded[special])


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_angles_are_within_the_error_that_is_stated(name: str, target: str) -> None:
    function, reference = ANGLES[name]
    x = all_magnitudes()
    x = x[np.abs(x) <= FURTHEST_ANGLE]
    turns = np.linspace(-40000, 40000, 1 << 17).round() * (np.pi / 2)  # where they are 0, 1 or -1
    x = np.concatenate([x[: len(x) & -8], turns.astype(np.float32)])
    assert np.abs(computed(function, x, target) - reference(x.astype(np.float64))).max() <= 1.5e-7


@pytest.mark.parametrize("target", HERE)
def test_the_tangent_is_near_that_of_libm_up_to_a_million(target: str) -> None:
    x = np.linspace(-1e6, 1e6, 1 << 20).astype(np.float32)
    np.testing.assert_allclose(
        computed(trigonometry.tan, x, target), np.tan(x.astype(np.float64)), rtol=4e-7
    )


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("name", ANGLES)
def test_angles_that_are_no_number_give_none_and_huge_ones_stay_bounded(
    name: str, target: str
) -> None:
    function, reference = ANGLES[name]
    x = np.array([np.inf, -np.inf, np.nan, np.nan, 3e38, -3e38, 0.0, -0.0], np.float32)
    answer = computed(function, x, target)
    assert np.isnan(answer[:4]).all()
    assert name == "tan" or (np.abs(answer[4:6]) <= 1).all()
    np.testing.assert_array_equal(answer[6:], reference(x[6:]))


@pytest.mark.parametrize("target", HERE)
def test_the_arccosine_is_within_the_error_that_is_stated(target: str) -> None:
    x = np.concatenate([np.linspace(-1, 1, 1 << 20), 1 - np.logspace(-7, -1, 1 << 12)])
    x = np.concatenate([x.astype(np.float32), np.array([0, -0.0, 0.5, -0.5, 1, -1, 0.25, 0.75])])
    x = x.astype(np.float32)
    answer, wanted = computed(inverse.acos, x, target), np.arccos(x.astype(np.float64))
    assert np.abs(answer - wanted).max() <= 4e-7
    positive = (x > 0) & (x < 1)
    np.testing.assert_allclose(answer[positive], wanted[positive], rtol=3e-7)
    outside = np.array([1.0000001, -1.0000001, 2, -3e38, np.inf, -np.inf, np.nan, 5], np.float32)
    assert np.isnan(computed(inverse.acos, outside, target)).all()


@pytest.mark.parametrize("target", HERE)
def test_rounding_is_exact(target: str) -> None:
    near = np.arange(-(1 << 18), 1 << 18, dtype=np.float32) / 4  # every half, and what is beside
    far = [2**22 + 0.5, 2**22 + 1.5, 2**23 - 0.5, 2**23 + 1, 2**24 + 2, -(2**23) + 0.5]
    ends = np.array(far, np.float32)
    beside = np.nextafter(near, np.float32(0))
    x = np.concatenate([all_magnitudes(), near, beside, ends, -ends])
    x = x[: len(x) & -8]
    answer = computed(inverse.nearbyint, x, target)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        wanted = np.rint(x)
    np.testing.assert_array_equal(answer, wanted)
    finite = np.isfinite(x)
    np.testing.assert_array_equal(np.signbit(answer[finite]), np.signbit(x[finite]))


@pytest.mark.parametrize("target", HERE)
def test_exp_keeps_the_first_and_the_last_normal_number(target: str) -> None:
    first, last = np.float32(-87.33654), np.float32(88.72283)
    beyond = np.nextafter(last, np.float32(np.inf))
    x = np.array([first, last, beyond, -90, -1e30, 1e30, 0, -0.0], np.float32)
    answer = computed(mathematics.exp, x, target)
    np.testing.assert_allclose(answer[:2], np.exp(x[:2].astype(np.float64)), rtol=3e-7)
    np.testing.assert_array_equal(answer[2:], np.array([np.inf, 0, 0, np.inf, 1, 1], np.float32))


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("name", ["tanh", "erf", "tanh on ARM", "erf on ARM", "sigmoid on ARM"])
def test_sigmoid_tanh_and_erf_never_exceed_one(name: str, target: str) -> None:
    first, last = (int(np.float32(end).view(np.uint32)) for end in (3.0, 18.0))
    x = np.arange(first, last, dtype=np.uint32).view(np.float32)
    x = np.concatenate([x, -x])
    assert np.abs(computed(FUNCTIONS[name], x[: len(x) & -8], target)).max() <= 1


@pytest.mark.parametrize("target", ["raspberrypi3", "raspberrypi4", "armv7-neon", "riscv64-vector"])
@pytest.mark.parametrize("function", [mathematics.sigmoid, mathematics.tanh, mathematics.erf])
def test_where_division_is_slow_there_is_none(function: Function, target: str) -> None:
    with llvm_target(load_target(target)):
        kernel = elementwise(function, 4096, 4)
    assert " / " not in kernel.script()
    assert " / " in elementwise(function, 4096, 4).script()


@pytest.mark.parametrize(
    ("name", "target"),
    [
        (name, target)
        for name in FUNCTIONS
        for target in VECTORS
        if not (target == "armv7-neon" and name in ANGLES)  # NEON there has no float64
    ],
)
def test_the_code_is_vector_code_without_calls(name: str, target: str) -> None:
    lanes = VECTORS[target]
    code = build(elementwise(FUNCTIONS[name], 4096, lanes), target).inspect_source("asm")
    assert not re.search(
        r"\b(exp|log|a?sin|a?cos|a?tanh?|erf|sqrt|pow|floor|rint|round)f?\b(?!\.)", code
    )
    scalar = r"\bv?(add|sub|mul|div|min|max|sqrt)ss\b|\bf(add|sub|mul|madd|div|sqrt|max|min)\s+s\d"
    assert not re.search(scalar, code)
    if not (target == "armv7-neon" and name == "rsqrt"):  # NEON there has neither root nor quotient
        assert re.search(r"\bv?(mul|add)ps\b|\bv?divps\b|\bvfmadd\w+ps\b|\.4s\b|\bq\d+\b", code)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_vector_expression_stays_one(name: str) -> None:
    x = tirx.Var("x", "float32x16")
    assert str(FUNCTIONS[name](x).ty.dtype) == "float32x16"


@pytest.mark.parametrize("dtype", ["float16", "float64", "float64x4"])
def test_other_element_types_are_left_alone(dtype: str) -> None:
    x = tirx.Var("x", dtype)
    for name, function in mathematics.REPLACEMENTS.items():
        assert (function(x, x) if name == "tirx.pow" else function(x)) is None


def test_replacements_are_found_by_the_name_of_the_operator_of_a_call() -> None:
    x = tirx.Var("x", "float32")
    calls = [tirx.exp(x), tirx.sigmoid(x), tirx.tanh(x), tirx.erf(x), tirx.log(x), tirx.rsqrt(x)]
    calls += [tirx.sin(x), tirx.cos(x), tirx.tan(x), tirx.pow(x, x)]
    calls += [tirx.asin(x), tirx.acos(x), tirx.atan(x), tirx.nearbyint(x)]
    assert {call.op.name for call in calls} == set(mathematics.REPLACEMENTS)


def nested(depth: int) -> Function:
    """Mish's tanh(softplus(x)), again and again."""

    def apply(x: Any) -> Any:
        for _ in range(depth):
            soft = mathematics.softplus(x)
            x = None if soft is None else mathematics.tanh(soft)
            if x is None:
                return None
        return x

    return apply


def test_functions_of_functions_compile_and_compute() -> None:
    x = np.linspace(-4, 4, 64).astype(np.float32)
    answer = computed(nested(1), x, HERE[0])
    np.testing.assert_allclose(answer, np.tanh(softplus(x.astype(np.float64))), rtol=1e-6)


def test_functions_nested_too_deep_to_compile_are_left_alone() -> None:
    assert nested(8)(tirx.Var("x", "float32")) is None


def test_an_unrolled_loop_may_repeat_them() -> None:
    source = tirx.decl_buffer((64,), "float32", name="X")
    result = tirx.decl_buffer((64,), "float32", name="Y")
    i, lane = tirx.Var("i", "int32"), tirx.Var("lane", "int32")
    loaded = tirx.BufferLoad(source, [i * 8 + lane])
    store = tirx.BufferStore(result, mathematics.log(mathematics.exp(loaded)), [i * 8 + lane])
    vector = tirx.For(lane, 0, 8, tirx.ForKind.VECTORIZED, store)
    loop = tirx.For(i, 0, 8, tirx.ForKind.UNROLLED, vector)
    x = np.linspace(1, 30, 64).astype(np.float32)
    y = tvm.runtime.tensor(np.zeros_like(x))
    build(tirx.PrimFunc([source, result], loop), HERE[0])["kernel"](tvm.runtime.tensor(x), y)
    np.testing.assert_allclose(y.numpy(), x, rtol=1e-6)


@pytest.mark.parametrize("exponent", [-4, -3, -2, -1, -0.5, 0.5, 1, 2, 3, 4])
def test_a_root_and_small_whole_powers_are_products(exponent: float) -> None:
    x = np.linspace(0.1, 9, 512).astype(np.float32)
    x = x if exponent % 1 else np.concatenate([-x, x])

    def power(x: Any) -> Any:
        return mathematics.power(x, tirx.const(exponent, "float32"))

    answer = computed(power, x, HERE[0])
    np.testing.assert_allclose(answer, np.power(x.astype(np.float64), exponent), rtol=5e-7)


def test_a_power_needs_a_base_that_is_positive_by_its_form() -> None:
    three = tirx.const(3.3, "float32")

    def clamped(x: Any) -> Any:
        return mathematics.power(tirx.max(x, tirx.const(1e-6, "float32")), three)

    def squares(x: Any) -> Any:
        return mathematics.power(tirx.const(1.0, "float32") + x * x, three)

    x = np.linspace(-8, 8, 512).astype(np.float32)
    exact = x.astype(np.float64)
    with np.errstate(under="ignore"):
        np.testing.assert_allclose(
            computed(clamped, x, HERE[0]), np.maximum(exact, 1e-6) ** 3.3, rtol=2e-5
        )
    np.testing.assert_allclose(computed(squares, x, HERE[0]), (1 + exact**2) ** 3.3, rtol=6e-6)
    x = tirx.Var("x", "float32")
    for base in (x, x + three, x * x, tirx.max(x, tirx.const(0.0, "float32"))):
        assert mathematics.power(base, tirx.const(5.0, "float32")) is None
        assert mathematics.power(base, x) is None


@pytest.mark.parametrize("exponent", [1.3, 3.3, -0.7])
def test_a_fixed_exponent_that_is_no_integer_takes_any_base(exponent: float) -> None:
    def power(x: Any) -> Any:
        return mathematics.power(x, tirx.const(exponent, "float32"))

    x = np.concatenate([np.linspace(0.01, 9, 496), [0, np.inf, -1, -0.5, 1e-30, 1e30, np.nan, -7]])
    x = np.concatenate([x, np.linspace(1, 40, 8)]).astype(np.float32)
    with np.errstate(all="ignore"):
        wanted = np.power(x.astype(np.float64), np.float64(np.float32(exponent)))
        wanted = wanted.astype(np.float32)
    answer = computed(power, x, HERE[0])
    np.testing.assert_allclose(answer, wanted, rtol=1e-4, atol=1e-38)
