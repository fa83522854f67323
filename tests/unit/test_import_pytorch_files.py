"""PyTorch's files: which are recognised, and what damage and missing packages lead to."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from edgepack.errors import ConfigError, ModelError
from edgepack.importers import import_model, pytorch
from tests.torch_models import VISION, Vision, in_old_layout, symbolic_program, traced

SHAPES = {"image": (2, 3, 12, 12)}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return symbolic_program(tmp_path_factory.mktemp("program") / "net.pt2")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return traced(Vision(), VISION, tmp_path_factory.mktemp("script") / "net.pt")


@pytest.fixture(scope="module")
def old_program(program: Path) -> Path:
    return in_old_layout(program, program.parent / "old.pt2")


def refused(
    path: Path, *texts: str, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> ModelError:
    with pytest.raises(ModelError) as caught:
        import_model(path, shapes or {})
    for text in texts:
        assert text in caught.value.message
    assert "\n" not in caught.value.message + caught.value.hint
    assert caught.value.hint
    return caught.value


def test_every_form_is_recognised_by_content_without_pytorch(
    program: Path, old_program: Path, script: Path, tmp_path: Path
) -> None:
    paths = []
    for source in (program, old_program, script):
        paths.append(tmp_path / f"{source.name}.model")
        paths[-1].write_bytes(source.read_bytes())
    code = (
        "import sys; from pathlib import Path; from edgepack.importers import pytorch\n"
        "assert all(pytorch.recognise(Path(name)) for name in sys.argv[1:])\n"
        "assert not {'torch', 'onnx', 'numpy'} & set(sys.modules), sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_zips_and_files_of_others_are_not_recognised(tmp_path: Path) -> None:
    names = {
        "a.keras": ["metadata.json", "config.json", "model.weights.h5"],
        "a.npz": ["x.npy"],
        "a.skops": ["schema.json", "0.npy"],
        "zip.pt": ["code/readme.md", "model.json"],
    }
    for name, inside in names.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file in inside:
                archive.writestr(file, "x")
    (tmp_path / "a.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "folder.pt").mkdir()
    assert not any(map(pytorch.recognise, tmp_path.iterdir()))


def test_old_layout_is_read(old_program: Path) -> None:
    imported = import_model(old_program, SHAPES)
    assert [spec.name for spec in imported.outputs] == ["logits", "features"]
    assert imported.original is not None
    inputs = {"image": np.ones((2, 3, 12, 12), np.float32), "scale": np.ones(1, np.float32)}
    assert imported.original(inputs)["logits"].shape == (2, 5)


@pytest.mark.parametrize("form", ["program", "script"])
def test_file_cut_short_anywhere_is_refused(
    form: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    whole = request.getfixturevalue(form).read_bytes()
    path = tmp_path / "model.pt2"
    for size in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:size])
        refused(path, "is not a whole PyTorch model")


@pytest.mark.parametrize("form", ["program", "script"])
def test_flipped_bytes_are_noticed(
    form: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = request.getfixturevalue(form)
    whole, path = source.read_bytes(), tmp_path / "model.pt2"
    with zipfile.ZipFile(source) as archive:
        entries = [entry for entry in archive.infolist() if entry.file_size]
    generator = random.Random(0)
    for entry in entries:
        data = bytearray(whole)
        # 30 bytes, the name, and what stands in the lengths at 26 and 28 (APPNOTE.TXT, 4.3.7).
        lengths = whole[entry.header_offset + 26 : entry.header_offset + 30]
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", lengths))
        data[start + generator.randrange(entry.compress_size)] ^= 1 << generator.randrange(8)
        path.write_bytes(data)
        refused(path, f"is damaged: {entry.filename} in it" if entry.compress_type == 0 else "")


@pytest.mark.parametrize("missing", ["torch", "onnxscript"])
def test_without_pytorch_the_extra_is_named(
    missing: str, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=f"a PyTorch model needs {missing}") as caught:
        import_model(program, SHAPES)
    assert caught.value.hint == "pip install 'edgepack[pytorch]'"
