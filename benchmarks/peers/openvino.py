"""OpenVINO's CPU plugin, which reads ONNX by itself."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

TITLE = "OpenVINO"
PACKAGES = ("openvino",)
START_COMPARES = True

_NEEDED = ("libopenvino.so*", "libopenvino_intel_cpu_plugin.so", "libopenvino_onnx_frontend.so*",
           "libtbb.so*")  # fmt: skip


def convert(model: Path, folder: Path) -> Path:
    """Nothing to convert."""
    return model


class _Session:
    def __init__(self, model: Path, threads: int) -> None:
        self.pid = os.getpid()
        self.began_ns = time.monotonic_ns()
        import openvino  # type: ignore[import-not-found, unused-ignore]

        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Others compute in float32; it would take bfloat16 where the CPU has it.
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        core = openvino.Core()
        self._model: Any = core.compile_model(core.read_model(model), "CPU", settings)
        self._request = self._model.create_infer_request()
        self._tensor = openvino.Tensor
        self._fed: list[np.ndarray] = []

    def feed(self, inputs: Mapping[str, np.ndarray]) -> None:
        self._fed = list(inputs.values())
        for name, value in inputs.items():
            self._request.set_tensor(name, self._tensor(value, shared_memory=True))

    def run(self) -> None:
        self._request.infer()

    def answers(self) -> list[np.ndarray]:
        count = len(self._model.outputs)
        return [self._request.get_output_tensor(place).data.copy() for place in range(count)]

    def close(self) -> None:
        """Nothing outlives the process."""


def start(artifact: Path, threads: int) -> _Session:
    """The model compiled for one stream of ``threads`` threads."""
    return _Session(artifact, threads)


def shipped() -> Sequence[Path]:
    """Core library, CPU plugin, ONNX front end and TBB."""
    import openvino

    folder = Path(openvino.__file__).parent / "libs"
    return sorted(path for pattern in _NEEDED for path in folder.glob(pattern))
