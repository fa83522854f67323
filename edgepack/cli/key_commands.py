"""Commands about signing keys: ``keys new``, ``keys show``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edgepack.cli import text
from edgepack.cli.options import AsJson
from edgepack.cli.output import show
from edgepack.errors import TrustError

keys = typer.Typer(help="Make and show signing keys.")


class KeyType(StrEnum):
    """Signature schemes, as the command line names them."""

    ECDSA_P256 = "ecdsa-p256"
    ED25519 = "ed25519"


@keys.command()
def new(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="NAME.key", help="Where the private key goes; it must not be there."
        ),
    ],
    kind: Annotated[KeyType, typer.Option("--type")] = KeyType.ECDSA_P256,
    as_json: AsJson = False,
) -> None:
    """Make a key pair: NAME.key, which signs and stays secret, and NAME.pub, which devices trust."""
    from edgepack import trust

    key = trust.new_key(kind.value)
    public = trust.write_key_pair(key, file)
    result = {
        "type": kind.value,
        "key_id": key.public_key.key_id,
        "private": str(file),
        "public": str(public),
    }
    show(result, text.fields(result), as_json=as_json)


@keys.command(name="show")
def show_key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A private or a public key.")],
    as_json: AsJson = False,
) -> None:
    """Show the type and the id of a key."""
    from edgepack import trust

    try:
        key, private = trust.load_private(file).public_key, True
    except TrustError:
        key, private = trust.load_public(file), False
    result = {"type": key.kind, "key_id": key.key_id, "private": private}
    show(result, text.fields(result), as_json=as_json)
