"""Preprocessing inside the model: what the application hands over gives what the model alone gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgepack.errors import ConfigError, ModelError
from edgepack.importers import ImportOptions, import_model
from edgepack.importers.preprocessing import Normalization, Preprocessing, prepend, through
from tests import networks

MEAN, STD = (124.0, 116.0, 104.0), (58.0, 57.0, 56.0)


def run(model: onnx.ModelProto | bytes, **inputs: np.ndarray) -> list[np.ndarray]:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, inputs)]


def imported(
    path: Path, preprocessing: Preprocessing, **shapes: tuple[int, ...]
) -> onnx.ModelProto:
    found = import_model(path, shapes, options=ImportOptions(preprocessing=preprocessing))
    assert found.reference is not None
    return found.model


def camera(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def test_a_cameras_bytes_give_what_the_prepared_image_gives(tmp_path: Path) -> None:
    network = networks.convolutional()
    path = networks.save(network, tmp_path / "m.onnx")
    model = imported(
        path,
        Preprocessing(
            layouts={"": "nhwc"}, normalizations={"": Normalization(mean=MEAN, std=STD)}, uint8=True
        ),
    )
    answers = []
    for seed in range(2):
        image = camera((1, 17, 23, 3), seed)
        prepared = (image.astype(np.float32) - np.array(MEAN, np.float32)) / np.array(
            STD, np.float32
        )
        (right,) = run(network, x=prepared.transpose(0, 3, 1, 2))
        (answer,) = run(model, x=image)
        assert np.abs(answer - right).max() <= 1e-5 * np.abs(right).max()
        answers.append(answer)
    assert np.abs(answers[0] - answers[1]).max() > 1e-2 * np.abs(answers[0]).max()


def test_the_layout_that_the_model_has_already_changes_nothing(tmp_path: Path) -> None:
    path = networks.save(networks.convolutional(), tmp_path / "m.onnx")
    model = imported(path, Preprocessing(layouts={"x": "nchw"}, uint8=True))
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [
        1,
        3,
        17,
        23,
    ]
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8


def test_shapes_are_given_as_the_application_has_them(tmp_path: Path) -> None:
    network = networks.model(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        {"x": ["n", 3, "h", "w"]},
        {"y": ["n", 2, "a", "b"]},
        {"w": np.ones((2, 3, 3, 3), np.float32)},
    )
    path = networks.save(network, tmp_path / "m.onnx")
    model = imported(path, Preprocessing(layouts={"": "nhwc"}), x=(1, 8, 9, 3))
    assert run(model, x=np.ones((1, 8, 9, 3), np.float32))[0].shape == (1, 2, 6, 7)


def plain(shape: list[int | str], op: str = "Relu") -> onnx.ModelProto:
    return networks.model([helper.make_node(op, ["x"], ["y"])], {"x": shape}, {"y": shape})


@pytest.mark.parametrize(
    ("shape", "own"), [([1, 3, 8, 8], "nchw"), ([1, 8, 8, 3], "nhwc"), ([1, 8, 4, 1], "nhwc")]
)
def test_the_models_own_layout_is_told_by_where_the_channels_are(
    shape: list[int | str], own: str
) -> None:
    other = "nhwc" if own == "nchw" else "nchw"
    model = plain(shape)
    (step,) = prepend(model, Preprocessing(layouts={"": other}), "")
    assert (step.own_layout, step.given_layout) == (own, other)
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [shape[i] for i in ((0, 2, 3, 1) if own == "nchw" else (0, 3, 1, 2))]


def test_a_layout_that_cannot_be_told_is_an_error() -> None:
    with pytest.raises(ModelError, match="layout of input 'x' cannot be told"):
        prepend(plain([1, 3, 8, 3]), Preprocessing(layouts={"": "nhwc"}), "")
    assert prepend(plain([1, 3, 8, 3]), Preprocessing(layouts={"": "nhwc"}), "nchw")


def test_a_sensors_readings_are_normalised_without_being_an_image() -> None:
    model = plain([4, 6])
    preprocessing = Preprocessing(normalizations={"": Normalization(mean=(2.0,), std=(4.0,))})
    (step,) = prepend(model, preprocessing, "")
    readings = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32) * 9
    (answer,) = run(model, x=readings)
    assert np.allclose(answer, np.maximum((readings - 2) / 4, 0))
    (same,) = run(plain([4, 6]), x=through([step], lambda inputs: inputs)({"x": readings})["x"])
    assert np.array_equal(answer, same)


def test_options_that_fit_no_input_are_refused() -> None:
    with pytest.raises(ConfigError, match="no input 'image' to preprocess"):
        prepend(plain([1, 3, 8, 8]), Preprocessing(layouts={"image": "nhwc"}), "")
    with pytest.raises(ModelError, match="takes no image"):
        prepend(plain([4, 6]), Preprocessing(uint8=True), "")
    with pytest.raises(ConfigError, match="'x' is no image"):
        prepend(plain([4, 6]), Preprocessing(layouts={"x": "nhwc"}), "")


def test_without_options_the_model_stays_as_it_is() -> None:
    model = plain([1, 3, 8, 8])
    before = model.SerializeToString()
    assert prepend(model, Preprocessing(), "") == []
    assert model.SerializeToString() == before
