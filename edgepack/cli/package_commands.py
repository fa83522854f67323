"""Commands about packages: ``sign``, ``verify``, ``run``, ``bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgepack.cli import kernel_text, text
from edgepack.cli.arguments import check_version, parse_files
from edgepack.cli.options import AsJson, Identity, OnePackageTarget, PackageFile, trust_option
from edgepack.cli.output import show
from edgepack.errors import EdgepackError, PackageError, TrustError


def sign(
    file: PackageFile,
    key: Annotated[
        Path, typer.Option("--key", metavar="KEY", help="Private key, made by `edgepack keys new`.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="EPK", help="[default: EPK itself, replaced]"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a signature to a package."""
    from edgepack import package, trust

    private = trust.load_private(key)
    unsigned = package.read_package(file)
    signed = package.attach_envelope(unsigned, trust.sign(unsigned, private), output or file)
    result = {
        "package": str(signed.path),
        "digest": signed.digest,
        "key": private.public_key.key_id,
        "signatures": text.signatures(signed),
    }
    show(
        result,
        f"signed {signed.path} with {text.short(private.public_key.key_id)}",
        as_json=as_json,
    )


def verify(
    file: PackageFile,
    keys: Annotated[list[Path], trust_option("Public key to trust. Give it once for each key.")],
    installed: Annotated[
        str | None,
        typer.Option(
            "--installed", metavar="X.Y.Z", help="The version a device has: no lower one may pass."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check everything about a package that a device checks.

    Contents and digests, the signature and its key, the signed statement, and the version.
    """
    from edgepack import package, trust

    trusted = [trust.load_public(key) for key in keys]
    floor = None if installed is None else check_version(installed, "--installed")
    try:
        signed = trust.verify(package.read_package(file), trusted, floor=floor)
    except (PackageError, TrustError) as error:
        refuse(error, as_json=as_json)
    result = {"ok": True, "digest": signed.package.digest, "keys": list(signed.key_ids)}
    names = ", ".join(map(text.short, signed.key_ids))
    show(result, f"{file}: verified, signed by {names}", as_json=as_json)


def refuse(error: EdgepackError, *, as_json: bool) -> None:
    """Show which check of ``verify`` failed, and leave with the error's exit code."""
    check = getattr(error, "check", "package")
    show(
        {"ok": False, "check": check, "reason": error.message},
        f"refused, check {check}: {error.message}",
        as_json=as_json,
    )
    raise typer.Exit(error.exit_code) from error


def run(
    file: PackageFile,
    inputs: Annotated[
        list[str],
        typer.Option("--input", metavar="NAME=FILE", help="One .npy file for each input."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="NPZ", help="Write the outputs as an .npz file."),
    ] = None,
    target: OnePackageTarget = None,
    as_json: AsJson = False,
) -> None:
    """Run a package here, on inputs from files.

    By the same worker that the device runs; under qemu-user for another CPU.
    """
    from edgepack import build, package
    from edgepack.cli.tensors import load_inputs, save_outputs, summarise

    opened = package.read_package(file)
    specs = build.choose_target(opened, target).inputs
    outputs = build.run_package(opened, load_inputs(parse_files(inputs), specs), target)
    if output is not None:
        save_outputs(output, outputs)
    tensors = [summarise(name, array) for name, array in outputs.items()]
    result = {"outputs": tensors, "file": None if output is None else str(output)}
    show(result, text.outputs(result), as_json=as_json)


def bench(
    file: PackageFile,
    target: OnePackageTarget = None,
    threads: Annotated[
        int, typer.Option("--threads", min=1, max=64, help="Threads that the worker uses.")
    ] = 1,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, max=3600.0, help="How long to measure.")
    ] = 5.0,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Then, as long again, measure each kernel call by itself."),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="URL",
            help="Measure on the device ssh://[user@]host[:port][/root]; nothing is installed there."
            " Its own target is the default.",
        ),
    ] = None,
    identity: Identity = None,
    as_json: AsJson = False,
) -> None:
    """Measure a package's latency, cold start and memory.

    Here, under qemu-user for another CPU, or on a device.
    """
    from edgepack import package
    from edgepack.bench import bench_package
    from edgepack.channels import ChannelOptions

    result = bench_package(
        package.read_package(file),
        target=target,
        threads=threads,
        seconds=seconds,
        profile=profile,
        device=device,
        options=ChannelOptions(identity=identity),
    )
    layers = f"{kernel_text.profile(result['profile'])}\n\n" if profile else ""
    show(result, layers + text.bench(result), as_json=as_json)
