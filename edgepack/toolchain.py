"""The cross toolchain: the only file that runs zig.

ziglang from PyPI brings a C and Zig compiler, a linker and musl for every target. What is built
from edgepack's own sources (agent, worker runtime) is kept in the user's cache directory under a
digest of everything that went into it, so that each is built once for each target.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from edgepack.artefacts import CompiledModel, NativeLibrary, NativeModel
from edgepack.errors import ToolchainError
from edgepack.targets import Target

RUNTIME = Path(__file__).parent / "runtime"
"""Native sources, which travel inside the wheel."""

CLIENTS = Path(__file__).parent / "clients"
"""What applications on a device ask the agent with; it travels inside the wheel too."""

_EMPTY_PLAN = """#include "plan.h"
static const ep_model model = {.abi_version = EP_ABI_VERSION};
const ep_model *ep_model_get(void) { return &model; }
"""


_SESSION = ("edgepack", "pool")
"""The runtime that every model is linked with, in C: edgepack.h, and threads."""


def cache_directory() -> Path:
    """``$EDGEPACK_CACHE``, or ``edgepack`` under ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := os.environ.get("EDGEPACK_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgepack"


def zig_version() -> str:
    """Version of the ziglang package that is installed."""
    return version("ziglang")


def build_agent(target: Target) -> Path:
    """The device agent for ``target``: one static executable, out of the cache or built now."""
    return _cached(
        "agent",
        ["build-exe", *_static(target), "-OReleaseSafe", *zig_modules("agent")],
        sources=_zig_sources("agent"),
    )


def build_c_client(target: Target) -> Path:
    """``libedgepack_client.a`` for programs on ``target`` that ask the agent; its header is beside
    the source, in CLIENTS / "c".
    """
    source = CLIENTS / "c" / "edgepack_client.c"
    built = _cached(
        "edgepack_client.o",
        ["cc", "-c", *_c_flags(target, target.zig_static_triple), str(source)],
        sources=[source, source.with_suffix(".h")],
    )
    return _cached("libedgepack_client.a", ["ar", "rcsD", str(built)], sources=[built])


def zig_modules(program: str) -> list[str]:
    """Zig's options for ``agent`` or ``worker``, and the sandbox that both are built with."""
    root = f"-Mroot={RUNTIME / program / 'main.zig'}"
    return ["--dep", "sandbox", root, f"-Msandbox={RUNTIME / 'sandbox' / 'sandbox.zig'}"]


def _zig_sources(program: str) -> list[Path]:
    return [
        path for part in (program, "sandbox") for path in sorted((RUNTIME / part).glob("**/*.zig"))
    ]


def link_worker(compiled: CompiledModel) -> NativeModel:
    """Link kernels and plan with the worker's runtime into a static executable.

    Raises ToolchainError with the linker's first complaint.
    """
    worker = _link(compiled.target, compiled.plan_source, compiled.kernels)
    return NativeModel(
        compiled=compiled,
        worker=worker,
        code_bytes=len(worker) - _runtime_bytes(compiled.target),
    )


def link_library(compiled: CompiledModel) -> NativeLibrary:
    """Link kernels and plan with the runtime for programs that embed the model through edgepack.h.

    Built for the target's C library in the version that it names. Raises ToolchainError with the
    linker's first complaint.
    """
    target = compiled.target
    flags = [*_c_flags(target, target.zig_triple), "-fPIC"]
    objects = [_session_object(name, flags) for name in _SESSION]
    with tempfile.TemporaryDirectory(prefix="edgepack-") as directory:
        place = Path(directory)
        (place / "plan.c").write_text(compiled.plan_source)
        (place / "kernels.o").write_bytes(compiled.kernels)
        (place / "exports.map").write_text(_exports())
        _zig(["cc", *flags, "-c", "plan.c", "-o", "plan.o"], cwd=place)
        members = [*map(str, objects), "plan.o", "kernels.o"]
        link = ["-shared", "-s", "-Wl,--gc-sections", "-Wl,-soname,libmodel.so", "-Wl,-z,defs"]
        link += ["-Wl,--version-script=exports.map"]
        _zig(["cc", *flags, *link, *members, "-lm", "-o", "libmodel.so"], cwd=place)
        _zig(["ar", "rcsD", "libmodel.a", *members], cwd=place)
        return NativeLibrary(
            shared=(place / "libmodel.so").read_bytes(),
            archive=(place / "libmodel.a").read_bytes(),
        )


def _exports() -> str:
    """A linker's version script with the functions of edgepack.h: a process may load many models."""
    names = sorted(set(re.findall(r"\b(ep_\w+)\(", (RUNTIME / "edgepack.h").read_text())))
    return f"{{ global: {' '.join(f'{name};' for name in names)} local: *; }};\n"


def _static(target: Target) -> list[str]:
    # Nothing unwinds: a panic ends the process, and without tables a tenth of the size goes.
    lean = ["-fstrip", "-fno-unwind-tables", "-fomit-frame-pointer"]
    return [*_for(target, target.zig_static_triple), *lean]


def _for(target: Target, triple: str) -> list[str]:
    """Target options for the runtime: the architecture's baseline, so that profiles share it.

    The kernels carry the profile's own CPU; what is around them gains nothing by it, and zig would
    build its libc anew for each. 32-bit ARM has no useful baseline: there the profile's CPU counts.
    """
    cpu = target.zig_cpu if target.arch == "arm" else "baseline"
    return ["-target", triple, f"-mcpu={cpu}"]


def _link(target: Target, plan_source: str, kernels: bytes | None) -> bytes:
    """One ``zig cc``: the runtime's objects come from the cache, only the plan is compiled."""
    flags = _c_flags(target, target.zig_static_triple)
    objects = [_worker_object(target), *(_session_object(name, flags) for name in _SESSION)]
    with tempfile.TemporaryDirectory(prefix="edgepack-") as directory:
        place = Path(directory)
        (place / "plan.c").write_text(plan_source)
        if kernels is not None:
            (place / "kernels.o").write_bytes(kernels)
            objects.append(place / "kernels.o")
        command = ["cc", *flags, "-static", "-s", "-Wl,--gc-sections"]
        command += [*map(str, objects), "plan.c", "-lm", "-o", "worker"]
        _zig(command, cwd=place)
        return (place / "worker").read_bytes()


def _c_flags(target: Target, triple: str) -> list[str]:
    warnings = ["-std=c99", "-Wall", "-Wextra", "-Werror"]
    return [
        *_for(target, triple),
        "-O2",
        "-ffunction-sections",
        "-fdata-sections",
        *warnings,
        f"-I{RUNTIME}",
    ]


def _worker_object(target: Target) -> Path:
    """worker/*.zig as one object."""
    options = [*_static(target), "-lc", "-OReleaseSafe", f"-I{RUNTIME}"]
    return _cached(
        "worker.o",
        ["build-obj", *options, *zig_modules("worker")],
        sources=[*_zig_sources("worker"), *sorted(RUNTIME.glob("*.h"))],
    )


def _session_object(name: str, flags: Sequence[str]) -> Path:
    """One of the files of _SESSION as an object."""
    return _cached(
        f"{name}.o",
        ["cc", "-c", *flags, str(RUNTIME / f"{name}.c")],
        sources=[RUNTIME / f"{name}.c", *sorted(RUNTIME.glob("*.h"))],
    )


@cache
def _runtime_bytes(target: Target) -> int:
    """Size of a worker with an empty model: what is not the model's own code."""
    return len(_link(target, _EMPTY_PLAN, None))


def _cached(name: str, command: Sequence[str], *, sources: Iterable[Path]) -> Path:
    """Run ``zig COMMAND`` once for each content of the sources, command line and zig."""
    digest = hashlib.sha256()
    relative = (argument.replace(str(RUNTIME.parent), "") for argument in command)
    digest.update("\0".join([zig_version(), *relative]).encode())
    for source in sources:
        content = source.read_bytes()
        digest.update(f"\0{source.name}\0{len(content)}\0".encode() + content)
    built = cache_directory() / "native" / digest.hexdigest()[:32] / name
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=built.parent) as directory:
            output = Path(directory) / name
            _zig(_with_output(command, output), cwd=Path(directory))
            os.replace(output, built)
    return built


def _with_output(command: Sequence[str], output: Path) -> list[str]:
    if command[0] == "ar":  # operation, archive, members
        return [*command[:2], str(output), *command[2:]]
    option = ["-o", str(output)] if command[0] == "cc" else [f"-femit-bin={output}"]
    return [*command, *option]


def _zig(command: Sequence[str], *, cwd: Path) -> None:
    """Run zig quietly with its own caches inside edgepack's. Raises ToolchainError."""
    spec = find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise ToolchainError("ziglang is not installed", "pip install ziglang==0.17.1")
    zig = Path(spec.origin).parent / "zig"
    caches = cache_directory() / "zig"
    environment = os.environ | {
        "ZIG_GLOBAL_CACHE_DIR": str(caches / "global"),
        "ZIG_LOCAL_CACHE_DIR": str(caches / "local"),
    }
    try:
        done = subprocess.run(
            [str(zig), *command],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise ToolchainError(f"zig could not be started: {error}", "reinstall ziglang") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        first = next(
            (line for line in lines if "error" in line), lines[0] if lines else "no reason"
        )
        raise ToolchainError(
            f"zig {command[0]} failed ({done.returncode}): {first.strip()}",
            f"if the disk is full, clear {cache_directory()}",
        )
