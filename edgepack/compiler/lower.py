"""Relax to a flat list of kernel calls: layout, legalisation, fusion, destination passing.

After ``lower``, ``main`` holds only ``builtin.alloc_tensor``, views by ``reshape`` and calls of
PrimFuncs, which have been scheduled for the target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgepack.compiler import (
    attention,
    bounds,
    concat,
    constants,
    layout,
    operators,
    patterns,
    schedules,
    separable,
)
from edgepack.compiler.foreign import reason
from edgepack.errors import CompileError

if TYPE_CHECKING:
    from tvm.ir import IRModule

    from edgepack.targets import Target


def llvm_target(target: Target) -> Any:
    """TVM's target for a profile; ``mabi`` and ``mfloat-abi`` must match what zig links with."""
    import tvm

    config: dict[str, Any] = {
        "kind": "llvm",
        "mtriple": target.triple,
        "mcpu": target.cpu,
        "mattr": list(target.features),
    }
    if target.float_abi == "hard":
        config["mfloat-abi"] = "hard"
    if target.arch == "riscv64":
        config["mabi"] = "lp64d"
    return tvm.target.Target(config)


_MOST_FUSED = 64
"""Operators of one kernel: the compiler's walks go as deep as an expression that is made of them all."""


def lower(module: IRModule, target: Target) -> IRModule:
    """Lower a Relax module whose shapes are all static. Raises CompileError."""
    import tvm
    from tvm import relax

    transform = relax.transform
    try:
        module = transform.FoldConstant()(constants.fold(module))
        module = attention.in_blocks(patterns.recognise(module), target)
        module = layout.to_channels_last(module)
        module = transform.FoldConstant()(constants.fold(module))
        fusion = {"relax.FuseOps.max_depth": _MOST_FUSED}
        with llvm_target(target), tvm.transform.PassContext(config=fusion):
            module = tvm.transform.Sequential(
                [
                    transform.LegalizeOps(bounds.legalizations() | operators.legalizations()),
                    transform.AnnotateTIROpPattern(),
                    transform.FoldConstant(),
                    transform.FuseOps(),
                ]
            )(module)
            module = separable.join(module, target)
            module = tvm.transform.Sequential(
                [
                    transform.FuseTIR(),
                    transform.RewriteDataflowReshape(),
                    transform.DeadCodeElimination(),
                ]
            )(module)
            module = schedules.apply(concat.write_in_place(module), target)
            return tvm.transform.Sequential(
                [
                    transform.ToNonDataflow(),
                    transform.RemovePurityChecking(),
                    transform.CallTIRRewrite(),
                    transform.AttachGlobalSymbol(),
                ]
            )(module)
    except Exception as error:  # TVM's passes raise anything, from KeyError to InternalError
        raise CompileError(
            f"the model could not be lowered for {target.name}: {reason(error)}",
            "see which operators it has with `edgepack inspect MODEL`; a simpler export may help",
        ) from error
