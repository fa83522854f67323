"""ncnn, from the files that pnnx writes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers import pnnx

if TYPE_CHECKING:
    import numpy as np

TITLE = "ncnn"
PACKAGES = ("ncnn", "pnnx")
START_COMPARES = True


def convert(model: Path, folder: Path) -> Path:
    """pnnx; layers that ncnn does not know keep their dotted PyTorch names, which is a failure."""
    pnnx.convert(model, folder, wanted="m.ncnn.bin")
    layers = [line.split()[0] for line in (folder / "m.ncnn.param").read_text().splitlines()[2:]]
    unknown = sorted({layer for layer in layers if "." in layer})
    if unknown:
        raise RuntimeError(f"no layer for {', '.join(unknown)}")
    return folder / "m.ncnn.bin"


class _Session:
    def __init__(self, weights: Path, threads: int) -> None:
        self.pid = os.getpid()
        self.began_ns = time.monotonic_ns()
        import ncnn  # type: ignore[import-not-found, unused-ignore]
        import numpy as np

        self._numpy: Any = np
        self._mat = ncnn.Mat
        self._net: Any = ncnn.Net()
        options = self._net.opt
        options.num_threads = threads
        options.use_vulkan_compute = False
        for half in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(options, f"use_{half}", False)
        if self._net.load_param(str(weights.with_suffix(".param"))) != 0:
            raise RuntimeError("cannot load the network")
        if self._net.load_model(str(weights)) != 0:
            raise RuntimeError("cannot load the weights")
        self._names = self._net.input_names(), self._net.output_names()
        self._fed: list[Any] = []
        self._answers: list[Any] = []

    def feed(self, inputs: Mapping[str, np.ndarray]) -> None:
        # It has no batch dimension. clone: a Mat made of an array only points to it.
        arrays = [value[0] if value.ndim > 1 else value for value in inputs.values()]
        self._fed = [self._mat(self._numpy.ascontiguousarray(array)).clone() for array in arrays]

    def run(self) -> None:
        extractor = self._net.create_extractor()
        for name, value in zip(self._names[0], self._fed, strict=True):
            extractor.input(name, value)
        found = [extractor.extract(name) for name in self._names[1]]
        if any(status != 0 for status, _ in found):
            raise RuntimeError("a layer failed")
        self._answers = [value for _, value in found]

    def answers(self) -> list[np.ndarray]:
        return [self._numpy.array(value) for value in self._answers]

    def close(self) -> None:
        """Nothing outlives the process."""


def start(artifact: Path, threads: int) -> _Session:
    """A net in full precision."""
    return _Session(artifact, threads)


def shipped() -> Sequence[Path]:
    """The Python module, which holds the library; a static build for one CPU is a tenth of it."""
    import ncnn

    return sorted(Path(ncnn.__file__).parent.glob("*.so"))
