"""An HTTP server (http.server) that takes captures, and can be told to fail in the ways that servers do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

from edgepack.captures import RecordStream


@dataclass(frozen=True)
class Request:
    """One that came whole."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def model(self) -> str:
        """The last folder of the path."""
        return self.path.split("/")[-2]

    @property
    def numbers(self) -> list[int]:
        """Of the records, every byte of the body being part of one."""
        stream = RecordStream(BytesIO(self.body).read)
        found = [record.number for record in stream]
        assert (stream.damaged, stream.torn, stream.total_bytes) == (0, False, len(self.body))
        return found


@dataclass
class Collector:
    """What came, and how the next requests are answered."""

    requests: list[Request] = field(default_factory=list)
    answer: Callable[[Request], int | None] = lambda request: 204
    """The status, or None to close the connection without one."""
    early: int | None = None
    """Answer so before the body is read, and close."""
    port: int = 0

    @property
    def url(self) -> str:
        """As push.json has it."""
        return f"http://127.0.0.1:{self.port}/in"

    def numbers(self, model: str = "m") -> list[int]:
        """Of all records of a model that came, in the order in which they came."""
        return [n for request in self.requests if request.model == model for n in request.numbers]

    @contextmanager
    def listening(self) -> Iterator[Collector]:
        """At the port of the time before, if there was one."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                if collector.early is not None:
                    self.send_response(collector.early)
                    self.end_headers()
                    self.close_connection = True
                    return
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, body)
                status = collector.answer(request)
                collector.requests.append(request)
                if status is not None:
                    self.send_response(status)
                    self.end_headers()

            do_PUT = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        server.daemon_threads = True
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
