"""Bring what a device captured into a dataset: what is new only, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgepack.artefacts import CapturedModel, DeviceCaptures
from edgepack.captures.dataset import Dataset, open_dataset
from edgepack.captures.formats import FORMATS, Format
from edgepack.captures.record import CaptureRecord, RecordStream
from edgepack.errors import ChannelError, ConfigError, DeviceError, EdgepackError

BATCH_BYTES = 16 << 20
BATCH_RECORDS = 4096
"""What a file holds; what a pull that is killed has to bring once more."""

Report = Callable[[str], None]


class SourceStream(Protocol):
    """Records of a model as they come from a device."""

    gone: list[tuple[int, int]]
    """Numbers, first and last, that went from the device before they could come; known at the end."""

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the true end only: ChannelError where the connection is lost."""


class CaptureSource(Protocol):
    """A device whose captures can be had."""

    @property
    def name(self) -> str:
        """The device, for messages."""

    def listing(self) -> DeviceCaptures:
        """Which device it is, and of which models it has captures."""

    def open(self, model: str, after: int) -> AbstractContextManager[SourceStream]:
        """Give what streams the records of a model beyond a number."""


@dataclass(kw_only=True)
class PulledModel:
    """What a pull brought of one model."""

    name: str
    records: int = 0
    bytes: int = 0
    """As they travelled."""
    first: int | None = None
    last: int | None = None
    gaps: list[tuple[int, int]] = field(default_factory=list)
    """Numbers, first and last, that went from the device before they were pulled, or never were used."""
    damaged: int = 0
    """Records that came, but not as they were written."""
    files: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class PullResult:
    """What a pull brought."""

    device: str
    """The device's own id."""
    folder: Path
    models: tuple[PulledModel, ...]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in ``device capture pull --json``."""
        models = [
            asdict(m) | {"gaps": [{"first": a, "last": b} for a, b in m.gaps]} for m in self.models
        ]
        return {"device": self.device, "folder": str(self.folder), "models": models}


def pull(
    source: CaptureSource,
    folder: Path,
    models: Sequence[str] = (),
    *,
    form: str = "npz",
    report: Report = lambda step: None,
) -> PullResult:
    """Bring what is new of ``models`` (of all, if none is named) into ``folder``.

    What was written when it is interrupted, by whatever, stays, and the next pull goes on behind it.

    Raises:
        ConfigError: ``form`` is none, or its library is missing; the folder cannot be written, is in
            use, or another device's.
        ChannelError: The connection was lost. What came whole before is in the folder.
        DeviceError: There are no captures (of a model); or the device began to count anew.
    """
    if form not in FORMATS:
        raise ConfigError(f"{form!r} is no format", f"Formats: {', '.join(FORMATS)}")
    FORMATS[form].check()
    listing = source.listing()
    chosen = _chosen(listing, models, source.name)
    with open_dataset(folder, listing.device) as dataset:
        pulled = []
        for model in chosen:
            after = dataset.pulled(model.name)
            report(f"pulling {model.name} behind number {after}")
            if model.first > after + 1:
                report(f"numbers {after + 1} to {model.first - 1} of {model.name} are gone already")
            pulled.append(_pull_model(source, dataset, model, FORMATS[form]))
    return PullResult(device=listing.device, folder=folder, models=tuple(pulled))


def _chosen(
    listing: DeviceCaptures, wanted: Sequence[str], device: str
) -> tuple[CapturedModel, ...]:
    if not listing.models:
        raise DeviceError(
            f"{device} has captured nothing", "docs/capture.md tells how to begin", check="captures"
        )
    if not wanted:
        return listing.models
    there = {model.name: model for model in listing.models}
    for name in wanted:
        if name not in there:
            raise DeviceError(
                f"{device} has no captures of {name!r}",
                f"It has of: {', '.join(there)}",
                check="captures",
            )
    return tuple(there[name] for name in dict.fromkeys(wanted))


def _pull_model(
    source: CaptureSource, dataset: Dataset, model: CapturedModel, form: Format
) -> PulledModel:
    done = PulledModel(name=model.name)
    after = dataset.pulled(model.name)
    if model.last < after:
        raise DeviceError(
            f"{source.name}: {model.name}'s captures end at {model.last}, but {after} was pulled before",
            "The device lost its captures and counts anew: pull into a new folder (--out DIR)",
            check="captures",
        )
    with source.open(model.name, after) as coming:
        stream = RecordStream(coming.read, after=after, model=model.name, skip_noise=True)
        for batch in _batches(iter(stream)):
            done.records += len(batch)
            done.first = done.first or batch[0].number
            done.last = batch[-1].number
            done.files += map(str, dataset.add(model.name, batch, form))
        if stream.torn:
            raise ChannelError(f"{source.name}: what came of {model.name} ends within a record")
    done.bytes, done.damaged, done.gaps = stream.total_bytes, stream.damaged, coming.gone
    return done


def _batches(records: Iterator[CaptureRecord]) -> Iterator[list[CaptureRecord]]:
    """Full batches and a last one; what came whole before the connection was lost is one too."""
    batch: list[CaptureRecord] = []
    size = 0
    lost: EdgepackError | None = None
    while True:
        try:
            record = next(records, None)
        except EdgepackError as error:
            record, lost = None, error
        if record is not None:
            batch.append(record)
            size += sum(a.nbytes for a in (*record.inputs.values(), *record.outputs.values()))
        if batch and (record is None or size >= BATCH_BYTES or len(batch) >= BATCH_RECORDS):
            yield batch
            batch, size = [], 0
        if lost is not None:
            lost.hint = "What came whole is in the folder; the same command goes on from there"
            raise lost
        if record is None:
            return
