"""What is done over an SSH connection: run a command, put a file. POSIX shell and no more is needed.

Every wait has a bound. A connection that is lost at any moment is a ChannelError.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from edgepack.channels.channel import ChannelOptions
from edgepack.channels.ssh_config import DeviceURL, parse_url, resolve
from edgepack.channels.ssh_connect import connected
from edgepack.errors import ChannelError

if TYPE_CHECKING:
    from paramiko import Channel, SFTPClient, Transport

_MAX_OUTPUT = 4 << 20
_CHUNK = 32 << 10
Progress = Callable[[int, int], None]


class UploadFailedError(Exception):
    """The device did not take a file, though the connection stands; the text is its reason."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """How a command on the device ended."""

    status: int
    stdout: bytes
    stderr: str

    def last_words(self) -> str:
        """The last line on stderr, for a message."""
        lines = self.stderr.strip().splitlines()
        return lines[-1][:300] if lines else f"exit status {self.status}"


@contextlib.contextmanager
def open_session(url: str, options: ChannelOptions) -> Iterator[tuple[Session, DeviceURL]]:
    """Connect to the device that ``url`` names."""
    device = parse_url(url)
    endpoint = resolve(device, config_file=options.ssh_config, identity=options.identity)
    timeout = options.connect_timeout
    with (
        connected(endpoint, timeout, config_file=options.ssh_config) as transport,
        contextlib.closing(Session(transport, str(endpoint), timeout)) as session,
    ):
        yield session, device


class Session:
    """An open connection to one device."""

    def __init__(self, transport: Transport, name: str, timeout: float) -> None:
        self._transport = transport
        self._timeout = timeout
        self._files: SFTPClient | None = None
        self.name = name
        """The device, for messages."""

    def close(self) -> None:
        """End what is open in the connection, if there still is one."""
        from paramiko import SSHException

        if self._files is not None:
            # Whoever lost the connection has said so by now; there is nothing left to end.
            with contextlib.suppress(SSHException, EOFError, OSError):
                self._files.close()

    def run(self, command: Sequence[str] | str, *, timeout: float | None = None) -> Completed:
        """Run a command: a sequence of words, or text for the shell whose words are quoted.

        Raises:
            ChannelError: The connection was lost, or the command took longer than ``timeout``.
        """
        text = command if isinstance(command, str) else shlex.join(command)
        with self._lost(f"while it ran {text.split()[0]!r}"):
            channel = self._transport.open_session(timeout=self._timeout)
            with contextlib.closing(channel):
                channel.exec_command(text)
                channel.shutdown_write()
                return self._finish(channel, timeout or self._timeout)

    @contextlib.contextmanager
    def stream(self, command: Sequence[str]) -> Iterator[RemoteOutput]:
        """Run a command whose output is read while it runs, however much it is; it ends with the block.

        Raises ChannelError where the connection is lost; a silence longer than the session's timeout
        is such a loss.
        """
        text = shlex.join(command)
        with self._lost(f"while it ran {command[0]!r}"):
            channel = self._transport.open_session(timeout=self._timeout)
        with contextlib.closing(channel):
            with self._lost(f"while it ran {command[0]!r}"):
                channel.exec_command(text)
                channel.shutdown_write()
            yield RemoteOutput(self, channel)

    def upload(
        self, source: BinaryIO, size: int, path: str, progress: Progress | None = None
    ) -> None:
        """Put ``size`` bytes at ``path``, by SFTP, or through ``cat`` where there is no SFTP.

        Raises:
            ChannelError: The connection was lost.
            UploadFailedError: The device did not take it: no room, no permission, wrong size.
        """
        with self._lost("during the upload"):
            sftp = self._sftp()
            if sftp is None:
                self._upload_by_cat(source, size, path, progress)
            else:
                self._upload_by_sftp(sftp, source, size, path, progress)

    def _sftp(self) -> SFTPClient | None:
        """SFTP, opened once: dropbear 2022 may close the session that follows a closed SFTP's."""
        from paramiko import SFTPClient, SSHException

        if self._files is None:
            try:
                self._files = SFTPClient.from_transport(self._transport)
            except (SSHException, EOFError):
                if not self._transport.is_active():
                    raise
                return None
            channel = self._files.get_channel() if self._files is not None else None
            if channel is not None:
                channel.settimeout(self._timeout)
        return self._files

    def _upload_by_sftp(
        self, sftp: SFTPClient, source: BinaryIO, size: int, path: str, progress: Progress | None
    ) -> None:
        try:
            there = sftp.putfo(source, path, file_size=size, callback=progress).st_size
        except (TimeoutError, EOFError):
            raise
        except OSError as error:
            if not self._transport.is_active() or "closed" in str(error).lower():
                raise
            raise UploadFailedError(error.strerror or str(error) or "failure") from error
        if there != size:
            raise UploadFailedError(f"{there} bytes arrived instead of {size}")

    def _upload_by_cat(
        self, source: BinaryIO, size: int, path: str, progress: Progress | None
    ) -> None:
        channel = self._transport.open_session(timeout=self._timeout)
        with contextlib.closing(channel):
            channel.settimeout(self._timeout)
            quoted = shlex.quote(path)
            channel.exec_command(f"cat > {quoted} && wc -c < {quoted}")
            sent = 0
            try:
                while chunk := source.read(_CHUNK):
                    channel.sendall(chunk)
                    sent += len(chunk)
                    if progress:
                        progress(sent, size)
                channel.shutdown_write()
            except OSError:
                # cat has ended; what it said is below, unless the connection is what ended.
                if not self._transport.is_active():
                    raise
            done = self._finish(channel, self._timeout)
        if done.status != 0:
            raise UploadFailedError(done.last_words())
        if done.stdout.split()[-1:] != [str(size).encode()]:
            raise UploadFailedError(f"{done.stdout.decode(errors='replace')} bytes arrived")

    def _finish(self, channel: Channel, timeout: float) -> Completed:
        deadline = time.monotonic() + timeout
        stdout = _read(channel, channel.recv, deadline)
        stderr = _read(channel, channel.recv_stderr, deadline)
        if not channel.status_event.wait(max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        # paramiko says -1 where no status came: killed by a signal, or the connection is gone.
        if channel.exit_status == -1 and not self._transport.is_active():
            raise EOFError
        return Completed(
            status=channel.exit_status, stdout=stdout, stderr=stderr.decode(errors="replace")
        )

    @contextlib.contextmanager
    def _lost(self, when: str) -> Iterator[None]:
        from paramiko import SSHException

        try:
            yield
        except TimeoutError as error:
            raise ChannelError(
                f"{self.name}: no answer in time {when}", "Is the device busy or gone? Try again"
            ) from error
        except (SSHException, EOFError, OSError) as error:
            raise ChannelError(
                f"{self.name}: the connection was lost {when}", "Try again"
            ) from error


class RemoteOutput:
    """What a command that runs on the device writes to its standard output."""

    def __init__(self, session: Session, channel: Channel) -> None:
        self._session = session
        self._channel = channel

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes, as soon as there are some; none once the command has closed it."""
        with self._session._lost("while it was read from"):
            self._channel.settimeout(self._session._timeout)
            return self._channel.recv(size)

    def finish(self) -> Completed:
        """How the command ended, once all was read."""
        with self._session._lost("while it was read from"):
            return self._session._finish(self._channel, self._session._timeout)


def _read(channel: Channel, receive: Callable[[int], bytes], deadline: float) -> bytes:
    """All that comes, up to a bound; what is beyond it is dropped."""
    data = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        channel.settimeout(left)
        chunk = receive(_CHUNK)
        if not chunk:
            return data
        data += chunk[: _MAX_OUTPUT - len(data)]
