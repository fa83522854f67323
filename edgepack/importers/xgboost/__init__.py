"""Importer of XGBoost models, as ``save_model`` writes them: JSON, or UBJSON of the same structure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.artefacts import Infer, SourceModel, Tensors
from edgepack.errors import ModelError
from edgepack.importers.boosting import Boosted, answer, boosted_model
from edgepack.importers.extras import quietly, require
from edgepack.importers.onnx_file import one_line
from edgepack.importers.protocol import ConvertedModel, ImportOptions
from edgepack.importers.trees import BELOW, Tree, arranged, edges_of
from edgepack.importers.xgboost.document import JSON, UBJSON, Json, cleaned, read

if TYPE_CHECKING:
    import xgboost

LAYOUT = ""
SUFFIXES: tuple[str, ...] = ()

_DAMAGE = (
    AttributeError,
    KeyError,
    IndexError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a damaged document leads to."""
_HEAD_BYTES = 256

_LINKS = {
    "binary:logistic": "binary",
    "binary:logitraw": "identity",
    "count:poisson": "exp",
    "multi:softmax": "softmax",
    "multi:softprob": "softmax",
    "rank:map": "identity",
    "rank:ndcg": "identity",
    "rank:pairwise": "identity",
    "reg:absoluteerror": "identity",
    "reg:gamma": "exp",
    "reg:linear": "identity",
    "reg:logistic": "sigmoid",
    "reg:pseudohubererror": "identity",
    "reg:quantileerror": "identity",
    "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity",
    "reg:tweedie": "exp",
    "survival:aft": "exp",
    "survival:cox": "exp",
}
"""What follows the sum of the trees, by objective."""


def recognise(path: Path) -> bool:
    """Whether the file begins as XGBoost's JSON or UBJSON does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return bool(JSON.match(head) or UBJSON.match(head))


def convert(
    source: SourceModel, shapes: Mapping[str, tuple[int, ...]], options: ImportOptions
) -> ConvertedModel:
    """Write the booster's trees as ONNX. Raises ModelError; ConfigError without xgboost."""
    require("xgboost", "xgboost", "an XGBoost model")
    try:
        document = cleaned(read(source.path))
        ensemble, rounds, notes = _ensemble(document["learner"])
        booster = _load(document)
    except OSError as error:
        raise ModelError(f"cannot read {source.path}: {error.strerror}") from error
    except _DAMAGE as error:
        raise ModelError(
            f"{source.path} is not a whole XGBoost model: {one_line(error)}", "Save it again"
        ) from error
    return ConvertedModel(
        model=boosted_model(ensemble),
        original=_original(booster, ensemble, rounds),
        framework="XGBoost",
        notes=notes,
    )


def _load(document: Json) -> xgboost.Booster:
    import xgboost

    booster = xgboost.Booster()
    try:
        with quietly():
            booster.load_model(bytearray(json.dumps(document).encode()))
    except xgboost.core.XGBoostError as error:
        # Without the place in its source and its stack trace.
        lines = str(error).partition("Stack trace:")[0].splitlines()
        text = re.sub(r"^\[[\d:]+\] \S+?:\d+: ", "", " ".join(lines))
        raise ValueError(text) from error
    return booster


def _ensemble(learner: Json) -> tuple[Boosted, int, tuple[str, ...]]:
    """The ensemble, how many of its rounds of boosting predict (0 for all), and what to say."""
    objective = learner["objective"]["name"]
    if objective not in _LINKS:
        raise ModelError(
            f"XGBoost's objective {objective!r} is not supported",
            f"objectives that are: {', '.join(_LINKS)}",
        )
    parameters = learner["learner_model_param"]
    features = int(parameters["num_feature"])
    outputs = max(1, int(parameters["num_class"]), int(parameters["num_target"]))
    link = _LINKS[objective]
    if link == "binary" and outputs > 1:  # several labels, each yes or no
        link = "sigmoid"
    rounds, notes = _rounds(learner["attributes"])
    ensemble = Boosted(
        trees=_trees(learner["gradient_booster"], features, rounds),
        mode=BELOW,
        features=features,
        outputs=outputs,
        link=link,
        base=_margins(parameters["base_score"], objective, outputs),
    )
    return ensemble, rounds, notes


def _rounds(attributes: Mapping[str, str]) -> tuple[int, tuple[str, ...]]:
    """The scikit-learn interface stops at the best round, ``Booster.predict`` does not.

    The file says which of them wrote it.
    """
    if "best_iteration" not in attributes:
        return 0, ()
    best = int(attributes["best_iteration"]) + 1
    if "scikit_learn" in attributes:
        return best, (f"early stopping: the first {best} rounds of boosting are used",)
    return 0, (
        f"all rounds of boosting are used, as Booster.predict does; the best was the first {best}:"
        f" to have only those, save booster[:{best}]",
    )


def _margins(base_score: str, objective: str, outputs: int) -> list[float]:
    """The base score is a prediction; what the sums begin with is that before the link."""
    import numpy as np

    score = np.array([float(number) for number in base_score.strip("[]").split(",")], np.float32)
    if objective.endswith(":logistic"):
        score = -np.log(1 / score - 1)
    elif _LINKS[objective] == "exp":
        score = np.log(score)
    margins: list[float] = np.broadcast_to(score, outputs).tolist()
    return margins


def _trees(booster: Json, features: int, rounds: int) -> list[Tree]:
    model = booster.get("gbtree", booster)["model"]
    count = model["iteration_indptr"][rounds] if rounds else len(model["trees"])
    weights = booster.get("weight_drop", [1.0] * count)
    return [
        _tree(model["trees"][i], features, weights[i], model["tree_info"][i]) for i in range(count)
    ]


def _tree(written: Json, features: int, weight: float, target: int) -> Tree:
    import numpy as np

    with np.errstate(over="ignore"):
        conditions = np.array(written["split_conditions"], np.float32)
    left, right = (np.array(written[f"{side}_children"]) for side in ("left", "right"))
    swapped = np.array(written["split_type"], bool)  # to be in the set is to go right, here
    tree = Tree(
        feature=np.array(written["split_indices"]),
        threshold=conditions.astype(np.float64),
        left=np.where(swapped, right, left),
        right=np.where(swapped, left, right),
        missing_left=np.array(written["default_left"], bool) ^ swapped,
        value=conditions * np.float32(weight),
        target=target,
        categories=_categories(written),
    )
    return arranged(tree, features)


def _categories(written: Json) -> dict[int, list[float]]:
    """Sets of categories by node; a category c is every number in ``[c, c + 1)``."""
    lists = (written[f"categories_{name}"] for name in ("nodes", "segments", "sizes"))
    return {
        node: edges_of(written["categories"][first : first + size])
        for node, first, size in zip(*lists, strict=True)
    }


def _original(booster: xgboost.Booster, ensemble: Boosted, rounds: int) -> Infer:
    margin = json.loads(booster.save_config())["learner"]["objective"]["name"] == "multi:softmax"

    def run(inputs: Tensors) -> Tensors:
        import numpy as np
        import xgboost

        matrix = xgboost.DMatrix(
            inputs["X"],
            feature_names=booster.feature_names,
            feature_types=booster.feature_types,
            enable_categorical=True,
        )
        result = booster.predict(matrix, output_margin=margin, iteration_range=(0, rounds))
        if margin:  # its answer is the class alone
            powers = np.exp(result - result.max(axis=1, keepdims=True))
            result = powers / powers.sum(axis=1, keepdims=True)
        return answer(ensemble, result)

    return run
