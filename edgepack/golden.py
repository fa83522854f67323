"""Golden vectors: inputs, reference outputs from ONNX Runtime on the original model, a tolerance.

Inputs are made with a fixed seed and of several kinds, because a model's answer to noise of one
scale may hardly vary. A candidate counts only if the reference is sure of its own answer: ONNX
Runtime with and without graph optimisation must agree on it well within the tolerance, and no output
may be much smaller than it is on other candidates, or the comparison would measure rounding in an
ill-conditioned spot (a sigmoid of -12, which ONNX Runtime gives to 0.4 percent). Of those, the
ones are kept whose outputs differ most from one another; the tolerance is tightened below a quarter
of the smallest difference, so that a stale or constant answer cannot pass for a right one.

Where numbers are quantised in between, the last bit of one can make a step of it, and that many more
steps further on. Two ways of computing then agree on one candidate by chance, so the doubt about all of
them is the largest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgepack.artefacts import GoldenVectors, ImportedModel, Infer, Tensors, TensorSpec
from edgepack.errors import CompileError, ModelError
from edgepack.reference import is_quantised, reference

if TYPE_CHECKING:
    import numpy as np

VECTORS = 3
_CANDIDATES = 40
_QUANTISED_CANDIDATES = 12
"""Of a quantised model: enough to see how far its answers vary."""
_SMALLEST = 1e-30
"""Outputs that are all zero are compared absolutely against this."""
_ROUNDING = 2.0**-24
"""How exact a function is near its saturation, as a part of its largest value: of float32."""
SMALL = 2.0**-9
"""An output below this part of its largest value is near a function's saturation."""
_BYTE_STEPS = 255
"""From the least to the greatest number of 8 bits."""
_LEAST_TOLERANCE = 2e-6
"""A few float32 roundings; below this, right answers of another instruction set would fail."""


def make_golden(
    imported: ImportedModel,
    tolerance: float,
    *,
    samples: Sequence[Tensors] = (),
    warn: Callable[[str], None] = lambda _: None,
) -> GoldenVectors:
    """Run the original model on candidate inputs and keep the surest, most different answers.

    ``samples`` are inputs that the user has; they are tried before any that are made up.
    ``tolerance`` bounds ``max|y - ref| / max|ref|`` of each output. It is widened, with a warning,
    only where the reference itself is less sure than that on every candidate. Raises ModelError
    where ONNX Runtime cannot run the model or gives no finite answer.
    """
    sure, unsure = _by_doubt(_candidates(imported, samples, tolerance / 4), tolerance / 4)
    chosen = _most_different(sure)
    if len(chosen) < 2:
        chosen = _most_different(sorted([*sure, *unsure], key=lambda c: c.doubt)[: 2 * VECTORS])
        doubt = max(c.doubt for c in chosen)
        if doubt > tolerance / 4:
            tolerance = min(4 * doubt, 1.0)
            warn(
                f"ONNX Runtime's own answers vary by {doubt:.2g} relative on this model's test"
                f" inputs: up to {tolerance:.2g} is accepted here, and on a device twice what is found here"
            )
    distinct = len(chosen) > 1
    if not distinct:
        warn("the outputs do not depend on the inputs: golden vectors cannot tell a stale answer")
    distances = itertools.starmap(_distance, itertools.combinations(chosen, 2))
    return GoldenVectors(
        inputs=tuple(c.inputs for c in chosen),
        outputs=tuple(c.outputs for c in chosen),
        tolerance=min([tolerance, *(distance / 4 for distance in distances)]),
        distinct=distinct,
    )


def tightened(golden: GoldenVectors, measured: float, tolerance: float) -> GoldenVectors:
    """What a device is held to: the same worker is off by as much there as it was here, ``measured``.

    Where the reference's doubt has widened the ``tolerance``, that leaves twice the error, no more.
    """
    needed = max(tolerance, 2 * measured)
    return replace(golden, tolerance=min(golden.tolerance, needed))


def largest_value(value: np.ndarray) -> float:
    """The largest magnitude in a floating-point tensor, above zero; one for any other."""
    import numpy as np

    if value.dtype.kind != "f" or not value.size:
        return 1.0
    return max(float(np.abs(value.astype(np.float64)).max()), _SMALLEST)


def relative_error(value: np.ndarray, reference: np.ndarray, largest: float | None = None) -> float:
    """``max|y - ref| / max|ref|``; infinity for a NaN, a wrong shape, or unequal integers.

    Integers of 8 bits may stand for numbers: ``max|y - ref| / 255``. ``largest`` stands for ``max|ref|``
    where it is given.
    """
    import numpy as np

    if value.shape != reference.shape or value.dtype != reference.dtype:
        return float("inf")
    if reference.size == 0:
        return 0.0
    is_byte = reference.dtype.kind in "iu" and reference.dtype.itemsize == 1
    if reference.dtype.kind != "f" and not is_byte:
        return 0.0 if np.array_equal(value, reference) else float("inf")
    difference = np.abs(value.astype(np.float64) - reference.astype(np.float64)).max()
    if is_byte:
        largest = _BYTE_STEPS
    scale = largest_value(reference) if largest is None else largest
    return float(difference) / scale if np.isfinite(difference) else float("inf")


def distance_between(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> float:
    """How far two answers lie apart: the largest relative error over the outputs, either way."""
    return max(
        min(relative_error(first[name], second[name]), relative_error(second[name], first[name]))
        for name in first
    )


def compare(golden: GoldenVectors, infer: Infer, what: str) -> float:
    """Run every vector through ``infer``; the largest relative error.

    Raises CompileError that names the first output over the tolerance, by how much.
    """
    worst = 0.0
    for number, (inputs, wanted) in enumerate(zip(golden.inputs, golden.outputs, strict=True)):
        answer = infer(inputs)
        for name, right in wanted.items():
            error = relative_error(answer[name], right)
            if not error <= golden.tolerance:
                raise CompileError(
                    f"{what}: output {name!r} differs from ONNX Runtime's on vector {number}:"
                    f" relative error {error:.3g}, tolerance {golden.tolerance:.3g}",
                    "nothing was written; a wider --tolerance is right only for a model that is"
                    " known to need it",
                )
            worst = max(worst, error)
    return worst


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """Inputs, the reference's answer, and how far its two ways of computing lie apart.

    ``sizes`` has the largest value of each output.
    """

    inputs: Tensors
    outputs: Tensors
    doubt: float
    sizes: Mapping[str, float]


def _candidates(
    imported: ImportedModel, samples: Sequence[Tensors], doubt_limit: float
) -> list[_Candidate]:
    """Candidates with finite answers; stops when the reference is sure of enough of them, or never can be."""
    import numpy as np

    together = is_quantised(imported)
    optimised, plain = reference(imported, optimise=True), reference(imported, optimise=False)
    generator = np.random.default_rng(20)
    found: list[_Candidate] = []
    reason = "every answer holds NaN or infinity"
    made_up = (
        {spec.name: _random(generator, spec, kind) for spec in imported.inputs}
        for kind in range(_CANDIDATES)
    )
    for inputs in itertools.chain(samples[:_CANDIDATES], made_up):
        enough = found if together else _by_doubt(found, doubt_limit)[0]
        count = _QUANTISED_CANDIDATES if together else 2 * VECTORS
        if len(enough) >= count and len(_most_different(enough)) == VECTORS:
            break
        try:
            outputs, other = optimised(inputs), plain(inputs)
        except Exception as error:  # ONNX Runtime's exceptions have no common type
            reason = str(error).splitlines()[0]
            continue
        if all(np.isfinite(value).all() for value in outputs.values() if value.dtype.kind == "f"):
            doubt = max(relative_error(other[name], outputs[name]) for name in outputs)
            sizes = {name: largest_value(value) for name, value in outputs.items()}
            found.append(_Candidate(inputs=inputs, outputs=outputs, doubt=doubt, sizes=sizes))
    if not found:
        raise ModelError(
            f"ONNX Runtime gives no answer to compare with: {reason}",
            "check that the model runs in ONNX Runtime with these input shapes",
        )
    if together:
        largest = max(candidate.doubt for candidate in found)
        return [replace(candidate, doubt=largest) for candidate in found]
    return found


def _by_doubt(
    candidates: Sequence[_Candidate], limit: float
) -> tuple[list[_Candidate], list[_Candidate]]:
    """The candidates that the reference is sure of, and the others, each with its doubt beside all.

    Outputs far below what they are on other candidates add the doubt of a function's saturation.
    """
    largest = {
        name: max(candidate.sizes[name] for candidate in candidates)
        for candidate in candidates[:1]
        for name in candidate.sizes
    }
    judged = [
        replace(candidate, doubt=max(candidate.doubt, _near_saturation(candidate.sizes, largest)))
        for candidate in candidates
    ]
    return (
        [candidate for candidate in judged if candidate.doubt <= limit],
        [candidate for candidate in judged if candidate.doubt > limit],
    )


def _near_saturation(sizes: Mapping[str, float], largest: Mapping[str, float]) -> float:
    small = (name for name in sizes if sizes[name] < SMALL * largest[name])
    return max((_ROUNDING * largest[name] / sizes[name] for name in small), default=0.0)


_FLOAT_KINDS = [(1.0, 0.0), (0.5, 0.5), (1.0, 1.5), (2.0, 0.0), (0.1, 0.0)]
"""Scale and offset of floating-point candidates; images in 0..1, in -1..1, normalised, …"""
_INTEGER_RANGES = [2, 16, 100, 128, 5]
"""Integers are mostly codes or indices: small ranges, so that some fit any table."""
_IMAGE_RANK = 4
"""Bytes in so many dimensions are taken for an image."""
_BLOCKS = [1, 2, 4, 8, 16]
"""Side of the blocks that a scene is made of, in pixels."""


def _random(generator: Any, spec: TensorSpec, kind: int) -> np.ndarray:
    """Candidate ``kind`` of an input: noise and scenes by turns, at every scale and offset."""
    import numpy as np

    if spec.dtype == "bool":
        return np.asarray(generator.integers(0, 2, spec.shape), dtype=bool)
    image = spec.dtype == "uint8" and len(spec.shape) == _IMAGE_RANK
    if not spec.dtype.startswith("float") and not image:
        high = _INTEGER_RANGES[kind % len(_INTEGER_RANGES)]
        return np.asarray(generator.integers(0, high, spec.shape), dtype=spec.dtype)
    turn = kind // 2
    scale, offset = _FLOAT_KINDS[turn % len(_FLOAT_KINDS)]
    if kind % 2:
        block = _BLOCKS[(turn + turn // len(_FLOAT_KINDS)) % len(_BLOCKS)]
        values = _scene(generator, spec.shape, block)
    else:
        values = generator.standard_normal(spec.shape)
    if image:
        # Scenes from black to white, noise around grey; contrast by turns.
        return np.asarray(np.clip(127.5 + 127.5 * min(scale, 1.0) * values, 0, 255), np.uint8)
    return np.asarray(values * scale + offset, dtype=spec.dtype)


def _scene(generator: Any, shape: tuple[int, ...], block: int) -> np.ndarray:
    """Black and white blocks in some regions of a white ground, the same over channels.

    Networks that look for something (text, faces) answer zero to plain noise.
    """
    import numpy as np

    channels_last = len(shape) > 2 and shape[-1] <= 4
    spatial = range(len(shape))[-3:-1] if channels_last else range(len(shape))[-2:]

    def coarse(side: int) -> np.ndarray:
        extents = [-(-e // side) if axis in spatial else 1 for axis, e in enumerate(shape)]
        cells = generator.integers(0, 2, extents).astype(np.float64)
        for axis in spatial:
            cells = cells.take(np.arange(shape[axis]) // side, axis=axis)
        return np.broadcast_to(cells, shape)

    return np.asarray(1.0 - 2.0 * coarse(block) * coarse(32))


def _distance(first: _Candidate, second: _Candidate) -> float:
    return distance_between(first.outputs, second.outputs)


def _most_different(candidates: list[_Candidate]) -> list[_Candidate]:
    """Farthest-point choice of up to VECTORS, leaving out those that answer as another does."""
    chosen = candidates[:1]
    while candidates and len(chosen) < VECTORS:
        distance, number = max(
            (min(_distance(c, other) for other in chosen), -i) for i, c in enumerate(candidates)
        )
        if distance / 4 < _LEAST_TOLERANCE:
            break
        chosen.append(candidates[-number])
    return chosen
