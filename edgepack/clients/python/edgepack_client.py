"""A client of the edgepack agent in one file, for Python 3.7 and newer without any other package.

Copy it beside your program on the device:

    from edgepack_client import Client

    with Client("/var/lib/edgepack/run/agent.sock") as agent:
        answer = agent.infer("adder", {"x": [[0.5, 1.0], [2.0, 3.0]]})
        print(answer["y"])

It speaks the Open Inference Protocol, version 2, over HTTP: tensors go as bytes where the server lists
the extension `binary_tensor_data`, through shared memory where the caller wants it and the server
lists `system_shared_memory`, and as JSON elsewhere. JSON has no infinity: there an infinite input is a
ValueError, and an infinite output reads as NaN.

Threads: a Client has one connection and one lock, so threads may share it and take turns. For requests
side by side give each thread a Client of its own. After a fork, make a new one.

Sent twice: the server closes connections that are idle, so a request may meet one that has just been
closed. The client looks before it sends; where it still loses the race, whatever only reads or computes
(infer included: a model keeps nothing from one inference to the next) is sent once more on a new
connection. load and unload are never sent twice, and nothing is after a timeout or half an answer.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import mmap
import os
import select
import socket
import struct
import threading
import uuid
from email.message import Message
from typing import Any, Mapping, NamedTuple, Sequence
from urllib.parse import quote, urlsplit

DEFAULT_SOCKET = "/var/lib/edgepack/run/agent.sock"

# By numpy's name of a dtype: the protocol's name, and struct's code.
_DTYPES = {
    "bool": ("BOOL", "?"),
    "int8": ("INT8", "b"),
    "uint8": ("UINT8", "B"),
    "int16": ("INT16", "h"),
    "uint16": ("UINT16", "H"),
    "int32": ("INT32", "i"),
    "uint32": ("UINT32", "I"),
    "int64": ("INT64", "q"),
    "uint64": ("UINT64", "Q"),
    "float16": ("FP16", "e"),
    "float32": ("FP32", "f"),
    "float64": ("FP64", "d"),
}
_DTYPE_OF = {protocol: dtype for dtype, (protocol, _) in _DTYPES.items()}
_HEADER_LENGTH = "Inference-Header-Content-Length"
_ALIGNMENT = 64  # of each tensor in shared memory


class AgentError(Exception):
    """What the server answered instead, in one line, with its HTTP status; None if it gave no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Tensor(NamedTuple):
    """An output where there is no numpy, and a kind of input; ``values`` is flat, in row-major order."""

    dtype: str
    shape: tuple[int, ...]
    values: Sequence[Any]


class Client:
    """A connection to an agent, made when it is first needed.

    Args:
        address: The path of its Unix socket, or ``http://127.0.0.1:PORT``.
        timeout: Seconds to wait for the connection, and for each piece of an answer.
        arrays: Whether outputs are numpy arrays; by default they are if numpy can be imported.
        shared_memory: Pass tensors through /dev/shm where the server offers that.
    """

    def __init__(
        self,
        address: str = DEFAULT_SOCKET,
        timeout: float = 30.0,
        *,
        arrays: bool | None = None,
        shared_memory: bool = False,
    ) -> None:
        self._lock = threading.RLock()
        self._connection = _Connection(str(address), timeout)
        self._numpy = None if arrays is False else _import_numpy()
        if arrays and self._numpy is None:
            raise ValueError("arrays=True needs numpy: install it, or leave arrays out")
        self._use_shared_memory = shared_memory
        self._extensions: list[str] | None = None
        self._metadata: dict[str, Any] = {}
        self._region: _Region | None = None
        self._abandoned: list[_Region] = []

    def close(self) -> None:
        """End the connection and give shared memory back. The next call connects anew."""
        with self._lock:
            self._forget()
            self._give_back()
            self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- the server and its models -------------------------------------------------------------

    def live(self) -> bool:
        """Whether an agent answers."""
        return self._is_well("/v2/health/live")

    def ready(self, name: str | None = None, version: str | None = None) -> bool:
        """Whether this model can be asked; without a name, whether every installed model can."""
        return self._is_well((_path(name, version) if name else "/v2/health") + "/ready")

    def server(self) -> dict[str, Any]:
        """The agent's name, version and extensions."""
        answer: dict[str, Any] = self._ask("GET", "/v2")
        return answer

    def models(self) -> list[dict[str, Any]]:
        """Every installed model: name, version, state, and the reason if it is not ready."""
        index: list[dict[str, Any]] = self._ask("POST", "/v2/repository/index", b"{}")
        return index

    def metadata(self, name: str, version: str | None = None) -> dict[str, Any]:
        """The model's inputs and outputs: name, datatype and shape of each."""
        answer: dict[str, Any] = self._ask("GET", _path(name, version))
        return answer

    def load(self, name: str) -> None:
        """Serve what is installed of this model now."""
        self._repository(name, "load")

    def unload(self, name: str) -> None:
        """Serve this model no longer."""
        self._repository(name, "unload")

    def infer(
        self,
        name: str,
        inputs: Mapping[str, Any],
        outputs: Sequence[str] | None = None,
        version: str | None = None,
    ) -> dict[str, Any]:
        """Run the model once.

        Args:
            name: The model.
            inputs: By name: a numpy array, a Tensor, ``(shape, dtype, bytes)`` with little-endian bytes,
                or numbers in (nested) sequences, which get the model's own dtype.
            outputs: Those wanted; None for all.
            version: The server refuses any but the one that it serves.

        Returns:
            By name, numpy arrays or Tensors.

        Raises:
            AgentError: The server's reason, or that there was no answer.
            ValueError: An input is not what can be sent.
        """
        path = _path(name, version)
        with self._lock:
            try:
                return self._infer(path, inputs, outputs)
            except _ConnectionLost:
                return self._infer(path, inputs, outputs)
            except AgentError:
                # Another version of the model may have come, with other inputs.
                self._metadata.clear()
                raise

    # ---- inference, one way or another ---------------------------------------------------------

    def _infer(
        self, path: str, inputs: Mapping[str, Any], outputs: Sequence[str] | None
    ) -> dict[str, Any]:
        self._connect()
        tensors = [self._encode(path, key, value) for key, value in inputs.items()]
        if self._use_shared_memory and self._offers("system_shared_memory"):
            return self._infer_shared(path, tensors, outputs)
        binary = self._offers("binary_tensor_data")
        body: dict[str, Any] = {
            "inputs": [t.as_binary() if binary else t.as_json() for t in tensors]
        }
        if outputs is not None:
            body["outputs"] = [
                {"name": name, "parameters": {"binary_data": binary}} for name in outputs
            ]
        if not binary:
            answer = self._ask("POST", path + "/infer", _json(body))
            return {output["name"]: self._from_json(output) for output in answer["outputs"]}
        head = _json(dict(body, parameters={"binary_data_output": True}))
        content = b"".join([head] + [tensor.content for tensor in tensors])
        return self._from_binary(
            *self._exchange("POST", path + "/infer", content, {_HEADER_LENGTH: str(len(head))})
        )

    def _infer_shared(
        self, path: str, tensors: Sequence[_Input], outputs: Sequence[str] | None
    ) -> dict[str, Any]:
        specs = self._specs(path, "outputs")
        wanted = [_named(specs, name, "output") for name in (specs if outputs is None else outputs)]
        sizes = [len(t.content) for t in tensors] + [_size(output) for output in wanted]
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
        region = self._region_of(starts[-1])
        places = [region.place(start, size) for start, size in zip(starts, sizes)]
        for tensor, start in zip(tensors, starts):
            region.memory[start : start + len(tensor.content)] = tensor.content
        count = len(tensors)
        body = {
            "inputs": [dict(t.head, parameters=place) for t, place in zip(tensors, places)],
            "outputs": [
                {"name": output["name"], "parameters": place}
                for output, place in zip(wanted, places[count:])
            ],
        }
        try:
            self._ask("POST", path + "/infer", _json(body))
        except AgentError as error:
            if error.status is None or self._region is region:
                raise
            # Sent on a new connection, to an agent that may be new and not know the memory.
            raise _ConnectionLost(str(error), error.status) from error
        return {
            output["name"]: self._decode(output, region.memory[start : start + size])
            for output, start, size in zip(wanted, starts[count:], sizes[count:])
        }

    def _region_of(self, size: int) -> _Region:
        """Registered memory of at least ``size`` bytes; a smaller one is given back."""
        if self._region is not None and len(self._region.memory) >= size:
            return self._region
        if self._region is not None:
            self._abandoned.append(self._region)
            self._region = None
        self._give_back()
        region = _Region(size)
        try:
            register = {"key": region.key, "offset": 0, "byte_size": len(region.memory)}
            self._ask("POST", region.path + "/register", _json(register))
        finally:
            # Both sides have it mapped: without a name it goes when the processes do.
            region.unlink()
        self._region = region
        return region

    def _give_back(self) -> None:
        """Have the server forget memory that is not used any more; it may have forgotten it itself."""
        while self._abandoned:
            with contextlib.suppress(AgentError):
                self._ask("POST", self._abandoned.pop().path + "/unregister", b"{}")

    # ---- tensors -------------------------------------------------------------------------------

    def _encode(self, path: str, key: str, value: Any) -> _Input:
        if isinstance(value, Tensor):
            return _Input.pack(key, value.dtype, value.shape, value.values)
        if isinstance(value, tuple) and len(value) == 3 and isinstance(value[1], str):
            return _Input(key, value[1], value[0], bytes(value[2]))
        if hasattr(value, "dtype") and hasattr(value, "tobytes"):
            little = value.astype(value.dtype.newbyteorder("<"))
            return _Input(key, value.dtype.name, value.shape, little.tobytes())
        spec = _named(self._specs(path, "inputs"), key, "input")
        flat: list[Any] = []
        return _Input.pack(key, _DTYPE_OF[spec["datatype"]], _flatten(key, value, flat), flat)

    def _specs(self, path: str, kind: str) -> dict[str, Any]:
        """The model's inputs or outputs by name."""
        if path not in self._metadata:
            self._metadata[path] = self._ask("GET", path)
        return {spec["name"]: spec for spec in self._metadata[path][kind]}

    def _from_json(self, output: Mapping[str, Any]) -> Any:
        values = [math.nan if value is None else value for value in output["data"]]
        dtype, shape = _DTYPE_OF[output["datatype"]], tuple(output["shape"])
        if self._numpy is None:
            return Tensor(dtype, shape, values)
        return self._numpy.array(values, dtype).reshape(shape)

    def _from_binary(self, answer: bytes, headers: Message) -> dict[str, Any]:
        end = int(headers.get(_HEADER_LENGTH, str(len(answer))))
        results = {}
        for output in _parse(answer[:end])["outputs"]:
            if "data" in output:
                results[output["name"]] = self._from_json(output)
                continue
            start, end = end, end + output["parameters"]["binary_data_size"]
            results[output["name"]] = self._decode(output, answer[start:end])
        return results

    def _decode(self, output: Mapping[str, Any], content: bytes) -> Any:
        if len(content) != _size(output):
            raise AgentError(f"the answer holds {len(content)} bytes of {output}")
        dtype, shape = _DTYPE_OF[output["datatype"]], tuple(output["shape"])
        if self._numpy is None:
            return Tensor(dtype, shape, list(struct.unpack(_format(dtype, shape), content)))
        little = self._numpy.dtype(dtype).newbyteorder("<")
        return self._numpy.frombuffer(bytearray(content), little).reshape(shape)

    # ---- requests ------------------------------------------------------------------------------

    def _is_well(self, path: str) -> bool:
        try:
            self._exchange("GET", path)
        except AgentError as error:
            if error.status in (None, 503):
                return False
            raise
        return True

    def _repository(self, name: str, action: str) -> None:
        path = "/v2/repository/models/" + quote(name, "") + "/" + action
        self._exchange("POST", path, b"{}", again=False)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        return _parse(self._exchange(method, path, body)[0])

    def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool = True,
    ) -> tuple[bytes, Message]:
        """One request; ``again``: once more if a kept connection was closed before any answer."""
        with self._lock:
            if self._connection.open():
                self._forget()
            try:
                return self._connection.exchange(method, path, body, headers or {})
            except _ConnectionLost:
                self._forget()
                if not again:
                    raise
            self._connection.open()
            return self._connection.exchange(method, path, body, headers or {})

    def _connect(self) -> None:
        """On a new connection there may be another agent: ask what it can do."""
        if self._connection.open() or self._extensions is None:
            self._forget()
            self._extensions = list(self._ask("GET", "/v2").get("extensions", []))

    def _offers(self, extension: str) -> bool:
        return extension in (self._extensions or ())

    def _forget(self) -> None:
        """What was known of the server; whether it knows our memory is not sure either."""
        self._extensions = None
        self._metadata = {}
        if self._region is not None:
            self._abandoned.append(self._region)
            self._region = None


class _ConnectionLost(AgentError):
    """A kept connection was closed, and no byte of an answer had come."""


class _Connection:
    """HTTP/1.1 with keep-alive over a Unix socket or TCP."""

    def __init__(self, address: str, timeout: float) -> None:
        self._address = address
        url = urlsplit(address)
        if url.scheme == "http" and url.hostname:
            self._http = http.client.HTTPConnection(url.hostname, url.port or 80, timeout=timeout)
        elif "://" in address:
            raise ValueError(f"{address!r} is neither a socket's path nor http://HOST:PORT")
        else:
            self._http = _UnixHTTPConnection(address, timeout)
        self._used = False

    def open(self) -> bool:
        """Connect unless there is a connection that is still good; whether it is a new one."""
        if self._http.sock is not None:
            # Between requests there is nothing to read but the other side's end.
            waiting = select.poll()
            waiting.register(self._http.sock, select.POLLIN)
            if not waiting.poll(0):
                return False
            self.close()
        try:
            self._http.connect()
        except OSError as error:
            self.close()
            raise AgentError(
                f"cannot connect to {self._address} ({_words(error)}): is the agent running?"
            ) from error
        self._used = False
        return True

    def close(self) -> None:
        self._http.close()

    def exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[bytes, Message]:
        """One request and its answer. Raises AgentError for any status but 200."""
        try:
            answer = self._send(method, path, body, headers)
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise AgentError(f"no answer from {self._address}: {_words(error)}") from error
        self._used = True
        if answer.status == 200:
            return content, answer.headers
        raise AgentError(_reason(content) or f"HTTP status {answer.status}", answer.status)

    def _send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        try:
            # Refused before it was read whole: the answer says why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._http.request(method, path, body, dict(headers))
            return self._http.getresponse()
        except (BrokenPipeError, ConnectionResetError) as error:
            if not self._used:
                raise
            self.close()
            raise _ConnectionLost(f"{self._address} closed the connection") from error


class _UnixHTTPConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Input:
    """An input as little-endian bytes."""

    def __init__(self, name: str, dtype: str, shape: Sequence[int], content: bytes) -> None:
        if dtype not in _DTYPES:
            raise ValueError(
                "input {}: no dtype {!r}; there are {}".format(name, dtype, ", ".join(_DTYPES))
            )
        self._dtype = dtype
        self._shape = [int(extent) for extent in shape]
        self.head = {"name": name, "shape": self._shape, "datatype": _DTYPES[dtype][0]}
        self.content = content
        if len(content) != _size(self.head):
            shown = f"{dtype} of shape {self._shape}"
            raise ValueError(f"input {name}: {shown} has not {len(content)} bytes")

    @classmethod
    def pack(cls, name: str, dtype: str, shape: Sequence[int], values: Sequence[Any]) -> _Input:
        try:
            content = struct.pack(f"<{len(values)}{_DTYPES[dtype][1]}", *values)
        except (KeyError, OverflowError, TypeError, struct.error) as error:
            raise ValueError(f"input {name}: not {dtype}: {error}") from error
        return cls(name, dtype, shape, content)

    def as_binary(self) -> dict[str, Any]:
        return dict(self.head, parameters={"binary_data_size": len(self.content)})

    def as_json(self) -> dict[str, Any]:
        data: list[Any] = list(struct.unpack(_format(self._dtype, self._shape), self.content))
        if "float" in self._dtype:
            if any(map(math.isinf, data)):
                raise ValueError(
                    "input {}: infinity cannot be sent as JSON".format(self.head["name"])
                )
            data = [None if math.isnan(value) else value for value in data]
        return dict(self.head, data=data)


class _Region:
    """Memory that the server can map: a new file in /dev/shm."""

    def __init__(self, size: int) -> None:
        self.name = "edgepack-client-" + uuid.uuid4().hex
        self.key = "/" + self.name
        self.path = "/v2/systemsharedmemory/region/" + self.name
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open("/dev/shm" + self.key, flags, 0o660)
        try:
            # Reserved, not only promised: writing into a full /dev/shm would end the process.
            os.posix_fallocate(descriptor, 0, max(size, mmap.PAGESIZE))
            self.memory = mmap.mmap(descriptor, max(size, mmap.PAGESIZE))
        except OSError:
            self.unlink()
            raise
        finally:
            os.close(descriptor)

    def place(self, start: int, size: int) -> dict[str, Any]:
        return {
            "shared_memory_region": self.name,
            "shared_memory_offset": start,
            "shared_memory_byte_size": size,
        }

    def unlink(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink("/dev/shm" + self.key)


def _path(name: str, version: str | None) -> str:
    path = "/v2/models/" + quote(name, "")
    return path if version is None else path + "/versions/" + quote(version, "")


def _named(specs: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in specs:
        raise ValueError("the model has no {} {!r}; it has {}".format(what, name, ", ".join(specs)))
    return specs[name]


def _format(dtype: str, shape: Sequence[int]) -> str:
    count = 1
    for extent in shape:
        count *= extent
    return f"<{count}{_DTYPES[dtype][1]}"


def _size(head: Mapping[str, Any]) -> int:
    """Bytes of a tensor with this datatype and shape."""
    return struct.calcsize(_format(_DTYPE_OF[head["datatype"]], head["shape"]))


def _flatten(key: str, value: Any, flat: list[Any]) -> list[int]:
    """Append the numbers in nested sequences to ``flat``; their shape."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
        flat.append(value)
        return []
    shapes = [_flatten(key, item, flat) for item in value]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"input {key}: rows of different lengths")
    return [len(shapes)] + (shapes[0] if shapes else [])


def _json(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text.decode()) if text else None
    except ValueError as error:
        raise AgentError(f"the answer is no JSON: {error}") from error


def _reason(content: bytes) -> str:
    try:
        return str(json.loads(content.decode())["error"])
    except (ValueError, KeyError, TypeError):
        return ""


def _words(error: Exception) -> str:
    """An exception in one line; http.client's have no words of their own."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


def _import_numpy() -> Any:
    try:
        import numpy
    except ImportError:
        return None
    return numpy
