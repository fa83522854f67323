"""Read captures back, wherever they are: a dataset, files that a device pushed, segments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from edgepack.captures.dataset import FILE
from edgepack.captures.formats import FORMATS
from edgepack.captures.record import CaptureRecord, RecordStream
from edgepack.errors import ConfigError

RAW = (".epc", ".seg")
"""Records as devices write them, one behind the other."""
_SEGMENT = re.compile(r"[0-9a-f]{16}\.seg")


def read(path: str | PathLike[str]) -> Iterator[CaptureRecord]:
    """Yield the records of a file, or of every file below a folder, folder by folder.

    Within a folder they come in the order of their numbers, and one that is there twice (a device may
    push what it pushed before) comes once. Each has ``inputs`` and ``outputs``: dicts of numpy arrays
    in the model's shapes (no batch axis is added) and dtypes, read-only where they are a file's bytes.

    Raises:
        ConfigError: There is nothing to read, a file is not one of captures, or pyarrow is missing.
    """
    place = Path(path)
    if place.is_file():
        yield from _read_file(place)
        return
    if not place.is_dir():
        raise ConfigError(f"{place} is neither a file nor a folder")
    folders: dict[Path, list[Path]] = {}
    for file in sorted(place.rglob("*")):
        if file.is_file() and _is_ours(file):
            folders.setdefault(file.parent, []).append(file)
    if not folders:
        raise ConfigError(
            f"{place} holds no captures", "edgepack device capture pull URL --out DIR"
        )
    for files in folders.values():
        yield from _in_order(sorted(files, key=_place))


def _in_order(files: list[Path]) -> Iterator[CaptureRecord]:
    last: dict[str, int] = {}
    held: list[CaptureRecord] = []
    for index, file in enumerate(files):
        held += _read_file(file)
        if index + 1 < len(files) and _place(files[index + 1])[0] == _place(file)[0]:
            continue  # a batch in several files: its records are sorted together
        for record in sorted(held, key=lambda one: one.number):
            if record.number > last.get(record.model, 0):
                last[record.model] = record.number
                yield record
        held = []


def _is_ours(file: Path) -> bool:
    return FILE.fullmatch(file.name) is not None or _SEGMENT.fullmatch(file.name) is not None


def _place(file: Path) -> tuple[int, str]:
    """Files of a folder sort by their first number."""
    match = FILE.fullmatch(file.name)
    return (int(match["first"]) if match else int(file.stem, 16)), file.name


def _read_file(file: Path) -> Iterator[CaptureRecord]:
    if file.suffix in RAW:
        with file.open("rb") as stream:
            yield from RecordStream(stream.read)
        return
    form = FORMATS.get(file.suffix.removeprefix("."))
    if form is None:
        known = ", ".join((*(f".{name}" for name in FORMATS), *RAW))
        raise ConfigError(f"{file} is no file of captures", f"Their names end in {known}")
    yield from form.read(file)
