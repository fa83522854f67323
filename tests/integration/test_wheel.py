"""The built wheel, in a clean environment away from the checkout, does the main job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgepack

ROOT = Path(edgepack.__file__).parents[1]

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The edgepack command of an environment with the wheel and what it depends on, no more."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    pip = (folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "install", wheel, cwd=folder.parent)
    return folder / "bin" / "edgepack"


def run(*command: object, cwd: Path) -> str:
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def small_model(path: Path) -> Path:
    """A convolution, a bias, an activation and a product, with weights that matter."""
    random = np.random.default_rng(7)
    weights = {
        "w": random.standard_normal((4, 3, 3, 3)),
        "b": random.standard_normal(4),
        "m": random.standard_normal((256, 5)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [
            numpy_helper.from_array(array.astype(np.float32), name)
            for name, array in weights.items()
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("edgepack/")}
    built = {"__pycache__", ".zig-cache", "zig-out"}
    here = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "edgepack").rglob("*")
        if path.is_file() and not built & set(path.parts)
    }
    assert inside == here
    for kind in (".toml", ".zig", ".c", ".h", ".service", "py.typed"):
        assert any(name.endswith(kind) for name in inside), kind


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
    assert f"Version: {edgepack.__version__}" in text
    assert "License-Expression: Apache-2.0" in text


def test_an_installed_edgepack_compiles_signs_pushes_and_runs(
    command: Path, tmp_path: Path
) -> None:
    def edgepack_json(*arguments: object) -> Any:
        return json.loads(run(command, *arguments, "--json", cwd=tmp_path))

    small_model(tmp_path / "small.onnx")
    compiled = edgepack_json("compile", "small.onnx", "--target", "host", "--target", "x86-64-v2")
    assert [target["name"] for target in compiled["targets"]] == ["host", "x86-64-v2"]
    edgepack_json("keys", "new", "release.key")
    edgepack_json("sign", "small.epk", "--key", "release.key")
    assert edgepack_json("verify", "small.epk", "--trust", "release.pub")["ok"] is True
    pushed = edgepack_json("push", "small.epk", "--to", "dir:out", "--trust", "release.pub")
    assert (tmp_path / "out" / "models" / "small.json").is_file()
    assert pushed["sent_blobs"] == len(list((tmp_path / "out" / "blobs" / "sha256").iterdir()))

    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    edgepack_json("run", "small.epk", "--input", "x=x.npy", "--output", "y.npz")
    import onnxruntime

    session = onnxruntime.InferenceSession(
        tmp_path / "small.onnx", providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, {"x": x})[0]
    with np.load(tmp_path / "y.npz") as outputs:
        assert np.abs(outputs["y"] - expected).max() <= 1e-4 * np.abs(expected).max()
