"""What LLVM generates for a profile links with what zig compiles for it, and they agree on floats.

The kernel calls expf: under another float ABI it would link all the same, and compute garbage.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgepack.compiler.lower import llvm_target
from edgepack.targets import load_target, target_names

CALLER = r"""
#include <math.h>
#include <stdint.h>
#include <stdio.h>
typedef struct { void *data; int32_t device[2]; int32_t ndim; uint8_t code, bits; uint16_t lanes;
                 int64_t *shape, *strides; uint64_t offset; } tensor;
typedef struct { int32_t type; uint32_t zero; union { int64_t i; void *p; } v; } any;
int __tvm_ffi_halved_exp(void *, const any *, int32_t, any *);
int main(void) {
  static float in[64] __attribute__((aligned(64))), out[64] __attribute__((aligned(64)));
  int64_t shape[1] = {64};
  double worst = 0;
  for (int i = 0; i < 64; i++) in[i] = (float)i * 0.03f;
  tensor x = {in, {1, 0}, 1, 2, 32, 1, shape, 0, 0}, y = {out, {1, 0}, 1, 2, 32, 1, shape, 0, 0};
  any arguments[2] = {{7, 0, {.p = &x}}, {7, 0, {.p = &y}}}, result = {0, 0, {0}};
  int status = __tvm_ffi_halved_exp(0, arguments, 2, &result);
  for (int i = 0; i < 64; i++) worst = fmax(worst, fabs(out[i] / (0.5 * exp(in[i])) - 1));
  printf("%d %d\n", status, worst < 1e-6);
  return 0;
}
"""


def kernel() -> Any:
    import tvm
    from tvm import te

    source = te.placeholder((64,), "float32", name="source")
    result = te.compute((64,), lambda i: te.exp(source[i]) * tvm.tirx.const(0.5, "float32"))
    function = te.create_prim_func([source, result])
    return tvm.IRModule({"halved_exp": function.with_attr("global_symbol", "halved_exp")})


def case(name: str) -> Any:
    target = load_target(name)
    if target.runs_here():
        return name
    if not target.qemu:
        return pytest.param(name, marks=pytest.mark.skip(f"qemu cannot run {name}"))
    return pytest.param(name, marks=pytest.mark.needs(target.qemu))


@pytest.mark.parametrize("name", [case(name) for name in target_names()])
def test_llvm_and_zig_agree(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import tvm

    target = load_target(name)
    with tvm.transform.PassContext(config={"tirx.disable_assert": True}):
        built = tvm.tirx.build(kernel(), target=llvm_target(target))
    built.write_to_file(str(tmp_path / "kernel.o"))
    # LLVM only warns about a CPU or a feature that it does not know.
    assert capfd.readouterr().err == ""
    (tmp_path / "caller.c").write_text(CALLER)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target.zig_static_triple]
    # For the architecture's baseline: zig would build a libc for every -mcpu, minutes of work.
    command += ["-O1", "-static", "caller.c", "kernel.o", "-lm"]
    subprocess.run([*command, "-o", "program"], cwd=tmp_path, check=True)
    run = [str(tmp_path / "program")]
    if not target.runs_here():
        run = [target.qemu, "-cpu", target.qemu_cpu, *run]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "0 1\n"), done.stderr
