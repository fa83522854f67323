"""Reads ONNX files: says at once what is wrong with one that cannot be used, and loads no weights.

An ONNX file is one protobuf message (onnx.proto, ModelProto). Its top level is walked field by field
before anything is parsed, so that a file of another kind, or one cut short, costs no memory and gets
an error that says so.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgepack.errors import ModelError

if TYPE_CHECKING:
    import onnx

OLDEST_OPSET = 7
"""What comes after reading knows no older one; old_opsets.py makes this one of them."""
_MAX_PROTOBUF_BYTES = (1 << 31) - 1
_RECOGNISED_FIELDS = 4
"""So many well-formed fields make a file an ONNX model, damaged or not."""
_VARINT, _BYTES = 0, 2
_WITHOUT_ADAPTER = "No Adapter"
"""Where the converter's words for an operator that it cannot convert begin."""


class _NotOnnx(Exception):
    """What the walk found; the text completes "X is not an ONNX model: …"."""


def looks_like_onnx(path: Path) -> bool:
    """Whether the file starts with fields of a ModelProto, its version first of all."""
    fields: list[str] = []
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while file.tell() < size and len(fields) < _RECOGNISED_FIELDS:
                fields.append(_next_field(file, size))
    except _NotOnnx:
        pass
    return bool(fields) and fields[0] == "ir_version" and len(set(fields)) > 1


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read and check an ONNX file; weights in other files are checked and stay there.

    Raises ModelError: not an ONNX file, damaged, over 2 GiB, of an opset that is not known, or with
    weights missing.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        _walk(path)
        model = onnx.load(os.fspath(path), load_external_data=False)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    except (_NotOnnx, DecodeError) as error:
        raise ModelError(
            f"{path} is not a whole ONNX model: {one_line(error)}",
            "Export or download it again",
        ) from error
    _check_version(path, model)
    try:
        onnx.checker.check_model(os.fspath(path))
    except (onnx.checker.ValidationError, ValueError, RuntimeError, DecodeError) as error:
        # An input or output of unknown rank is valid to others; --input or inference may fill it in.
        if "Field 'shape' of 'type' is required" not in str(error):
            raise ModelError(f"{path} is not a valid ONNX model: {one_line(error)}") from error
    if not model.graph.output:
        raise ModelError(f"{path} is not a valid ONNX model: its graph has no outputs")
    return model


def one_line(error: BaseException) -> str:
    """The text of a library's error in one line of bearable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


def _walk(path: Path) -> None:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise _NotOnnx("the file is empty")
        seen: set[str] = set()
        while file.tell() < size:
            seen.add(_next_field(file, size))
    missing = [name for name in ("ir_version", "graph") if name not in seen]
    if missing:
        raise _NotOnnx(f"it has no {' and no '.join(missing)}; it is cut short or something else")
    if size > _MAX_PROTOBUF_BYTES:
        raise _NotOnnx("it is over 2 GiB in one file; save it with external data")


def _next_field(file: IO[bytes], size: int) -> str:
    """The name of the ModelProto field at the file's position; moves behind it."""
    from onnx import ModelProto

    start = file.tell()
    key = _varint(file)
    field = ModelProto.DESCRIPTOR.fields_by_number.get(key >> 3)
    wire = key & 7
    integer = field is not None and field.type == field.TYPE_INT64
    if field is None or wire != (_VARINT if integer else _BYTES):
        raise _NotOnnx(f"byte {start} is not the start of one of its fields")
    if wire == _VARINT:
        _varint(file)
    else:
        length = _varint(file)
        end = file.tell() + length
        if end > size:
            raise _NotOnnx(f"it is cut short: {field.name} goes to byte {end}, the file to {size}")
        file.seek(end)
    return str(field.name)


def _varint(file: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise _NotOnnx("it is cut short")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _NotOnnx(f"byte {file.tell()} is not part of a number")


def opset_of(model: onnx.ModelProto) -> int | None:
    """The version of ONNX's own operators; None where the model names none."""
    opsets: dict[str, int] = {entry.domain: entry.version for entry in model.opset_import}
    return opsets.get("", opsets.get("ai.onnx"))


def with_opset(model: onnx.ModelProto, opset: int, why: str, least: int) -> onnx.ModelProto:
    """The model converted to another opset.

    Raises ModelError; ``why`` begins its message, and opset ``least`` is what it advises.
    """
    import onnx
    import onnx.version_converter

    try:
        converted: onnx.ModelProto = onnx.version_converter.convert_version(model, opset)
    except Exception as error:  # the converter's have no common type
        text = one_line(error)
        raise ModelError(
            f"{why}: {text[max(0, text.find(_WITHOUT_ADAPTER)) :]}",
            f"Export it for opset {least} or newer",
        ) from error
    return converted


def _check_version(path: Path, model: onnx.ModelProto) -> None:
    import onnx

    opset = opset_of(model)
    newest = onnx.defs.onnx_opset_version()
    if opset is None:
        if any(node.domain in ("", "ai.onnx") for node in model.graph.node):
            raise ModelError(f"{path} is not a valid ONNX model: it does not say its opset")
    elif opset < 1:
        raise ModelError(f"{path} is not a valid ONNX model: its opset is {opset}")
    elif opset > newest:
        raise ModelError(
            f"{path} uses opset {opset}; the onnx package here knows 1 to {newest}",
            "pip install --upgrade onnx, or export it with an older opset",
        )
