"""Files of XGBoost models that are damaged, or no such files, and what reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xgboost

from edgepack.errors import ModelError
from edgepack.importers import detect
from edgepack.importers.xgboost import ubjson
from tests.tabular import endures_changed_bytes, needs, refused, table


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One classifier in both forms."""
    settings = {"objective": "multi:softprob", "num_class": 3, "max_depth": 4, "nthread": 1}
    booster = xgboost.train(settings, xgboost.DMatrix(*table("iris")), 3)
    folder = tmp_path_factory.mktemp("iris")
    paths = {form: folder / f"model.{form}" for form in ("json", "ubj")}
    for path in paths.values():
        booster.save_model(path)
    return paths


@pytest.mark.parametrize("form", ["json", "ubj"])
def test_file_cut_short_anywhere_is_refused(
    form: str, iris: dict[str, Path], tmp_path: Path
) -> None:
    content = iris[form].read_bytes()
    path = tmp_path / f"cut.{form}"
    for i in range(120):
        path.write_bytes(content[: len(content) * i // 120])
        assert "not a whole XGBoost model" in refused(path, format="xgboost").message


@pytest.mark.parametrize("form", ["json", "ubj"])
def test_changed_bytes_never_do_worse_than_an_error(
    form: str, iris: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / f"changed.{form}"
    endures_changed_bytes(iris[form].read_bytes(), path, "xgboost", b"0123456789")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("left_children", 0), 0),  # back to itself
        (("right_children", 0), 1),  # two ways to one node
        (("right_children", 0), 10**20),
        (("split_indices", 0), 4),
        (("split_conditions", 0), float("nan")),
        (("split_conditions", -1), float("inf")),
    ],
)
def test_tree_that_is_none_is_refused(
    path: tuple[str, int], value: float, iris: dict[str, Path], tmp_path: Path
) -> None:
    document = json.loads(iris["json"].read_text())
    tree = document["learner"]["gradient_booster"]["model"]["trees"][0]
    tree[path[0]][path[1]] = value
    damaged = tmp_path / "damaged.json"
    damaged.write_text(json.dumps(document))
    assert "not a whole XGBoost model" in refused(damaged).message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"learner": 1}',
        b'{"name": "learner", "version": [1]}',
        b'[{"learner":{}}]',
        b'{"version":[3,0,0],"teacher":{}}',
        b"{L\0\0\0\0\0\0\0\7teacher{}}",
        b"tree\nversion=v4\n",
    ],
)
def test_other_files_are_not_taken_for_xgboost_models(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(content)
    if content.startswith(b"tree"):
        assert detect(path).format == "lightgbm"
        return
    with pytest.raises(ModelError, match="is not a model file that edgepack knows"):
        detect(path)


def test_without_xgboost_the_extra_is_named(
    iris: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(iris["json"], "xgboost", "xgboost", monkeypatch)


def test_ubjson_gives_what_the_json_says(iris: dict[str, Path]) -> None:
    binary = ubjson.loads(iris["ubj"].read_bytes())
    text = json.loads(iris["json"].read_text())
    trees = [
        document["learner"]["gradient_booster"]["model"]["trees"] for document in (binary, text)
    ]
    for ours, theirs in zip(*trees, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ("left_children", "split_conditions", "split_indices"):
            assert np.array_equal(np.float32(ours[name]), np.float32(theirs[name]))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[", b"[#", b"[$d#i", b"[$d#i\xff", b"Si\x05abc", b"[" * 100, b"TT", b"Q"],
)
def test_ubjson_that_is_none_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match="byte"):
        ubjson.loads(content)
