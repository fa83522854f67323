"""Finds and reads profiles: strict TOML, a wrong file is a ConfigError that names it."""

from __future__ import annotations

import os
import tomllib
from functools import lru_cache
from pathlib import Path

from edgepack.errors import ConfigError
from edgepack.targets.choices import did_you_mean
from edgepack.targets.host import detect_host
from edgepack.targets.profile import Target

_FOLDER = Path(__file__).parent
_MAX_BYTES = 64 * 1024
"""A profile is a page of text; more is some other file."""


@lru_cache(maxsize=1)
def target_names() -> tuple[str, ...]:
    """Names that load_target knows: ``host`` and every profile that comes with edgepack."""
    return ("host", *sorted(path.stem for path in _FOLDER.glob("*.toml")))


def load_target(name_or_path: str | os.PathLike[str]) -> Target:
    """Load a profile by its name, by the path of a TOML file, or detect the ``host``.

    What ends in ``.toml`` or has a path separator in it is a path. A ConfigError lists what is valid.
    """
    text = os.fspath(name_or_path)
    if text.endswith(".toml") or os.sep in text:
        return _read(Path(text))
    if text == "host":
        return detect_host()
    if text in target_names():
        return _read(_FOLDER / f"{text}.toml")
    raise ConfigError(
        f"unknown target {text!r}",
        f"{did_you_mean(text, target_names())}Valid targets: {', '.join(target_names())},"
        " or the path of a .toml file",
    )


def _read(path: Path) -> Target:
    try:
        if path.is_file() and path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"target profile {path}: larger than {_MAX_BYTES} bytes")
        data = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError(
            f"cannot read target profile {path}: {error.strerror}",
            f"Profiles that come with edgepack go by name: {', '.join(target_names())}",
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ConfigError(f"target profile {path} is not TOML: {reason}") from error
    if "name" in data:
        raise ConfigError(
            f"target profile {path}: the key 'name' is not allowed",
            f"A profile is named after its file: this one is {path.stem!r}",
        )
    try:
        return Target.from_dict({"name": path.stem} | data)
    except ConfigError as error:
        raise ConfigError(f"target profile {path}: {error.message}", error.hint) from error
