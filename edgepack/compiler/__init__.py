"""ONNX to native kernels, a static plan and a weights blob: the only package that imports TVM.

frontend    ONNX → Relax
lower       Relax → NHWC, fused, one PrimFunc a kernel
schedules   loop order of each kernel for the target
plan        arena, calls and constants, all fixed
codegen     object file and C tables
report      which rule took each kernel, and what it costs
peak        a kernel that measures what the core could do
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.artefacts import CompiledModel, ImportedModel

if TYPE_CHECKING:
    from edgepack.targets import Target

__all__ = ["compile_model", "is_supported", "versions"]


def compile_model(imported: ImportedModel, target: Target) -> CompiledModel:
    """Compile ``imported`` ahead of time for ``target``; the same input gives the same bytes.

    Raises ModelError for operators that have no lowering (all are named) and CompileError for a
    failure after that.
    """
    from edgepack.compiler import codegen, frontend, lower, plan, report

    module = lower.lower(frontend.to_relax(imported.model, target), target)
    static = plan.make_plan(module, imported.inputs, imported.outputs)
    return CompiledModel(
        target=target,
        inputs=imported.inputs,
        outputs=imported.outputs,
        kernels=codegen.emit_kernels(module, target),
        plan_source=codegen.emit_plan(static, imported.inputs, imported.outputs, target),
        weights=static.weights,
        arena_bytes=static.arena_bytes,
        calls=report.kernel_infos(static, module),
    )


def is_supported(domain: str, operator: str) -> bool:
    """Whether nodes of an ONNX operator can be compiled; ``domain`` is empty for ONNX's own."""
    from edgepack.compiler import frontend

    return frontend.is_supported(domain, operator)


def versions() -> dict[str, str]:
    """Versions of the compiler's own parts, for the package's metadata."""
    from importlib.metadata import version

    import tvm

    llvm = tvm.get_global_func("target.llvm_version_major", allow_missing=True)
    return {"tvm": version("apache-tvm"), "llvm": str(llvm()) if llvm else "unknown"}
