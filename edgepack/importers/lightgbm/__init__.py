"""Importer of LightGBM models, as ``Booster.save_model`` writes them.

How a tree decides is read off LightGBM's include/LightGBM/tree.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.artefacts import Infer, SourceModel, Tensors
from edgepack.errors import ModelError
from edgepack.importers.boosting import Boosted, answer, boosted_model
from edgepack.importers.extras import quietly, require
from edgepack.importers.lightgbm.text import (
    HEAD,
    LARGEST,
    Fields,
    integers,
    numbers,
    sections,
    whole_text,
)
from edgepack.importers.onnx_file import one_line
from edgepack.importers.protocol import ConvertedModel, ImportOptions
from edgepack.importers.trees import UP_TO, Tree, arranged, edges_of

if TYPE_CHECKING:
    import lightgbm
    import numpy as np

LAYOUT = ""
SUFFIXES: tuple[str, ...] = ()

_LINKS = {
    "": "identity",  # trained with a function of the user's own
    "binary": "binary",
    "cross_entropy": "sigmoid",
    "cross_entropy_lambda": "softplus",
    "fair": "identity",
    "gamma": "exp",
    "huber": "identity",
    "lambdarank": "identity",
    "mape": "identity",
    "multiclass": "softmax",
    "multiclassova": "one against all",
    "poisson": "exp",
    "quantile": "identity",
    "rank_xendcg": "identity",
    "regression": "identity",
    "regression_l1": "identity",
    "tweedie": "exp",
}
"""What follows the sum of the trees, by objective."""

_ZERO = 1.0000000180025095e-35
"""Numbers up to this, either way, are 0 to LightGBM (kZeroThreshold, 1e-35 as float32)."""
_SIDES = ("left", "right")
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_SHIFT, _MISSING_ZERO = 2, 1
"""Bits of ``decision_type``: what counts as missing, nothing, 0 or NaN, is in bits 2 and 3."""


def recognise(path: Path) -> bool:
    """Whether the file begins as LightGBM's text does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(HEAD[1])).startswith(HEAD)


def convert(
    source: SourceModel, shapes: Mapping[str, tuple[int, ...]], options: ImportOptions
) -> ConvertedModel:
    """Write the booster's trees as ONNX. Raises ModelError; ConfigError without lightgbm."""
    require("lightgbm", "xgboost", "a LightGBM model")
    try:
        header, written = sections(source.path.read_text())
        ensemble = _ensemble(header, written)
        booster = _load(header, written)
    except OSError as error:
        raise ModelError(f"cannot read {source.path}: {error.strerror}") from error
    except (KeyError, IndexError, OverflowError, ValueError) as error:
        raise ModelError(
            f"{source.path} is not a whole LightGBM model: {one_line(error)}", "Save it again"
        ) from error
    return ConvertedModel(
        model=boosted_model(ensemble),
        original=_original(booster, ensemble),
        framework="LightGBM",
    )


def _ensemble(header: Fields, written: list[Fields]) -> Boosted:
    objective, *words = header.get("objective", "").split() or [""]
    parameters = dict(word.split(":", 1) for word in words if ":" in word)
    if objective not in _LINKS:
        raise ModelError(
            f"LightGBM's objective {objective!r} is not supported",
            f"objectives that are: {', '.join(filter(None, _LINKS))}",
        )
    link = _LINKS[objective]
    if "sqrt" in words:
        link = "signed square"
    features = int(header["max_feature_idx"]) + 1
    outputs = int(header["num_tree_per_iteration"])
    if not 0 < features < LARGEST or outputs < 1 or len(written) % outputs:
        raise ValueError(f"{features} features, {len(written)} trees and {outputs} outputs")
    # A sigmoid with a slope is one of so many times the sum; a random forest takes the mean.
    scale = float(parameters.get("sigmoid", 1))
    if "average_output" in header and written:
        scale /= len(written) / outputs
    trees = [_tree(part, features, i % outputs, scale) for i, part in enumerate(written)]
    return Boosted(
        trees=trees,
        mode=UP_TO,
        features=features,
        outputs=outputs,
        link=link,
        zero_is_missing=_zero_is_missing(written),
    )


def _tree(written: Fields, features: int, target: int, scale: float) -> Tree:
    import numpy as np

    if written.get("is_linear", "0") != "0":
        raise ModelError(
            "LightGBM's linear trees are not supported", "train with linear_tree=False"
        )
    splits = int(written["num_leaves"]) - 1
    kinds = integers(written, "decision_type", splits)
    thresholds = numbers(written, "threshold", splits)
    left, right = (_places(integers(written, f"{side}_child", splits)) for side in _SIDES)
    categorical = kinds & _CATEGORICAL > 0
    missing = kinds >> _MISSING_SHIFT
    # NaN is 0 to a feature that has had none, and is in no set of categories.
    missing_left = np.where(missing == 0, thresholds >= 0, kinds & _DEFAULT_LEFT > 0)
    no_child = np.full(splits + 1, -1)
    values = numbers(written, "leaf_value", splits + 1) * scale
    tree = Tree(
        feature=np.concatenate([integers(written, "split_feature", splits), no_child]),
        threshold=np.concatenate([_around_zero(thresholds), np.zeros(splits + 1)]),
        left=np.concatenate([left, no_child]),
        right=np.concatenate([right, no_child]),
        missing_left=np.concatenate([missing_left & ~categorical, no_child > 0]),
        value=np.concatenate([np.zeros(splits), values]),
        target=target,
        categories=_categories(written, np.flatnonzero(categorical), thresholds),
    )
    return arranged(tree, features)


def _around_zero(thresholds: np.ndarray) -> np.ndarray:
    """Thresholds that send what counts as 0 where 0 goes."""
    import numpy as np

    near = np.abs(thresholds) <= _ZERO
    return np.where(near, np.where(thresholds < 0, np.nextafter(-_ZERO, -1), _ZERO), thresholds)


def _places(children: np.ndarray) -> np.ndarray:
    """Of splits their number; leaves, written as -1 - number, come after the splits."""
    import numpy as np

    if np.any(children >= len(children)):
        raise ValueError("a node has no such child")
    return np.where(children < 0, len(children) - 1 - children, children)


def _categories(
    written: Fields, nodes: np.ndarray, thresholds: np.ndarray
) -> dict[int, list[float]]:
    """Sets of categories by node: ``threshold`` is the number of a bitset of 32-bit words.

    A category c is any number in ``[c, c + 1)``, and 0 any number above -1: LightGBM cuts fractions
    off towards zero.
    """
    import numpy as np

    sets: dict[int, list[float]] = {}
    if not len(nodes):
        return sets
    boundaries = integers(written, "cat_boundaries", int(written["num_cat"]) + 1)
    words = numbers(written, "cat_threshold", int(boundaries[-1]))
    if (
        boundaries[0] != 0
        or np.any(np.diff(boundaries) < 1)
        or np.any((words < 0) | (words >= 2**32))
    ):
        raise ValueError("its sets of categories are no sets")
    words = words.astype(np.uint32)
    for node in nodes.tolist():
        number = int(thresholds[node])
        if not 0 <= number < len(boundaries) - 1:
            raise ValueError(f"node {node} has no such categories")
        bits = words[boundaries[number] : boundaries[number + 1], None] >> np.arange(32) & 1
        edges = edges_of(np.flatnonzero(bits).tolist())
        sets[node] = [np.nextafter(-1.0, 0.0) if edge == 0 else edge for edge in edges]
    return sets


def _zero_is_missing(written: list[Fields]) -> tuple[int, ...]:
    """Features whose zeros count as missing. Raises ModelError where only some trees say so."""
    kinds: dict[int, set[bool]] = {}
    for part in written:
        splits = int(part["num_leaves"]) - 1
        features = integers(part, "split_feature", splits)
        decisions = integers(part, "decision_type", splits)
        for feature, decision in zip(features.tolist(), decisions.tolist(), strict=True):
            if not decision & _CATEGORICAL:
                zero = decision >> _MISSING_SHIFT == _MISSING_ZERO
                kinds.setdefault(feature, set()).add(zero)
    mixed = [feature for feature, found in kinds.items() if len(found) > 1]
    if mixed:
        raise ModelError(
            f"LightGBM's feature {mixed[0]} takes zeros for missing in some trees only",
            "train the model in one go, with one setting of zero_as_missing",
        )
    return tuple(sorted(feature for feature, found in kinds.items() if found == {True}))


def _load(header: Fields, written: list[Fields]) -> lightgbm.Booster:
    import lightgbm

    try:
        with quietly():
            return lightgbm.Booster(model_str=whole_text(header, written), params={"verbosity": -1})
    except lightgbm.basic.LightGBMError as error:
        raise ValueError(str(error)) from error


def _original(booster: lightgbm.Booster, ensemble: Boosted) -> Infer:
    def run(inputs: Tensors) -> Tensors:
        import numpy as np

        return answer(ensemble, np.asarray(booster.predict(inputs["X"])))

    return run
