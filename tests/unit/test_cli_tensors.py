"""Inputs from .npy files, outputs to .npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgepack.artefacts import TensorSpec
from edgepack.cli.tensors import load_inputs, save_outputs, summarise
from edgepack.errors import ConfigError

SPEC = TensorSpec(name="x", dtype="float32", shape=(2, 3))


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.arange(6, dtype=">f4").reshape(2, 3),
    ],
    ids=["plain", "fortran order", "big endian"],
)
def test_an_input_is_read_dense_and_native(tmp_path: Path, array: np.ndarray) -> None:
    loaded = load_inputs({"x": save(tmp_path / "x.npy", array)}, [SPEC])["x"]
    assert loaded.flags.c_contiguous
    assert loaded.dtype == np.dtype("float32")
    assert loaded.dtype.isnative
    assert np.array_equal(loaded, np.arange(6).reshape(2, 3))


def test_a_scalar_input_stays_a_scalar(tmp_path: Path) -> None:
    spec = TensorSpec(name="sr", dtype="int64", shape=())
    assert load_inputs({"sr": save(tmp_path / "s.npy", np.array(16000))}, [spec])["sr"].shape == ()


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((2, 3)), "float64[2,3], but input 'x' takes float32[2,3]"),
        (np.zeros((3, 2), np.float32), "float32[3,2], but input 'x' takes float32[2,3]"),
        (np.zeros(6, np.float32), "float32[6], but input 'x' takes float32[2,3]"),
    ],
)
def test_another_dtype_or_shape_is_refused(tmp_path: Path, array: np.ndarray, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_inputs({"x": save(tmp_path / "x.npy", array)}, [SPEC])
    assert told in caught.value.message


def test_missing_and_unknown_inputs_name_what_the_model_takes(tmp_path: Path) -> None:
    for files in ({}, {"y": tmp_path / "y.npy"}):
        with pytest.raises(ConfigError) as caught:
            load_inputs(files, [SPEC])
        assert "--input x=FILE.npy" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY", b"PK\x03\x04broken"])
def test_a_file_that_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.npy is not a NumPy array file"):
        load_inputs({"x": tmp_path / "x.npy"}, [SPEC])


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigError, match="is not a NumPy array file"):
        load_inputs({"x": tmp_path / "x.npy"}, [SPEC])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_inputs({"x": tmp_path / "x.npy"}, [SPEC])


def test_outputs_come_back_under_their_names(tmp_path: Path) -> None:
    outputs = {
        "file": np.arange(3.0),
        "save_infer_model/scale_0.tmp_1": np.array([[True, False]]),
        "softmax_11.tmp_0": np.array(5, np.int64),
    }
    save_outputs(tmp_path / "y.out", outputs)
    with np.load(tmp_path / "y.out") as read:
        assert list(read) == list(outputs)
        for name, array in outputs.items():
            assert read[name].dtype == array.dtype
            assert np.array_equal(read[name], array)


def test_outputs_that_cannot_be_written_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "y.npz").mkdir()
    with pytest.raises(ConfigError, match=r"cannot write .*y\.npz"):
        save_outputs(tmp_path / "y.npz", {"y": np.zeros(1)})
    assert [path.name for path in tmp_path.iterdir()] == ["y.npz"]


def test_a_summary_is_json_whatever_the_values_are() -> None:
    summary = summarise("y", np.array([np.nan, -np.inf, 2.5, -1.0], np.float32))
    assert summary == {
        "name": "y",
        "dtype": "float32",
        "shape": [4],
        "min": -1.0,
        "max": 2.5,
        "finite": False,
    }
    assert summarise("y", np.zeros((0,), np.int8))["min"] is None
    assert summarise("y", np.array([True]))["max"] is True
