"""A model of every format through the command line: compiled, held to its framework, and run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Edgepack

_TORCH = """
import torch

torch.manual_seed(0)
net = torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU6(),
    torch.nn.Conv2d(8, 8, 3, padding=1, groups=8), torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(), torch.nn.Linear(8, 5),
)
example = torch.randn(4, 3, 16, 16)
net.train()
for _ in range(20):
    net(torch.randn(8, 3, 16, 16) * 2)
net.eval()
if path.endswith(".pt2"):
    torch.export.save(torch.export.export(net, (example,)), path)
else:
    torch.jit.save(torch.jit.trace(net, example), path)
"""
_KERAS = """
import keras, tensorflow as tf

keras.utils.set_random_seed(0)
net = keras.Sequential([
    keras.Input((16, 16, 3), name="image"),
    keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
    keras.layers.DepthwiseConv2D(3, padding="same"), keras.layers.BatchNormalization(),
    keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5, activation="softmax"),
])
net.compile("sgd", "mse")
if path.endswith(".keras"):
    net.save(path)
elif path.endswith(".tflite"):
    content = tf.lite.TFLiteConverter.from_keras_model(net).convert()
    open(path, "wb").write(content)
else:
    net.export(path, verbose=False)
"""
_SKLEARN = """
import skops.io, sklearn.datasets, sklearn.ensemble, sklearn.linear_model

X, y = sklearn.datasets.load_iris(return_X_y=True)
X = X.astype("float32")
name = path.rsplit("/", 1)[1].split(".")[0]
model = {
    "forest": lambda: sklearn.ensemble.RandomForestClassifier(20, random_state=0).fit(X, y),
    "isolation": lambda: sklearn.ensemble.IsolationForest(n_estimators=20, random_state=0).fit(X),
    "linear": lambda: sklearn.linear_model.LogisticRegression(max_iter=500).fit(X, y),
}[name]()
skops.io.dump(model, path)
"""
_XGBOOST = """
import sklearn.datasets, xgboost

X, y = sklearn.datasets.load_iris(return_X_y=True)
model = xgboost.XGBClassifier(n_estimators=10, max_depth=4, random_state=0).fit(X, y)
model.save_model(path)
"""
_LIGHTGBM = """
import lightgbm, sklearn.datasets

X, y = sklearn.datasets.load_diabetes(return_X_y=True)
data = lightgbm.Dataset(X, y)
model = lightgbm.train({"objective": "regression", "verbose": -1, "seed": 0}, data, 20)
model.save_model(path)
"""
_TRUST_TREES = ("--trust-type", "sklearn.tree._tree.Tree")
_IMAGES = ("image", (1, 16, 16, 3))
_ROWS = ("X", (2, 4))
MODELS = {
    "net.pt2": (_TORCH, "PyTorch", ("input", (4, 3, 16, 16)), ()),
    "net.pt": (_TORCH, "PyTorch", ("input", (4, 3, 16, 16)), ()),
    "net.keras": (_KERAS, "Keras", _IMAGES, ()),
    "net.tflite": (_KERAS, "TensorFlow Lite", _IMAGES, ()),
    "saved": (_KERAS, "TensorFlow", _IMAGES, ()),
    "forest.skops": (_SKLEARN, "scikit-learn", _ROWS, _TRUST_TREES),
    "isolation.skops": (_SKLEARN, "scikit-learn", _ROWS, _TRUST_TREES),
    "linear.skops": (_SKLEARN, "scikit-learn", _ROWS, ()),
    "iris.json": (_XGBOOST, "XGBoost", _ROWS, ()),
    "iris.ubj": (_XGBOOST, "XGBoost", _ROWS, ()),
    "diabetes.txt": (_LIGHTGBM, "LightGBM", ("X", (2, 10)), ()),
}
"""File: what writes it, its framework, its input with a shape, options that it needs."""


def made(place: Path, name: str) -> Path:
    """The model's file, written by its framework in a process of its own."""
    path = place / name
    script = f"import warnings; warnings.simplefilter('ignore'); path = {str(path)!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", script + MODELS[name][0]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return path


def samples(shape: tuple[int, ...], seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if len(shape) == 2:
        return np.asarray(
            generator.uniform(0, 7, (6, *shape)) - (shape[1] > 4) * 3.5, np.float32
        ) / (30 if shape[1] > 4 else 1)
    return np.asarray(generator.standard_normal((6, *shape)) * 2, np.float32)


@pytest.mark.parametrize("name", MODELS)
def test_a_package_answers_as_the_framework_does_on_the_users_own_data(
    name: str, edgepack: Edgepack, edgepack_json: Callable[..., Any], tmp_path: Path
) -> None:
    _, framework, (tensor, shape), options = MODELS[name]
    model, package = made(tmp_path, name), tmp_path / "model.epk"
    fixed = ("--input", f"{tensor}={','.join(map(str, shape))}", *options)
    (spec,) = edgepack_json("inspect", model, *fixed)["inputs"]
    assert (spec["name"], tuple(spec["shape"])) == (tensor, shape)
    data = samples(shape, seed=1)
    np.savez(tmp_path / "data.npz", allow_pickle=False, **{tensor: data})
    said = edgepack_json(
        *("compile", model, "--target", "host", *fixed),
        *("--check", tmp_path / "data.npz", "-o", package),
    )
    (target,) = said["targets"]
    accuracy = target["check"]["accuracy"]
    assert (accuracy["original"], accuracy["samples"]) == (framework, 6)
    assert all(output["max_error"] <= 1e-4 for output in accuracy["outputs"])
    assert target["check"]["vectors"] >= 2
    assert edgepack_json("inspect", package)["targets"][0]["model"]["check"]["accuracy"] == accuracy
    answers = []
    for sample in data[:2]:
        np.save(tmp_path / "x.npy", sample)
        file = f"{tensor}={tmp_path / 'x.npy'}"
        done = edgepack("run", package, "--input", file, "--output", tmp_path / "y.npz")
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / "y.npz") as arrays:
            answers.append({key: arrays[key] for key in arrays.files})
    assert any(not np.array_equal(answers[0][key], answers[1][key]) for key in answers[0])


def test_a_package_that_is_further_off_than_the_tolerance_is_not_written(
    edgepack: Edgepack, tmp_path: Path
) -> None:
    model = made(tmp_path, "net.pt2")
    data = samples((4, 3, 16, 16), seed=2)
    data[3] *= 1e30  # sums of both signs: their rounding is all that is left of some outputs
    np.savez(tmp_path / "data.npz", input=data)
    done = edgepack(
        *("compile", model, "--target", "host", "--tolerance", "1e-8"),
        *("--check", tmp_path / "data.npz", "-o", tmp_path / "model.epk"),
    )
    assert done.returncode == 5, done.stderr
    assert "tolerance" in done.stderr
    assert not (tmp_path / "model.epk").exists()


def test_a_pipeline_of_two_frameworks_is_one_model(
    edgepack: Edgepack, edgepack_json: Callable[..., Any], tmp_path: Path
) -> None:
    made(tmp_path, "net.pt2")
    made(tmp_path, "iris.json")
    (tmp_path / "both.toml").write_text(
        '[models.scores]\nfile = "net.pt2"\n'
        '[models.first]\nfile = "first.onnx"\ninputs = { scores = "scores.output" }\n'
        '[models.tree]\nfile = "iris.json"\ninputs = { X = "first.four" }\n'
    )
    script = """
import onnx
from onnx import TensorProto, helper
value = helper.make_tensor_value_info
nodes = [helper.make_node("Slice", ["scores", "start", "end", "axis"], ["four"])]
constants = [helper.make_tensor(name, TensorProto.INT64, [1], [number])
             for name, number in (("start", 0), ("end", 4), ("axis", 1))]
graph = helper.make_graph(nodes, "first", [value("scores", 1, [4, 5])], [value("four", 1, [4, 4])], constants)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
"""
    path = tmp_path / "first.onnx"
    subprocess.run([sys.executable, "-c", f"path = {str(path)!r}{script}"], check=True)
    data = samples((4, 3, 16, 16), seed=3)
    np.savez(tmp_path / "data.npz", allow_pickle=False, input=data)
    said = edgepack_json(
        *("compile", tmp_path / "both.toml", "--target", "host"),
        *("--check", tmp_path / "data.npz", "-o", tmp_path / "both.epk"),
    )
    accuracy = said["targets"][0]["check"]["accuracy"]
    assert (accuracy["original"], accuracy["samples"]) == ("PyTorch and XGBoost", 6)
    assert {output["name"] for output in accuracy["outputs"]} == {"label", "probabilities"}
    assert [spec["name"] for spec in edgepack_json("inspect", tmp_path / "both.epk")["inputs"]] == [
        "input"
    ]
