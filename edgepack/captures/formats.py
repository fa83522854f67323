"""Files of a dataset: .npz for NumPy and PyTorch, .parquet for tables. Each has a writer and a reader.

A Parquet column of a tensor is a list of its elements, row-major; ``dtype`` and ``shape`` are in the
column's metadata. The model's name is in the file's: member ``model``, or key ``edgepack.model``.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from edgepack.captures import batch
from edgepack.captures.record import CaptureRecord
from edgepack.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

_ROWS = 256
"""How many rows of a Parquet file are in memory at once."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """How a file of a dataset is written and read; ``check`` raises where that cannot be done here."""

    suffix: str
    check: Callable[[], object]
    write: Callable[[BinaryIO, str, batch.Columns], None]
    read: Callable[[Path], Iterator[CaptureRecord]]


def _write_npz(stream: BinaryIO, model: str, table: batch.Columns) -> None:
    import numpy as np

    arrays: dict[str, Any] = {"model": np.array(model), **table}
    np.savez(stream, **arrays)


def _read_npz(path: Path) -> Iterator[CaptureRecord]:
    import numpy as np

    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            table = {name: file[name] for name in file.files}
        yield from batch.rows(str(table.pop("model")), table)
    except (LookupError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _no_dataset(path, error) from error


def pyarrow() -> Any:
    """The library that Parquet files are written and read with; ConfigError where it is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            "Parquet files need pyarrow, which is not installed", "pip install 'edgepack[parquet]'"
        ) from error
    return pyarrow


def _write_parquet(stream: BinaryIO, model: str, table: batch.Columns) -> None:
    arrow = pyarrow()
    fields, arrays = [], []
    for name, column in table.items():
        metadata = None
        if name.startswith(tuple(f"{kind}/" for kind in batch.KINDS)):
            metadata = {"dtype": column.dtype.name, "shape": json.dumps(column.shape[1:])}
            size = column[0].size
            offsets = arrow.array([row * size for row in range(len(column) + 1)], arrow.int32())
            array = arrow.ListArray.from_arrays(offsets, arrow.array(column.reshape(-1)))
        else:
            array = arrow.array(column.tolist() if column.dtype.kind == "U" else column)
        fields.append(arrow.field(name, array.type, nullable=False, metadata=metadata))
        arrays.append(array)
    schema = arrow.schema(fields, metadata={"edgepack.model": model})
    arrow.parquet.write_table(arrow.Table.from_arrays(arrays, schema=schema), stream)


def _read_parquet(path: Path) -> Iterator[CaptureRecord]:
    arrow = pyarrow()
    try:
        with arrow.parquet.ParquetFile(path) as file:
            model = file.schema_arrow.metadata[b"edgepack.model"].decode()
            for rows in file.iter_batches(_ROWS):
                columns = zip(file.schema_arrow, rows.columns, strict=True)
                yield from batch.rows(model, {f.name: _column(f, c) for f, c in columns})
    except (arrow.ArrowException, LookupError, TypeError, ValueError) as error:
        raise _no_dataset(path, error) from error


def _column(field: Any, column: Any) -> np.ndarray:
    import numpy as np

    if field.metadata is None:
        return np.array(column.to_pylist())
    shape = json.loads(field.metadata[b"shape"])
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, field.metadata[b"dtype"].decode()).reshape(len(column), *shape)


def _no_dataset(path: Path, error: Exception) -> ConfigError:
    words = str(error).partition("\n")[0] or type(error).__name__
    return ConfigError(f"{path} is no file of captures: {words}")


FORMATS = {
    "npz": Format(suffix=".npz", check=lambda: None, write=_write_npz, read=_read_npz),
    "parquet": Format(
        suffix=".parquet",
        check=pyarrow,
        write=_write_parquet,
        read=_read_parquet,
    ),
}
"""By the name that ``--format`` takes."""
