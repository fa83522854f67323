"""edgepack.h as an application uses it: linked into a C program, without worker or agent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgepack import compiler, importers
from edgepack.targets import detect_host
from edgepack.toolchain import RUNTIME
from tests import networks

ZIG = [sys.executable, "-m", "ziglang"]
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{RUNTIME}"]


@pytest.mark.parametrize("network", ["convolutional", "two_in_three_out"])
def test_an_embedded_model_answers_as_onnx_runtime_does_and_refuses_misuse(
    network: str, tmp_path: Path
) -> None:
    model = networks.save(networks.NETWORKS[network](), tmp_path / "model.onnx")
    compiled = compiler.compile_model(importers.import_model(model, {}), detect_host())
    (tmp_path / "kernels.o").write_bytes(compiled.kernels)
    (tmp_path / "plan.c").write_text(compiled.plan_source)
    (tmp_path / "weights.bin").write_bytes(compiled.weights)
    sources = [Path(__file__).parent / "data" / "embed.c"]
    sources += [RUNTIME / "edgepack.c", RUNTIME / "pool.c"]
    command = [*ZIG, "cc", "-std=gnu99", "-O1", "-fsanitize=undefined", *STRICT, *map(str, sources)]
    command += ["plan.c", "kernels.o", "-lm", "-o", "application"]
    subprocess.run(command, cwd=tmp_path, check=True)

    generator = np.random.default_rng(3)
    inputs = {
        spec.name: generator.uniform(-1, 1, spec.shape).astype(spec.dtype)
        for spec in compiled.inputs
    }
    answer = subprocess.run(
        [tmp_path / "application", tmp_path / "weights.bin"],
        input=b"".join(value.tobytes() for value in inputs.values()),
        check=True,
        capture_output=True,
    ).stdout
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    start = 0
    for spec, wanted in zip(compiled.outputs, session.run(None, inputs), strict=True):
        got = np.frombuffer(answer[start : start + spec.nbytes], spec.dtype).reshape(spec.shape)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
        start += spec.nbytes
    assert start == len(answer)


@pytest.mark.parametrize(
    ("compiler_name", "standard", "suffix"), [("cc", "c99", "c"), ("c++", "c++11", "cpp")]
)
def test_the_header_compiles_alone_as_strict_c99_and_cpp(
    compiler_name: str, standard: str, suffix: str, tmp_path: Path
) -> None:
    source = tmp_path / f"alone.{suffix}"
    source.write_text('#include "edgepack.h"\nint main(void) { return EP_OK; }\n')
    command = [*ZIG, compiler_name, f"-std={standard}", *STRICT, "-c", str(source)]
    subprocess.run([*command, "-o", str(tmp_path / "alone.o")], check=True)


def test_the_header_stays_readable_in_one_sitting() -> None:
    assert len((RUNTIME / "edgepack.h").read_text().splitlines()) < 200
