"""edgepack_client.h as an application uses it: here and on another CPU, with the real agent."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from edgepack.targets import load_target
from edgepack.toolchain import CLIENTS, build_c_client
from tests.native.fake_device import Device

pytestmark = pytest.mark.also_on("aarch64")

SOURCES = CLIENTS / "c"
APPLICATION = Path(__file__).parent / "data" / "c_client.c"
ZIG = [sys.executable, "-m", "ziglang"]
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{SOURCES}"]

EXPECTED = """connect 0
ready 0 0
list 0 1 m 1.0.0 1
bytes 0 2 3 4 5
calls 1 1
region 0
shared 0 11 12 13 14
shared 0 21 22 23 24
outside -1
"""


def linked(target: str, place: Path) -> Path:
    """The application with the library, as a static executable."""
    library = build_c_client(load_target(target))
    command = [*ZIG, "cc", "-target", load_target(target).zig_static_triple, "-std=c99", *STRICT]
    command += [str(APPLICATION), str(library), "-static", "-o", str(place / "application")]
    subprocess.run(command, check=True)
    return place / "application"


@pytest.mark.parametrize(
    ("target", "emulator"),
    [
        ("x86-64-v2", []),
        pytest.param(
            "aarch64-generic",
            ["qemu-aarch64-static"],
            marks=pytest.mark.needs("qemu-aarch64-static"),
        ),
    ],
)
def test_an_application_asks_the_agent_by_bytes_and_by_shared_memory(
    served: Device, tmp_path: Path, target: str, emulator: list[str]
) -> None:
    command = [*emulator, str(linked(target, tmp_path)), str(served.socket), "ask"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith(EXPECTED)
    refused, missing, path, again, closed = done.stdout.splitlines()[-5:]
    assert refused.startswith("refused -6 400 ")
    assert "x" in refused
    assert (missing, path) == ("missing -6 404", "path -1")
    assert (again, closed) == ("again 0 2 3 4 5", "closed -4")
    regions = served.ask("GET", "/v2/systemsharedmemory/status")[1]
    assert regions == []


def good_answer() -> bytes:
    text = b'{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[2,2],'
    text += b'"parameters":{"binary_data_size":16}}]}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
    head += b"Inference-Header-Content-Length: %d\r\n" % len(text)
    return head + b"Content-Length: %d\r\n\r\n" % (len(text) + 16) + text + b"\0" * 16


def mangled() -> list[bytes]:
    """Cut off at every byte; every byte of head and JSON changed; and a few of their own."""
    good = good_answer()
    end = len(good) - 16
    answers = [good[:n] for n in range(0, len(good), 3)]
    answers += [
        good[:n] + bytes([good[n] ^ bit]) + good[n + 1 :] for n in range(end) for bit in (1, 4)
    ]
    answers += [b"\0" * 5000, b"HTTP/1.1 200 OK\r\n" * 1000]
    answers.append(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n")
    answers.append(b"HTTP/1.1 400 No\r\nContent-Length: 3000\r\n\r\n" + b"[" * 3000)
    answers.append(b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"outputs":[{"name')
    return answers


def test_whatever_a_fake_server_answers_the_client_ends_with_a_status(tmp_path: Path) -> None:
    command = [*ZIG, "cc", "-std=c99", "-g", "-fsanitize=undefined", *STRICT, str(APPLICATION)]
    command += [str(SOURCES / "edgepack_client.c"), "-o", str(tmp_path / "application")]
    subprocess.run(command, check=True)
    answers = [good_answer(), *mangled(), good_answer()]
    place = Path(tempfile.mkdtemp(prefix="edgepack-"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "socket"))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener, answers), daemon=True)
        thread.start()
        done = subprocess.run(
            [tmp_path / "application", place / "socket", "infer", str(len(answers))],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        thread.join()
    shutil.rmtree(place)
    statuses = [int(line) for line in done.stdout.split()]
    assert done.stderr == ""
    assert len(statuses) == len(answers)
    assert statuses[0] == statuses[-1] == 0
    assert set(statuses) <= {0, -2, -4, -5, -6}
    cut_off = statuses[1 : 1 + len(range(0, len(good_answer()), 3))]
    assert set(cut_off) == {-4}
    # Where a changed byte passes, it was one that says nothing: a model's name, a shape, white space.
    assert statuses.count(0) < len(answers) // 2


def serve(listener: socket.socket, answers: list[bytes]) -> None:
    for answer in answers:
        connection, _ = listener.accept()
        with connection:
            received = b""
            while b"\r\n\r\n" not in received or not received.endswith(b"\x80\x40"):
                received += connection.recv(65536)
            connection.sendall(answer)


@pytest.mark.parametrize(("compiler", "standard"), [("cc", "c99"), ("c++", "c++11")])
def test_the_header_compiles_alone_as_strict_c99_and_cpp(
    compiler: str, standard: str, tmp_path: Path
) -> None:
    source = tmp_path / ("alone.c" if compiler == "cc" else "alone.cpp")
    source.write_text('#include "edgepack_client.h"\nint main(void) { return EPC_OK; }\n')
    command = [*ZIG, compiler, f"-std={standard}", *STRICT, "-c", str(source)]
    subprocess.run([*command, "-o", str(tmp_path / "alone.o")], check=True)


def test_the_header_stays_readable_in_one_sitting() -> None:
    assert len((SOURCES / "edgepack_client.h").read_text().splitlines()) < 200
