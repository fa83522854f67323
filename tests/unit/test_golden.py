from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgepack import golden, importers
from edgepack.artefacts import GoldenVectors, Infer, Tensors
from edgepack.errors import CompileError, ModelError
from edgepack.reference import _same_operators, reference
from tests import networks


def vectors_of(network: onnx.ModelProto, path: Path) -> GoldenVectors:
    networks.save(network, path)
    return golden.make_golden(importers.import_model(path, {}), 1e-4)


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory: pytest.TempPathFactory) -> GoldenVectors:
    path = tmp_path_factory.mktemp("golden") / "model.onnx"
    return vectors_of(networks.convolutional(), path)


def answers(vectors: GoldenVectors, shift: int = 0, factor: float = 1.0) -> Infer:
    """Gives the reference's own answer to vector i + shift, times ``factor``."""
    order = iter(range(len(vectors.inputs)))

    def infer(_: Tensors) -> Tensors:
        number = (next(order) + shift) % len(vectors.outputs)
        return {name: value * factor for name, value in vectors.outputs[number].items()}

    return infer


def test_the_right_answers_pass(convolutional: GoldenVectors) -> None:
    assert len(convolutional.inputs) == golden.VECTORS
    assert convolutional.distinct
    assert golden.compare(convolutional, answers(convolutional), "host") == 0.0


def test_an_error_above_the_tolerance_is_named_with_output_amount_and_tolerance(
    convolutional: GoldenVectors,
) -> None:
    with pytest.raises(CompileError, match=r"host: output 'y' .* error 0\.001, tolerance 0\.0001"):
        golden.compare(convolutional, answers(convolutional, factor=1.001), "host")


@pytest.mark.parametrize("shift", [1, 2])
def test_a_stale_answer_fails(convolutional: GoldenVectors, shift: int) -> None:
    with pytest.raises(CompileError):
        golden.compare(convolutional, answers(convolutional, shift=shift), "host")


def test_a_constant_answer_fails(convolutional: GoldenVectors) -> None:
    constant = convolutional.outputs[0]
    with pytest.raises(CompileError, match="vector 1"):
        golden.compare(convolutional, lambda _: constant, "host")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_not_finite_fails(convolutional: GoldenVectors, value: float) -> None:
    with pytest.raises(CompileError, match="error inf"):
        golden.compare(convolutional, answers(convolutional, factor=value), "host")


def test_answers_deep_in_the_saturation_of_a_function_are_left_out(tmp_path: Path) -> None:
    """ONNX Runtime's sigmoid of -12 is off by 0.4 percent, whether it optimises or not."""
    saturating = networks.model(
        [networks.node("Mul", "x steep", "m"), networks.node("Sigmoid", "m", "y")],
        {"x": [1]},
        {"y": [1]},
        {"steep": np.float32(12)},
    )
    vectors = vectors_of(saturating, tmp_path / "saturating.onnx")
    assert vectors.distinct
    for inputs, outputs in zip(vectors.inputs, vectors.outputs, strict=True):
        exact = 1 / (1 + np.exp(-12 * inputs["x"].astype(np.float64)))
        assert golden.relative_error(outputs["y"].astype(np.float64), exact) < 2.5e-5


def test_a_weak_dependence_on_the_input_tightens_the_tolerance(tmp_path: Path) -> None:
    faint = networks.model(
        [networks.node("Mul", "x small", "m"), networks.node("Add", "m one", "y")],
        {"x": [8]},
        {"y": [8]},
        {"small": np.float32(2e-5), "one": np.float32(1)},
    )
    vectors = vectors_of(faint, tmp_path / "faint.onnx")
    assert vectors.distinct
    assert 2e-6 <= vectors.tolerance < 1e-4
    with pytest.raises(CompileError):
        golden.compare(vectors, answers(vectors, shift=1), "host")


def test_a_model_without_any_dependence_is_warned_about(tmp_path: Path) -> None:
    constant = networks.model(
        [networks.node("Mul", "x zero", "y")], {"x": [8]}, {"y": [8]}, {"zero": np.float32(0)}
    )
    path = networks.save(constant, tmp_path / "constant.onnx")
    said: list[str] = []
    vectors = golden.make_golden(importers.import_model(path, {}), 1e-4, warn=said.append)
    assert not vectors.distinct
    assert len(said) == 1
    assert "do not depend on the inputs" in said[0]


def test_a_model_that_answers_only_nan_has_no_reference(tmp_path: Path) -> None:
    chain = "Abs x a;Add a one b;Neg b c;Sqrt c y"
    nodes = [
        networks.node(operator, " ".join(inputs), output)
        for operator, *inputs, output in (step.split() for step in chain.split(";"))
    ]
    network = networks.model(nodes, {"x": [8]}, {"y": [8]}, {"one": np.float32(1)})
    with pytest.raises(ModelError, match="NaN"):
        vectors_of(network, tmp_path / "nan.onnx")


def test_integers_must_be_equal() -> None:
    whole = np.array([1, 2, 3])
    assert golden.relative_error(whole, whole) == 0.0
    assert golden.relative_error(whole + 1, whole) == float("inf")


def test_integers_of_8_bits_may_stand_for_numbers_and_are_compared_by_their_steps() -> None:
    for dtype, low, high in ((np.int8, -128, 127), (np.uint8, 0, 255)):
        ends = np.array([low, high, low], dtype)
        assert golden.relative_error(ends, ends) == 0.0
        assert golden.relative_error(ends[::-1], ends) == 0.0
        assert golden.relative_error(ends, ends[[1, 1, 0]]) == 1.0
        assert golden.relative_error(np.array([low + 2, high, low], dtype), ends) == 2 / 255


def test_of_quantised_layers_the_reference_doubts_every_answer_as_much_as_the_worst(
    tmp_path: Path,
) -> None:
    path = networks.save(networks.quantised(6), tmp_path / "quantised.onnx")
    imported, said = importers.import_model(path, {}), list[str]()
    vectors = golden.make_golden(imported, 1e-4, warn=said.append)
    assert vectors.distinct
    step = 0.05 / max(float(np.abs(outputs["y"]).max()) for outputs in vectors.outputs)
    assert vectors.tolerance >= step
    assert "answers vary by" in said[0]
    integers, numbers = (reference(imported, optimise=value) for value in (True, False))
    for inputs, outputs in zip(vectors.inputs, vectors.outputs, strict=True):
        np.testing.assert_array_equal(integers(inputs)["y"], outputs["y"])
        assert golden.relative_error(numbers(inputs)["y"], outputs["y"]) <= vectors.tolerance


def test_a_device_is_held_to_twice_the_error_measured_here_where_doubt_widened_the_tolerance(
    convolutional: GoldenVectors,
) -> None:
    wide = replace(convolutional, tolerance=0.3)
    assert golden.tightened(wide, 0.0, 1e-4).tolerance == 1e-4
    assert golden.tightened(wide, 0.02, 1e-4).tolerance == 0.04
    assert golden.tightened(wide, 0.2, 1e-4).tolerance == 0.3
    narrow = replace(convolutional, tolerance=2e-5)
    assert golden.tightened(narrow, 1e-5, 1e-4).tolerance == 2e-5


def test_the_same_model_gives_the_same_vectors(tmp_path: Path) -> None:
    first = vectors_of(networks.integer_codes(), tmp_path / "a.onnx")
    second = vectors_of(networks.integer_codes(), tmp_path / "b.onnx")
    for one, other in zip(first.inputs, second.inputs, strict=True):
        np.testing.assert_array_equal(one["codes"], other["codes"])


@pytest.mark.parametrize("opset", [7, 13, 18, 22, onnx.defs.onnx_opset_version()])
def test_every_opset_and_the_newest_format_version_have_a_reference(
    tmp_path: Path, opset: int
) -> None:
    nodes = [networks.node("Conv", "x w", "c"), networks.node("Relu", "c", "y")]
    weights = {"w": np.random.default_rng(0).standard_normal((3, 2, 3, 3)).astype(np.float32)}
    network = networks.model(nodes, {"x": [1, 2, 8, 8]}, {"y": [1, 3, 6, 6]}, weights, opset=opset)
    network.ir_version = onnx.IR_VERSION
    vectors = vectors_of(network, tmp_path / "model.onnx")
    assert vectors.distinct
    assert all(np.isfinite(outputs["y"]).all() for outputs in vectors.outputs)


def test_a_model_newer_than_the_reference_is_not_taken_for_another_operators_older_meaning() -> (
    None
):
    network = networks.model([networks.node("Softmax", "x", "y")], {"x": [2, 3]}, {"y": [2, 3]})
    assert _same_operators(network.graph, 17, 13)
    assert not _same_operators(network.graph, 17, 12), "Softmax changed its default axis in 13"
