"""Models that were saved as pickles: refused, with what to save in their place."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import joblib  # type: ignore[import-untyped]
import pytest
from sklearn.linear_model import LogisticRegression

from edgepack.importers import detect
from tests.tabular import refused, table


def fitted() -> LogisticRegression:
    return LogisticRegression(max_iter=500).fit(*table("iris"))


@pytest.mark.parametrize("compression", [0, 3, "gzip", "bz2", "xz", "lzma"])
def test_joblib_files_are_refused(compression: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    method = compression if isinstance(compression, int) else (compression, 3)
    joblib.dump(fitted(), path, compress=method)
    _refused_as_code(path)


@pytest.mark.parametrize("protocol", [*range(pickle.HIGHEST_PROTOCOL + 1), "cloudpickle"])
def test_pickles_are_refused(protocol: Any, tmp_path: Path) -> None:
    model = fitted()
    path = tmp_path / "model.bin"
    if protocol == "cloudpickle":
        path.write_bytes(cloudpickle.dumps(model))
    else:
        path.write_bytes(pickle.dumps(model, protocol=protocol))
    _refused_as_code(path)


def test_joblib_file_in_lz4_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    path.write_bytes(b"\x04\x22\x4d\x18" + b"\x60\x40\x82" * 20)
    assert detect(path).format == "pickle"
    assert "loading it would run the code in it" in refused(path).message


def _refused_as_code(path: Path) -> None:
    assert detect(path).format == "pickle"
    error = refused(path)
    assert "loading it would run the code in it" in error.message
    assert 'skops.io.dump(model, "model.skops")' in error.hint
