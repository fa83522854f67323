"""The zip files that PyTorch writes: which is what, and what is in one before PyTorch reads it.

To load an exported program is to run code where its author wants it to: PyTorch unpickles parts of
it, evaluates its symbolic expressions, and generates Python from its names. So everything in it has
to be on a list here of what is known to be harmless. A TorchScript module runs in an interpreter of
its own, out of which a few operators reach for files.

Sources: torch/export/pt2_archive/_package.py, torch/_export/serde/serialize.py and schema.py,
torch/utils/_pytree.py (treespec_loads), torch/fx/graph.py (code generation).
"""

from __future__ import annotations

import ast
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgepack.errors import ModelError
from edgepack.importers.onnx_file import one_line
from edgepack.importers.pickles import zip_names

EXPORTED = "exported program"
EXPORTED_BEFORE_2_8 = "exported program before 2.8"
TORCHSCRIPT = "TorchScript"

_OLD_PROGRAM = "serialized_exported_program.json"

_NAME = re.compile(r"[\w.@/ -]*")
"""No quote, bracket or line break: what is generated from it is a name or a syntax error."""
_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.((?!__)\w+|__\w+__(?=\.))(\.(?!__)\w+)?")
_NAMESPACES = {"aten", "prims", "torchvision", "onnx", "onnx_symbolic"}
_HIGHER_ORDER = {
    "cond", "invoke_subgraph", "scan", "while_loop", "wrap_with_autocast", "wrap_with_set_grad_enabled",
}  # fmt: skip
_PYTHON_OPERATOR = re.compile(
    r"torch\.sym_\w+|math\.[a-z]\w*|_operator\.(add|and_|eq|floordiv|ge|getitem|gt|le|lshift|lt|mod|mul|ne"
    r"|neg|or_|pos|pow|rshift|sub|truediv)"
)
_FILE_OPERATORS = re.compile(r"\.\s*(save|from_file)\s*\(")
_CALLABLE = re.compile(
    r".*\.size|math\.\w+|torch\.sym_\w+"
    r"|Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Abs|Eq|Ne|Equality|Unequality|And|Or|Not"
    r"|(Strict)?(Greater|Less)Than|Piecewise|ExprCondPair|floor|ceiling|max|min|abs"
    r"|IntInfinity|NegativeIntInfinity|FloorDiv|ModularIndexing|Where|PythonMod|Mod|CleanDiv|CeilDiv"
    r"|CeilToInt|FloorToInt|LShift|RShift|PowByNatural|FloatPow|FloatTrueDiv|IntTrueDiv"
    r"|IsNonOverlappingAndDenseIndicator|TruncToFloat|TruncToInt|RoundToInt|RoundDecimal|ToFloat"
    r"|Identity",
    re.DOTALL,
)
"""What an expression over sizes may call."""
_EXPRESSIONS = (
    ast.Expression, ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.BinOp,
    ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Name, ast.Tuple, ast.Subscript, ast.keyword,
)  # fmt: skip


def form(path: Path) -> str:
    """EXPORTED, EXPORTED_BEFORE_2_8 or TORCHSCRIPT; empty for any other file."""
    names = zip_names(path)
    # PyTorch puts all files into one folder, and finds them in upper case as well.
    inner = {name.partition("/")[2].lower() for name in names}
    if "archive_format" in inner:
        return EXPORTED
    if _OLD_PROGRAM in names:
        return EXPORTED_BEFORE_2_8
    scripts = any(name.startswith("code/") for name in inner)
    return TORCHSCRIPT if scripts and "constants.pkl" in inner else ""


def check_whole(path: Path) -> None:
    """Hold that every file in the zip is what was written: PyTorch itself loads flipped weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = archive.testzip()
            damaged = f"{name} in it is not what was written" if name else ""
    except (zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, EOFError) as error:
        damaged = one_line(error)
    if damaged:
        raise ModelError(f"{path} is damaged: {damaged}", "Copy or export it again")


def check_program(path: Path, found: str) -> None:
    """Hold that loading an exported program runs nothing. Raises ModelError."""
    if found == EXPORTED_BEFORE_2_8:
        with zipfile.ZipFile(path) as archive:
            if len(set(archive.namelist())) < len(archive.namelist()):
                raise refusal(path, "two files of one name")
            _check_model(path, json.loads(archive.read(_OLD_PROGRAM)))
        return
    import torch

    reader = torch._C.PyTorchFileReader(os.fspath(path))  # the one that is going to read it
    names = reader.get_all_records()
    if any(name.startswith("data/aotinductor/") for name in names):
        raise refusal(path, "native code, compiled by AOTInductor")
    for name in names:
        if name.startswith(("data/weights/", "data/constants/")) and name.endswith("_config.json"):
            _check_payload(path, json.loads(reader.get_record(name)))
        elif name.startswith("models/"):
            _check_model(path, json.loads(reader.get_record(name)))
    if "models/model.json" not in names:
        raise ModelError(f"{path} has no program called 'model'", "save it with torch.export.save")


def check_script(path: Path) -> None:
    """Hold that a TorchScript module keeps away from files. Raises ModelError."""
    import torch

    reader = torch._C.PyTorchFileReader(os.fspath(path))
    for name in reader.get_all_records():
        if name.startswith("code/") and name.endswith(".py"):
            called = _FILE_OPERATORS.search(reader.get_record(name).decode())
            if called:
                raise refusal(path, f"a call of {called[1]}, which reads or writes files")


def refusal(path: Path, what: str) -> ModelError:
    """The error for a file that holds something that could run code, or reach for files."""
    return ModelError(
        f"{path} holds {what}: edgepack does not load it",
        "export the plain model, on the CPU and without Python objects, with torch.export.export",
    )


@contextmanager
def no_pickled_code() -> Iterator[None]:
    """Keep torch.load to tensors and plain containers, whatever it is asked for."""
    changed = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}
    saved = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in saved.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


def _check_payload(path: Path, config: dict[str, Any]) -> None:
    """Of weights or constants: each in a file of its own, raw."""
    for name, payload in config["config"].items():
        if payload["use_pickle"] or not re.match(r"weight_|tensor_", payload["path_name"]):
            raise refusal(path, f"{name!r} as a pickle, which can run code")


def _check_model(path: Path, program: dict[str, Any]) -> None:
    module = {key: value for key, value in program["graph_module"].items() if key != "metadata"}
    strings = [("expr_str", guard) for guard in program.get("guards_code", ())]
    for key, value in (*strings, *_strings(module)):
        if key in ("target", "as_operator"):
            _check_operator(path, value)
            continue
        what = _objection(key, value)
        if what:
            raise refusal(path, what)


def _objection(key: str, value: str) -> str:
    """What is wrong with a string under ``key``; empty for nothing."""
    if key == "expr_str":
        return "" if _is_harmless(value) else f"the expression {value!r}, which can run code"
    if key in ("in_spec", "out_spec"):
        return "" if _is_plain(value) else "containers of a kind that can run code"
    if key == "class_fqn":
        return f"an object of class {value}"
    return "" if _NAME.fullmatch(value) else f"the name {value!r}, which can run code"


def _strings(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string in parsed JSON but free text, with the key that it is under; keys as well."""
    if isinstance(tree, str):
        yield key, tree
    elif isinstance(tree, list):
        for item in tree:
            yield from _strings(item, key)
    elif isinstance(tree, dict):
        for inner, item in tree.items():
            yield "", inner
            if not _is_free_text(tree, inner):
                yield from _strings(item, inner)


def _is_free_text(owner: dict[str, Any], key: str) -> bool:
    """Whether what is under ``key`` is nothing but text; a tensor may have the name of a field."""
    if key == "metadata":
        return isinstance(owner.get("target"), str)
    if key == "as_strings":
        return isinstance(owner[key], list) and all(isinstance(item, str) for item in owner[key])
    return key == "as_string" and isinstance(owner[key], str)


def _is_plain(spec: str) -> bool:
    """Whether a tree of containers is without those that import modules: defaultdict, enums."""
    for key, value in _strings(json.loads(spec)):
        inner = _strings(json.loads(value)) if key == "context" else [(key, value)]
        for _, text in inner:
            if not _NAME.fullmatch(text) or text in ("__enum__", "collections.defaultdict"):
                return False
    return True


def _check_operator(path: Path, target: str) -> None:
    if _PYTHON_OPERATOR.fullmatch(target):
        return
    matched = _OPERATOR.fullmatch(target)
    if matched is None or matched[2] == "from_file":
        raise refusal(path, f"a call of {target}, which can run code")
    namespace, name = matched[1], matched[2]
    if namespace not in _NAMESPACES and (namespace != "higher_order" or name not in _HIGHER_ORDER):
        raise ModelError(
            f"unsupported operator: {namespace}.{name} has no counterpart in ONNX",
            "Export the model without custom operators",
        )


def _is_harmless(expression: str) -> bool:
    """Whether it does nothing but arithmetic on sizes."""
    try:
        nodes = list(ast.walk(ast.parse(expression, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(map(_is_arithmetic, nodes))


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return bool(_CALLABLE.fullmatch(ast.unparse(node.func)))
    if isinstance(node, ast.Attribute):
        return not node.attr.startswith("_")
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, str) or bool(_NAME.fullmatch(node.value))
    return isinstance(node, _EXPRESSIONS)
