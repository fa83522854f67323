"""Where an ``ssh://`` URL leads, after OpenSSH's client configuration has had its say.

Understood out of ssh_config(5): Host and Match blocks, Include, HostName, Port, User, IdentityFile,
IdentitiesOnly, IdentityAgent none, UserKnownHostsFile, GlobalKnownHostsFile, HostKeyAlias,
ProxyCommand, ProxyJump.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from edgepack.errors import ConfigError

if TYPE_CHECKING:
    from paramiko import SSHConfig

DEFAULT_ROOT = "/var/lib/edgepack"
_FORM = "Write ssh://[user@]host[:port][/root]"
# Names reach a shell through ProxyCommand's %h and %r (CVE-2023-51385): nothing it could act upon.
_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:%-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@\\-]*")
# What systemd takes in the path of no executable, quoted or not.
_NOT_IN_ROOT = set("\"'\\$`")
_INCLUDE = re.compile(r"\s*include(?:\s*=\s*|\s+)(.+)", re.IGNORECASE)
_BLOCK = re.compile(r"\s*(?:host|match)(?:\s*=\s*|\s+)", re.IGNORECASE)
_MAX_INCLUDES = 16
_DEFAULT_IDENTITIES = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")


@dataclass(frozen=True, kw_only=True)
class DeviceURL:
    """An ``ssh://`` URL taken apart; ``user`` and ``port`` are None where it leaves them open."""

    host: str
    user: str | None
    port: int | None
    root: str


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """All there is to know to open one SSH connection."""

    name: str
    """As the user wrote it."""
    host: str
    port: int
    user: str
    identities: tuple[Path, ...]
    identities_only: bool
    use_agent: bool
    known_hosts: tuple[Path, ...]
    host_key_name: str
    """Under which the host key stands in known_hosts: host, ``[host]:port`` or HostKeyAlias."""
    proxy_command: str
    proxy_jump: tuple[str, ...]

    def __str__(self) -> str:
        where = f"{self.user}@{self.host}" + (f" port {self.port}" if self.port != 22 else "")
        return where if self.name == self.host else f"{self.name} ({where})"


def parse_url(url: str) -> DeviceURL:
    """Take ``ssh://[user@]host[:port][/root]`` apart.

    Raises:
        ConfigError: It has another form.
    """
    try:
        parts = urlsplit(url)
        user, port = parts.username, parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is no SSH destination: {error}", _FORM) from error
    if parts.password is not None:
        raise ConfigError("a password in an ssh:// URL is not taken", "Use a key: ssh-copy-id HOST")
    # Not parts.hostname, which is in lower case: names in ~/.ssh/config are told apart by case.
    place = parts.netloc.rpartition("@")[2]
    host = place[1:].partition("]")[0] if place.startswith("[") else place.partition(":")[0]
    if parts.scheme != "ssh" or parts.query or parts.fragment or not _HOST.fullmatch(host):
        raise ConfigError(f"{url!r} is no SSH destination", _FORM)
    user = unquote(user) if user else None
    if user is not None and not _USER.fullmatch(user):
        raise ConfigError(f"{user!r} is no user name", _FORM)
    root = "/" + unquote(parts.path).strip("/") if parts.path.strip("/") else DEFAULT_ROOT
    if not root.isprintable() or set(root) & _NOT_IN_ROOT or ".." in root.split("/"):
        raise ConfigError(f"{root!r} is not fit to be a device's root directory", _FORM)
    return DeviceURL(host=host, user=user, port=port, root=root)


def resolve(
    url: DeviceURL, *, config_file: Path | None = None, identity: Path | None = None
) -> Endpoint:
    """Look the host up in the configuration: ``config_file``, $EDGEPACK_SSH_CONFIG, ~/.ssh/config.

    Raises:
        ConfigError: A configuration file is not there or cannot be understood.
    """
    from paramiko import ConfigParseError

    try:
        found = _read_config(config_file).lookup(url.host)
        host = found["hostname"]
        port = url.port or int(found.get("port", 22))
    except (ConfigParseError, ValueError, LookupError, OSError) as error:
        raise ConfigError(
            f"the SSH configuration for {url.host}: {error}", "ssh -G HOST"
        ) from error
    user = url.user or found.get("user") or getpass.getuser()
    if not _HOST.fullmatch(host) or not _USER.fullmatch(user):
        raise ConfigError(f"the SSH configuration for {url.host} names {user!r} at {host!r}")
    files = [identity] if identity else [Path(p) for p in found.get("identityfile", ())]
    jump = found.get("proxyjump", "none")
    alias = found.get("hostkeyalias")
    return Endpoint(
        name=url.host,
        host=host,
        port=port,
        user=user,
        identities=tuple(_expand(p) for p in files or map(Path, _DEFAULT_IDENTITIES)),
        identities_only=identity is not None or found.get("identitiesonly", "no") == "yes",
        use_agent=found.get("identityagent", "").lower() != "none",
        known_hosts=tuple(
            _expand(Path(name))
            for key, default in (
                ("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2"),
                ("globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"),
            )
            for name in shlex.split(found.get(key, default))
            if name.lower() != "none"
        ),
        host_key_name=alias or (host if port == 22 else f"[{host}]:{port}"),
        proxy_command=found.get("proxycommand") or "",
        proxy_jump=() if jump.lower() == "none" else tuple(jump.split(",")),
    )


def _expand(path: Path) -> Path:
    return Path(os.path.expandvars(path.expanduser()))


def _read_config(given: Path | None) -> SSHConfig:
    from paramiko import SSHConfig

    from_environment = os.environ.get("EDGEPACK_SSH_CONFIG")
    if given is None and from_environment:
        given = Path(from_environment)
    if given is not None:
        if not given.exists():
            raise ConfigError(f"{given} (SSH configuration) does not exist")
        files = [given]
    else:  # the user's own first: the first value that is found for a setting holds
        files = [Path("~/.ssh/config").expanduser(), Path("/etc/ssh/ssh_config")]
    lines = (line for file in files if file.is_file() for line in _lines(file, 0))
    return SSHConfig.from_text("\n".join(lines))


def _lines(file: Path, depth: int) -> Iterator[str]:
    """A configuration file with what it includes in the place of Include, which paramiko skips."""
    if depth > _MAX_INCLUDES:
        raise ConfigError(f"{file} is included more than {_MAX_INCLUDES} deep")
    block = "Host *"
    yield block
    for line in file.read_text(errors="replace").splitlines():
        if _BLOCK.match(line):
            block = line
        include = _INCLUDE.fullmatch(line)
        if include is None:
            yield line
            continue
        for pattern in shlex.split(include[1], comments=True):
            for included in _glob(pattern):
                yield from _lines(included, depth + 1)
        yield block


def _glob(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if not path.is_absolute():  # ssh_config(5): relative names are in ~/.ssh
        path = Path("~/.ssh").expanduser() / path
    return sorted(p for p in Path(path.anchor).glob(str(path)[1:]) if p.is_file())
