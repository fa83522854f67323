"""The ``baseline`` of model.json: what tensors looked like on the data that the user gave.

    {"inputs":[{"count":4000,"counts":[400,…],"edges":[-1.27,…],"infinite":0,"max":4.1,"mean":0.002,
                "min":-3.9,"nan":0,"variance":0.99}],
     "outputs":[null],"samples":1000}

One entry for each input and each output, in order; null for a tensor of which nothing can be said.
``counts`` has one more entry than ``edges``, which rise strictly, and makes up ``count`` together with
``nan``.
"""

from __future__ import annotations

from itertools import pairwise

from edgepack import canonical

MAX_BINS = 16
_TENSOR = ("count", "nan", "infinite", "mean", "variance", "min", "max", "edges", "counts")


def check(value: object, where: str, inputs: int, outputs: int) -> None:
    """Refuse what is no baseline of a model with so many tensors, by a MalformedError."""
    baseline = canonical.members(value, where, ("samples", "inputs", "outputs"))
    canonical.integer(baseline["samples"], f"{where}.samples", 1)
    for key, number in (("inputs", inputs), ("outputs", outputs)):
        entries = canonical.items(baseline[key], f"{where}.{key}", number)
        if len(entries) != number:
            raise canonical.MalformedError(f"{where}.{key} has not {number} entries")
        for i, entry in enumerate(entries):
            if entry is not None:
                _check_tensor(entry, f"{where}.{key}[{i}]")


def _check_tensor(value: object, where: str) -> None:
    tensor = canonical.members(value, where, _TENSOR)
    for key in ("count", "nan", "infinite"):
        canonical.integer(tensor[key], f"{where}.{key}")
    for key in ("mean", "variance", "min", "max"):
        canonical.number(tensor[key], f"{where}.{key}")
    if tensor["variance"] < 0:
        raise canonical.MalformedError(f"{where}.variance is negative")
    edges = canonical.items(tensor["edges"], f"{where}.edges", MAX_BINS - 1)
    numbers = [canonical.number(edge, f"{where}.edges") for edge in edges]
    if not all(low < high for low, high in pairwise(numbers)):
        raise canonical.MalformedError(f"{where}.edges do not rise")
    counts = canonical.items(tensor["counts"], f"{where}.counts", MAX_BINS)
    total = sum(canonical.integer(number, f"{where}.counts") for number in counts)
    if len(counts) != len(edges) + 1 or total + tensor["nan"] != tensor["count"]:
        raise canonical.MalformedError(f"{where}.counts do not make up its elements")
