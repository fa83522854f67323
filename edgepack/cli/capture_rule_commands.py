"""Commands about what devices capture: ``device capture set``, ``off``, ``status``."""

from __future__ import annotations

from typing import Annotated

import typer

from edgepack.cli import capture_text
from edgepack.cli.arguments import parse_age, parse_bytes, parse_threshold
from edgepack.cli.options import AsJson, DeviceUrl, Identity
from edgepack.cli.output import show

captures = typer.Typer(
    help="Keep inputs and outputs of chosen requests on a device, and bring them here."
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Whose requests.")]


@captures.command(name="set")
def set_rules(
    url: DeviceUrl,
    model: Model,
    always: Annotated[bool, typer.Option("--always", help="Every request.")] = False,
    every: Annotated[
        int | None, typer.Option("--every", metavar="N", help="Each Nth request.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="F", help="This share of them, 0 < F <= 1.")
    ] = None,
    below: Annotated[
        str | None,
        typer.Option(
            "--below", metavar="OUTPUT=T", help="Where an element of the output is less than T."
        ),
    ] = None,
    above: Annotated[
        str | None,
        typer.Option(
            "--above", metavar="OUTPUT=T", help="Where an element of the output is more than T."
        ),
    ] = None,
    nan: Annotated[bool, typer.Option("--nan", help="Where an output holds NaN.")] = False,
    max_bytes: Annotated[
        str | None,
        typer.Option(
            "--max-bytes",
            metavar="N",
            help="Room for this model's captures: bytes, or 500K, 64M, 2G. [default: 64M]",
        ),
    ] = None,
    max_age: Annotated[
        str | None,
        typer.Option(
            "--max-age",
            metavar="D",
            help="How long they stay: 90s, 45m, 12h, 30d. [default: as long as there is room]",
        ),
    ] = None,
    identity: Identity = None,
    as_json: AsJson = False,
) -> None:
    """Capture requests of a model where any of the conditions holds.

    In place of the rules before. Without a condition, only requests are captured that ask for it.
    """
    from edgepack.channels import ChannelOptions, capture_rules
    from edgepack.channels.capture_rules import Threshold

    rules = capture_rules.CaptureRules(
        always=always,
        every=every,
        rate=rate,
        below=None if below is None else Threshold(*parse_threshold(below, "--below")),
        above=None if above is None else Threshold(*parse_threshold(above, "--above")),
        nan=nan,
        max_bytes=None if max_bytes is None else parse_bytes(max_bytes, "--max-bytes"),
        max_age_s=None if max_age is None else parse_age(max_age, "--max-age"),
    )
    result = capture_rules.set_rules(url, model, rules, options=ChannelOptions(identity=identity))
    show(result, capture_text.changed(result, rules.to_dict()), as_json=as_json)


@captures.command()
def off(url: DeviceUrl, model: Model, identity: Identity = None, as_json: AsJson = False) -> None:
    """Capture nothing of a model, whoever asks; what there is stays."""
    from edgepack.channels import ChannelOptions, capture_rules

    result = capture_rules.turn_off(url, model, options=ChannelOptions(identity=identity))
    show(result, capture_text.changed(result, {"off": True}), as_json=as_json)


@captures.command()
def status(
    url: DeviceUrl,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Which one. [default: all]")
    ] = None,
    identity: Identity = None,
    as_json: AsJson = False,
) -> None:
    """Show what is captured on a device, by which rules, and what was lost."""
    from edgepack.channels import ChannelOptions, capture_rules

    models = capture_rules.status(url, model, options=ChannelOptions(identity=identity))
    show({"models": models}, capture_text.status(models), as_json=as_json)
