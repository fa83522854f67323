"""The thread pool of runtime/pool.c: data/pool.c and pool_one_cpu.c use it as kernels and applications do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgepack.targets import load_target
from edgepack.toolchain import RUNTIME

ZIG = [sys.executable, "-m", "ziglang"]
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{RUNTIME}"]
DATA = Path(__file__).parent / "data"
EMULATED = {
    "raspberrypi4": "qemu-aarch64-static",
    "armv7-neon": "qemu-arm-static",
    "riscv64-generic": "qemu-riscv64-static",
}


def build(out: Path, *options: str) -> Path:
    """``data/<name of out>.c`` with the runtime."""
    sources = [DATA / f"{out.name}.c", RUNTIME / "edgepack.c", RUNTIME / "pool.c"]
    command = [*ZIG, "cc", "-std=gnu99", *STRICT, *options, *map(str, sources), "-o", str(out)]
    subprocess.run(command, check=True)
    return out


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("sanitizer", "runs"), [("undefined", "200"), ("thread", "40")])
def test_sessions_at_once_compute_what_one_thread_computes_and_leave_no_thread(
    sanitizer: str, runs: str, tmp_path: Path
) -> None:
    program = build(tmp_path / "pool", "-O1", "-g", f"-fsanitize={sanitizer}")
    for threads in ("1", "2", "3", "8"):
        run(program, threads, runs)


def test_a_helper_gives_way_to_the_caller_on_the_same_cpu(tmp_path: Path) -> None:
    run(build(tmp_path / "pool_one_cpu", "-O2"))


@pytest.mark.parametrize("target", EMULATED)
@pytest.mark.needs(*EMULATED.values())
def test_threads_work_on_other_processors(target: str, tmp_path: Path) -> None:
    profile = load_target(target)
    options = ["-O2", "-static", "-target", profile.zig_static_triple, f"-mcpu={profile.zig_cpu}"]
    program = build(tmp_path / "pool", *options)
    runs = "8"  # of each session: emulated threads wait for one another long
    run(EMULATED[target], program, "3", runs)


def test_without_threads_nothing_of_pthread_is_needed_and_more_than_one_is_refused(
    tmp_path: Path,
) -> None:
    objects = []
    for name in ("edgepack", "pool"):
        objects.append(tmp_path / f"{name}.o")
        command = [*ZIG, "cc", "-std=c99", "-O2", *STRICT, "-DEP_NO_THREADS", "-c"]
        command += ["-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m7"]
        # A freestanding C compiler has no <string.h>; a bare-metal toolchain's newlib does.
        (tmp_path / "string.h").write_text(
            "#include <stddef.h>\n"
            "void *memcpy(void *, const void *, size_t);\nvoid *memset(void *, int, size_t);\n"
        )
        command += [f"-I{tmp_path}", str(RUNTIME / f"{name}.c"), "-o", str(objects[-1])]
        subprocess.run(command, check=True)
    for built in objects:
        content = built.read_bytes()
        assert b"pthread" not in content
        assert b"__tls" not in content
        assert b"__aeabi_read_tp" not in content
