"""A TIR kernel with a parallel loop, through code generation, linker and worker, on any threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack import toolchain
from edgepack.artefacts import CompiledModel, KernelInfo, TensorSpec
from edgepack.compiler import codegen, peak
from edgepack.compiler.plan import KernelCall, Place, Plan, Slot
from edgepack.errors import DeviceError
from edgepack.targets import Target, detect_host, load_target
from edgepack.worker import Worker, emulator_for

ROWS, COLUMNS = 67, 512
X = TensorSpec(name="x", dtype="float32", shape=(ROWS, COLUMNS))
Y = TensorSpec(name="y", dtype="float32", shape=(ROWS, COLUMNS))


def row_function() -> Any:
    """y[i, j] = x[i, j] * 3 - i, with the rows shared by threads."""
    import tvm
    from tvm import tirx

    x = tirx.decl_buffer(X.shape, "float32", name="x")
    y = tirx.decl_buffer(Y.shape, "float32", name="y")
    i, j = tirx.Var("i", "int64"), tirx.Var("j", "int64")
    value = x[i, j] * tirx.const(3, "float32") - tirx.Cast("float32", i)
    columns = tirx.For(
        j, tirx.IntImm("int64", 0), tirx.IntImm("int64", COLUMNS), tirx.ForKind.SERIAL,
        tirx.BufferStore(y, value, [i, j]),
    )  # fmt: skip
    rows = tirx.For(
        i, tirx.IntImm("int64", 0), tirx.IntImm("int64", ROWS), tirx.ForKind.PARALLEL, columns
    )
    attributes = {"global_symbol": "rows", "tirx.noalias": True}
    return tvm.IRModule({"rows": tirx.PrimFunc([x, y], rows).with_attr(attributes)})


def linked(target: Target) -> CompiledModel:
    slots = (Slot(place=Place.INPUT, offset=0, spec=X), Slot(place=Place.OUTPUT, offset=0, spec=Y))
    calls = (KernelCall(symbol="rows", args=(0, 1)),)
    plan = Plan(slots=slots, calls=calls, arena_bytes=0, weights=b"")
    return CompiledModel(
        target=target,
        inputs=(X,),
        outputs=(Y,),
        kernels=codegen.emit_kernels(row_function(), target),
        plan_source=codegen.emit_plan(plan, (X,), (Y,), target),
        weights=b"",
        arena_bytes=0,
        calls=(KernelInfo(name="rows", rule="generic", flops=0, nbytes=2 * X.nbytes),),
    )


def worker(folder: Path, model: CompiledModel, threads: int | None) -> Worker:
    executable, weights = folder / "worker", folder / "weights"
    if not executable.exists():
        executable.write_bytes(toolchain.link_worker(model).worker)
        executable.chmod(0o700)
        weights.write_bytes(b"")
    emulator = emulator_for(model.target)
    return Worker(executable, weights, model.inputs, model.outputs, emulator, threads)


@pytest.mark.parametrize("name", ["host", "raspberrypi4", "armv7-neon", "riscv64-generic"])
@pytest.mark.needs("qemu-aarch64-static", "qemu-arm-static", "qemu-riscv64-static")
def test_a_parallel_loop_gives_the_same_bytes_on_any_number_of_threads(
    name: str, tmp_path: Path
) -> None:
    model = linked(load_target(name))
    x = np.random.default_rng(5).standard_normal(X.shape).astype(np.float32)
    wanted = x * np.float32(3) - np.arange(ROWS, dtype=np.float32)[:, None]
    answers = []
    for threads in (None, 1, 2, 3, 8):
        with worker(tmp_path, model, threads) as running:
            answers += [running.infer({"x": x})["y"] for _ in range(3)]
            assert len(running.observe(1)) == 1
    np.testing.assert_allclose(answers[0], wanted, rtol=1e-5, atol=1e-5)
    assert len({answer.tobytes() for answer in answers}) == 1


def test_a_worker_uses_the_profiles_cores_but_no_more_than_it_may_run_on(tmp_path: Path) -> None:
    import os
    from dataclasses import replace

    allowed = len(os.sched_getaffinity(0))
    for cores in (1, 2, 64):
        folder = tmp_path / str(cores)
        folder.mkdir()
        model = linked(replace(detect_host(), cores=cores))
        with worker(folder, model, None) as running:
            threads = list(Path(f"/proc/{running.pid}/task").iterdir())
            assert len(threads) == min(cores, allowed)
        with worker(folder, model, 5) as running:
            assert len(list(Path(f"/proc/{running.pid}/task").iterdir())) == 5


@pytest.mark.parametrize("threads", [0, 65])
def test_a_number_of_threads_that_no_worker_has_is_refused(threads: int, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="usage"):
        worker(tmp_path, linked(detect_host()), threads)


def test_the_peak_kernel_is_measured_small_and_plausible(tmp_path: Path) -> None:
    target = detect_host()
    model = linked(target)
    with worker(tmp_path, model, 1) as running:
        reached = [running.peak_flops() / 1e9 for _ in range(3)]
    # Between one multiply-add in two cycles at 1 GHz and three in a cycle at 6 GHz.
    assert max(reached) < 3 * 2 * target.vector_bits / 32 * 6
    assert max(reached) > 0.5 * 2 * target.vector_bits / 32 * 1
    assert peak.Peak.of(target).values <= 2048
