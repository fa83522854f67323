"""Keeping the agent running on a device: a systemd unit where there is systemd, detached elsewhere."""

from __future__ import annotations

import io
import shlex
from importlib import resources
from string import Template

from edgepack.channels.ssh_config import DEFAULT_ROOT
from edgepack.channels.ssh_session import Session, UploadFailedError
from edgepack.errors import DeviceError

_UNITS = "/etc/systemd/system"

# The servers of this root, by their executable: also one whose file was replaced meanwhile, which
# /proc marks "(deleted)". TERM, then ten seconds or more; workers end with their agent.
_STOP = r"""
binary=$(readlink -f {binary}) || exit 0
servers() {{
  for process in /proc/[0-9]*; do
    case "$(readlink "$process/exe" 2>/dev/null)" in
      "$binary" | "$binary (deleted)")
        if tr '\0' '\n' < "$process/cmdline" 2>/dev/null | grep -qx serve; then
          echo "${{process#/proc/}}"
        fi ;;
    esac
  done
}}
tries=50
while [ $tries -gt 0 ]; do
  pids=$(servers)
  [ -n "$pids" ] || exit 0
  kill $pids 2>/dev/null
  sleep 0.2 2>/dev/null || sleep 1
  tries=$((tries - 1))
done
echo "the running agent does not end: $pids" >&2
exit 1
"""


def start_agent(session: Session, binary: str, root: str) -> str:
    """(Re)start the agent; returns the name of its systemd unit, or "" where it runs detached.

    Raises:
        DeviceError: It could not be stopped or started.
    """
    unit = unit_name(root) if _has_systemd(session) else ""
    if unit:
        _write_unit(session, unit, binary, root)
    _do(session, _STOP.format(binary=shlex.quote(binary)), "stop the running agent", 90)
    if unit:
        quoted = shlex.quote(unit)
        start = f"systemctl daemon-reload && systemctl enable --quiet {quoted} && "
        _do(session, f"{start}systemctl restart {quoted}", "start the agent by systemd", 300)
    else:
        command = shlex.join([binary, "--root", root, "serve", "--detach"])
        _do(session, f"{command} > /dev/null < /dev/null", "start the agent", 30)
    return unit


def unit_name(root: str) -> str:
    """One unit for each root: ``edgepack-agent.service``, or with the root's path in it."""
    if root == DEFAULT_ROOT:
        return "edgepack-agent.service"
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "_.") else "-" for c in root)
    return f"edgepack-agent{safe}.service"


def render_unit(binary: str, root: str) -> str:
    """The unit file for the agent whose store is ``root``."""
    folder = resources.files("edgepack") / "templates" / "systemd"
    template = Template((folder / "edgepack-agent.service").read_text(encoding="utf-8"))
    return template.substitute(
        command=f"{_quote(binary)} --root {_quote(root)} serve",
        root=_quote(root),
        description=root.replace("%", "%%"),
    )


def _quote(path: str) -> str:
    """As systemd.syntax(7) wants a word; parse_url lets nothing through that needs a backslash."""
    return '"' + path.replace("%", "%%") + '"'


def _has_systemd(session: Session) -> bool:
    test = 'test -d /run/systemd/system && test "$(id -u)" = 0'
    return session.run(test).status == 0


def _write_unit(session: Session, unit: str, binary: str, root: str) -> None:
    content = render_unit(binary, root).encode()
    path = f"{_UNITS}/{unit}"
    try:
        session.upload(io.BytesIO(content), len(content), f"{path}.part")
    except UploadFailedError as error:
        raise DeviceError(f"{session.name}: {path} cannot be written: {error}") from error
    words = shlex.quote(path)
    _do(session, f"chmod 644 {words}.part && mv -f {words}.part {words}", "install its unit", 30)


def _do(session: Session, command: str, what: str, timeout: float) -> None:
    done = session.run(command, timeout=timeout)
    if done.status != 0:
        raise DeviceError(
            f"{session.name}: cannot {what}: {done.last_words()}",
            "systemctl status edgepack-agent, or journalctl -u edgepack-agent, on the device",
            check="agent",
        )
