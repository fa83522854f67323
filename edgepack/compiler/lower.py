"""Relax to a flat list of kernel calls: layout, legalisation, fusion, destination passing.

After ``lower``, ``main`` holds only ``builtin.alloc_tensor``, views by ``reshape`` and calls of
PrimFuncs, which have been scheduled for the target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgepack.compiler import bounds, schedules
from edgepack.compiler.foreign import reason
from edgepack.errors import CompileError

if TYPE_CHECKING:
    from tvm.ir import IRModule

    from edgepack.targets import Target

NHWC = {
    "relax.nn.conv2d": ["NHWC", "HWIO"],
    # TVM has a lowering of the transposed convolution for this layout alone.
    "relax.nn.conv2d_transpose": ["NCHW", "IOHW"],
}


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


def lower(module: IRModule, target: Target, *, warn: Callable[[str], None]) -> IRModule:
    """Lower a Relax module whose shapes are all static. Raises CompileError."""
    import tvm
    from tvm import relax

    transform = relax.transform
    try:
        module = transform.FoldConstant()(module)
        module = _to_nhwc(module, warn)
        with llvm_target(target):
            module = tvm.transform.Sequential(
                [
                    transform.FoldConstant(),
                    transform.LegalizeOps(bounds.legalizations()),
                    transform.AnnotateTIROpPattern(),
                    transform.FoldConstant(),
                    transform.FuseOps(),
                    transform.FuseTIR(),
                    transform.DeadCodeElimination(),
                ]
            )(module)
            module = schedules.apply(module, target)
            return tvm.transform.Sequential(
                [
                    transform.RewriteDataflowReshape(),
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


def _to_nhwc(module: IRModule, warn: Callable[[str], None]) -> IRModule:
    """NHWC end to end where TVM's pass manages it; it fails on some rank-3 graphs without one."""
    from tvm import relax

    operators = {name.removeprefix("relax.") for name in _called_operators(module)}
    if not any(name.startswith("nn.conv2d") for name in operators):
        return module
    try:
        return relax.transform.ConvertLayout(NHWC)(module)
    except Exception as error:  # as above
        warn(f"kept in NCHW, which is slower: the layout pass failed ({reason(error)})")
        return module


def _called_operators(module: IRModule) -> set[str]:
    from tvm import ir, relax

    names: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, ir.Call) and isinstance(node.op, ir.Op):
            names.add(node.op.name)

    relax.analysis.post_order_visit(module["main"], visit)
    return names
