"""`edgepack compile --library`: models in other programs, as shared object and as archive."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgepack.targets import load_target
from tests import networks
from tests.conftest import Edgepack

SOURCE = Path(__file__).parents[1] / "native" / "data" / "embed.c"
ALIGNMENT = 64
FUNCTIONS = {
    "ep_abi_version",
    "ep_arena_bytes",
    "ep_input",
    "ep_memory_bytes",
    "ep_model_get",
    "ep_num_inputs",
    "ep_num_outputs",
    "ep_output",
    "ep_run",
    "ep_session_close",
    "ep_session_init",
    "ep_session_set_threads",
    "ep_strerror",
    "ep_weights_bytes",
}
FILES = ["edgepack.h", "libmodel.a", "libmodel.so", "weights.bin"]


class Embedded:
    """A libmodel.so in this process, by edgepack.h."""

    def __init__(self, folder: Path) -> None:
        self.api = ctypes.CDLL(str(folder / "libmodel.so"))
        for name in ("ep_model_get", "ep_num_inputs", "ep_num_outputs", "ep_memory_bytes"):
            getattr(self.api, name).restype = ctypes.c_size_t
        self.model = ctypes.c_void_p(self.api.ep_model_get())
        self.weights = aligned((folder / "weights.bin").stat().st_size)
        self.weights[:] = np.fromfile(folder / "weights.bin", np.uint8)
        self.memory = aligned(self.api.ep_memory_bytes(self.model))
        self.session = ctypes.c_void_p()
        status = self.api.ep_session_init(
            ctypes.byref(self.session),
            self.model,
            ctypes.c_void_p(self.memory.ctypes.data),
            ctypes.c_size_t(self.memory.size),
            ctypes.c_void_p(self.weights.ctypes.data),
            ctypes.c_size_t(self.weights.size),
        )
        assert status == 0

    def run(self, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> None:
        def pointers(arrays: list[np.ndarray]) -> ctypes.Array[ctypes.c_void_p]:
            return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))

        assert self.api.ep_session_set_threads(self.session, 2) == 0
        assert self.api.ep_run(self.session, pointers(inputs), pointers(outputs)) == 0
        self.api.ep_session_close(self.session)


def aligned(size: int) -> np.ndarray:
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


def answer_of(folder: Path, model: Path, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What the library in this process answers, and what ONNX Runtime does."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(seed)
    shapes = {value.name: value.shape for value in session.get_inputs()}
    inputs = {
        name: generator.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()
    }
    wanted = session.run(None, inputs)
    outputs = [aligned(v.nbytes).view(v.dtype).reshape(v.shape) for v in wanted]
    given = [aligned(v.nbytes).view(v.dtype).reshape(v.shape) for v in inputs.values()]
    for place, value in zip(given, inputs.values(), strict=True):
        place[...] = value
    Embedded(folder).run(given, outputs)
    return outputs, wanted


def compiled(edgepack: Edgepack, model: Path, target: str | Path, library: Path) -> None:
    done = edgepack("compile", model, "-t", target, "--library", library, cwd=model.parent)
    assert done.returncode == 0, done.stderr


def test_models_in_one_process_answer_as_onnx_runtime_does(
    edgepack: Edgepack, tmp_path: Path
) -> None:
    found = {}
    for name in ("convolutional", "two_in_three_out"):
        model = networks.save(networks.NETWORKS[name](), tmp_path / f"{name}.onnx")
        compiled(edgepack, model, "host", tmp_path / name)
        assert sorted(path.name for path in (tmp_path / name / "host").iterdir()) == FILES
        found[name] = model
    for seed in range(2):
        for name, model in found.items():
            for got, wanted in zip(*answer_of(tmp_path / name / "host", model, seed), strict=True):
                np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_shared_object_exports_the_header_and_needs_the_c_library_alone(
    edgepack: Edgepack, tmp_path: Path
) -> None:
    model = networks.save(networks.convolutional(), tmp_path / "m.onnx")
    compiled(edgepack, model, "host", tmp_path / "lib")
    library = tmp_path / "lib" / "host" / "libmodel.so"
    dynamic = subprocess.run(
        ["llvm-nm", "--dynamic", "--defined-only", "--format=just-symbols", library],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert set(dynamic) == FUNCTIONS
    needed = subprocess.run(
        ["llvm-readelf", "--needed-libs", library], capture_output=True, text=True, check=True
    ).stdout
    for name in needed.split("[")[1].split("]")[0].split():
        assert name.startswith(("libc.", "libpthread.", "libm.", "ld-linux"))


@pytest.mark.needs("qemu-aarch64-static")
def test_archive_for_another_cpu_and_libc_links_into_a_program_that_answers_right(
    edgepack: Edgepack, tmp_path: Path
) -> None:
    model = networks.save(networks.convolutional(), tmp_path / "m.onnx")
    profile = tmp_path / "board.toml"
    generic = load_target("aarch64-generic")
    text = (Path(sys.modules["edgepack"].__path__[0]) / "targets/aarch64-generic.toml").read_text()
    profile.write_text(
        text.replace('libc = "glibc"', 'libc = "musl"').replace(
            'libc_version = "2.17"', 'libc_version = ""'
        )
    )
    compiled(edgepack, model, profile, tmp_path / "lib")
    place = tmp_path / "lib" / "board"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", generic.zig_static_triple]
    command += ["-static", f"-I{place}", str(SOURCE), str(place / "libmodel.a"), "-lm"]
    subprocess.run([*command, "-o", str(tmp_path / "application")], check=True)
    x = np.random.default_rng(5).uniform(-1, 1, (1, 3, 32, 32)).astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (declared,) = session.get_inputs()
    x = np.resize(x, declared.shape)
    answer = subprocess.run(
        ["qemu-aarch64-static", tmp_path / "application", place / "weights.bin"],
        input=x.tobytes(),
        capture_output=True,
        check=True,
    ).stdout
    (wanted,) = session.run(None, {declared.name: x})
    got = np.frombuffer(answer, np.float32).reshape(wanted.shape)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_folder_that_cannot_be_made_is_told_and_no_package_is_written(
    edgepack: Edgepack, tmp_path: Path
) -> None:
    model = networks.save(networks.convolutional(), tmp_path / "m.onnx")
    (tmp_path / "lib").write_text("a file")
    done = edgepack("compile", model, "-t", "host", "--library", "lib", cwd=tmp_path)
    assert done.returncode == 3
    assert "--library lib: lib/host cannot be made: Not a directory" in done.stderr
    assert not (tmp_path / "m.epk").exists()
