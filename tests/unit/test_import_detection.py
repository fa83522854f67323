"""What a model is, is read off its content; a name counts only where no content is recognised."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edgepack.errors import ModelError
from edgepack.importers import FORMATS, detect
from tests import networks

SUFFIXES = (
    *(".onnx", ".pt", ".pt2", ".pth", ".keras", ".h5", ".tflite", ".skops", ".json", ".ubj"),
    *(".txt", ".pkl", ".joblib", ".zip", ".bin", ""),
)


def archive(members: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return content.getvalue()


BEGINNINGS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "ONNX": ("onnx", lambda: networks.convolutional().SerializeToString()),
    "TorchScript": (
        "pytorch",
        lambda: archive(
            {"m/constants.pkl": b"\x80\2).", "m/code/a.py": b"", "m/data.pkl": b"\x80\2)."}
        ),
    ),
    "Keras": (
        "keras",
        lambda: archive({"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": b""}),
    ),
    "HDF5": ("keras", lambda: b"\x89HDF\r\n\x1a\n" + bytes(64)),
    "TensorFlow Lite": ("tflite", lambda: b"\x1c\0\0\0TFL3" + bytes(64)),
    "skops": ("sklearn", lambda: archive({"schema.json": b'{"__class__": "Tree"}'})),
    "XGBoost": ("xgboost", lambda: b'{"learner":{"gradient_booster":{}},"version":[3,0,0]}'),
    "UBJSON": ("xgboost", lambda: b"{L\0\0\0\0\0\0\0\7learner{L"),
    "LightGBM": ("lightgbm", lambda: b"tree\nversion=v4\n"),
    "pickle": ("pickle", lambda: b"\x80\4\x95\5\0\0\0\0\0\0\0}\x94."),
    "torch.save": ("pickle", lambda: archive({"m/data.pkl": b"\x80\2}.", "m/version": b"3"})),
}
"""Files that begin, and are built, as those of each format."""


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_no_name_makes_another_format_of_a_file(kind: str, tmp_path: Path) -> None:
    format, content = BEGINNINGS[kind]
    found = {}
    for suffix in SUFFIXES:
        path = tmp_path / f"model{suffix}"
        path.write_bytes(content())
        found[suffix] = detect(path).format
    assert set(found.values()) == {format}, found


@pytest.mark.parametrize("format", [name for name, it in FORMATS.items() if it.SUFFIXES])
def test_a_file_that_nobody_recognises_is_what_its_name_says(format: str, tmp_path: Path) -> None:
    for suffix in FORMATS[format].SUFFIXES:
        path = tmp_path / f"model{suffix}"
        path.write_bytes(b"\0nothing of the kind")
        assert detect(path).format == format


def test_the_option_overrides_both(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(BEGINNINGS["LightGBM"][1]())
    assert [detect(path, name).format for name in FORMATS] == list(FORMATS)


def test_a_folder_is_a_saved_model_by_the_file_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "model.keras"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({}))
    with pytest.raises(ModelError, match="is not a model file that edgepack knows"):
        detect(folder)
    (folder / "saved_model.pb").write_bytes(b"")
    assert detect(folder).format == "savedmodel"
    shutil.move(folder, tmp_path / "model.onnx")
    assert detect(tmp_path / "model.onnx").format == "savedmodel"
