"""The baseline: how a model's inputs and outputs are spread on data that the user calls normal.

A device compares with it what it is asked later, and tells the drift (docs/observing.md).

Bins are those of the population stability index: tenths of the sample, with open ends, so that a
value beyond all that was seen falls into the outermost bin. Every bin has 20 elements or more to rest
on; a smaller sample has fewer bins, and below 40 elements none. A tensor of a few values that repeat
(classes, flags, a constant) has a bin for each value and an empty one on either side instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgepack.artefacts import Baseline, TensorBaseline, Tensors, TensorSpec

if TYPE_CHECKING:
    import numpy as np

_TENTHS = 10
_MOST_VALUES = 14
"""Different values that get bins of their own: with one on either side, as many as a package holds."""
_LEAST_ELEMENTS = 20
"""In a bin. With n elements in b bins, chance alone makes an index of about (b - 1) / n: < 0.05 so."""
_SORTED_ELEMENTS = 1 << 22
"""Edges are looked for in so many elements at most, spread evenly; counts are of all of them."""


def measure_baseline(
    inputs: Sequence[Tensors],
    outputs: Sequence[Tensors],
    input_specs: Sequence[TensorSpec],
    output_specs: Sequence[TensorSpec],
) -> Baseline:
    """How each tensor is spread over samples; ``outputs[i]`` is the original's answer to ``inputs[i]``."""
    return Baseline(
        samples=len(inputs),
        inputs=tuple(_of_tensor(spec.name, inputs) for spec in input_specs),
        outputs=tuple(_of_tensor(spec.name, outputs) for spec in output_specs),
    )


def _of_tensor(name: str, samples: Sequence[Tensors]) -> TensorBaseline | None:
    if any(name not in sample for sample in samples):
        return None
    return measure_tensor([sample[name] for sample in samples])


def measure_tensor(values: Sequence[np.ndarray]) -> TensorBaseline | None:
    """How the elements of all ``values`` are spread, each taken as a float64.

    Mean, variance (of the population), least and greatest are of the finite ones. None where there is
    no finite one, or where they are too large for a variance.
    """
    import numpy as np

    count = sum(value.size for value in values)
    nan = sum(int(np.isnan(part).sum()) for part in _parts(values))
    number = sum(part.size for part in _finite(values))
    if not number:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        mean = sum(float(part.sum()) for part in _finite(values)) / number
        variance = sum(float(np.square(part - mean).sum()) for part in _finite(values)) / number
    if not np.isfinite(variance):
        return None
    edges = _edges(values, count - nan)
    return TensorBaseline(
        count=count,
        nan=nan,
        infinite=count - nan - number,
        mean=mean,
        variance=variance,
        min=min(float(part.min()) for part in _finite(values) if part.size),
        max=max(float(part.max()) for part in _finite(values) if part.size),
        edges=edges,
        counts=_histogram(values, edges),
    )


def _parts(values: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    import numpy as np

    return (value.astype(np.float64).ravel() for value in values)


def _finite(values: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    import numpy as np

    return (part[np.isfinite(part)] for part in _parts(values))


def _edges(values: Sequence[np.ndarray], count: int) -> tuple[float, ...]:
    """Where each bin but the first begins, strictly rising. ``count`` leaves NaN out."""
    import numpy as np

    each = max(1, _SORTED_ELEMENTS // len(values))
    thinned = [part[:: -(-part.size // each) or 1] for part in _finite(values)]
    found, repeats = np.unique(np.concatenate(thinned), return_counts=True)
    if len(found) <= _MOST_VALUES and count >= _LEAST_ELEMENTS * len(found):
        return (*map(float, found), *_next(float(found[-1]), values[0].dtype))
    bins = min(_TENTHS, count // _LEAST_ELEMENTS)
    total = np.cumsum(repeats)
    places = [
        int(np.searchsorted(total, int(total[-1]) * i // bins, side="right"))
        for i in range(1, bins)
    ]
    return tuple(float(found[place]) for place in dict.fromkeys(places))


def _next(value: float, dtype: np.dtype) -> Iterator[float]:
    """The next greater value of the tensor's type, where the bin of its last value ends."""
    import numpy as np

    above = math.nextafter(value, math.inf)
    if dtype.kind != "f":
        above = max(above, value + 1)
    elif dtype.itemsize < 8:
        with np.errstate(all="ignore"):
            coarser = float(np.nextafter(dtype.type(value), dtype.type(np.inf)))
        above = coarser if np.isfinite(coarser) else above
    if np.isfinite(above):
        yield above


def _histogram(values: Sequence[np.ndarray], edges: tuple[float, ...]) -> tuple[int, ...]:
    import numpy as np

    counts = np.zeros(len(edges) + 1, np.int64)
    for part in _parts(values):
        places = np.searchsorted(edges, part[~np.isnan(part)], side="right")
        counts += np.bincount(places, minlength=len(counts))
    return tuple(map(int, counts))
