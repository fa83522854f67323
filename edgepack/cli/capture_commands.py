"""``device capture pull``; what devices capture is the matter of capture_rule_commands.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgepack.cli.options import AsJson, DeviceUrl, Identity
from edgepack.cli.output import byte_size, columns, progress, show, warn


def pull(
    url: DeviceUrl,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Where to; each device has its own."),
    ],
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Of which models. [default: of all]"),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format", "-f", metavar="FORMAT", help="npz, or parquet (edgepack[parquet])."
        ),
    ] = "npz",
    identity: Identity = None,
    as_json: AsJson = False,
) -> None:
    """Bring what is new of a device's captured requests into a dataset.

    DIR knows what it has had: the same command brings what came since, also after a connection that
    was cut. edgepack.captures.read() reads the dataset.
    """
    from edgepack import captures as stage
    from edgepack.channels import ChannelOptions
    from edgepack.channels.captures import open_captures

    with progress() as say, open_captures(url, ChannelOptions(identity=identity)) as source:
        result = stage.pull(source, out, models or (), form=form, report=say).to_dict()
    for model in result["models"]:
        if model["gaps"]:
            warn(_missing(model))
        if model["damaged"]:
            warn(f"{model['name']}: {model['damaged']} records are damaged and were left out")
    show(result, pulled(result), as_json=as_json)


def _missing(model: Mapping[str, Any]) -> str:
    spans = [f"{gap['first']} to {gap['last']}" for gap in model["gaps"]]
    more = f" and {len(spans) - 4} more" if len(spans) > 4 else ""
    numbers = ", ".join(spans[:4]) + more
    return f"{model['name']}: numbers {numbers} went from the device before they were pulled"


def pulled(result: Mapping[str, Any]) -> str:
    """What ``device capture pull`` brought, as a table."""
    rows = (
        (
            model["name"],
            model["records"],
            byte_size(model["bytes"]),
            f"{model['first']} to {model['last']}" if model["records"] else "nothing new",
            len(model["files"]),
        )
        for model in result["models"]
    )
    head = ("MODEL", "RECORDS", "SIZE", "NUMBERS", "FILES")
    return columns([head, *rows]) + f"\n\nin {result['folder']}"
