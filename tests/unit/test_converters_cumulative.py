from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import operators
from tests.operators import FLOATS, ints, node, normal, whole

FORMS = [{"exclusive": exclusive, "reverse": reverse} for exclusive in (0, 1) for reverse in (0, 1)]


def scans(axis: str) -> list[Any]:
    return [
        node(operator, f"x {axis}", f"{operator}_{axis}{i}", **form)
        for operator in ("CumSum", "CumProd")
        for i, form in enumerate(FORMS)
    ]


@pytest.mark.parametrize("dtype", [*FLOATS, "int32", "int64", "uint32", "uint64"])
def test_types(dtype: str) -> None:
    draws = {"x": whole(1, 4, 3, 5, 2, dtype=dtype)}
    operators.agree(scans("axis"), draws, {"axis": np.int64(1)}, opset=26, generic=True)


@pytest.mark.parametrize("shape", [(9,), (4, 3), (2, 3, 5, 7)], ids=str)
def test_every_axis(shape: tuple[int, ...]) -> None:
    axes = {f"a{axis + 5}": np.array(axis, np.int32) for axis in range(-1, len(shape))}
    nodes = [scan for axis in axes for scan in scans(axis)]
    operators.agree(nodes, {"x": normal(*shape)}, axes, opset=26, generic=True)


def test_an_axis_of_one_element() -> None:
    draws = {"x": normal(3, 1, 2)}
    operators.agree(scans("axis"), draws, {"axis": ints(1).reshape(())}, opset=26)


def test_a_long_sum_of_half_precision_keeps_small_terms() -> None:
    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        return [np.cumsum(inputs["x"].astype("f8"), axis=0).astype("f2")]

    draws = {"x": lambda g: np.asarray(g.uniform(0.5, 1, 4000)).astype(np.float16)}
    scan = node("CumSum", "x axis", "y")
    operators.agree(scan, draws, {"axis": np.int64(0)}, oracle=wanted, generic=True)
