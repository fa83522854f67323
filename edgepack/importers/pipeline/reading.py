"""Reads a pipeline's TOML file, strictly."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgepack.importers.pipeline.declaration import Declaration, Member, wrong_pipeline

_MAX_BYTES = 64 << 10
"""A declaration is a page of text; more is some other file."""
_MAX_MODELS = 32
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MODEL_KEYS = ("file", "format", "signature", "inputs")
_TABLES = ("models", "outputs")


def looks_like_pipeline(path: Path) -> bool:
    """Whether the file is TOML with a table of models."""
    if path.stat().st_size > _MAX_BYTES:
        return False
    try:
        return isinstance(tomllib.loads(path.read_bytes().decode()).get("models"), dict)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        return False


def read_declaration(path: Path) -> Declaration:
    """Read the file. Raises ModelError that says what is wrong where."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise wrong_pipeline(path, f"larger than {_MAX_BYTES} bytes")
        data = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise wrong_pipeline(path, f"cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise wrong_pipeline(path, f"is not TOML: {' '.join(str(error).split())}") from error
    for reason in _faults(data):
        raise wrong_pipeline(path, reason, "docs/models.md shows a whole file")
    models = {name: Member(**table) for name, table in data["models"].items()}
    return Declaration(path=path, models=models, outputs=data.get("outputs", {}))


def _faults(data: dict[str, Any]) -> Iterator[str]:
    for key in data:
        if key not in _TABLES:
            yield f"the key {key!r} is not one of {', '.join(_TABLES)}"
    models = data.get("models")
    if not isinstance(models, dict) or not models:
        yield "there are no models; each has a table [models.NAME]"
        return
    if len(models) > _MAX_MODELS:
        yield f"{len(models)} models are more than {_MAX_MODELS}"
    for name, table in models.items():
        yield from _faults_of(name, table)
    if not _is_table_of_text(data.get("outputs", {})):
        yield "[outputs] must give a text for each name"


def _faults_of(name: str, table: Any) -> Iterator[str]:
    if not _NAME.fullmatch(name):
        yield f"a model cannot be called {name!r}: letters, digits, - and _, 64 at most"
    if not isinstance(table, dict):
        yield f"[models.{name}] is not a table"
        return
    for key, value in table.items():
        if key not in _MODEL_KEYS:
            yield f"the key {key!r} of [models.{name}] is not one of {', '.join(_MODEL_KEYS)}"
        elif key == "inputs" and not _is_table_of_text(value):
            yield f"inputs of [models.{name}] must give a text for each name"
        elif key != "inputs" and not isinstance(value, str):
            yield f"{key} of [models.{name}] must be a text"
    if not table.get("file"):
        yield f"[models.{name}] has no file"


def _is_table_of_text(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(text, str) and text for text in value.values()
    )
