from __future__ import annotations

import pytest

from tests import operators
from tests.operators import FLOATS, node, normal

NAMES = ("LogSoftmax", "Softmax")


@pytest.mark.parametrize("dtype", FLOATS)
def test_each_axis(dtype: str) -> None:
    nodes = [
        node(name, "x", f"{name}{axis + 3}", axis=axis) for name in NAMES for axis in range(-3, 3)
    ]
    operators.agree(nodes, {"x": normal(3, 4, 5, dtype=dtype)})


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 1, 5), (3, 5, 1, 1), (6,), (1, 1)], ids=str)
def test_all_axes_from_one_in_old_opsets(shape: tuple[int, ...]) -> None:
    nodes = [
        node(name, "x", f"{name}{axis}", axis=axis) for name in NAMES for axis in range(len(shape))
    ]
    operators.agree(
        nodes,
        {"x": normal(*shape)},
        opset=11,
        oracle=operators.onnxruntime,
        varies=shape != (1, 1),
    )
