"""The commands and their order in the help; what each does is in its own function."""

from __future__ import annotations

from typing import Annotated

import typer

from edgepack import __version__
from edgepack.cli.capture_commands import pull as pull_captures
from edgepack.cli.capture_rule_commands import captures
from edgepack.cli.device_commands import devices, push
from edgepack.cli.key_commands import keys
from edgepack.cli.model_commands import compile_model, inspect, targets
from edgepack.cli.package_commands import bench, run, sign, verify

# Plain help: rich is not imported for it, and the same text stands in docs/cli.md.
app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"edgepack {__version__}")
        raise typer.Exit


@app.callback()
def edgepack(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback with an error (EDGEPACK_DEBUG=1).")
    ] = False,
) -> None:
    """Compile models ahead of time, sign them, and carry them to edge devices."""


app.command()(targets)
app.command()(inspect)
app.command(name="compile")(compile_model)
app.command()(sign)
app.command()(verify)
app.command()(run)
app.command()(bench)
app.command()(push)
captures.command(name="pull")(pull_captures)
devices.add_typer(captures, name="capture")
app.add_typer(devices, name="device")
app.add_typer(keys, name="keys")
