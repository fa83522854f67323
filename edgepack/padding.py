"""Answers of an original model, whose shapes depend on data, in the form that a package gives.

Outputs have room for a fixed number of rows; what is not there is zero, and further outputs count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgepack.artefacts import Infer, PaddedAxis, Tensors
from edgepack.errors import ModelError

if TYPE_CHECKING:
    import numpy as np

Padded = Mapping[str, tuple[PaddedAxis, ...]]
"""As ImportedModel.padded."""


def through(padded: Padded, infer: Infer) -> Infer:
    """The same function, whose answers are padded. It raises ModelError for more rows than fit."""
    return lambda inputs: pad(padded, infer(inputs))


def pad(padded: Padded, answer: Tensors) -> Tensors:
    """An answer with its outputs padded and counted. Raises ModelError for more rows than fit."""
    import numpy as np

    result = dict(answer)
    for name, axes in padded.items():
        value = np.asarray(answer[name])
        extra = [(0, 0)] * value.ndim
        for entry in axes:
            rows = value.shape[entry.axis]
            if rows > entry.bound:
                raise ModelError(
                    f"output {name!r} has {rows} rows, more than its bound of {entry.bound}",
                    "Declare a higher one with --bound",
                )
            extra[entry.axis] = (0, entry.bound - rows)
            _count(result, entry.count, rows)
        result[name] = np.pad(value, extra)
    return result


def cut(padded: Padded, answer: Tensors) -> Tensors:
    """The inverse of ``pad``: only rows that are there, and no counts."""
    counts = counts_of(padded)
    result = {name: value for name, value in answer.items() if name not in counts}
    for name, axes in padded.items():
        for entry in axes:
            kept = range(int(answer[entry.count]))
            result[name] = result[name].take(kept, axis=entry.axis)
    return result


def counts_of(padded: Padded) -> set[str]:
    """Names of the outputs that count, which the original model does not have."""
    return {entry.count for axes in padded.values() for entry in axes}


def _count(result: Tensors, name: str, rows: int) -> None:
    import numpy as np

    known: np.ndarray = result.setdefault(name, np.array(rows, np.int64))
    if int(known) != rows:
        raise ModelError(f"two outputs that {name!r} counts have {int(known)} and {rows} rows")
