"""Optional frameworks: asked for by name, kept quiet; pickles of theirs: told by content, never loaded."""

from __future__ import annotations

import bz2
import gzip
import io
import logging
import lzma
import os
import pickle
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgepack.errors import ConfigError
from edgepack.importers.extras import quietly, require
from edgepack.importers.pickles import looks_like_pickle, refusal


def test_module_that_is_installed_is_imported() -> None:
    assert require("json", "pytorch", "a model") is sys.modules["json"]


def test_missing_module_is_named_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError) as caught:
        require("torch", "pytorch", "a PyTorch model")
    assert caught.value.message == "reading a PyTorch model needs torch, which is not installed"
    assert caught.value.hint == "pip install 'edgepack[pytorch]'"


def test_what_a_module_itself_misses_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "framework.py").write_text("import engine_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="needs engine_that_is_not_there, which is not installed"):
        require("framework", "pytorch", "a model")


@pytest.mark.parametrize("error", ["ImportError('wrong\\nABI')", "OSError('wrong\\nABI')"])
def test_module_that_cannot_be_imported_says_why(
    error: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(f"raise {error}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="needs broken, which cannot be imported: wrong ABI"):
        require("broken", "pytorch", "a model")


def test_nothing_that_a_framework_says_gets_out(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("framework")
    with quietly():
        handler = logging.StreamHandler()
        logger.addHandler(handler)
        print("printed")
        print("printed", file=sys.stderr)
        os.write(1, b"native")
        os.write(2, b"native")
        logger.critical("logged")
        warnings.warn("warned", stacklevel=1)
    logger.error("logged later, by a handler from then")
    logger.removeHandler(handler)
    assert capfd.readouterr() == ("", "")
    print("heard")
    os.write(2, b"again")
    assert capfd.readouterr() == ("heard\n", "again")
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def test_what_goes_wrong_quietly_is_raised_and_the_noise_comes_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValueError, match="wrong"), quietly():
        raise ValueError("wrong")
    print("heard")
    assert capfd.readouterr().out == "heard\n"


class Bomb:
    """Its pickle makes a folder where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def archive(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in names:
            file.writestr(name, b"x" * 100)
    return content.getvalue()


def torch_saved(value: object, **options: bool) -> bytes:
    content = io.BytesIO()
    torch.save(value, content, **options)
    return content.getvalue()


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_pickle_of_every_protocol_is_told_and_not_loaded(
    protocol: int, compression: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.bin"
    for value in (Bomb(tmp_path / "mark"), {"weights": np.arange(9.0)}, [1, "a", None]):
        path.write_bytes(COMPRESSIONS[compression](pickle.dumps(value, protocol)))
        assert looks_like_pickle(path)
        assert "Python pickle" in refusal(path).message
    assert not (tmp_path / "mark").exists()


def test_pickle_cut_short_is_still_told(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"weights": np.arange(1e5)})[:5000])
    assert looks_like_pickle(path)


@pytest.mark.parametrize(
    ("content", "instead"),
    [
        (torch_saved({"a": torch.ones(3)}), "torch.export.save"),
        (torch_saved(torch.nn.Linear(2, 2)), "torch.export.save"),
        (torch_saved({}, _use_new_zipfile_serialization=False), "torch.export.save"),
        (b"csklearn.svm._classes\nSVC\n(tR.", "skops.io.dump"),
        (b"\x80\x04\x8c\x0fxgboost.sklearn\x8c\x0dXGBClassifier\x93)\x81.", "save_model"),
        (b"clightgbm.sklearn\nLGBMClassifier\n(tR.", "booster_.save_model"),
    ],
    ids=["torch", "torch module", "old torch", "sklearn", "xgboost", "lightgbm"],
)
def test_refused_pickle_shows_how_its_library_saves_without_code(
    content: bytes, instead: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    assert looks_like_pickle(path)
    assert instead in refusal(path).hint
    assert " or " not in refusal(path).hint


def test_refused_pickle_of_an_unknown_library_shows_every_way(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(pickle.dumps({1: 2}))
    assert refusal(path).hint.count(" or ") == 3


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"\x08\x08\x12\x07pytorch",
        b"\x1c\x00\x00\x00TFL3",
        b"\x89HDF\r\n\x1a\n",
        b'{"learner": {}}',
        b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner",
        b"tree\nversion=v4\n",
        b"class,value\n1,2\n",
        b"(a list of things)\n",
        b"\x1f\x8b not gzip",
        gzip.compress(b"just text", mtime=0),
        archive("weights.npy"),
        archive("metadata.json", "config.json", "model.weights.h5"),
        archive("schema.json", "0.npy"),
        archive("x/data.pkl", "x/constants.pkl", "x/code/__torch__.py"),
    ],
)
def test_other_files_are_no_pickles(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    assert not looks_like_pickle(path)
    assert not looks_like_pickle(tmp_path)
