from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto
from tvm import tirx

from edgepack.targets import load_target
from tests import kernels, networks
from tests.kernels import integers, weights
from tests.networks import node


def matrices(*shapes: tuple[int, int], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    names = [f"x{number}" for number in range(len(shapes))]
    return networks.model(
        [node("Transpose", name, f"{name}_y", perm=[1, 0]) for name in names],
        dict(zip(names, map(list, shapes), strict=True)),
        {f"{name}_y": list(shape[::-1]) for name, shape in zip(names, shapes, strict=True)},
        types=dict.fromkeys([*names, *(f"{name}_y" for name in names)], kind),
    )


def shuffles(network: onnx.ModelProto, profile: str) -> int:
    """How many shuffles the network's kernels have as they were written."""
    _, module = kernels.lowered(network, load_target(profile))
    functions = [f for f in module.functions.values() if isinstance(f, tirx.PrimFunc)]
    return "\n".join(function.script() for function in functions).count("Shuffle(")


@pytest.mark.parametrize("profile", kernels.PROFILES)
def test_matrices_of_any_size(profile: str) -> None:
    small = [(4, 4), (5, 4), (4, 5), (7, 6), (8, 17), (9, 12), (3, 37), (37, 3)]
    large = [(16, 16), (17, 31), (33, 47), (64, 50), (130, 36), (65, 66), (19, 97), (96, 49)]
    for kind in (TensorProto.FLOAT, TensorProto.INT32):
        kernels.check(matrices(*small, *large, kind=kind), profile, rule="elementwise")


@pytest.mark.parametrize("profile", kernels.PROFILES)
def test_images_and_heads(profile: str) -> None:
    nodes = [
        node("Transpose", "image", "last", perm=[0, 2, 3, 1]),
        node("Transpose", "image", "outer", perm=[3, 1, 0, 2]),
        node("Reshape", "tokens split", "r"),
        node("Transpose", "r", "heads", perm=[0, 2, 1, 3]),
        node("Transpose", "r", "keys", perm=[0, 2, 3, 1]),
        node("Slice", "r from to axis", "s"),
        node("Transpose", "s", "some", perm=[0, 2, 3, 1]),
        node("Concat", "r s", "c", axis=1),
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
        node("Reshape", "t flat", "all"),
    ]
    network = networks.model(
        nodes,
        {"image": [2, 21, 13, 18], "tokens": [2, 23, 60]},
        {
            "last": [2, 13, 18, 21],
            "outer": [18, 21, 2, 13],
            "heads": [2, 3, 23, 20],
            "keys": [2, 3, 20, 23],
            "some": [2, 3, 20, 9],
            "all": [2, 60, 32],
        },
        {
            "split": integers(2, 23, 3, 20),
            "from": integers(4),
            "to": integers(13),
            "axis": integers(1),
            "flat": integers(2, 60, 32),
        },
    )
    kernels.check(network, profile, rule="elementwise")


@pytest.mark.parametrize("profile", kernels.PROFILES)
def test_what_is_computed_on_the_way(profile: str) -> None:
    nodes = [
        node("Add", "x row", "a"),
        node("Relu", "a", "b"),
        node("Transpose", "b", "c", perm=[1, 0]),
        node("Mul", "c row2", "d"),
        node("Transpose", "x", "e", perm=[1, 0]),
        node("Add", "e other", "f"),
        node("Transpose", "x", "g", perm=[1, 0]),
        node("Tanh", "g", "h"),
    ]
    network = networks.model(
        nodes,
        {"x": [37, 53], "other": [53, 37]},
        {"d": [53, 37], "f": [53, 37], "h": [53, 37]},
        {"row": weights(53), "row2": weights(37)},
    )
    kernels.check(network, profile, rule="elementwise")


@pytest.mark.parametrize("profile", kernels.PROFILES)
def test_rows_of_two_and_three_elements(profile: str) -> None:
    nodes = [
        node("Transpose", "image", "last", perm=[0, 2, 3, 1]),
        node("Transpose", "last", "again", perm=[0, 3, 1, 2]),
        node("Sub", "last mean", "centred"),
        node("Reshape", "signal split", "r"),
        node("Transpose", "r", "t", perm=[0, 2, 1, 3]),
        node("Reshape", "t flat", "mixed"),
        node("Transpose", "pairs", "p", perm=[1, 0]),
        node("Tanh", "p", "tanh"),
        node("Slice", "wide one three axis", "s"),
        node("Transpose", "s", "some", perm=[1, 0]),
    ]
    network = networks.model(
        nodes,
        {"image": [2, 3, 17, 19], "signal": [3, 58, 1], "pairs": [2, 37], "wide": [41, 5]},
        {
            "last": [2, 17, 19, 3],
            "again": [2, 3, 17, 19],
            "centred": [2, 17, 19, 3],
            "mixed": [3, 58],
            "tanh": [37, 2],
            "some": [2, 41],
        },
        {
            "mean": weights(3),
            "split": integers(3, 2, 29, 1),
            "flat": integers(3, 58),
            "one": integers(1),
            "three": integers(3),
            "axis": integers(1),
        },
    )
    kernels.check(network, profile, rule="elementwise")
    checked, _ = kernels.check(matrices((3, 4099), (4099, 3), (2, 5000), (5000, 2)), profile)
    kernels.check_threads(checked, 3)


@pytest.mark.parametrize("profile", kernels.PROFILES)
def test_tiles_are_transposed_by_shuffles(profile: str) -> None:
    assert shuffles(matrices((48, 64)), profile) >= 12
    assert shuffles(matrices((48, 3)), profile) == 3
    assert shuffles(matrices((2, 48)), profile) == 2


def test_other_types_and_cores_without_shuffles_gather() -> None:
    assert shuffles(matrices((48, 64), kind=TensorProto.INT8), kernels.PROFILES[-1]) == 0
    assert shuffles(matrices((48, 64)), "riscv64-generic") == 0
    assert shuffles(matrices((48, 64)), "riscv64-vector") == 0


@pytest.mark.parametrize("shape", [(12544, 24), (24, 12544), (301, 499)], ids=str)
def test_threads_share_transpositions(shape: tuple[int, int]) -> None:
    checked, _ = kernels.check(matrices(shape), kernels.PROFILES[-1])
    kernels.check_threads(checked, 2, 3)
