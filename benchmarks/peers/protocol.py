"""What a peer is: a module of this form, whose functions run in a process of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np


class Session(Protocol):
    """One model, loaded for a number of threads."""

    @property
    def pid(self) -> int:
        """The process that computes."""

    @property
    def began_ns(self) -> int:
        """``time.monotonic_ns()`` of when loading began, before the engine itself was loaded."""

    def feed(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Put the inputs where the following runs take them from."""

    def run(self) -> int | None:
        """One inference; how many ns it took where the engine's process measures that itself."""

    def answers(self) -> list[np.ndarray]:
        """The outputs of the last run, in the model's order."""

    def close(self) -> None:
        """End what would outlive the calling process."""


class Peer(Protocol):
    """An engine under comparison."""

    __file__: str | None

    @property
    def TITLE(self) -> str:
        """Its name in tables."""

    @property
    def PACKAGES(self) -> Sequence[str]:
        """Distributions whose versions belong to the result, the runtime first."""

    @property
    def START_COMPARES(self) -> bool:
        """Whether its start and memory here are about those that a device would see."""

    def convert(self, model: Path, folder: Path) -> Path:
        """Make the engine's own form of an ONNX ``model`` inside ``folder``; any error is a failure."""

    def start(self, artifact: Path, threads: int) -> Session:
        """Load what ``convert`` made; the calling process is already bound to its cores."""

    def shipped(self) -> Sequence[Path]:
        """The libraries that a device needs to run any model; none where that cannot be told."""
