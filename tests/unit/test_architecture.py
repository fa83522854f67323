"""The direction of the code, read off its imports: what may know of what, and what loads when."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "edgepack").rglob("*.py"))

STAGES = {
    "importers",
    "quantize",
    "compiler",
    "toolchain",
    "package",
    "trust",
    "channels",
    "captures",
}
"""Each is a step from one artefact to the next, and knows nothing of the others."""

ORCHESTRATION = {"cli", "build", "project", "fleet", "__main__", "bench", "demo"}
"""What calls stages; they must not call back."""

HEAVY = {
    "boto3",
    "botocore",
    "cryptography",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxsim",
    "paramiko",
    "pyarrow",
    "tensorflow",
    "torch",
    "tvm",
    "tvm_ffi",
}
"""Imported inside the functions that need them: `edgepack --help` must not pay for them."""


@dataclass(frozen=True)
class Import:
    module: str
    line: int
    deferred: bool
    """Inside a function: not loaded with the module."""


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), path)


def imports(node: ast.AST, *, deferred: bool = False) -> Iterator[Import]:
    """Every import that runs; those for type checkers alone do not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, deferred)
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                yield Import(f"{child.module}.{alias.name}", child.lineno, deferred)
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield from imports(other, deferred=deferred)
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(child, deferred=deferred or function)


def part_of(path: Path) -> str:
    """``compiler`` for edgepack/compiler/plan.py, ``build`` for edgepack/build.py."""
    return path.relative_to(ROOT / "edgepack").parts[0].removesuffix(".py")


def own_part(module: str) -> str | None:
    """``compiler`` for edgepack.compiler.plan, None for what is not ours."""
    parts = module.split(".")
    return parts[1] if parts[0] == "edgepack" and len(parts) > 1 else None


def offenders(path: Path, wrong: set[str], *, module_level: bool = False) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{found.line} imports {found.module}"
        for found in imports(parse(path))
        if found.module.split(".")[0] in wrong and not (module_level and found.deferred)
    ]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_sources_are_found() -> None:
    assert {part_of(path) for path in SOURCES} >= {"importers", "targets", "errors", "artefacts"}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_only_the_compiler_imports_tvm(path: Path) -> None:
    if part_of(path) != "compiler":
        assert offenders(path, {"tvm", "tvm_ffi"}) == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_only_the_toolchain_runs_zig(path: Path) -> None:
    if part_of(path) == "toolchain":
        return
    assert offenders(path, {"ziglang"}) == []
    commands = [
        f"{name(path)}:{node.lineno}"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.List | ast.Tuple)
        for item in node.elts
        if isinstance(item, ast.Constant) and item.value == "ziglang"
    ]
    assert commands == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_stages_do_not_import_one_another_nor_what_calls_them(path: Path) -> None:
    here = part_of(path)
    if here in ORCHESTRATION:
        return
    # targets, artefacts, errors and the like are below the stages and know none of them.
    forbidden = (STAGES - {here} if here in STAGES else STAGES) | ORCHESTRATION
    if here not in STAGES and here not in {"targets", "artefacts", "errors"}:
        forbidden = {"cli"}  # steps of build.py that have a file of their own
    found = [f"{name(path)}:{i.line} imports {i.module}" for i in imports(parse(path))
             if own_part(i.module) in forbidden]  # fmt: skip
    assert found == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_only_the_command_line_prints_exits_and_imports_its_libraries(path: Path) -> None:
    # templates hold programs of their own, which are copied to devices.
    if part_of(path) in {"cli", "__main__", "templates"}:
        return
    assert offenders(path, {"typer", "rich", "click"}) == []
    calls = [node for node in ast.walk(parse(path)) if isinstance(node, ast.Call)]
    wrong = {"print", "input", "exit", "quit", "sys.exit", "os._exit", "sys.stdout.write"}
    assert [f"{name(path)}:{c.lineno}" for c in calls if ast.unparse(c.func) in wrong] == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_heavy_libraries_are_imported_inside_functions(path: Path) -> None:
    assert offenders(path, HEAVY, module_level=True) == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_errors_and_targets_stand_on_nothing_but_names_and_errors(path: Path) -> None:
    allowed = {"errors": set(), "naming": set(), "targets": {"targets", "errors", "naming"}}
    here = part_of(path)
    if here in allowed:
        parts = {own_part(found.module) for found in imports(parse(path))} - {None}
        assert parts <= allowed[here]


def test_the_rules_catch_what_they_forbid() -> None:
    code = ast.parse(
        "import tvm\nfrom edgepack.trust import verify\nif TYPE_CHECKING:\n import torch\n"
        "class A:\n import boto3\ndef f():\n  import numpy.linalg\ntry:\n import onnx\nfinally: pass\n"
    )
    found = {i.module: i.deferred for i in imports(code)}
    assert found == {
        "tvm": False,
        "edgepack.trust.verify": False,
        "boto3": False,
        "numpy.linalg": True,
        "onnx": False,
    }
    assert own_part("edgepack.trust.verify") == "trust"
    assert own_part("edgepacker.trust") is None
