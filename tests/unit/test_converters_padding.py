from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import operators
from tests.operators import EVERY_TYPE, any_of, ints, node, normal

MODES = ("constant", "edge", "reflect", "wrap")


@pytest.mark.parametrize("dtype", EVERY_TYPE)
def test_every_mode_of_every_type(dtype: str) -> None:
    nodes = [node("Pad", "x widths", mode, mode=mode) for mode in MODES]
    nodes += [node("Pad", "x widths one", "ones"), node("Pad", "x widths v", "given")]
    constants = {"widths": ints(0, 1, 2, 1, 0, 3), "one": np.array(1, dtype)}
    draws = {"x": any_of(dtype, 3, 5, 7), "v": any_of(dtype)}
    operators.agree(nodes, draws, constants)


@pytest.mark.parametrize("mode", MODES)
def test_widths_below_zero_crop(mode: str) -> None:
    widths = [(-1, 0, 0, -1, -2, 0), (1, 0, -2, 0, 2, 0), (-1, 2, 0, 0, 0, -1), (0, 0, 0, 0, 0, 0)]
    nodes = [node("Pad", f"x w{i}", f"y{i}", mode=mode) for i in range(len(widths))]
    constants = {f"w{i}": ints(*values) for i, values in enumerate(widths)}

    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        return [padded(inputs["x"], values, mode) for values in widths]

    operators.agree(nodes, {"x": normal(4, 6, 5)}, constants, oracle=wanted)


def padded(data: np.ndarray, widths: tuple[int, ...], mode: str) -> np.ndarray:
    """Cropped first where a width is below zero."""
    pairs = list(zip(widths[:3], widths[3:], strict=True))
    cut = tuple(
        slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(pairs, data.shape, strict=True)
    )
    around = [(max(a, 0), max(b, 0)) for a, b in pairs]
    return np.pad(data[cut], around, mode=mode)  # type: ignore[call-overload,no-any-return]


def test_mirrors_and_repetitions_go_on_beyond_the_data() -> None:
    nodes = [node("Pad", "x far", mode, mode=mode) for mode in ("reflect", "wrap", "edge")]
    operators.agree(nodes, {"x": normal(4, 6, 3)}, {"far": ints(6, 7, 9, 6, 0, 8)})


def test_an_axis_of_one_element_is_repeated() -> None:
    nodes = [node("Pad", "x widths", mode, mode=mode) for mode in ("reflect", "wrap", "edge")]
    operators.agree(nodes, {"x": normal(1, 5)}, {"widths": ints(2, 0, 3, 0)})


def test_only_some_axes() -> None:
    nodes = [node("Pad", "x widths - axes", mode, mode=mode) for mode in MODES]
    nodes.append(node("Pad", "x widths value axes", "sevens"))
    constants = {"widths": ints(1, 0, 2, 3), "axes": ints(-1, 0), "value": np.float32(7)}
    operators.agree(nodes, {"x": normal(4, 6, 5)}, constants)


def test_widths_as_attributes_of_old_opsets() -> None:
    nodes = [
        node("Pad", "x", "y", pads=[1, 0, 0, 0, 2, 0], value=2.5),
        node("Pad", "x", "z", pads=[1, 0, 0, 0, 2, 0], mode="edge"),
    ]
    operators.agree(nodes, {"x": normal(4, 6, 5)}, opset=10, oracle=operators.onnxruntime)
