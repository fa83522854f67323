"""What the agent costs: ``make bench-agent`` measures it and writes AGENT.md.

Models are compiled, signed and installed as a user would; requests come from agent_load.c, which is built on
edgepack's own C client, over the Unix socket. All of it shares the same two cores.

    python -m benchmarks.agent --seconds 1
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.agent_report import SMALL_MODELS, Figures, Latency, Worker, render
from benchmarks.models import prepare
from edgepack.targets import detect_host, load_target
from edgepack.toolchain import CLIENTS, build_agent, build_c_client, cache_directory

_HERE = Path(__file__).parent
_PAGE = os.sysconf("SC_PAGE_SIZE")

MODELS = ("tiny_ad", "tiny_kws", "tiny_ic", "mobilenet_v2")
ROUNDS = 12
TARGETS = ("x86-64-v2", "aarch64-generic", "armv7-neon", "riscv64-generic")


@dataclass
class Served:
    """A device in a folder, whose agent is to run."""

    root: Path
    agent: Path
    server: subprocess.Popen[bytes] | None = None

    def command(self, *words: str) -> Any:
        """What a command of the agent answers."""
        command = [str(self.agent), "--root", str(self.root), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        return json.loads(done.stdout)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.root / "run" / "agent.sock"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """The agent, until the end of the block."""
        command = [str(self.agent), "--root", str(self.root), "serve"]
        with (self.root / "stderr").open("w") as log:
            self.server = subprocess.Popen(command, stderr=log)
        try:
            while not self.socket.exists():
                if self.server.poll() is not None:
                    sys.exit((self.root / "stderr").read_text())
                time.sleep(0.01)
            yield
        finally:
            self.server.send_signal(signal.SIGTERM)
            self.server.wait()

    def resident(self) -> int:
        """The agent's memory."""
        assert self.server is not None
        return _resident(self.server.pid)


def main() -> None:
    """Measure, print, and write AGENT.md where asked to."""
    parser = argparse.ArgumentParser(prog="make bench-agent", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=5, help="of requests of each kind, in all rounds"
    )
    parser.add_argument("--write", action="store_true", help="AGENT.md")
    options = parser.parse_args()
    text = render(measure(options.seconds))
    if options.write:
        (_HERE / "AGENT.md").write_text(text, encoding="utf-8")
    print(text)


def measure(seconds: float) -> Figures:
    """Everything."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    packages = {name: _package(name) for name in MODELS}
    with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as place:
        served = _device(Path(place), packages)
        idle = {"no model": _idle(_device(Path(place) / "empty", {}))}
        program = _program(Path(place), "agent_load.c")
        alone = _program(Path(place), "worker_load.c")
        with served.serving():
            idle["4 models"] = served.resident()
            rounds = [_round(served, program, alone, seconds / ROUNDS) for _ in range(ROUNDS)]
            latencies = [_median(same) for same in zip(*rounds, strict=True)]
            for name in MODELS:
                _load(served, program, name, "bytes", 1, 0.5)
            workers = _worker_memory(served)
            idle["4 models, after requests"] = served.resident()
    sizes = {name: build_agent(load_target(name)).stat().st_size for name in TARGETS}
    return Figures(latencies=latencies, idle=idle, workers=workers, sizes=sizes)


def _round(served: Served, program: Path, alone: Path, seconds: float) -> list[Latency]:
    """One after the other, each for a moment: what disturbs the machine for longer disturbs them all."""
    found = []
    for name in SMALL_MODELS:
        worker_us = _worker_alone(served, alone, name, seconds)
        found += [
            _latency(served, program, name, way, clients, seconds, worker_us)
            for way in ("bytes", "shared")
            for clients in (1, 4)
        ]
    return found


def _median(rounds: Sequence[Latency]) -> Latency:
    """Of each figure."""

    def middle(figure: Callable[[Latency], float]) -> float:
        return statistics.median(map(figure, rounds))

    return replace(
        rounds[0],
        median_us=middle(lambda it: it.median_us),
        p99_us=middle(lambda it: it.p99_us),
        kernel_us=middle(lambda it: it.kernel_us),
        worker_us=middle(lambda it: it.worker_us),
        per_second=middle(lambda it: it.per_second),
    )


def _package(name: str) -> Path:
    """Compiled and signed; once for each model that the same code makes."""
    folder = cache_directory() / "bench-agent"
    model = prepare(name, folder)
    key, package = folder / "bench.key", folder / f"{name}-{model.fingerprint}.epk"
    if not key.exists():
        _edgepack("keys", "new", str(key))
    _edgepack(
        "compile", str(model.onnx), "--target", "host", "--name", _name(name), "-o", str(package)
    )
    _edgepack("sign", str(package), "--key", str(key))
    return package


def _edgepack(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgepack", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)


def _name(model: str) -> str:
    return model.replace("_", "-")


def _device(root: Path, packages: dict[str, Path]) -> Served:
    served = Served(root=root, agent=build_agent(detect_host()))
    (root / "trust").mkdir(parents=True)
    (root / "run").mkdir()
    (root / "config.json").write_text('{"target":"host"}')
    for package in packages.values():
        public = package.with_name("bench.pub")
        (root / "trust" / "bench.pub").write_bytes(public.read_bytes())
        served.command("install", str(package))
    return served


def _idle(served: Served) -> int:
    with served.serving():
        return served.resident()


def _program(place: Path, source: str) -> Path:
    out = place / Path(source).stem
    triple = load_target("host").zig_static_triple
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        triple,
        "-O2",
        "-static",
        "-std=gnu99",
    ]
    command += [f"-I{CLIENTS / 'c'}", str(_HERE / source), str(build_c_client(detect_host()))]
    subprocess.run([*command, "-o", str(out)], check=True)
    return out


def _blob(served: Served, name: str, kind: str) -> Path:
    """One file of a model, as it is installed."""
    state = json.loads((served.root / "models" / _name(name) / "state.json").read_text())
    return served.root / "blobs" / "sha256" / str(state["current"][kind])


def _nbytes(tensor: dict[str, Any]) -> int:
    nbytes = 4  # float32, all of them
    for extent in tensor["shape"]:
        nbytes *= extent
    return nbytes


def _worker_alone(served: Served, program: Path, name: str, seconds: float) -> float:
    info = _info(served, name)
    shared = sum(-(-_nbytes(tensor) // 64) * 64 for tensor in info["inputs"] + info["outputs"])
    worker, weights = (str(_blob(served, name, kind)) for kind in ("worker", "weights"))
    command = [str(program), worker, weights, str(-(-shared // 4096) * 4096), str(seconds)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _info(served: Served, name: str) -> dict[str, Any]:
    info: dict[str, Any] = json.loads(_blob(served, name, "metadata").read_text())
    return info


def _load(served: Served, program: Path, name: str, way: str, clients: int, seconds: float) -> Any:
    info = _info(served, name)
    tensors = []
    for kind in ("inputs", "outputs"):
        (tensor,) = info[kind]
        extents = "x".join(map(str, tensor["shape"]))
        tensors.append(f"{tensor['name']}:{_nbytes(tensor)}:{extents}")
    command = [str(program), str(served.socket), _name(name), way, str(clients), str(seconds)]
    done = subprocess.run([*command, *tensors], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr}")
    return json.loads(done.stdout)


def _latency(
    served: Served,
    program: Path,
    name: str,
    way: str,
    clients: int,
    seconds: float,
    worker_us: float,
) -> Latency:
    _load(served, program, name, way, clients, 0.2)
    before = _compute(served, name)
    told = _load(served, program, name, way, clients, seconds)
    after = _compute(served, name)
    return Latency(
        model=name,
        way=way,
        clients=clients,
        median_us=told["median"],
        p99_us=told["p99"],
        kernel_us=1e6 * (after[0] - before[0]) / (after[1] - before[1]),
        worker_us=worker_us,
        per_second=told["requests"] / told["seconds"],
    )


def _compute(served: Served, name: str) -> tuple[float, int]:
    """Seconds in the kernels, and runs, so far."""
    import http.client
    import socket

    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(served.socket))
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()

    def sample(kind: str) -> float:
        found = re.search(
            rf'^edgepack_compute_seconds_{kind}\{{model="{_name(name)}".*\}} (\S+)$',
            text,
            re.MULTILINE,
        )
        assert found is not None
        return float(found[1])

    return sample("sum"), int(sample("count"))


def _worker_memory(served: Served) -> list[Worker]:
    """By the size of each model's weights, which its worker maps."""
    found = []
    for name in MODELS:
        info = _info(served, name)
        pid = _worker_of(served, name)
        found.append(
            Worker(
                model=name,
                resident=_resident(pid),
                weights=info["weights_bytes"],
                arena=info["arena_bytes"],
            )
        )
    return found


def _worker_of(served: Served, name: str) -> int:
    """The one whose executable is this model's."""
    blob = _blob(served, name, "worker")
    for executable in Path("/proc").glob("[0-9]*/exe"):
        with suppress(OSError):  # the kernel's own have none, and others end
            if executable.samefile(blob):
                return int(executable.parent.name)
    sys.exit(f"no worker of {name}")


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


if __name__ == "__main__":
    main()
