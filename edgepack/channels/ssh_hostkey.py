"""Is the other side who it should be: known_hosts, strictly."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgepack.channels.ssh_config import Endpoint
from edgepack.errors import ChannelError

if TYPE_CHECKING:
    from paramiko import PKey, Transport

# One RSA key serves several signature algorithms; known_hosts has it under its first name.
_RSA_ALGORITHMS = ("rsa-sha2-512", "rsa-sha2-256")


def fingerprint(key: PKey) -> str:
    """As OpenSSH shows it: ``SHA256:`` and unpadded base64."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest())
    return "SHA256:" + digest.decode().rstrip("=")


def known_keys(endpoint: Endpoint) -> dict[str, PKey]:
    """The host keys that known_hosts has for ``endpoint``, by key type; the first of each holds."""
    from paramiko import HostKeys
    from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

    keys: dict[str, PKey] = {}
    for line in _lines(endpoint):
        if line.startswith(("#", "@")) or len(line.split()) < 3:
            continue  # paramiko fails at marked lines; _is_revoked reads those that matter
        try:
            entry = HostKeyEntry.from_line(" ".join(line.split()))
        except InvalidHostKey:
            continue
        if entry is not None and entry.hostnames is not None:
            one = HostKeys()
            for name in entry.hostnames:
                one.add(name, entry.key.get_name(), entry.key)
            keys = {**(one.lookup(endpoint.host_key_name) or {}), **keys}
    return keys


def _lines(endpoint: Endpoint) -> Iterator[str]:
    for file in endpoint.known_hosts:
        if file.is_file():
            yield from map(str.strip, file.read_text(errors="replace").splitlines())


def prefer_known(transport: Transport, known: dict[str, PKey]) -> None:
    """Ask first for the types of key that can be checked."""
    wanted = [
        algorithm
        for key_type in known
        for algorithm in (_RSA_ALGORITHMS if key_type == "ssh-rsa" else (key_type,))
    ]
    security = transport.get_security_options()
    offered = list(security.key_types)
    first = [algorithm for algorithm in wanted if algorithm in offered]
    security.key_types = first + [name for name in offered if name not in first]


def check_host_key(endpoint: Endpoint, key: PKey, known: dict[str, PKey]) -> None:
    """Raise ChannelError unless ``key`` is known for ``endpoint`` and not revoked."""
    shown = f"{key.get_name()} {fingerprint(key)}"
    if _is_revoked(endpoint, key):
        raise ChannelError(f"{endpoint}: the host key {shown} is marked @revoked in known_hosts")
    if known.get(key.get_name()) == key:
        return
    file = shlex.quote(str(endpoint.known_hosts[0] if endpoint.known_hosts else "known_hosts"))
    if not known:
        raise ChannelError(
            f"{endpoint}: the host key is not known: {shown}",
            "Compare it on the device (ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub), then: "
            f"{_add_command(endpoint, key)} >> {file}",
        )
    before = ", ".join(f"{kind} {fingerprint(old)}" for kind, old in known.items())
    raise ChannelError(
        f"{endpoint}: the host key has CHANGED: it was {before}, now it is {shown}. "
        "Somebody may be in between, or the device was set up anew",
        "If the device was set up anew: "
        f"ssh-keygen -R {shlex.quote(endpoint.host_key_name)} -f {file}",
    )


def _add_command(endpoint: Endpoint, key: PKey) -> str:
    """A command that prints the known_hosts line; exactly this key, where keyscan cannot get at it."""
    kind = key.get_name()
    behind = endpoint.proxy_command or endpoint.proxy_jump
    plain_name = endpoint.host if endpoint.port == 22 else f"[{endpoint.host}]:{endpoint.port}"
    if behind or endpoint.host_key_name != plain_name:
        return "echo " + shlex.quote(f"{endpoint.host_key_name} {kind} {key.get_base64()}")
    short = "ecdsa" if kind.startswith("ecdsa") else kind.removeprefix("ssh-")
    return f"ssh-keyscan -t {short} -p {endpoint.port} {shlex.quote(endpoint.host)}"


def _is_revoked(endpoint: Endpoint, key: PKey) -> bool:
    """Whether a ``@revoked`` line, which paramiko skips, names this key (for whatever host)."""
    return any(
        line.startswith("@revoked") and key.get_base64() in line.split()
        for line in _lines(endpoint)
    )
