"""Records of one shape, side by side: the columns of a file of the dataset.

    number, time, boot_ms                     (N,) integers
    version, manifest, boot, reason, caller   (N,) text; ``caller`` is JSON, ``null`` where there is none
    inputs/NAME, outputs/NAME                 (N, *shape), in the model's dtype

A file holds tensors of one shape and dtype for each name; a model whose versions differ in that has its
records in as many files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgepack.captures.record import CaptureRecord

if TYPE_CHECKING:
    import numpy as np

Columns = Mapping[str, "np.ndarray"]
INTEGERS = {"number": "uint64", "time": "int64", "boot_ms": "int64"}
TEXTS = ("version", "manifest", "boot", "reason", "caller")
KINDS = ("inputs", "outputs")

Signature = tuple[tuple[str, str, tuple[int, ...]], ...]


def signature(record: CaptureRecord) -> Signature:
    """Column, dtype and shape of each tensor."""
    return tuple(
        (f"{kind}/{name}", array.dtype.name, array.shape)
        for kind in KINDS
        for name, array in getattr(record, kind).items()
    )


def groups(records: Sequence[CaptureRecord]) -> list[list[CaptureRecord]]:
    """The records by signature, in the order in which each came first."""
    found: dict[Signature, list[CaptureRecord]] = {}
    for record in records:
        found.setdefault(signature(record), []).append(record)
    return list(found.values())


def columns(records: Sequence[CaptureRecord]) -> dict[str, np.ndarray]:
    """Records of one signature as columns."""
    import numpy as np

    table: dict[str, np.ndarray] = {
        name: np.array([getattr(record, name) for record in records], dtype)
        for name, dtype in INTEGERS.items()
    }
    for name in TEXTS:
        values = (getattr(record, name) for record in records)
        table[name] = np.array([json.dumps(v) if name == "caller" else v for v in values], np.str_)
    for kind in KINDS:
        for name in getattr(records[0], kind):
            table[f"{kind}/{name}"] = np.stack([getattr(record, kind)[name] for record in records])
    return table


def rows(model: str, table: Columns) -> Iterator[CaptureRecord]:
    """The inverse of columns; LookupError, TypeError or ValueError where it is another table."""
    numbers = table["number"]
    for index in range(len(numbers)):
        values: dict[str, Any] = {name: int(table[name][index]) for name in INTEGERS}
        values |= {name: str(table[name][index]) for name in TEXTS}
        caller = json.loads(values["caller"])
        yield CaptureRecord(
            model=model,
            **values | {"caller": None if caller is None else dict(caller)},
            inputs=_tensors(table, "inputs", index),
            outputs=_tensors(table, "outputs", index),
        )


def _tensors(table: Columns, kind: str, index: int) -> dict[str, np.ndarray]:
    import numpy as np

    prefix = f"{kind}/"
    return {
        name.removeprefix(prefix): np.asarray(column[index])
        for name, column in table.items()
        if name.startswith(prefix)
    }
