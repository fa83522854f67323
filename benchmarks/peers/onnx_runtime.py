"""ONNX Runtime's CPU provider, through bound inputs and outputs: its cheapest call."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

TITLE = "ONNX Runtime"
PACKAGES = ("onnxruntime",)
START_COMPARES = True


def convert(model: Path, folder: Path) -> Path:
    """Nothing to convert: it reads ONNX."""
    return model


class _Session:
    def __init__(self, model: Path, threads: int) -> None:
        self.pid = os.getpid()
        self.began_ns = time.monotonic_ns()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        self._binding = self._session.io_binding()
        for output in self._session.get_outputs():
            self._binding.bind_output(output.name)

    def feed(self, inputs: Mapping[str, np.ndarray]) -> None:
        for name, value in inputs.items():
            self._binding.bind_cpu_input(name, value)

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def answers(self) -> list[np.ndarray]:
        return list(self._binding.copy_outputs_to_cpu())

    def close(self) -> None:
        """Nothing outlives the process."""


def start(artifact: Path, threads: int) -> _Session:
    """A session with its default graph optimisations."""
    return _Session(artifact, threads)


def shipped() -> Sequence[Path]:
    """The one library that holds everything."""
    import onnxruntime

    return sorted((Path(onnxruntime.__file__).parent / "capi").glob("*pybind11_state*.so"))
