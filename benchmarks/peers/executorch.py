"""ExecuTorch with XNNPACK, from an export of the PyTorch module that pnnx writes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers import pnnx

if TYPE_CHECKING:
    import numpy as np

TITLE = "ExecuTorch"
PACKAGES = ("executorch", "torch")
START_COMPARES = False
"""Its Python runtime loads PyTorch too."""


def convert(model: Path, folder: Path) -> Path:
    """Whatever XNNPACK takes is delegated to it; the rest runs on portable kernels."""
    import torch  # type: ignore[import-not-found, unused-ignore]
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # type: ignore[import-not-found, unused-ignore]
        XnnpackPartitioner,
    )
    from executorch.exir import (  # type: ignore[import-not-found, unused-ignore]
        to_edge_transform_and_lower,
    )

    form = pnnx.as_torch(model, folder)
    exported = torch.export.export(form.module, form.inputs, strict=False)
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    path = folder / "m.pte"
    path.write_bytes(lowered.to_executorch().buffer)
    return path


class _Session:
    def __init__(self, program: Path, threads: int) -> None:
        self.pid = os.getpid()
        self.began_ns = time.monotonic_ns()
        import torch
        from executorch.extension.pybindings.portable_lib import (  # type: ignore[import-not-found, unused-ignore]
            _unsafe_reset_threadpool,
        )
        from executorch.runtime import Runtime  # type: ignore[import-not-found, unused-ignore]

        _unsafe_reset_threadpool(threads)
        self._tensor = torch.from_numpy
        self._program: Any = Runtime.get().load_program(program)
        self._method = self._program.load_method("forward")
        self._fed: list[Any] = []
        self._answers: Sequence[Any] = ()

    def feed(self, inputs: Mapping[str, np.ndarray]) -> None:
        self._fed = [self._tensor(value) for value in inputs.values()]

    def run(self) -> None:
        self._answers = self._method.execute(self._fed)

    def answers(self) -> list[np.ndarray]:
        return [value.numpy().copy() for value in self._answers]

    def close(self) -> None:
        """Nothing outlives the process."""


def start(artifact: Path, threads: int) -> _Session:
    """The program's one method."""
    return _Session(artifact, threads)


def shipped() -> Sequence[Path]:
    """None that compares: on a device it is built from source with the operators that a model needs."""
    return ()
