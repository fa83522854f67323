"""pnnx, the ncnn project's converter: ONNX to ncnn's files, and to a PyTorch module for others to export."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TYPES = {"float32": "f32", "int32": "i32", "int64": "i64"}


def convert(model: Path, folder: Path, *, wanted: str) -> None:
    """Write m_pnnx.py, m.pnnx.bin, m.ncnn.param and m.ncnn.bin into ``folder``, in this order.

    RuntimeError where it does not come as far as the file ``wanted``.
    """
    import onnx
    from onnx import helper

    shapes = []
    for value in onnx.load(model).graph.input:
        kind = value.type.tensor_type
        dtype = _TYPES[helper.tensor_dtype_to_np_dtype(kind.elem_type).name]
        shapes.append(f"[{','.join(str(dim.dim_value) for dim in kind.shape.dim)}]{dtype}")
    for old in folder.iterdir():
        old.unlink()
    shutil.copy(model, folder / "m.onnx")
    program = Path(sys.executable).with_name("pnnx")
    # Half precision is its default.
    options = [f"inputshape={','.join(shapes)}", "fp16=0"]
    done = subprocess.run([program, "m.onnx", *options], cwd=folder, capture_output=True)
    if not (folder / wanted).exists():
        raise RuntimeError(f"pnnx ends with status {done.returncode} before it writes {wanted}")


@dataclass(frozen=True, kw_only=True)
class TorchForm:
    """A model as a PyTorch module, with inputs of the right shapes."""

    module: Any
    inputs: tuple[Any, ...]


def as_torch(model: Path, folder: Path) -> TorchForm:
    """``convert``, then load the module that it wrote."""
    import onnx
    import torch  # type: ignore[import-not-found, unused-ignore]
    from onnx import helper

    convert(model, folder, wanted="m_pnnx.py")
    inputs = []
    for value in onnx.load(model).graph.input:
        kind = value.type.tensor_type
        dtype = getattr(torch, helper.tensor_dtype_to_np_dtype(kind.elem_type).name)
        inputs.append(torch.zeros([dim.dim_value for dim in kind.shape.dim], dtype=dtype))
    # It writes infinities as Python prints them.
    names: dict[str, Any] = {"__name__": "m_pnnx", "inf": math.inf, "nan": math.nan}
    source = folder / "m_pnnx.py"
    with _inside(folder):  # it reads its weights from where it is
        exec(compile(source.read_text(), source, "exec"), names)
        module = names["Model"]().eval()
    return TorchForm(module=module, inputs=tuple(inputs))


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
