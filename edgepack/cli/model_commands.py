"""Commands about models: ``targets``, ``inspect``, ``compile``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgepack.cli import import_options, kernel_text, text
from edgepack.cli.arguments import (
    check_version,
    model_name,
    package_path,
    parse_shapes,
    parse_targets,
)
from edgepack.cli.options import AsJson
from edgepack.cli.output import progress, show, warn


def targets(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Show this profile in full: a name or a .toml file."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the target profiles, or show one in full."""
    from edgepack.targets import load_target, target_names

    if name is not None:
        profile = load_target(name).to_dict()
        show(profile, text.target(profile), as_json=as_json)
        return
    profiles = [load_target(known).to_dict() for known in target_names()]
    show({"targets": profiles}, text.targets(profiles), as_json=as_json)


def inspect(
    file: Annotated[Path, typer.Argument(metavar="MODEL|EPK", help="A model or a package.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=DIMS",
            help="Fix an input's shape first, and show the model as it is compiled: x=1,3,224,224.",
        ),
    ] = None,
    format: import_options.Format = None,
    signature: import_options.Signature = "",
    trusted_types: import_options.TrustedTypes = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model or a package is made of.

    Of a model: inputs, outputs, operators, parameters and FLOPs. Of a package: manifest, digests,
    and the keys that signed it.
    """
    from edgepack.cli.inspection import inspect_model, inspect_package, is_package

    if is_package(file):
        found = inspect_package(file)
        show(found, text.package(found), as_json=as_json)
    else:
        options = import_options.import_options(signature=signature, trusted_types=trusted_types)
        found = inspect_model(file, parse_shapes(inputs or []), format, options)
        show(found, text.model(found), as_json=as_json)


def compile_model(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="A model of a format that docs/models.md lists: a file or a folder.",
        ),
    ],
    target: Annotated[
        list[str],
        typer.Option(
            "--target",
            "-t",
            metavar="NAME",
            help="Profile to compile for: a name that `edgepack targets` lists, or a .toml file."
            " Give it once for each target.",
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=DIMS",
            help="Fix the shape of an input that has dynamic dimensions: x=1,3,224,224.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="EPK", help="[default: the model's name with .epk]"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="[default: made of the model file's name]"),
    ] = None,
    version: Annotated[
        str, typer.Option("--version", metavar="X.Y.Z", help="The model's version.")
    ] = "1.0.0",
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance",
            min=1e-9,
            max=1.0,
            help="Largest error, relative to the largest value of an output.",
        ),
    ] = 1e-4,
    check: Annotated[
        Path | None,
        typer.Option(
            "--check",
            metavar="NPZ|DIR",
            help="Inputs of your own, on which the package must answer as the original model does.",
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            metavar="NPZ|DIR",
            help="Inputs as they are while all is well, which the device measures drift against."
            " [default: those of --check]",
        ),
    ] = None,
    library: Annotated[
        Path | None,
        typer.Option(
            "--library",
            metavar="DIR",
            help="Write libmodel.so, libmodel.a, edgepack.h and weights.bin for programs that embed"
            " the model, into a folder for each target.",
        ),
    ] = None,
    format: import_options.Format = None,
    signature: import_options.Signature = "",
    trusted_types: import_options.TrustedTypes = None,
    bounds: import_options.Bounds = None,
    layouts: import_options.Layouts = None,
    normalizations: import_options.Normalizations = None,
    uint8_input: import_options.Uint8Input = False,
    report: Annotated[
        bool,
        typer.Option(
            "--report", help="Show for each kernel which rule scheduled it, and its cost."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compile a model for one or more targets, and package it.

    The compiled model is run here, under qemu-user for another CPU, and must compute what ONNX
    Runtime computes, and what the framework computes that the model comes from; otherwise nothing is
    written.
    """
    from edgepack.build import CompileOptions, compile_package

    options = CompileOptions(
        name=model_name(name, model),
        version=check_version(version),
        shapes=parse_shapes(inputs or []),
        format=format,
        importing=import_options.import_options(
            signature=signature,
            trusted_types=trusted_types,
            bounds=bounds,
            layouts=layouts,
            normalizations=normalizations,
            uint8=uint8_input,
        ),
        tolerance=tolerance,
        check=check,
        library=library,
        baseline=baseline,
    )
    with progress() as say:
        package = compile_package(
            model,
            targets=parse_targets(target),
            out=package_path(output, model),
            options=options,
            progress=say,
            warn=warn,
        )
    result = text.compile_result(package, report=report)
    tables = f"{kernel_text.report(result)}\n\n" if report else ""
    show(result, tables + text.compiled(result), as_json=as_json)
