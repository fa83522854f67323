"""Code in PyTorch's files: PyTorch itself would run it, edgepack refuses it."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgepack.errors import ModelError
from edgepack.importers import import_model
from edgepack.importers.extras import quietly
from tests.torch_models import in_old_layout, scripted, symbolic_program

Files = dict[str, bytes]
SHAPES = {"image": (2, 3, 12, 12)}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return symbolic_program(tmp_path_factory.mktemp("program") / "net.pt2")


@pytest.fixture(scope="module")
def old_program(program: Path) -> Path:
    return in_old_layout(program, program.parent / "old.pt2")


def changed(whole: Path, path: Path, change: Callable[[Files], None]) -> Path:
    """The same zip with other contents; names are without its folder."""
    with zipfile.ZipFile(whole) as archive:
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"net/{name}", content)
    return path


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


class Bomb:
    """Its pickle makes a folder where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def pickled(value: object) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".joblib", ".bin"])
def test_pickles_are_refused_with_what_to_do_instead(suffix: str, tmp_path: Path) -> None:
    path, mark = tmp_path / f"model{suffix}", tmp_path / "mark"
    contents = [
        pickled(Bomb(mark)),
        pickled(nn.Linear(2, 2)),
        pickled({"weight": torch.ones(2)}),
        pickle.dumps(Bomb(mark)),
        gzip.compress(pickle.dumps(Bomb(mark))),
    ]
    for content in contents:
        path.write_bytes(content)
        error = refused(path, "is a Python pickle: loading it would run the code in it")
        assert 'torch.export.save(torch.export.export(model, args), "model.pt2")' in error.hint
    assert not mark.exists()


def edit(name: str, change: Callable[[Any, str], None]) -> Callable[[Files, Path], None]:
    """Change a JSON file, given it and Python code that leaves the mark."""

    def apply(files: Files, mark: Path) -> None:
        parsed = json.loads(files[name])
        change(parsed, f"__import__('os').mkdir('{mark}')")
        files[name] = json.dumps(parsed).encode()

    return apply


def pickled_weight(files: Files, mark: Path) -> None:
    name = "data/weights/model_weights_config.json"
    edit(name, lambda d, _: d["config"]["conv.bias"].update(use_pickle=True))(files, mark)
    files["data/weights/weight_1"] = pickled(Bomb(mark))


def opaque_constant(files: Files, mark: Path) -> None:
    payload = {
        "path_name": "opaque_obj_0",
        "is_param": False,
        "use_pickle": True,
        "tensor_meta": None,
    }
    name = "data/constants/model_constants_config.json"
    edit(name, lambda d, _: d["config"].update(k=payload))(files, mark)
    files["data/constants/opaque_obj_0"] = pickle.dumps(Bomb(mark))


def example_inputs(files: Files, mark: Path) -> None:
    files["data/sample_inputs/model.pt"] = pickled(((Bomb(mark),), {}))


def symbol(files: Files, mark: Path) -> None:
    code = f"__import__('os').mkdir('{mark}')".encode()
    assert b"Symbol(" in files["models/model.json"]
    start = files["models/model.json"].index(b"Symbol(")
    end = files["models/model.json"].index(b")", start) + 1
    old = files["models/model.json"][start:end]
    files["models/model.json"] = files["models/model.json"].replace(old, code)


def placeholder(files: Files, mark: Path) -> None:
    code = f"scale=__import__('os').mkdir('{mark}')"
    files["models/model.json"] = files["models/model.json"].replace(
        b'"scale"', f'"{code}"'.encode()
    )


def enumeration(files: Files, mark: Path) -> None:
    """A dict whose key is a member of an enum, in a module that is imported to find it."""
    (mark.parent / "evil_module.py").write_text(f"import os\nos.mkdir('{mark}')\n")
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    keys = [{"__enum__": True, "fqn": "evil_module:Key", "name": "a"}, "features"]
    tree = [
        1,
        {"type": "builtins.dict", "context": json.dumps(keys), "children_spec": [leaf, leaf]},
    ]

    def change(parsed: Any, _: str) -> None:
        module = parsed["graph_module"]["module_call_graph"][0]
        module["signature"]["out_spec"] = json.dumps(tree)

    edit("models/model.json", change)(files, mark)


ATTACKS: dict[str, Callable[[Files, Path], None]] = {
    "pickled weight": pickled_weight,
    "opaque constant": opaque_constant,
    "example inputs": example_inputs,
    "symbolic expression": symbol,
    "guard": edit("models/model.json", lambda d, code: d["guards_code"].append(code)),
    "placeholder": placeholder,
    "enumeration": enumeration,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_that_pytorch_would_run_is_refused(
    attack: str, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    path = changed(program, tmp_path / "net.pt2", lambda files: ATTACKS[attack](files, mark))
    monkeypatch.syspath_prepend(tmp_path)
    refused(path, "edgepack does not load it", shapes=SHAPES)
    assert not mark.exists()
    assert "evil_module" not in sys.modules
    with quietly(), pytest.raises(Exception):  # noqa: B017, PT011 (whatever comes after the attack)
        torch.export.load(path).module()(torch.ones(SHAPES["image"]), torch.ones(1))
    assert mark.exists(), "the file is harmless: it proves nothing"


def call(target: str) -> Callable[[Files, Path], None]:
    def change(parsed: Any, _: str) -> None:
        parsed["graph_module"]["graph"]["nodes"][1]["target"] = target

    return edit("models/model.json", change)


def hidden(parsed: Any, code: str) -> None:
    """An expression under a tensor that is called as a field of free text is."""
    values = parsed["graph_module"]["graph"]["tensor_values"]
    sizes = [{"as_expr": {"expr_str": code, "hint": None}}]
    values["metadata"] = {**values["mean"], "sizes": sizes}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (call("torch.os.system"), "a call of torch.os.system"),
        (call("torch.ops.load_library.__call__"), "a call of torch.ops.load_library.__call__"),
        (call("torch.ops.aten.from_file.default"), "a call of torch.ops.aten.from_file.default"),
        (call("_operator.call"), "a call of _operator.call"),
        (call("#evil:run"), "a call of #evil:run"),
        (edit("models/model.json", hidden), "the expression"),
        (lambda files, _: files.update({"data/aotinductor/model/a.so": b"ELF"}), "native code"),
    ],
)  # fmt: skip
def test_what_reaches_out_of_a_program_is_refused(
    change: Callable[[Files, Path], None], what: str, program: Path, tmp_path: Path
) -> None:
    path = changed(program, tmp_path / "net.pt2", lambda files: change(files, tmp_path / "mark"))
    refused(path, f"holds {what}", "edgepack does not load it", shapes=SHAPES)


def test_pickle_in_the_old_layout_is_refused(old_program: Path, tmp_path: Path) -> None:
    path, mark = tmp_path / "old.pt2", tmp_path / "mark"
    with zipfile.ZipFile(old_program) as source, zipfile.ZipFile(path, "w") as archive:
        for name in source.namelist():
            evil = name == "serialized_state_dict.pt"
            archive.writestr(
                name, pickled({"conv.bias": Bomb(mark)}) if evil else source.read(name)
            )
    refused(path, "a pickle of more than tensors, which can run code", shapes=SHAPES)
    assert not mark.exists()


@pytest.mark.parametrize("when", ["forward", "load"])
def test_script_that_writes_files_is_refused(when: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.name = str(mark)

        def forward(self, x: Tensor) -> Tensor:
            torch.save(x, self.name)
            return x

    class WritesWhenLoaded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.name = str(mark)
            self.training = False

        @torch.jit.export
        def __getstate__(self) -> tuple[str, bool]:
            return self.name, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[str, bool]) -> None:
            self.name, self.training = state
            torch.save(torch.ones(1), self.name)

        def forward(self, x: Tensor) -> Tensor:
            return x

    path = scripted(Writes() if when == "forward" else WritesWhenLoaded(), tmp_path / "model.pt")
    refused(path, "a call of save, which reads or writes files", shapes={"x": (2,)})
    assert not mark.exists()
    with quietly():
        load: Any = torch.jit.load
        load(path)(torch.ones(2))
    assert mark.exists(), "the file is harmless: it proves nothing"
