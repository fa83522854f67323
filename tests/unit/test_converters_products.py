from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import operators
from tests.operators import FLOATS, any_of, node, normal

NUMBERS = (*FLOATS, "int32", "int64", "uint32", "uint64")
SHAPES = [
    ((3, 4), (4, 5)),
    ((4,), (4,)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((2, 3, 4), (4,)),
    ((4,), (2, 4, 3)),
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize("dtype", NUMBERS)
def test_matrices_vectors_and_batches(dtype: str) -> None:
    nodes = [node("MatMul", f"a{i} b{i}", f"y{i}") for i in range(len(SHAPES))]
    nodes += [node("MatMul", f"a{i} c{i}", f"z{i}") for i in range(len(SHAPES))]
    draws = {f"a{i}": any_of(dtype, *left) for i, (left, _) in enumerate(SHAPES)}
    draws |= {f"b{i}": any_of(dtype, *right) for i, (_, right) in enumerate(SHAPES)}
    generator = np.random.default_rng(0)
    constants = {f"c{i}": any_of(dtype, *right)(generator) for i, (_, right) in enumerate(SHAPES)}
    operators.agree(nodes, draws, constants)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_sums_of_a_product_and_an_offset(dtype: str) -> None:
    """The offset may be absent, and spread in every way."""
    nodes = [
        node(
            "Gemm",
            f"{'at' if a else 'a'} {'bt' if b else 'b'} {offset}",
            f"y{a}{b}{offset}",
            transA=a,
            transB=b,
        )
        for a in (0, 1)
        for b in (0, 1)
        for offset in ("", "number", "row", "column", "whole")
    ]
    draws = {
        "a": any_of(dtype, 3, 4),
        "at": any_of(dtype, 4, 3),
        "b": any_of(dtype, 4, 5),
        "number": any_of(dtype),
        "row": any_of(dtype, 5),
        "column": any_of(dtype, 3, 1),
        "whole": any_of(dtype, 3, 5),
    }
    constants = {"bt": any_of(dtype, 5, 4)(np.random.default_rng(0))}
    operators.agree(nodes, draws, constants)


@pytest.mark.parametrize("dtype", FLOATS)
def test_factors(dtype: str) -> None:
    nodes = [
        node("Gemm", "a b c", "y", alpha=0.5, beta=2.0),
        node("Gemm", "a b c", "z", beta=0.0),
        node("Gemm", "a b", "w", alpha=-1.5),
    ]
    draws = {
        "a": any_of(dtype, 3, 4),
        "b": any_of(dtype, 4, 5),
        "c": any_of(dtype, 5),
    }
    operators.agree(nodes, draws)


def test_a_long_sum_of_half_precision() -> None:
    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        return [(inputs["a"].astype("f8") @ inputs["b"].astype("f8")).astype("f2")]

    draws = {
        "a": normal(3, 2000, dtype="float16", positive=True),
        "b": normal(2000, 2, dtype="float16", positive=True),
    }
    operators.agree(node("MatMul", "a b", "y"), draws, oracle=wanted, tolerance=1e-3)


EQUATIONS: dict[str, list[tuple[int, ...]]] = {
    "ij,jk->ik": [(3, 4), (4, 5)],
    "ij->ji": [(3, 4)],
    "ii->i": [(4, 4)],
    "ii": [(4, 4)],
    "ij->": [(3, 4)],
    "i,i->": [(4,), (4,)],
    "i,j->ij": [(4,), (3,)],
    "bij,bjk": [(2, 3, 4), (2, 4, 5)],
    "...ij,...jk->...ik": [(5, 3, 4), (5, 4, 6)],
    "...ij,jk->...ik": [(2, 3, 4), (4, 6)],
    "bhqd,bhkd->bhqk": [(2, 3, 4, 5), (2, 3, 6, 5)],
    "bhqk,bkhd->bqhd": [(2, 3, 4, 6), (2, 6, 3, 5)],
    "ab,bc,cd->ad": [(2, 3), (3, 4), (4, 5)],
    "ijk,jil->kl": [(2, 3, 4), (3, 2, 5)],
    "...ii->...i": [(3, 4, 4)],
    "ij,ij->j": [(3, 4), (3, 4)],
    "bhwc,hkc->bhwk": [(2, 3, 4, 5), (3, 6, 5)],
    "i...->...": [(3, 4)],
    "ij,kj->ik": [(3, 4), (1, 4)],
    "iij->j": [(3, 3, 4)],
    " i j , j k ": [(3, 4), (4, 5)],
    "i,->i": [(3,), ()],
    "nlhd,nlhe->nhde": [(2, 7, 3, 4), (2, 7, 3, 5)],
}


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_sums_of_products_by_labels(dtype: str) -> None:
    nodes: list[Any] = []
    draws: dict[str, operators.Draw] = {}
    for number, (equation, shapes) in enumerate(EQUATIONS.items()):
        names = [f"x{number}_{i}" for i in range(len(shapes))]
        draws |= {n: any_of(dtype, *shape) for n, shape in zip(names, shapes, strict=True)}
        nodes.append(node("Einsum", " ".join(names), f"y{number}", equation=equation))

    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        values = iter(inputs.values())
        return [
            np.asarray(np.einsum(equation, *(next(values) for _ in shapes)))
            for equation, shapes in EQUATIONS.items()
        ]

    operators.agree(nodes, draws, oracle=wanted)


def test_matrix_products_by_labels_are_matrix_products() -> None:
    draws = {"x": normal(2, 3, 16, 8), "y": normal(2, 3, 32, 8)}
    compiled = operators.agree(node("Einsum", "x y", "z", equation="bhqd,bhkd->bhqk"), draws)
    assert "matmul" in compiled.rules_called


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (2, 5, 5), (2, 3, 1, 1), (1, 20, 20)], ids=str)
def test_determinants(shape: tuple[int, ...]) -> None:
    operators.agree(node("Det", "x", "y"), {"x": normal(*shape)}, opset=11, generic=True)
    draws = {"x": normal(*shape, dtype="float64")}
    operators.agree(node("Det", "x", "y"), draws, opset=22, generic=True)


def test_determinants_of_matrices_without_an_inverse_and_with_zeros() -> None:
    def draw(generator: np.random.Generator) -> np.ndarray:
        values = generator.integers(-3, 4, (6, 3, 3)).astype(np.float32)
        values[0, 1] = values[0, 0] * 2
        values[1] = 0
        values[2, 0, 0] = 0
        return values

    operators.agree(node("Det", "x", "y"), {"x": draw}, opset=11, generic=True)
