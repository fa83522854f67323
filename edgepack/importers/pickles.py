"""Recognises Python pickles, so that they can be refused: to load one is to run the code in it.

Nothing here unpickles. Opcodes are read as pickletools lists them, no further than the head.
"""

from __future__ import annotations

import bz2
import io
import lzma
import pickletools
import warnings
import zipfile
import zlib
from pathlib import Path

from edgepack.errors import ModelError

_HEAD = 1 << 16
_ENOUGH = 4
"""So many opcodes in a row make a stream a pickle, damaged or not."""
_FIRST = ("PROTO", "GLOBAL", "MARK", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE")
"""What the pickle of an object begins with: PROTO from protocol 2 on."""
_LZMA_MEMORY = 1 << 27
_LEGACY_TORCH = 0x1950A86A20F9469CFC6C
"""The number that torch.save wrote first before PyTorch 1.6."""

_SAVE_INSTEAD = {
    "torch": 'torch.export.save(torch.export.export(model, args), "model.pt2")',
    "sklearn": 'skops.io.dump(model, "model.skops")',
    "xgboost": 'model.save_model("model.json")',
    "lightgbm": 'model.booster_.save_model("model.txt")',
}


def looks_like_pickle(path: Path) -> bool:
    """Whether the file is a pickle, compressed or not, as pickle, joblib and torch.save write it."""
    if not path.is_file():
        return False
    if _is_torch_zip(path):
        return True
    opcodes = _opcodes(_head(path))
    return bool(opcodes) and (opcodes[-1][0] == "STOP" or len(opcodes) >= _ENOUGH)


def refusal(path: Path) -> ModelError:
    """The error for a pickle; its hint shows how to save the model in a form that holds no code."""
    library = "torch" if _is_torch_zip(path) else _library(_opcodes(_head(path)))
    instead = [_SAVE_INSTEAD[library]] if library else _SAVE_INSTEAD.values()
    return ModelError(
        f"{path} is a Python pickle: loading it would run the code in it, so edgepack never does",
        f"where you trust it, load it yourself and save the model with {' or '.join(instead)}",
    )


def zip_names(path: Path) -> list[str]:
    """Names of the files in a zip; none for anything that is no whole zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return []
    # Where a zip is cut short behind a zip that it contains, it is that one that is found.
    whole = bool(entries) and min(entry.header_offset for entry in entries) == 0
    return [entry.filename for entry in entries] if whole else []


def _is_torch_zip(path: Path) -> bool:
    """A zip of torch.save; one of torch.jit.save has code beside the pickle."""
    names = zip_names(path)
    roots = {name.removesuffix("data.pkl") for name in names if name.endswith("data.pkl")}
    return any(
        root.count("/") < 2 and not any(name.startswith(f"{root}code/") for name in names)
        for root in roots
    )


def _head(path: Path) -> bytes:
    """The first bytes, decompressed."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    try:
        if head[:2] == b"\x1f\x8b" or head[:1] == b"\x78":
            return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(head, _HEAD)
        if head[:3] == b"BZh":
            return bz2.BZ2Decompressor().decompress(head, _HEAD)
        if head[:5] in (b"\xfd7zXZ", b"\x5d\x00\x00\x80\x00"):
            return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY).decompress(head, _HEAD)
    except (zlib.error, OSError, lzma.LZMAError):
        return b""
    return head


def _opcodes(head: bytes) -> list[tuple[str, object]]:
    """Names and arguments as far as they can be read; none of what does not begin as a pickle."""
    found: list[tuple[str, object]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in what is no text
        try:
            for opcode, argument, _ in pickletools.genops(io.BytesIO(head)):
                if not found and opcode.name not in _FIRST:
                    break
                found.append((opcode.name, argument))
        except (ValueError, OverflowError):  # the end of the head, or of what is a pickle
            pass
    return found


def _library(opcodes: list[tuple[str, object]]) -> str:
    """The first library that is named as the home of a class; empty where none of them is."""
    for name, argument in opcodes:
        if argument == _LEGACY_TORCH:
            return "torch"
        if name in ("GLOBAL", "SHORT_BINUNICODE", "BINUNICODE"):
            root = str(argument).split(" ")[0].split(".")[0]
            if root in _SAVE_INSTEAD:
                return root
    return ""
