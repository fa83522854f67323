"""A folder that captures of one device are pulled into, and what of them is in it.

    DIR/captures.json                            the device, and the last number pulled of each model
    DIR/MODEL/FIRST-LAST.npz                     the records of a batch, by the numbers it spans
    DIR/MODEL/FIRST-LAST.1of2.npz, …2of2.npz     where its records are of two shapes

A file is whole or not there. A batch counts once all its files are there, and captures.json follows;
so after a power cut at any moment, what is known is never more than what is there. Files may be moved
away afterwards: captures.json still knows them. One pull at a time writes into the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.atomic import replacing
from edgepack.captures import batch
from edgepack.captures.formats import Format
from edgepack.captures.record import CaptureRecord
from edgepack.errors import ConfigError

STATE = "captures.json"
FILE = re.compile(
    r"(?P<first>\d{12,20})-(?P<last>\d{12,20})(\.(?P<part>\d+)of(?P<parts>\d+))?\.\w+"
)
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")


@dataclass
class Dataset:
    """The folder, open for one pull."""

    folder: Path
    device: str
    last: dict[str, int]

    def pulled(self, model: str) -> int:
        """The last number of a model that is safely here."""
        return self.last.get(model, 0)

    def add(self, model: str, records: Sequence[CaptureRecord], form: Format) -> list[Path]:
        """Write a batch; when this returns, it is on the disk, and known to be."""
        folder = self.folder / model
        _make(folder)
        found = batch.groups(records)
        span = f"{records[0].number:012d}-{records[-1].number:012d}"
        paths = []
        for index, group in enumerate(found, 1):
            part = f".{index}of{len(found)}" if len(found) > 1 else ""
            path = folder / f"{span}{part}{form.suffix}"
            with replacing(path, error_class=ConfigError) as stream:
                form.write(stream, model, batch.columns(group))
            paths.append(path)
        self.last[model] = records[-1].number
        self._save()
        return paths

    def _save(self) -> None:
        models = {name: {"last": number} for name, number in sorted(self.last.items())}
        state = {"format": 1, "device": self.device, "models": models}
        with replacing(self.folder / STATE, error_class=ConfigError) as stream:
            stream.write(json.dumps(state, indent=2).encode() + b"\n")


@contextlib.contextmanager
def open_dataset(folder: Path, device: str) -> Iterator[Dataset]:
    """The dataset in ``folder``, made where there is none.

    Raises ConfigError where it cannot be written, belongs to another device, or is in use.
    """
    _make(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"another pull writes into {folder}", "Wait until it ends") from error
        owner, last = _load(folder / STATE)
        if owner not in (None, device):
            raise ConfigError(
                f"{folder} holds captures of another device ({owner}, not {device})",
                "Give each device a folder of its own: --out DIR",
            )
        dataset = Dataset(folder=folder, device=device, last=last)
        _tidy(folder)
        for model in sorted(path for path in folder.iterdir() if path.is_dir()):
            _tidy(model)
            there = max(_whole_batches(model), default=0)
            if there > dataset.pulled(model.name):
                dataset.last[model.name] = there
        if owner is None:
            dataset._save()
        yield dataset
    finally:
        os.close(descriptor)


def files(folder: Path) -> list[Path]:
    """Files of one model in the order of their numbers."""
    named = ((FILE.fullmatch(path.name), path) for path in folder.iterdir())
    return [
        path
        for _, _, path in sorted(
            (int(match["first"]), int(match["part"] or 0), path) for match, path in named if match
        )
    ]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{folder} cannot be made: {reason}", "--out DIR") from error


def _load(path: Path) -> tuple[str | None, dict[str, int]]:
    try:
        state: dict[str, Any] = json.loads(path.read_bytes())
        if state["format"] != 1:
            raise ValueError("written by a newer edgepack")
        models = {str(name): int(entry["last"]) for name, entry in state["models"].items()}
        return str(state["device"]), models
    except FileNotFoundError:
        return None, {}
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {str(error).partition(os.linesep)[0]}",
            "It tells which captures are here already; remove it to start from the files alone",
        ) from error


def _tidy(folder: Path) -> None:
    """Remove what an interrupted pull left."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _whole_batches(model: Path) -> Iterator[int]:
    """The last number of each batch whose files are all there."""
    parts: dict[tuple[int, int], int] = {}
    for path in files(model):
        match = FILE.fullmatch(path.name)
        assert match is not None
        last, of = int(match["last"]), int(match["parts"] or 1)
        parts[last, of] = parts.get((last, of), 0) + 1
    return (last for (last, of), count in parts.items() if count >= of)
