"""Options and arguments that several commands share, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")
]
PackageFile = Annotated[Path, typer.Argument(metavar="EPK", help="A package (.epk).")]
OnePackageTarget = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        metavar="NAME",
        help="Which of the package's targets. [default: the first that this machine runs]",
    ),
]
Identity = Annotated[
    Path | None,
    typer.Option(
        "--identity", "-i", metavar="FILE", help="SSH private key. [default: as ssh finds them]"
    ),
]
DeviceUrl = Annotated[
    str, typer.Argument(metavar="URL", help="The device: ssh://[user@]host[:port][/root].")
]


def trust_option(purpose: str) -> typer.models.OptionInfo:
    """``--trust PUB``, any number of them; commands differ in what they do without one."""
    option: typer.models.OptionInfo = typer.Option("--trust", metavar="PUB", help=purpose)
    return option
