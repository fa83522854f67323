"""LightGBM's model text: a header, trees as lists of numbers, and much that predictions do not need.

LightGBM itself trusts the text, and dies of some that are damaged; it is given those fields alone that
have been read here. What they mean is read off its src/io/tree.cpp and src/boosting/gbdt_model_text.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

HEAD = (b"tree\nversion=v", b"tree\r\nversion=v")
_END = "end of trees"
LARGEST = 1 << 24
"""No index is larger."""

_HEADER = (
    "version",
    "num_class",
    "num_tree_per_iteration",
    "label_index",
    "max_feature_idx",
    "objective",
    "average_output",
    "feature_names",
    "feature_infos",
)
_OF_TREES = (
    "Tree",
    "num_leaves",
    "num_cat",
    "split_feature",
    "threshold",
    "decision_type",
    "left_child",
    "right_child",
    "leaf_value",
    "cat_boundaries",
    "cat_threshold",
    "shrinkage",
)
"""Fields that predictions depend on."""

Fields = Mapping[str, str]


def sections(text: str) -> tuple[Fields, list[Fields]]:
    """The header's fields, and those of each tree. A field without a value is empty."""
    trees, found, _ = text.partition(f"\n{_END}\n")
    if not found:
        raise ValueError(f"it is cut short: there is no {_END!r}")
    header, *rest = trees.split("\nTree=")
    return _fields(header), [_fields(f"Tree={part}") for part in rest]


def _fields(text: str) -> Fields:
    lines = (line.partition("=") for line in text.splitlines())
    return {name: value.strip() for name, _, value in lines}


def numbers(written: Fields, name: str, count: int) -> np.ndarray:
    """A list of ``count`` numbers, float64. Raises ValueError for another count."""
    import numpy as np

    words = written[name].split() if count else []
    if len(words) != count:
        raise ValueError(f"{name} of Tree={written['Tree']} has {len(words)} numbers for {count}")
    return np.array([float(word) for word in words])


def integers(written: Fields, name: str, count: int) -> np.ndarray:
    """A list of ``count`` whole numbers, int64. Raises ValueError for others."""
    import numpy as np

    found = numbers(written, name, count)
    if np.any((found % 1 != 0) | (np.abs(found) > LARGEST)):
        raise ValueError(f"{name} of Tree={written['Tree']} has numbers that are no indices")
    return found.astype(np.int64)


def whole_text(header: Fields, written: list[Fields]) -> str:
    """The text of a model that has these fields; those that predictions do not need are left out."""
    lines = ["tree"]
    lines += [f"{name}={value}".rstrip("=") for name, value in header.items() if name in _HEADER]
    for part in written:
        lines += ["", *(f"{name}={part[name]}" for name in _OF_TREES if name in part)]
    lines += ["", _END, "", "parameters:", "end of parameters", "", "pandas_categorical:null", ""]
    return "\n".join(lines)
