"""Refuses models that were saved as Python pickles, by joblib, pickle or cloudpickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgepack.artefacts import SourceModel
from edgepack.importers.pickles import looks_like_pickle, refusal
from edgepack.importers.protocol import ConvertedModel, ImportOptions

LAYOUT = ""
SUFFIXES: tuple[str, ...] = ()

_COMPRESSED = (b"\x04\x22\x4d\x18", b"\x5d\x00\x00")
"""Heads of LZ4 frames, and of LZMA without a container."""
_SUFFIXES = {".joblib", ".lz4", ".lzma", ".pickle", ".pkl"}


def recognise(path: Path) -> bool:
    """Whether the file is a pickle, compressed or not.

    Of what joblib compresses with LZ4 or bare LZMA, the name decides.
    """
    return looks_like_pickle(path) or _is_compressed_joblib(path)


def convert(
    source: SourceModel, shapes: Mapping[str, tuple[int, ...]], options: ImportOptions
) -> ConvertedModel:
    """Raise ModelError: what to save instead."""
    raise refusal(source.path)


def _is_compressed_joblib(path: Path) -> bool:
    if path.suffix.lower() not in _SUFFIXES or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4).startswith(_COMPRESSED)
