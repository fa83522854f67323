"""SavedModel folders: a signature is imported, and still computes what TensorFlow computes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from edgepack.errors import ConfigError, ModelError
from edgepack.importers import ImportOptions, detect, import_model, savedmodel
from tests import tensorflow_models as models

pytestmark = pytest.mark.filterwarnings("ignore")  # what TensorFlow itself warns of while it saves

Shapes = dict[str, tuple[int, ...]]


class Signatures(tf.Module):  # type: ignore[misc]
    """Functions with a weight, each a signature."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable(np.random.default_rng(0).normal(size=(4, 3)), dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, "x")])  # type: ignore[untyped-decorator]
    def project(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x @ self.weight, "x": 2 * x}

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[
            tf.TensorSpec(None, tf.float32, "values"),
            tf.TensorSpec((2,), tf.int32, "counts"),
            tf.TensorSpec((3,), tf.float32, "unread"),
        ]
    )
    def total(self, values: tf.Tensor, counts: tf.Tensor, unread: tf.Tensor) -> list[tf.Tensor]:
        return [tf.reduce_sum(values) + self.weight, counts // 2]

    @tf.function(input_signature=[tf.TensorSpec((3, 3), tf.float32, "x")])  # type: ignore[untyped-decorator]
    def invert(self, x: tf.Tensor) -> tf.Tensor:
        return tf.linalg.inv(tf.linalg.cholesky(x)) + tf.linalg.cholesky(x + 1)

    @tf.function(input_signature=[tf.TensorSpec((2,), tf.string, "text")])  # type: ignore[untyped-decorator]
    def measure(self, text: tf.Tensor) -> tf.Tensor:
        return tf.strings.length(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model"
    module = Signatures()
    names = ("project", "total", "invert", "measure")
    tf.saved_model.save(module, path, {name: getattr(module, name) for name in names})
    return path


def refused(path: Path, *words: str, shapes: Shapes | None = None, signature: str = "") -> str:
    """The hint."""
    with pytest.raises(ModelError) as caught:
        import_model(path, shapes or {}, options=ImportOptions(signature=signature))
    message, hint = caught.value.message, caught.value.hint
    assert "\n" not in message + hint
    assert all(word in message for word in words), message
    return hint


def test_network_computes_what_tensorflow_computes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    models.mobile().export(tmp_path / "model", verbose=False)
    capfd.readouterr()
    imported = import_model(tmp_path / "model", {"image": (2, 32, 32, 3)})
    assert (imported.source.format, imported.framework) == ("savedmodel", "TensorFlow")
    assert [(s.name, s.shape) for s in imported.outputs] == [("output_0", (2, 5))]
    shutil.rmtree(tmp_path / "model")  # nothing of it is needed any more
    models.agree(imported)
    assert capfd.readouterr() == ("", "")


def test_convolutions_in_groups_compute_what_tensorflow_computes(tmp_path: Path) -> None:
    models.grouped().export(tmp_path / "model", verbose=False)
    models.agree(import_model(tmp_path / "model", {"image": (2, 32, 32, 3)}))


def test_recurrent_network_computes_what_tensorflow_computes(tmp_path: Path) -> None:
    cells = layers.Bidirectional(layers.GRU(4, return_sequences=True)), layers.LSTM(5)
    models.recurrent(*cells).export(tmp_path / "model", verbose=False)
    models.agree(import_model(tmp_path / "model", {"sequence": (1, 6, 4)}))


def test_signature_is_chosen(folder: Path) -> None:
    options = ImportOptions(signature="project")
    imported = import_model(folder, {"x": (2, 4)}, options=options)
    assert [spec.name for spec in imported.inputs] == ["x"]
    assert [spec.name for spec in imported.outputs] == ["x_1", "y"]
    models.agree(imported)


def test_input_of_unknown_rank_takes_the_shape_given_and_one_that_is_not_read_stays(
    folder: Path,
) -> None:
    options = ImportOptions(signature="total")
    imported = import_model(folder, {"values": (2, 5)}, options=options)
    shapes = [(spec.name, spec.dtype, spec.shape) for spec in imported.inputs]
    assert shapes == [
        ("counts", "int32", (2,)),
        ("unread", "float32", (3,)),
        ("values", "float32", (2, 5)),
    ]
    models.agree(imported)
    hint = refused(folder, "input 'values' (of unknown rank)", signature="total")
    assert hint == "Add --input values=DIM0,DIM1,..."


@pytest.mark.parametrize("signature", ["", "classify"])
def test_unknown_signature_lists_those_that_there_are(signature: str, folder: Path) -> None:
    hint = refused(folder, repr(signature or "serving_default"), signature=signature)
    assert sorted(hint.split(": ")[1].split(", ")) == ["invert", "measure", "project", "total"]


def test_model_without_signatures_is_refused(tmp_path: Path) -> None:
    tf.saved_model.save(Signatures(), tmp_path / "model")
    assert "signatures=" in refused(tmp_path / "model", "has no signatures")


def test_unsupported_operators_are_named_with_their_counts(folder: Path) -> None:
    refused(folder, "Cholesky (2x", "MatrixInverse (1x", signature="invert")


def test_text_is_refused(folder: Path) -> None:
    refused(folder, "input 'text' is of type string", signature="measure")


def test_graph_of_tensorflow_1_is_imported(tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 3), name="placeholder")
        weight = v1.get_variable("w", initializer=np.eye(3, 2, dtype=np.float32) + 1)
        y = tf.nn.relu(x @ weight)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "model"), {"x": x}, {"y": y})
    imported = import_model(tmp_path / "model", {"x": (2, 3)})
    assert [spec.name for spec in (*imported.inputs, *imported.outputs)] == ["x", "y"]
    models.agree(imported)


def test_model_that_was_trained_with_older_tensorflow_computes_the_same(
    pretrained: Callable[[str, str], Path],
) -> None:
    path = pretrained("basic_pitch", "saved_models/icassp_2022/nmp")
    imported = import_model(path, {"input_2": (1, 43844, 1)})
    assert [spec.name for spec in imported.outputs] == ["contour", "note", "onset"]
    # TensorFlow and ONNX Runtime themselves lie 1.4e-4 apart on CPUs with AVX2 alone.
    models.agree(imported, tolerance=2e-4)


class Acting(tf.Module):  # type: ignore[misc]
    """Writes a file whenever it is run, and counts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = str(path)
        self.count = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec((2,), tf.float32, "x")])  # type: ignore[untyped-decorator]
    def run(self, x: tf.Tensor) -> tf.Tensor:
        tf.io.write_file(self.path, "written")
        return x + self.count.assign_add(1.0)


def test_signature_that_does_more_than_compute_is_refused_and_does_not_run(tmp_path: Path) -> None:
    module = Acting(tmp_path / "canary")
    tf.saved_model.save(module, tmp_path / "model", module.run)
    refused(tmp_path / "model", "does more than compute", "AssignAddVariableOp, WriteFile")
    assert not (tmp_path / "canary").exists()
    tf.saved_model.load(tmp_path / "model").signatures["serving_default"](x=tf.ones(2))
    assert (tmp_path / "canary").exists()


def test_what_a_graph_runs_as_it_is_loaded_does_not_run(tmp_path: Path) -> None:
    v1, canary, path = tf.compat.v1, tmp_path / "canary", tmp_path / "model"
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (3,), name="x")
        infos = {"x": v1.saved_model.utils.build_tensor_info(x)}
        y = {"y": v1.saved_model.utils.build_tensor_info(2 * x)}
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"double": v1.saved_model.build_signature_def(infos, y, "predict")},
            main_op=tf.io.write_file(str(canary), "written"),
        )
        builder.save()
    models.agree(import_model(path, {}))
    assert not canary.exists()
    tf.saved_model.load(path)
    assert canary.exists()


def test_lookup_table_is_refused(tmp_path: Path) -> None:
    keys = tf.constant([3, 5], tf.int64)
    module = tf.Module()
    module.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, keys), -1)
    module.find = tf.function(module.table.lookup, input_signature=[tf.TensorSpec((2,), tf.int64)])
    tf.saved_model.save(module, tmp_path / "model", module.find)
    refused(tmp_path / "model", "has a lookup table")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "model")


def test_truncated_file_is_refused_wherever_it_ends(copy: Path) -> None:
    file = copy / "saved_model.pb"
    whole = file.read_bytes()
    for size in range(0, len(whole), len(whole) // 25):
        file.write_bytes(whole[:size])
        assert detect(copy).format == "savedmodel"
        refused(copy, shapes={"x": (1, 4)}, signature="project")


def test_missing_and_truncated_variables_are_refused(copy: Path) -> None:
    for file in sorted((copy / "variables").iterdir()):
        whole = file.read_bytes()
        for size in range(0, len(whole), len(whole) // 5):
            file.write_bytes(whole[:size])
            refused(copy, "TensorFlow cannot load", signature="project")
        file.unlink()
        refused(copy, "TensorFlow cannot load", signature="project")
        file.write_bytes(whole)
    shutil.rmtree(copy / "variables")
    refused(copy, "TensorFlow cannot load", signature="project")


def test_only_folders_with_a_saved_model_are_recognised(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "saved_model.txt").write_text("")
    assert not savedmodel.recognise(tmp_path)
    assert not savedmodel.recognise(folder / "saved_model.pb")
    with pytest.raises(ModelError, match="is not a model file that edgepack knows"):
        detect(tmp_path)


def test_missing_tensorflow_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ConfigError, match="reading a SavedModel needs tensorflow") as caught:
        import_model(folder, {})
    assert caught.value.hint == "pip install 'edgepack[tensorflow]'"
