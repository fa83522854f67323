"""Operations on a device over SSH: put the agent there, ask it, go back a version."""

from __future__ import annotations

import io
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack import canonical
from edgepack.channels.agent import Agent
from edgepack.channels.channel import ChannelOptions
from edgepack.channels.device_events import DeviceEvent
from edgepack.channels.device_status import DeviceStatus
from edgepack.channels.service import start_agent
from edgepack.channels.ssh_session import Session, UploadFailedError, open_session
from edgepack.errors import ConfigError, DeviceError
from edgepack.targets import Target

_LAYOUT = {
    "": 0o755,
    "bin": 0o755,
    "trust": 0o755,
    "blobs": 0o755,
    "blobs/sha256": 0o755,
    "models": 0o755,
    "incoming": 0o700,
    "run": 0o755,
}
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PUBLIC = b"-----BEGIN PUBLIC KEY-----"
_START_SECONDS = 20.0

# What `uname -m` says of machines that run a static executable of an architecture.
_MACHINES = {
    "x86_64": ("x86_64", "amd64"),
    "aarch64": ("aarch64", "arm64"),
    "arm": ("armv7l", "armv7", "armv8l"),
    "riscv64": ("riscv64",),
}


@dataclass(frozen=True, kw_only=True)
class SetupResult:
    """A device that was set up."""

    status: DeviceStatus
    service: str
    """The systemd unit, or empty where the agent runs detached and a reboot ends it."""

    def to_dict(self) -> dict[str, Any]:
        """As it stands in ``device setup --json``."""
        return {"service": self.service, "status": self.status.to_dict()}


def setup(
    url: str,
    *,
    target: Target,
    agent_binary: Path,
    trust_keys: Sequence[tuple[str, bytes]],
    options: ChannelOptions | None = None,
) -> SetupResult:
    """Make the machine behind ``url`` a device of ``target``, or bring its agent up to date.

    ``trust_keys`` are (name, PEM of a public key); they become the keys that the device trusts, all
    of them. Without any, those that it has stay. Models stay in any case.

    Raises:
        ConfigError: The URL, a key's name or a key is wrong; or there would be no key at all.
        ChannelError: The device cannot be reached.
        DeviceError: It is of another architecture, a file cannot be written, the agent does not run.
    """
    options = options or ChannelOptions()
    for name, pem in trust_keys:
        _check_key(name, pem)
    with open_session(url, options) as (session, place):
        agent = Agent(session, place.root, url)
        _check_machine(session, target)
        _make_layout(session, place.root)
        if not trust_keys and not _trusted(agent):
            raise ConfigError(
                f"{session.name} has no key to trust, and could never install anything",
                f"edgepack device setup {shlex.quote(url)} --target {target.name} --trust KEY.pub",
            )
        _put_agent(agent, agent_binary)
        _put_keys(agent, trust_keys)
        config = canonical.encode({"target": target.name})
        _put(session, config, f"{place.root}/config.json", 0o644)
        unit = start_agent(session, agent.binary, place.root)
        # Without this a power cut in the next half minute may leave empty files (seen on ext4).
        _do(session, ["sync"])
        status = _wait_until_serving(agent)
    if trust_keys and len(status.keys) < len({pem for _, pem in trust_keys}):
        raise DeviceError(f"{session.name}: the agent reads only {len(status.keys)} of the keys")
    return SetupResult(status=status, service=unit)


def status(url: str, *, options: ChannelOptions | None = None) -> DeviceStatus:
    """What is installed on the device behind ``url``, and whether it serves."""
    with open_session(url, options or ChannelOptions()) as (session, place):
        return Agent(session, place.root, url).status()


def events(url: str, *, options: ChannelOptions | None = None) -> tuple[DeviceEvent, ...]:
    """What befell the models of the device behind ``url``, oldest first."""
    with open_session(url, options or ChannelOptions()) as (session, place):
        return Agent(session, place.root, url).events()


def rollback(
    url: str, model: str | None = None, *, options: ChannelOptions | None = None
) -> dict[str, Any]:
    """Go back to the previous version of ``model`` (of the only one, if not named).

    Returns the agent's answer: ``model``, ``version``, ``previous``, ``changed``.
    """
    options = options or ChannelOptions()
    with open_session(url, options) as (session, place):
        agent = Agent(session, place.root, url)
        names = [model] if model else []
        return agent.call("rollback", *names, timeout=options.install_timeout)


def _check_key(name: str, pem: bytes) -> None:
    if not _KEY_NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a key", "Use letters, digits, '.', '_', '-'")
    if b"PRIVATE KEY" in pem:
        raise ConfigError(f"{name} is a private key, which must not leave here", "Give its .pub")
    if not pem.lstrip().startswith(_PUBLIC):
        raise ConfigError(f"{name} is not a public key in PEM", "edgepack keys new NAME.key")


def _check_machine(session: Session, target: Target) -> None:
    machine = _do(session, ["uname", "-m"]).strip()
    if machine not in _MACHINES[target.arch]:
        raise DeviceError(
            f"{session.name} is {machine}, but target {target.name} is for {target.arch}",
            "edgepack targets lists the profiles",
            check="target",
        )


def _make_layout(session: Session, root: str) -> None:
    folders = {f"{root}/{name}".rstrip("/"): mode for name, mode in _LAYOUT.items()}
    commands = [["mkdir", "-p", "--", *folders]]
    for mode in sorted(set(_LAYOUT.values())):
        commands.append(["chmod", f"{mode:o}", "--", *[f for f, m in folders.items() if m == mode]])
    _do(session, *commands)


def _put_agent(agent: Agent, binary: Path) -> None:
    """Upload the agent, see that it runs, and only then put it in the place of the old one."""
    fresh = f"{agent.binary}.new"
    _upload(agent.session, binary.read_bytes(), fresh)
    _do(agent.session, ["chmod", "755", "--", fresh], ["sync"])
    answer = agent.session.run([fresh, "version"])
    if answer.status != 0:
        _do(agent.session, ["rm", "-f", "--", fresh])
        raise DeviceError(
            f"{agent.session.name}: the agent does not run there: {answer.last_words()}",
            "Is the file system mounted noexec, or the processor older than the target's?",
            check="agent",
        )
    _do(agent.session, ["mv", "-f", "--", fresh, agent.binary])


def _trusted(agent: Agent) -> list[str]:
    names = _do(agent.session, ["ls", "-1", "--", f"{agent.root}/trust"]).splitlines()
    return [name for name in names if name.endswith(".pub")]


def _put_keys(agent: Agent, keys: Sequence[tuple[str, bytes]]) -> None:
    """Write the keys first and remove the others after: the device always trusts somebody."""
    wanted = {f"{name.removesuffix('.pub')}.pub": pem for name, pem in keys}
    if len(wanted) != len(keys):
        raise ConfigError("two keys have one name", "Name their files differently")
    for name, pem in wanted.items():
        _put(agent.session, pem, f"{agent.root}/trust/{name}", 0o644)
    others = [name for name in _trusted(agent) if wanted and name not in wanted]
    if others:
        _do(agent.session, ["rm", "-f", "--", *[f"{agent.root}/trust/{name}" for name in others]])


def _put(session: Session, content: bytes, path: str, mode: int) -> None:
    """Put a file in place whole or not at all."""
    part = f"{path}.part"
    _upload(session, content, part)
    _do(session, ["chmod", f"{mode:o}", "--", part], ["sync"], ["mv", "-f", "--", part, path])


def _upload(session: Session, content: bytes, path: str) -> None:
    try:
        session.upload(io.BytesIO(content), len(content), path)
    except UploadFailedError as error:
        session.run(["rm", "-f", "--", path])
        raise DeviceError(
            f"{session.name}: {path} cannot be written: {error}",
            "Is there room on the device? (df)",
            check="disk",
        ) from error


def _do(session: Session, *commands: Sequence[str]) -> str:
    """Run commands, each after the one before has succeeded, in one round trip."""
    done = session.run(" && ".join(map(shlex.join, commands)))
    if done.status != 0:
        raise DeviceError(
            f"{session.name}: {commands[0][0]} failed: {done.last_words()}",
            "Use a user or a root directory (ssh://host/ROOT) with the right to write there",
            check="disk",
        )
    return done.stdout.decode(errors="replace")


def _wait_until_serving(agent: Agent) -> DeviceStatus:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        status = agent.status()
        if status.serving:
            return status
        if time.monotonic() > deadline:
            raise DeviceError(
                f"{agent.session.name}: the agent was started but does not serve",
                f"On the device: {shlex.join([agent.binary, '--root', agent.root, 'serve'])}",
                check="agent",
            )
        time.sleep(0.2)
