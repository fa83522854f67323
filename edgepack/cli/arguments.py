"""Takes apart the values that options carry: ``name=1,3,224,224``, ``name=x.npy``, a model's name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgepack.errors import ConfigError
from edgepack.naming import NAME_RULE, VERSION_RULE, is_name, parse_version
from edgepack.targets import Target, load_target

_MAX_DIMENSION = 2**31 - 1


def parse_shapes(options: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """``["x=1,3,48,320"]`` as ``{"x": (1, 3, 48, 320)}``; a ConfigError for what is not that."""
    shapes: dict[str, tuple[int, ...]] = {}
    for option in options:
        name, _, dims = option.rpartition("=")
        words = dims.split(",")
        if not name or not all(re.fullmatch(r"[0-9]{1,10}", word) for word in words):
            raise ConfigError(
                f"--input {option!r} is not an input's name and its dimensions",
                "for example --input x=1,3,224,224",
            )
        shape = tuple(map(int, words))
        if not all(1 <= dim <= _MAX_DIMENSION for dim in shape):
            raise ConfigError(f"--input {option!r}: a dimension is from 1 to {_MAX_DIMENSION}")
        _refuse_twice(name, shapes)
        shapes[name] = shape
    return shapes


def parse_files(options: Sequence[str]) -> dict[str, Path]:
    """``["x=image.npy"]`` as ``{"x": Path("image.npy")}``; a ConfigError for what is not that."""
    files: dict[str, Path] = {}
    for option in options:
        name, _, file = option.partition("=")
        if not name or not file:
            raise ConfigError(
                f"--input {option!r} is not an input's name and its file",
                "for example --input x=image.npy, written with numpy.save",
            )
        _refuse_twice(name, files)
        files[name] = Path(file)
    return files


def parse_threshold(option: str, name: str) -> tuple[str, float]:
    """``score=0.5``; a ConfigError for what is not an output's name and a number."""
    output, _, value = option.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not output or not math.isfinite(number):
        raise ConfigError(
            f"{name} {option!r} is not an output's name and a number",
            f"for example {name} score=0.5",
        )
    return output, number


def parse_bytes(option: str, name: str) -> int:
    """``65536``, ``500K``, ``64M`` or ``2G`` as bytes."""
    return _with_unit(option, name, {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}, "64M")


def parse_age(option: str, name: str) -> int:
    """``90s``, ``45m``, ``12h`` or ``30d`` as seconds."""
    return _with_unit(option, name, {"s": 1, "m": 60, "h": 3600, "d": 86400}, "30d")


def _with_unit(option: str, name: str, units: Mapping[str, int], example: str) -> int:
    found = re.fullmatch(r"([0-9]{1,12})([A-Za-z]?)", option)
    if found is None or found[2] not in units:
        known = ", ".join(f"N{unit}" for unit in units)
        raise ConfigError(f"{name} {option!r} is none of {known}", f"for example {name} {example}")
    return int(found[1]) * units[found[2]]


def _refuse_twice(name: str, seen: Mapping[str, object]) -> None:
    if name in seen:
        raise ConfigError(f"--input {name!r} is given twice", "give every input once")


def parse_targets(names: Sequence[str]) -> list[Target]:
    """The profiles to compile for, in the order given, each once."""
    targets = [load_target(name) for name in names]
    given = [target.name for target in targets]
    for name in given:
        if given.count(name) > 1:
            raise ConfigError(f"--target {name!r} is given twice", "give every target once")
    return targets


def model_name(given: str | None, model: Path) -> str:
    """The name that a package gets: ``given``, or the file's stem made to fit the rule for names."""
    if given is not None:
        if not is_name(given):
            raise ConfigError(f"--name {given!r} is not a model's name", f"it must be {NAME_RULE}")
        return given
    stem = re.sub(r"[^a-z0-9._-]+", "-", model.stem.lower())
    name = re.sub(r"^[^a-z0-9]+", "", stem)[:64].rstrip("-.")
    if not name:
        raise ConfigError(f"no model name can be made of {model.name!r}", "give one with --name")
    return name


def package_path(given: Path | None, model: Path) -> Path:
    """Where the package goes, checked before minutes of work: the model's name with .epk, here."""
    path = given or Path(f"{model.stem}.epk")
    if path.is_dir():
        raise ConfigError(f"--output {path} is a folder", f"name the file: {path / model.stem}.epk")
    if not path.parent.is_dir():
        raise ConfigError(
            f"--output {path}: there is no folder {path.parent}", f"mkdir -p {path.parent}"
        )
    if path.resolve() == model.resolve():
        raise ConfigError(f"--output {path} is the model itself", "name another file")
    return path


def check_version(version: str, option: str = "--version") -> str:
    """``version`` as it is; a ConfigError where it is not one."""
    try:
        parse_version(version)
    except ValueError as error:
        raise ConfigError(
            f"{option} {version!r} is not a version", f"it is {VERSION_RULE}"
        ) from error
    return version
