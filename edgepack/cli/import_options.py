"""Options that say how a model is read, with their help, and what they come to."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from edgepack.errors import ConfigError

if TYPE_CHECKING:
    from edgepack.importers import ImportOptions
    from edgepack.importers.preprocessing import Normalization

Format = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="FORMAT", help="What the model is. [default: read off its content]"
    ),
]
Signature = Annotated[
    str,
    typer.Option(
        "--signature",
        metavar="NAME",
        help="Signature of a SavedModel. [default: the only one, or serving_default]",
    ),
]
TrustedTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-type",
        metavar="TYPE",
        help="Let a .skops file bring this type, once for each that its error lists.",
    ),
]
Bounds = Annotated[
    list[str] | None,
    typer.Option(
        "--bound",
        metavar="NODE=N",
        help="At most N results of a node whose number of results depends on data: nms=100.",
    ),
]
Layouts = Annotated[
    list[str] | None,
    typer.Option(
        "--layout",
        metavar="[INPUT=]LAYOUT",
        help="Layout in which the application hands over images: nhwc or nchw.",
    ),
]
Normalizations = Annotated[
    list[str] | None,
    typer.Option(
        "--normalize",
        metavar="[INPUT=]MEAN,STD",
        help="Put (x - MEAN) / STD into the model. One number each, or one for each channel with"
        " colons between: 123.7:116.3:103.5,58.4:57.1:57.4.",
    ),
]
Uint8Input = Annotated[bool, typer.Option("--uint8-input", help="Take images as bytes, 0 to 255.")]

_LAYOUTS = ("nhwc", "nchw")
_MAX_BOUND = 1 << 24


def import_options(
    *,
    signature: str = "",
    trusted_types: Sequence[str] | None = None,
    bounds: Sequence[str] | None = None,
    layouts: Sequence[str] | None = None,
    normalizations: Sequence[str] | None = None,
    uint8: bool = False,
) -> ImportOptions:
    """The options taken apart. Raises ConfigError."""
    from edgepack.importers import ImportOptions
    from edgepack.importers.preprocessing import Preprocessing

    return ImportOptions(
        signature=signature,
        trusted_types=tuple(trusted_types or ()),
        bounds=parse_bounds(bounds or ()),
        preprocessing=Preprocessing(
            layouts=parse_layouts(layouts or ()),
            normalizations=parse_normalizations(normalizations or ()),
            uint8=uint8,
        ),
    )


def parse_bounds(options: Sequence[str]) -> dict[str, int]:
    """``["nms=100"]`` as ``{"nms": 100}``."""
    bounds: dict[str, int] = {}
    for option in options:
        name, _, number = option.rpartition("=")
        if not name or not re.fullmatch(r"[0-9]{1,9}", number):
            raise ConfigError(
                f"--bound {option!r} is not a node and a number", "for example --bound nms=100"
            )
        if not 1 <= int(number) <= _MAX_BOUND:
            raise ConfigError(f"--bound {option!r}: a bound is from 1 to {_MAX_BOUND}")
        _refuse_twice("--bound", name, bounds)
        bounds[name] = int(number)
    return bounds


def parse_layouts(options: Sequence[str]) -> dict[str, str]:
    """``["nhwc"]`` as ``{"": "nhwc"}``, ``["x=nhwc"]`` as ``{"x": "nhwc"}``."""
    layouts: dict[str, str] = {}
    for option in options:
        name, _, layout = option.rpartition("=")
        if layout.lower() not in _LAYOUTS:
            raise ConfigError(
                f"--layout {option!r} is none of {', '.join(_LAYOUTS)}",
                "for example --layout nhwc, or --layout INPUT=nhwc",
            )
        _refuse_twice("--layout", name, layouts)
        layouts[name] = layout.lower()
    return layouts


def parse_normalizations(options: Sequence[str]) -> dict[str, Normalization]:
    """``["127.5,127.5"]`` as ``{"": Normalization(mean=(127.5,), std=(127.5,))}``."""
    from edgepack.importers.preprocessing import Normalization

    found: dict[str, Normalization] = {}
    for option in options:
        name, _, values = option.rpartition("=")
        parts = [_numbers(part) for part in values.split(",")]
        if len(parts) != 2 or not parts[0] or not parts[1]:
            raise ConfigError(
                f"--normalize {option!r} is not a mean and a standard deviation",
                "for example --normalize 127.5,127.5 or --normalize 124:116:104,58:57:57",
            )
        mean, std = parts
        if len(mean) != len(std) and 1 not in (len(mean), len(std)):
            raise ConfigError(
                f"--normalize {option!r} has {len(mean)} means and {len(std)} deviations"
            )
        if not all(value > 0 for value in std):
            raise ConfigError(f"--normalize {option!r}: a standard deviation is above 0")
        _refuse_twice("--normalize", name, found)
        found[name] = Normalization(mean=mean, std=std)
    return found


def _numbers(text: str) -> tuple[float, ...]:
    """The numbers between colons; empty where any of them is none."""
    try:
        values = tuple(float(word) for word in text.split(":"))
    except ValueError:
        return ()
    return values if all(map(math.isfinite, values)) else ()


def _refuse_twice(option: str, name: str, seen: Mapping[str, object]) -> None:
    if name in seen:
        raise ConfigError(f"{option} is given twice{f' for {name!r}' if name else ''}")
