"""Compiled models as files for programs that embed them: library, archive, header and weights.

    FOLDER/TARGET/libmodel.so   the model, to be linked with or loaded
    FOLDER/TARGET/libmodel.a    the same, to be linked in
    FOLDER/TARGET/edgepack.h    the interface to both
    FOLDER/TARGET/weights.bin   what ep_session_init() wants

Nothing of this is signed: who embeds a model delivers it as part of the program.
"""

from __future__ import annotations

from pathlib import Path

from edgepack import toolchain
from edgepack.artefacts import CompiledModel
from edgepack.atomic import replacing
from edgepack.errors import ConfigError


def write_library(folder: Path, compiled: CompiledModel) -> None:
    """Link ``compiled`` and write its files, each whole or not at all.

    Raises ToolchainError, ConfigError for a folder that cannot be made, PackageError for a file.
    """
    library = toolchain.link_library(compiled)
    place = folder / compiled.target.name
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--library {folder}: {place} cannot be made: {error.strerror}", "name another folder"
        ) from error
    files = {
        "libmodel.so": library.shared,
        "libmodel.a": library.archive,
        "edgepack.h": (toolchain.RUNTIME / "edgepack.h").read_bytes(),
        "weights.bin": compiled.weights,
    }
    for name, content in files.items():
        with replacing(place / name) as stream:
            stream.write(content)
