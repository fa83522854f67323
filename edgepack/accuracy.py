"""The accuracy gate: a package's answers beside the original model's, on inputs that the user has.

The original is the framework that the model comes from, where there is one, else ONNX Runtime.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.artefacts import Accuracy, Infer, OutputAccuracy, Tensors, TensorSpec
from edgepack.errors import CompileError, ConfigError
from edgepack.golden import SMALL, largest_value, relative_error

if TYPE_CHECKING:
    import numpy as np

_MAX_SAMPLES = 100_000


def read_samples(path: Path, specs: Sequence[TensorSpec], option: str = "--check") -> list[Tensors]:
    """The samples of an .npz file, or of every .npz and .npy file of a folder, in order of names.

    An .npz has an array for each input, of the input's shape, or with samples along one more axis in
    front. An .npy serves a model with one input. ``option`` named the path, for messages. Raises
    ConfigError.
    """
    files = _files(path, option)
    samples: list[Tensors] = []
    for file in files:
        samples += _read(file, specs)
        if len(samples) > _MAX_SAMPLES:
            raise ConfigError(f"{option} {path} holds more than {_MAX_SAMPLES} samples")
    if not samples:
        raise ConfigError(
            f"{option} {path} holds no samples", "put .npz files there, an array for each input"
        )
    return samples


def measure(
    samples: Sequence[Tensors],
    wanted: Sequence[Tensors],
    infer: Infer,
    *,
    original: str,
    tolerance: float,
    what: str,
) -> Accuracy:
    """Run every sample through ``infer`` and compare with the original's answers.

    ``what`` is the target's name, for messages. Raises CompileError naming the output that is
    furthest off, where any is off by more than ``tolerance``.
    """
    answers = [infer(sample) for sample in samples]
    outputs = tuple(
        _compare(name, [answer[name] for answer in answers], [right[name] for right in wanted])
        for name in wanted[0]
    )
    worst = max(outputs, key=lambda output: output.max_error)
    if not worst.max_error <= tolerance:
        raise CompileError(
            f"{what}: output {worst.name!r} differs from {original}'s by {worst.max_error:.3g}"
            f" relative on the {len(samples)} samples, tolerance {tolerance:.3g}",
            "nothing was written; a wider --tolerance is right only for a model that is known to"
            " need it",
        )
    return Accuracy(original=original, samples=len(samples), tolerance=tolerance, outputs=outputs)


def _compare(
    name: str, answers: Sequence[np.ndarray], wanted: Sequence[np.ndarray]
) -> OutputAccuracy:
    """Errors as a part of the output's largest value on the same sample, or of SMALL times its largest
    on any: near a function's saturation (a probability near zero, say) answers are no less exact than
    elsewhere.
    """
    import numpy as np

    sizes = [largest_value(right) for right in wanted]
    least = SMALL * max(sizes)
    errors, means = [], []
    for answer, right, size in zip(answers, wanted, sizes, strict=True):
        largest = max(size, least)
        error = relative_error(answer, right, largest)
        errors.append(error)
        if np.isfinite(error) and right.dtype.kind == "f" and right.size:
            difference = np.abs(answer.astype(np.float64) - right.astype(np.float64))
            error = float(difference.mean()) / largest
        means.append(error)
    return OutputAccuracy(
        name=name,
        max_error=max(errors),
        mean_error=float(np.mean(means)),
        top1_agreement=_top1(answers, wanted),
    )


def _top1(answers: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float | None:
    """How often the largest value along the last axis is the same one; None where it is no score."""
    first = wanted[0]
    if first.dtype.kind != "f" or first.ndim not in (1, 2) or first.shape[-1] < 2:
        return None
    same = total = 0
    for answer, right in zip(answers, wanted, strict=True):
        agreed = answer.argmax(axis=-1) == right.argmax(axis=-1)
        same, total = same + int(agreed.sum()), total + int(agreed.size)
    return same / total


def _files(path: Path, option: str) -> list[Path]:
    try:
        if path.is_dir():
            return sorted(f for f in path.iterdir() if f.suffix in (".npz", ".npy"))
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"cannot read {option} {path}: {error.strerror}") from error
    return [path]


def _read(file: Path, specs: Sequence[TensorSpec]) -> list[Tensors]:
    import numpy as np

    try:
        with file.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if not isinstance(loaded, np.ndarray):
                arrays = {name: loaded[name] for name in loaded.files}
            elif len(specs) == 1:
                arrays = {specs[0].name: loaded}
            else:
                raise ConfigError(
                    f"{file} holds one array, the model has {len(specs)} inputs",
                    f"write an .npz with {', '.join(spec.name for spec in specs)}",
                )
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{file} is no NumPy file of plain arrays",
            "write it with numpy.savez(FILE, NAME=array)",
        ) from error
    return list(_split(file, arrays, specs))


def _split(
    file: Path, arrays: Mapping[str, np.ndarray], specs: Sequence[TensorSpec]
) -> Iterator[Tensors]:
    """One sample after the other."""
    import numpy as np

    for spec in specs:
        if spec.name not in arrays:
            raise ConfigError(
                f"{file} has no array {spec.name!r}",
                f"the model's inputs are {', '.join(s.name for s in specs)};"
                f" the file has {', '.join(arrays) or 'none'}",
            )
        found = arrays[spec.name]
        if (
            found.dtype.name != spec.dtype
            or found.shape[-len(spec.shape) or found.ndim :] != spec.shape
        ):
            raise _unfit(file, spec, found)
    stacked = [arrays[spec.name].ndim - len(spec.shape) for spec in specs]
    if any(extra not in (0, 1) for extra in stacked) or len(set(stacked)) > 1:
        raise _unfit(file, specs[0], arrays[specs[0].name])
    if not stacked[0]:
        yield {spec.name: np.array(arrays[spec.name], order="C") for spec in specs}
        return
    counts = {arrays[spec.name].shape[0] for spec in specs}
    if len(counts) > 1:
        raise ConfigError(f"{file} has different numbers of samples for the inputs: {counts}")
    for i in range(counts.pop()):
        yield {spec.name: np.array(arrays[spec.name][i], order="C") for spec in specs}


def _unfit(file: Path, spec: TensorSpec, found: np.ndarray) -> ConfigError:
    shape = ",".join(map(str, spec.shape))
    return ConfigError(
        f"{file}: {spec.name!r} is {found.dtype.name}{list(found.shape)}, not"
        f" {spec.dtype}[{shape}] or {spec.dtype}[samples,{shape}]",
        f"convert it: array.astype(numpy.{spec.dtype}), and give it the input's shape",
    )
