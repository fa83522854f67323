"""Commands about devices: ``push``, ``device setup``, ``status``, ``events``, ``rollback``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgepack.cli import event_text, text
from edgepack.cli.options import AsJson, DeviceUrl, Identity, trust_option
from edgepack.cli.options import PackageFile as EpkFile
from edgepack.cli.output import progress, show, transfer

devices = typer.Typer(help="Set devices up, ask them, take them back a version.")


def push(
    file: EpkFile,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="URL",
            help="ssh://[user@]host[:port][/root], dir:PATH, file:///PATH or s3://bucket/prefix.",
        ),
    ],
    keys: Annotated[
        list[Path] | None,
        trust_option("Check the package against this key first. [default: leave it to the device]"),
    ] = None,
    identity: Identity = None,
    as_json: AsJson = False,
) -> None:
    """Carry a signed package to a device.

    Or to a directory or a bucket that devices pull from. The device checks it, tries it, and then
    switches to it; when anything fails, it goes on with what it had.
    """
    from edgepack import channels, package, trust

    trusted = [trust.load_public(key) for key in keys or []]
    signed = trust.verify(package.read_package(file), trusted, floor=None)
    with transfer() as report:
        options = channels.ChannelOptions(identity=identity, progress=report)
        pushed = channels.push(signed, to, contents=package, options=options)
    result = text.push_result(signed, pushed)
    show(result, text.pushed(result), as_json=as_json)


@devices.command()
def setup(
    url: DeviceUrl,
    target: Annotated[
        str, typer.Option("--target", "-t", metavar="NAME", help="The device's profile.")
    ],
    keys: Annotated[
        list[Path] | None,
        trust_option(
            "Public key whose packages the device takes; any number of them, in place of those that"
            " it trusts now. [default: leave its keys as they are]"
        ),
    ] = None,
    identity: Identity = None,
    as_json: AsJson = False,
) -> None:
    """Install the agent and its trusted keys, and start it."""
    from edgepack import toolchain, trust
    from edgepack.channels import ChannelOptions, device
    from edgepack.targets import load_target

    profile = load_target(target)
    trusted = [(key.name, trust.load_public(key).to_pem()) for key in keys or []]
    with progress() as say:
        say(f"building the agent for {profile.name}")
        agent = toolchain.build_agent(profile)
        say(f"setting up {url}")
        options = ChannelOptions(identity=identity)
        done = device.setup(
            url, target=profile, agent_binary=agent, trust_keys=trusted, options=options
        )
    result = done.to_dict()
    show(result, text.device_setup(result), as_json=as_json)


@devices.command()
def status(url: DeviceUrl, identity: Identity = None, as_json: AsJson = False) -> None:
    """Show agent, target, keys and models of a device."""
    from edgepack.channels import ChannelOptions, device

    result = device.status(url, options=ChannelOptions(identity=identity)).to_dict()
    show(result, text.device_status(result), as_json=as_json)


@devices.command()
def events(url: DeviceUrl, identity: Identity = None, as_json: AsJson = False) -> None:
    """Show what befell the models of a device: installations, failures, starts."""
    from edgepack.channels import ChannelOptions, device

    found = device.events(url, options=ChannelOptions(identity=identity))
    result = {"events": [event.to_dict() for event in found]}
    show(result, event_text.events(result["events"]), as_json=as_json)


@devices.command()
def rollback(
    url: DeviceUrl,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Which one. [default: the only one]")
    ] = None,
    identity: Identity = None,
    as_json: AsJson = False,
) -> None:
    """Go back to the version that a model had before."""
    from edgepack.channels import ChannelOptions, device

    result = device.rollback(url, model, options=ChannelOptions(identity=identity))
    show(result, f"{result['model']} is at {result['version']} again", as_json=as_json)
