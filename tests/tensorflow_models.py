"""Keras networks with random weights that answer to their inputs, and what an import must hold to."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import onnxruntime
from keras import layers

from edgepack.artefacts import ImportedModel, Tensors, TensorSpec


def mobile(size: int = 32) -> keras.Model:
    """Inverted residuals with depthwise convolutions, ReLU6 and batch norms of real statistics."""
    keras.utils.set_random_seed(3)
    image = keras.Input((size, size, 3), name="image")
    x = _normalised(layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(image))
    for channels, strides in ((8, 1), (12, 2), (12, 1)):
        y = _normalised(layers.Conv2D(3 * x.shape[-1], 1, use_bias=False)(x))
        y = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(y)
        y = layers.Conv2D(channels, 1, use_bias=False)(_normalised(y))
        y = layers.BatchNormalization(momentum=0.0)(y)
        x = layers.Add()([x, y]) if x.shape == y.shape else y
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, layers.Dense(5, activation="softmax", name="classes")(x))
    # With a momentum of 0 one step of training sets the statistics to those of its batch.
    model(images(64, size), training=True)
    return model


def images(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Coloured blocks with noise, float32 [count, size, size, 3]."""
    source = np.random.default_rng(seed)
    blocks = source.normal(size=(count, size // 8, size // 8, 3)).repeat(8, 1).repeat(8, 2)
    return (blocks + 0.3 * source.normal(size=blocks.shape)).astype(np.float32)


def grouped() -> keras.Model:
    """Convolutions in groups, as of ConvNeXt and RegNet: Keras has XLA compile them on a CPU."""
    keras.utils.set_random_seed(9)
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(12, 5, strides=4, activation="relu")(image)
    x = layers.Conv2D(12, 3, padding="same", groups=4, activation="gelu")(x)
    x = layers.Conv2D(12, 3, padding="same", groups=12)(x)
    return keras.Model(image, layers.Dense(5, name="scores")(layers.Flatten()(x)))


def recurrent(*cells: layers.Layer) -> keras.Model:
    """Recurrent layers one after the other; the input is ``sequence``, [batch, steps, 4]."""
    keras.utils.set_random_seed(5)
    x = sequence = keras.Input((None, 4), name="sequence")
    for cell in cells:
        x = cell(x)
    return keras.Model(sequence, layers.Dense(3, name="scores")(x))


def branching() -> keras.Model:
    """Two inputs, ``left`` [batch, 4] and ``right`` [batch, steps, 4]; outputs by key."""
    keras.utils.set_random_seed(7)
    left, right = keras.Input((4,), name="left"), keras.Input((None, 4), name="right")
    pooled = layers.GlobalMaxPooling1D()(layers.Conv1D(6, 3, padding="causal")(right))
    both = layers.Concatenate()([layers.Dense(6, activation="swish")(left), pooled])
    outputs = {"sum": layers.Dense(2)(both), "gate": layers.Dense(3, activation="sigmoid")(both)}
    return keras.Model({"left": left, "right": right}, outputs)


def _normalised(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.0)(x))


def agree(
    imported: ImportedModel,
    *,
    tolerance: float = 1e-4,
    inputs: Callable[[TensorSpec, int], np.ndarray] | None = None,
) -> None:
    """Hold that ONNX Runtime answers as the original framework does, on several inputs.

    Their answers must differ from one another by far more than the tolerance.
    """
    answers: list[Tensors] = []
    for seed in range(3):
        feed = {spec.name: (inputs or noise)(spec, seed) for spec in imported.inputs}
        assert imported.original is not None
        original, converted = imported.original(feed), run(imported.model.SerializeToString(), feed)
        for spec in imported.outputs:
            right, value = original[spec.name], converted[spec.name]
            assert right.shape == value.shape == spec.shape
            assert right.dtype == value.dtype == spec.dtype
            assert distance(value, right) <= tolerance, f"{spec.name}: {distance(value, right):.3g}"
            for other in answers:
                assert distance(other[spec.name], right) > 10 * tolerance
        assert list(original) == [spec.name for spec in imported.outputs]
        answers.append(original)


def run(model: bytes, feed: Tensors) -> Tensors:
    """ONNX Runtime's answer, by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry(
        "session.disable_quant_qdq", "1"
    )  # bytes saturate without VNNI
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, map(np.asarray, session.run(names, feed)), strict=True))


def distance(value: np.ndarray, right: np.ndarray) -> float:
    """``max|y - ref| / max|ref|``."""
    difference = np.abs(value.astype(np.float64) - right.astype(np.float64)).max()
    return float(difference / np.abs(right.astype(np.float64)).max())


def noise(spec: TensorSpec, seed: int) -> np.ndarray:
    """Normal floating-point numbers, integers over the whole range of 8 bits or up to 9."""
    source = np.random.default_rng(seed)
    if spec.dtype.startswith("float"):
        return source.standard_normal(spec.shape).astype(spec.dtype)
    limits = np.iinfo(spec.dtype) if spec.dtype in ("int8", "uint8") else None
    low, high = (limits.min, limits.max + 1) if limits else (0, 10)
    return source.integers(low, high, spec.shape).astype(spec.dtype)
