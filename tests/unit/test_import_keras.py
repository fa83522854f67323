"""Keras files: imported, still computing what Keras computes, and never running code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from edgepack.errors import ConfigError, ModelError
from edgepack.importers import detect, import_model
from edgepack.importers import keras as keras_importer
from tests import tensorflow_models as models

pytestmark = pytest.mark.filterwarnings("ignore")  # what Keras itself warns of while it saves

Shapes = dict[str, tuple[int, ...]]
SEQUENCE: Shapes = {"sequence": (1, 7, 4)}
NETWORKS: dict[str, tuple[Callable[[], keras.Model], Shapes]] = {
    "mobile": (models.mobile, {"image": (2, 32, 32, 3)}),
    "grouped": (models.grouped, {"image": (1, 32, 32, 3)}),
    "branching": (models.branching, {"left": (1, 4), "right": (1, 6, 4)}),
    "lstm": (
        lambda: models.recurrent(layers.LSTM(5, return_sequences=True), layers.LSTM(6)),
        SEQUENCE,
    ),
    "gru": (
        lambda: models.recurrent(
            layers.GRU(5, return_sequences=True), layers.GRU(6, reset_after=False)
        ),
        SEQUENCE,
    ),
    "bidirectional": (
        lambda: models.recurrent(
            layers.Bidirectional(layers.LSTM(5, return_sequences=True)),
            layers.Bidirectional(layers.SimpleRNN(4)),
        ),
        SEQUENCE,
    ),
}
CASES = [
    *((name, "model.keras") for name in NETWORKS),
    ("mobile", "model.h5"),
    ("branching", "model.h5"),
]


def small() -> keras.Model:
    keras.utils.set_random_seed(1)
    x = keras.Input((4,), batch_size=1, name="x")
    return keras.Model(x, layers.Dense(3, name="y")(x))


def refused(path: Path, *words: str, shapes: Shapes | None = None) -> ModelError:
    with pytest.raises(ModelError) as caught:
        import_model(path, shapes or {})
    message = caught.value.message
    assert "\n" not in message + caught.value.hint
    assert all(word in message for word in words), message
    return caught.value


@pytest.mark.parametrize(("network", "name"), CASES)
def test_network_computes_what_keras_computes(
    network: str, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build, shapes = NETWORKS[network]
    build().save(tmp_path / name)
    capfd.readouterr()
    imported = import_model(tmp_path / name, shapes)
    assert (imported.source.format, imported.framework) == ("keras", "Keras")
    assert {spec.name: spec.shape for spec in imported.inputs} == shapes
    models.agree(imported)
    assert capfd.readouterr() == ("", "")


def test_outputs_have_the_names_of_keys_or_layers(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    models.branching().save(path)
    imported = import_model(path, {"left": (1, 4), "right": (1, 6, 4)})
    assert [spec.name for spec in imported.outputs] == ["gate", "sum"]
    x = keras.Input((4,), batch_size=1, name="x")
    y = layers.Dense(2, name="y")(x)
    keras.Model(x, [y, y, layers.Activation("relu", name="x_1")(y)]).save(path)
    assert [s.name for s in import_model(path, {}).outputs] == ["y", "y_1", "x_1"]


def test_sequential_model_without_an_input_layer_is_imported(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Dense(5, activation="relu"), layers.Dense(2, name="last")])
    model(np.zeros((3, 4), np.float32))
    model.save(tmp_path / "model.keras")
    imported = import_model(tmp_path / "model.keras", {})
    assert [(s.name, s.shape) for s in imported.outputs] == [("last", (3, 2))]
    models.agree(imported)


def test_model_that_older_keras_wrote_computes_the_same(
    pretrained: Callable[[str, str], Path],
) -> None:
    path = pretrained("fer", "data/emotion_model.hdf5")
    imported = import_model(path, {"input_1": (1, 64, 64, 1)})
    models.agree(imported, inputs=lambda spec, seed: 3 * models.noise(spec, seed))


def test_missing_shapes_show_the_options(tmp_path: Path) -> None:
    models.branching().save(tmp_path / "model.keras")
    error = refused(tmp_path / "model.keras", "input 'right': batch (axis 0), unnamed (axis 1)")
    assert error.hint == "Add --input left=BATCH,4 --input right=BATCH,DIM1,4"


def test_file_is_known_by_its_contents(tmp_path: Path) -> None:
    for name in ("model.keras", "model.h5"):
        small().save(tmp_path / name)
        path = (tmp_path / name).rename(tmp_path / "model.bin")
        models.agree(import_model(path, {}))


def test_other_archives_are_not_recognised(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", x=np.ones(3))
    for name in ("model.skops", "model.pt2"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("schema.json", "{}")
            archive.writestr("archive_format", "pt2")
    (tmp_path / "empty").write_bytes(b"")
    assert not any(map(keras_importer.recognise, [tmp_path, *tmp_path.iterdir()]))


def test_nothing_heavy_is_imported_to_recognise_a_file_and_nothing_is_printed_ever(
    tmp_path: Path,
) -> None:
    small().save(tmp_path / "model.keras")
    code = """
import sys
from edgepack import importers
assert importers.detect(sys.argv[1]).format == "keras"
assert not {"tensorflow", "h5py", "keras"} & set(sys.modules)
imported = importers.import_model(sys.argv[1], {})
import numpy
imported.original({"x": numpy.ones((1, 4), "float32")})
"""
    command = [sys.executable, "-c", code, str(tmp_path / "model.keras")]
    environment = os.environ | {"KERAS_BACKEND": "jax"}  # the user's choice for other programs
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the code in ``with_code`` leaves behind where it runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "canary"


def with_code() -> keras.Model:
    """A model with a model in it with a Lambda layer in that."""
    x = keras.Input((4,), batch_size=1)
    code = layers.Lambda(lambda x: (__import__("os").mknod("canary"), x)[1], name="hidden")
    inner = keras.Model(x, code(x))
    return keras.Sequential([keras.Input((4,), batch_size=1), inner, layers.Dense(2)])


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_code_in_a_lambda_layer_does_not_run(name: str, tmp_path: Path, canary: Path) -> None:
    path = tmp_path / name
    with_code().save(path)
    canary.unlink()
    error = refused(path, "Python code: 'hidden'")
    assert "model.export" in error.hint
    assert not canary.exists()
    keras.saving.load_model(path, safe_mode=False)  # the code is there, and would have run
    assert canary.exists()


def test_code_of_older_keras_does_not_run(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "model.h5"
    with_code().save(path)
    canary.unlink()
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        entry = config["config"]["layers"][1]["config"]["layers"][1]
        assert entry["class_name"] == "Lambda"
        code = entry["config"]["function"]["config"]["code"]
        entry["config"] |= {"function": [code, None, None], "function_type": "lambda"}
        file.attrs["model_config"] = json.dumps(config)
    refused(path, "Python code: 'hidden'")
    assert not canary.exists()


class Doubled(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return 2 * x

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_layers_of_others_are_named(name: str, tmp_path: Path) -> None:
    x = keras.Input((4,), batch_size=1)
    wrapped = layers.TimeDistributed(Doubled(name="inner"))(layers.Reshape((2, 2))(x))
    keras.Model(x, Doubled(name="outer")(wrapped)).save(tmp_path / name)
    refused(tmp_path / name, "Doubled ('outer')", "Doubled ('inner')")


def rewrite(path: Path, change: Callable[[bytes], bytes], member: str = "config.json") -> None:
    """Change a member of a .keras archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, change(content) if name == member else content)


def test_modules_that_a_file_names_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "intruder.py").write_text("open(__file__ + '.ran', 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "model.keras"
    small().save(path)
    rewrite(path, lambda text: text.replace(b'"module": "keras.layers"', b'"module": "intruder"'))
    refused(path, "InputLayer ('x')", "Dense ('y')")
    assert not (tmp_path / "intruder.py.ran").exists()


def test_weights_without_layers_are_refused(tmp_path: Path) -> None:
    small().save_weights(tmp_path / "model.weights.h5")
    error = refused(tmp_path / "model.weights.h5", "holds the weights of a Keras model alone")
    assert "model.save" in error.hint


def test_hdf5_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["temperature"] = np.ones(3)
    refused(tmp_path / "data.h5", "is an HDF5 file without a Keras model in it")


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_truncated_file_is_refused_wherever_it_ends(name: str, tmp_path: Path) -> None:
    small().save(tmp_path / name)
    whole, path = (tmp_path / name).read_bytes(), tmp_path / "cut"
    for size in range(64, len(whole), len(whole) // 25):
        path.write_bytes(whole[:size])
        assert detect(path).format == "keras"
        refused(path, "is not a whole Keras model")


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[1, 2]"),
        ("config.json", b"[" * 100_000),
        ("config.json", b'{"class_name": "Functional", "config": {}, "module": "keras"}'),
        ("model.weights.h5", b""),
        ("model.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(100)),
    ],
)
def test_damaged_archive_is_refused(member: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    small().save(path)
    rewrite(path, lambda _: content, member)
    refused(path, "model.keras")


def test_missing_keras_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small().save(tmp_path / "model.keras")
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ConfigError, match="reading a Keras model needs keras") as caught:
        import_model(tmp_path / "model.keras", {})
    assert caught.value.hint == "pip install 'edgepack[tensorflow]'"
