"""Models of tables for the tests: imported, and compared with the library that they come from."""

from __future__ import annotations

import functools
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn import datasets

from edgepack.artefacts import ImportedModel
from edgepack.errors import ConfigError, ModelError
from edgepack.importers import detect, import_model
from edgepack.importers.protocol import ImportOptions

Arrays = dict[str, np.ndarray]

TREES = "sklearn.tree._tree.Tree"


@functools.cache
def table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Features (float64) and targets of a data set that scikit-learn brings along."""
    bunch = getattr(datasets, f"load_{name}")()
    return np.asarray(bunch.data, np.float64), np.asarray(bunch.target)


def unseen(data: np.ndarray, *, nan: float = 0.0, seed: int = 7) -> np.ndarray:
    """Rows near those of a data set, but none of them, float32; a share of the values is NaN."""
    source = np.random.default_rng(seed)
    rows = data + source.normal(size=data.shape) * 0.05 * np.nanstd(data, axis=0)
    rows[source.random(rows.shape) < nan] = np.nan
    return np.asarray(rows, np.float32)


def at_thresholds(model: onnx.ModelProto, rows: np.ndarray) -> np.ndarray:
    """The rows with values at the thresholds of the model's trees, and right above and below them."""
    source = np.random.default_rng(3)
    found = {}
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("nodes_values", "nodes_featureids"):
                found[attribute.name] = np.array(onnx.helper.get_attribute_value(attribute))
    rows = rows.copy()
    for feature in range(rows.shape[1]):
        values = found["nodes_values"][found["nodes_featureids"] == feature].astype(np.float32)
        if len(values):
            there = source.choice(values, len(rows))
            above, below = (np.nextafter(there, np.float32(end)) for end in (np.inf, -np.inf))
            place = source.integers(0, 3, len(rows))
            rows[:, feature] = np.choose(place, [there, above, below])
    return rows


def run(model: onnx.ModelProto | bytes, rows: np.ndarray) -> Arrays:
    """The outputs of ONNX Runtime by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    content = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"X": rows}), strict=True))


def imported(path: Path, shape: tuple[int, ...], *trusted: str) -> ImportedModel:
    return import_model(path, {"X": shape}, options=ImportOptions(trusted_types=trusted))


def agrees(
    path: Path, rows: np.ndarray, *trusted: str, tolerance: float = 1e-4
) -> tuple[ImportedModel, Arrays]:
    """Import, and hold what was imported and its reference against the original on all rows.

    Labels must be equal; answers must differ from row to row. Returns the original's answer.
    """
    model = imported(path, rows.shape, *trusted)
    assert model.original is not None
    assert model.reference is not None
    wanted = model.original({"X": rows})
    for answer in (run(model.model, rows), run(model.reference, rows)):
        assert list(answer) == list(wanted) == [spec.name for spec in model.outputs]
        for spec in model.outputs:
            ours, theirs = answer[spec.name], wanted[spec.name]
            assert ours.shape == theirs.shape == spec.shape
            assert ours.dtype.name == theirs.dtype.name == spec.dtype
            if theirs.dtype.kind == "f":
                assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max(), spec.name
            else:
                assert np.array_equal(ours, theirs), f"{spec.name}: {(ours != theirs).sum()} differ"
    for name, answer_of_all in wanted.items():
        assert len(np.unique(answer_of_all.reshape(-1))) > 1, f"{name} is the same for all rows"
    return model, wanted


def saved(
    estimator: Any, path: Path, rows: np.ndarray, targets: np.ndarray | None = None
) -> tuple[Path, list[str]]:
    """Fit an estimator and save it; the file, and the types in it that must be trusted."""
    import skops.io

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecations, and of searches cut short
        estimator.fit(rows, targets)
        skops.io.dump(estimator, path)
    return path, skops.io.get_untrusted_types(file=path)


def title(estimator: Any) -> str:
    """Its text in one line, for the names of tests."""
    return " ".join(repr(estimator).split())[:60]


def refused(path: Path, *trusted: str, format: str | None = None) -> ModelError:
    """The error of an import: one line that says what is wrong, and one that says what to do."""
    with pytest.raises(ModelError) as caught:
        import_model(path, {"X": (2, 4)}, format, ImportOptions(trusted_types=trusted))
    assert "\n" not in caught.value.message + caught.value.hint
    assert len(caught.value.message) < 600
    return caught.value


def endures_changed_bytes(content: bytes, path: Path, format: str, likely: bytes) -> None:
    """Hold that a file with some bytes changed is read, or refused in one line, and nothing worse.

    About half of the new bytes are of ``likely``: digits and signs make damage that looks like a model.
    """
    source = random.Random(5)
    outcomes = set()
    for _ in range(80):
        changed = bytearray(content)
        for _ in range(source.choice([1, 1, 4])):
            byte = source.choice([source.randrange(256), source.choice(likely)])
            changed[source.randrange(len(changed))] = byte
        path.write_bytes(changed)
        try:
            model = import_model(path, {"X": (2, 4)}, format)
            assert model.original is not None
            model.original({"X": np.ones((2, 4), np.float32)})
            outcomes.add("read")
        except ModelError as error:
            outcomes.add("refused, in lines" if "\n" in error.message else "refused")
    assert outcomes == {"read", "refused"}


def needs(path: Path, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold that without the module an import says which extra brings it, and that detection works."""
    import sys

    found = detect(path).format
    monkeypatch.setitem(sys.modules, module, None)
    assert detect(path).format == found
    with pytest.raises(ConfigError, match=f"needs {module}, which is not installed") as caught:
        import_model(path, {"X": (2, 4)})
    assert caught.value.hint == f"pip install 'edgepack[{extra}]'"
