"""LiteRT with XNNPACK, from litert-torch's export of the PyTorch module that pnnx writes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers import pnnx

if TYPE_CHECKING:
    import numpy as np

TITLE = "LiteRT"
PACKAGES = ("ai-edge-litert", "litert-torch")
START_COMPARES = True


def convert(model: Path, folder: Path) -> Path:
    """NCHW at its inputs and outputs, as the model has them."""
    import litert_torch  # type: ignore[import-not-found, unused-ignore]

    form = pnnx.as_torch(model, folder)
    path = folder / "m.tflite"
    litert_torch.convert(form.module, form.inputs).export(str(path))
    return path


class _Session:
    def __init__(self, model: Path, threads: int) -> None:
        self.pid = os.getpid()
        self.began_ns = time.monotonic_ns()
        from ai_edge_litert.interpreter import (  # type: ignore[import-not-found, unused-ignore]
            Interpreter,
        )

        self._interpreter: Any = Interpreter(str(model), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._inputs = _in_order(self._interpreter.get_input_details())
        self._outputs = _in_order(self._interpreter.get_output_details())

    def feed(self, inputs: Mapping[str, np.ndarray]) -> None:
        for index, value in zip(self._inputs, inputs.values(), strict=True):
            self._interpreter.set_tensor(index, value)

    def run(self) -> None:
        self._interpreter.invoke()

    def answers(self) -> list[np.ndarray]:
        return [self._interpreter.get_tensor(index) for index in self._outputs]

    def close(self) -> None:
        """Nothing outlives the process."""


def _in_order(details: Sequence[Mapping[str, Any]]) -> list[int]:
    """The exporter numbers names in the module's order; the file lists them in any."""
    return [item["index"] for item in sorted(details, key=lambda item: str(item["name"]))]


def start(artifact: Path, threads: int) -> _Session:
    """An interpreter; it delegates to XNNPACK by itself."""
    return _Session(artifact, threads)


def shipped() -> Sequence[Path]:
    """The interpreter's libraries."""
    import ai_edge_litert  # type: ignore[import-not-found, unused-ignore]

    folder = Path(ai_edge_litert.__file__).parent
    return [
        folder / name
        for name in ("_pywrap_litert_interpreter_wrapper.so", "libpywrap_litert_common.so")
    ]
