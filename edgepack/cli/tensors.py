"""Tensors from and to NumPy's files: ``run`` reads .npy and writes .npz."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.artefacts import TensorSpec
from edgepack.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np


def load_inputs(files: Mapping[str, Path], specs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """Read one .npy file for each of the model's inputs; dtype and shape must be the model's own.

    Raises:
        ConfigError: An input is missing or unknown, or a file is not what its input takes.
    """
    wanted = ", ".join(f"--input {spec.name}=FILE.npy" for spec in specs)
    for name in files:
        if name not in {spec.name for spec in specs}:
            raise ConfigError(f"the model has no input {name!r}", f"it takes {wanted}")
    for spec in specs:
        if spec.name not in files:
            raise ConfigError(f"input {spec.name!r} is missing", f"the model takes {wanted}")
    return {spec.name: _load(files[spec.name], spec) for spec in specs}


def _load(file: Path, spec: TensorSpec) -> np.ndarray:
    import numpy as np

    try:
        with file.open("rb") as stream:
            array = np.load(stream, allow_pickle=False)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{file} is not a NumPy array file", "write one with numpy.save(FILE, array)"
        ) from error
    if not isinstance(array, np.ndarray):
        raise ConfigError(f"{file} holds several arrays", "an input takes a .npy file of one array")
    if array.dtype.name != spec.dtype or array.shape != spec.shape:
        raise ConfigError(
            f"{file} is {describe(array.dtype.name, array.shape)},"
            f" but input {spec.name!r} takes {describe(spec.dtype, spec.shape)}",
            f"convert it: array.astype(numpy.{spec.dtype}).reshape({list(spec.shape)})",
        )
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def save_outputs(file: Path, outputs: Mapping[str, np.ndarray]) -> None:
    """Write ``outputs`` as an .npz file, one array under each output's name, in one step."""
    import numpy as np

    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(unfinished, "w") as archive:
            # numpy.savez takes names as keywords, and an output may be called "file".
            for name, array in outputs.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
        unfinished.replace(file)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {file}: {error.strerror or error}") from error


def summarise(name: str, array: np.ndarray) -> dict[str, Any]:
    """What ``run`` tells of an output: name, dtype, shape, and its least and greatest finite value."""
    import numpy as np

    finite = array[np.isfinite(array)]
    return {
        "name": name,
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "min": finite.min().item() if finite.size else None,
        "max": finite.max().item() if finite.size else None,
        "finite": bool(finite.size == array.size),
    }


def describe(dtype: str, shape: Sequence[int | str]) -> str:
    """``float32[1,3,48,320]``."""
    return f"{dtype}[{','.join(map(str, shape))}]"
