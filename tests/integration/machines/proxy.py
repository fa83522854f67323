"""A TCP proxy that cuts the connection after a number of bytes, as a bad network does."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass
class Cutter:
    """Forwards 127.0.0.1:port to a server; what the client sends counts."""

    port: int
    server_port: int
    limit: int | None = None
    """Cut when the client has sent so many bytes; None: never."""
    sent: int = 0
    limit_received: int | None = None
    """The same of what the client has received."""
    received: int = 0
    on_bytes: Callable[[int], None] | None = None
    """Called with the count after each piece."""
    cuts: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def forward(self, client: socket.socket) -> None:
        """Carry one connection to its end, or cut it with a reset."""
        with client, socket.create_connection(("127.0.0.1", self.server_port)) as server:
            while not self._stop.is_set():
                ready, _, _ = select.select([client, server], [], [], 0.2)
                for source in ready:
                    left = 1 << 16
                    if source is client and self.limit is not None:
                        left = min(left, self.limit - self.sent)
                    if source is server and self.limit_received is not None:
                        left = min(left, self.limit_received - self.received)
                    if left <= 0:
                        self.cuts += 1
                        _reset(client)
                        _reset(server)
                        return
                    try:
                        data = source.recv(left)
                        (server if source is client else client).sendall(data)
                    except OSError:
                        return
                    if not data:
                        return
                    if source is server:
                        self.received += len(data)
                        continue
                    self.sent += len(data)
                    if self.on_bytes:
                        self.on_bytes(self.sent)


@contextlib.contextmanager
def cutter(server_port: int) -> Iterator[Cutter]:
    """A proxy in front of ``server_port``; one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        proxy = Cutter(port=listener.getsockname()[1], server_port=server_port)

        def serve() -> None:
            while not proxy._stop.is_set():
                try:
                    client, _ = listener.accept()
                except TimeoutError:
                    continue
                proxy.forward(client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield proxy
        finally:
            proxy._stop.set()
            thread.join(10)


def _reset(connection: socket.socket) -> None:
    """Close with RST: no orderly end, as when a cable is pulled and plugged in again."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
