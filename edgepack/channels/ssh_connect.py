"""Opening an SSH connection: the way there, the host key, the user's key."""

from __future__ import annotations

import contextlib
import logging
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.channels.ssh_auth import authenticate
from edgepack.channels.ssh_config import Endpoint, parse_url, resolve
from edgepack.channels.ssh_hostkey import check_host_key, known_keys, prefer_known
from edgepack.errors import ChannelError, ConfigError

if TYPE_CHECKING:
    from paramiko import Channel, Transport

_MAX_JUMPS = 8
_KEEPALIVE_SECONDS = 15
_DEAD_PEER_MILLISECONDS = 45_000
_PROXY_END_SECONDS = 5


@contextlib.contextmanager
def connected(
    endpoint: Endpoint, timeout: float, *, config_file: Path | None = None
) -> Iterator[Transport]:
    """An authenticated connection to ``endpoint``; jump hosts are opened first and closed last.

    Raises:
        ChannelError: It cannot be reached, is not who it should be, or does not let us in.
    """
    # paramiko's thread logs tracebacks; where no handler is, Python prints them.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    if len(endpoint.proxy_jump) > _MAX_JUMPS:
        raise ConfigError(f"{endpoint.name}: more than {_MAX_JUMPS} hosts in ProxyJump")
    with contextlib.ExitStack() as stack:
        through: Transport | None = None
        for jump in endpoint.proxy_jump:
            url = parse_url(f"ssh://{jump.strip().removeprefix('ssh://')}")
            hop = resolve(url, config_file=config_file)
            through = stack.enter_context(_opened(hop, through, timeout))
        yield stack.enter_context(_opened(endpoint, through, timeout))


@contextlib.contextmanager
def _opened(endpoint: Endpoint, through: Transport | None, timeout: float) -> Iterator[Transport]:
    import paramiko

    with contextlib.ExitStack() as stack:
        try:
            way = stack.enter_context(_way(endpoint, through, timeout))
            transport = stack.enter_context(contextlib.closing(paramiko.Transport(way)))
            transport.banner_timeout = transport.auth_timeout = timeout
            transport.channel_timeout = timeout
            known = known_keys(endpoint)
            prefer_known(transport, known)
            transport.start_client(timeout=2 * timeout)  # which is the banner and the key exchange
            check_host_key(endpoint, transport.get_remote_server_key(), known)
            authenticate(endpoint, transport)
            transport.set_keepalive(_KEEPALIVE_SECONDS)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ChannelError(
                f"{endpoint}: the SSH connection failed: {_reason(error)}",
                f"ssh -v -p {endpoint.port} {shlex.quote(f'{endpoint.user}@{endpoint.host}')}",
            ) from error
        yield transport


def _reason(error: Exception) -> str:
    # paramiko's words for a server that says nothing, or not enough, in time.
    silent = ("SSH protocol banner", "No existing session")
    if isinstance(error, EOFError) or any(words in str(error) for words in silent):
        return "no SSH server answers there"
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def _way(
    endpoint: Endpoint, through: Transport | None, timeout: float
) -> Iterator[socket.socket | Channel]:
    if through is not None:
        target = (endpoint.host, endpoint.port)
        channel = through.open_channel("direct-tcpip", target, ("127.0.0.1", 0), timeout=timeout)
        with contextlib.closing(channel):
            yield channel
    elif endpoint.proxy_command:
        with _command(endpoint.proxy_command) as way:
            yield way
    else:
        with _tcp(endpoint, timeout) as way:
            yield way


@contextlib.contextmanager
def _command(command: str) -> Iterator[socket.socket]:
    """A ProxyCommand, run by the shell as OpenSSH does; its input and output are one socket.

    paramiko's own class reads on for ever when the command has ended.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
            )
        try:
            yield ours
        finally:
            ours.close()
            process.terminate()
            try:
                process.wait(_PROXY_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _tcp(endpoint: Endpoint, timeout: float) -> socket.socket:
    place = f"{endpoint}"
    try:
        connection = socket.create_connection((endpoint.host, endpoint.port), timeout)
    except socket.gaierror as error:
        raise ChannelError(
            f"{place}: no address is known for {endpoint.host!r} ({error.strerror})",
            "Check the name; an alias belongs into ~/.ssh/config",
        ) from error
    except TimeoutError as error:
        raise ChannelError(
            f"{place}: no answer within {timeout:g} s", "Is the device on, and reachable from here?"
        ) from error
    except ConnectionRefusedError as error:
        raise ChannelError(
            f"{place}: the connection was refused: no SSH server listens on port {endpoint.port}",
            "Start sshd there, or name its port: ssh://host:PORT",
        ) from error
    except OSError as error:
        raise ChannelError(f"{place}: {error.strerror or error}", "Check the network") from error
    # Short messages to and fro: Nagle's algorithm would add 40 ms to each command.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A device that lost power answers nothing: give up, rather than wait for TCP's 15 minutes.
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        connection.setsockopt(socket.IPPROTO_TCP, option, _DEAD_PEER_MILLISECONDS)
    return connection
