"""Importer of scikit-learn models in .skops files: a zip of arrays, and schema.json that says of what.

skl2onnx converts; the modules beside replace what it does wrongly.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack.artefacts import SourceModel
from edgepack.errors import ModelError
from edgepack.importers.extras import quietly, require
from edgepack.importers.onnx_file import one_line
from edgepack.importers.protocol import ConvertedModel, ImportOptions
from edgepack.importers.sklearn.conversion import converted, correct_outputs
from edgepack.importers.sklearn.original import original

LAYOUT = ""
SUFFIXES: tuple[str, ...] = (".skops",)

_SCHEMA = "schema.json"
_HEAD_BYTES = 64


def recognise(path: Path) -> bool:
    """Whether the file is a zip with the schema of skops in it."""
    if not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_SCHEMA) as schema:
            return b'"__class__"' in schema.read(_HEAD_BYTES)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError):
        return False


def convert(
    source: SourceModel, shapes: Mapping[str, tuple[int, ...]], options: ImportOptions
) -> ConvertedModel:
    """Load and convert the model. Raises ModelError; ConfigError without scikit-learn or skops.

    Types that are not known to be harmless are refused unless ``options.trusted_types`` has them.
    """
    for module in ("sklearn", "skops.io", "skl2onnx"):
        require(module, "sklearn", "a scikit-learn model")
    with quietly():
        estimator, notes = _load(source.path, options.trusted_types)
        if not isinstance(getattr(estimator, "n_features_in_", None), int):
            raise ModelError(
                f"{source.path} holds a {type(estimator).__name__}, which is not fitted"
                " or takes no matrix of numbers"
            )
        model = converted(estimator)
        outputs = correct_outputs(model, shapes["X"][0] if shapes.get("X") else 1)
    return ConvertedModel(
        model=model,
        original=original(estimator, outputs),
        framework="scikit-learn",
        notes=notes,
    )


def _load(path: Path, trusted: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    """The estimator, and what to say of where it comes from."""
    import skops.io
    from sklearn import __version__
    from sklearn.exceptions import InconsistentVersionWarning

    try:
        found = set(skops.io.get_untrusted_types(file=path))
        unknown = sorted(found - set(trusted))
        if not unknown:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always", InconsistentVersionWarning)
                estimator = skops.io.load(path, trusted=sorted(found))
            versions = {
                warning.message.original_sklearn_version
                for warning in said
                if isinstance(warning.message, InconsistentVersionWarning)
            }
            note = "the model was saved by scikit-learn {}, and is read by {}"
            return estimator, tuple(note.format(old, __version__) for old in sorted(versions))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # skops passes on whatever a damaged file leads to
        raise ModelError(
            f"{path} is not a whole skops file: {one_line(error)}", "Save it again"
        ) from error
    raise ModelError(
        f"{path} brings types that are not known to be harmless: {', '.join(unknown)}",
        f"where you trust it, add {' '.join(f'--trust-type {name}' for name in unknown)}",
    )
