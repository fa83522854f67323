"""onnxsim and ONNX's shape inference, with their failures turned into something to go on from."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgepack.errors import ModelError
from edgepack.importers import classical_shapes
from edgepack.importers.functions import inline_functions
from edgepack.importers.graphs import all_graphs
from edgepack.importers.onnx_file import one_line

if TYPE_CHECKING:
    import onnx

_IR_VERSION = 8
"""At least this: before 4 an initializer had to be an input too; what is newer stays."""

_INTEGER = 2
"""AttributeProto.INT."""
_SKIPPED = ["eliminate_if_with_const_cond", "fuse_attention", "fuse_qkv"]
"""The first puts nodes before those they need where branches are nested; passes/branches.py does it.
The second makes an operator of another domain, which this compiler does not have. The third joins the
three products before attention, which saves nothing here and must then be split: 0.8 ms for 1500 tokens."""

_STAND_INS = {"GroupNormalization": "InstanceNormalization"}
"""Operators whose shape ONNX does not infer, and those with the same inputs whose shape it does."""


def normalise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Inline functions and drop what does not bear on the model's numbers."""
    model.ir_version = max(model.ir_version, _IR_VERSION)
    del model.metadata_props[:]
    del model.training_info[:]
    model = inline_functions(model)
    for node in _nodes(model):
        # ONNX infers its shape by its definition, in which the attribute's default is missing.
        if node.op_type == "MeanVarianceNormalization" and not node.attribute:
            node.attribute.append(_default_axes())
        # Here inference assumes another default than the operator has.
        if node.op_type == "STFT" and not any(a.name == "onesided" for a in node.attribute):
            node.attribute.add(name="onesided", type=_INTEGER, i=1)
    return model


def _default_axes() -> onnx.AttributeProto:
    import onnx

    return onnx.helper.make_attribute("axes", [0, 2, 3])


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and redundant operators.

    Where onnxsim fails on a valid model, folding is tried alone, and then the model is left as it
    is: whatever is then too complicated gets its own error, with the node's name.
    """
    import onnx
    import onnxsim

    for options in ({"skipped_optimizers": list(_SKIPPED)}, {"perform_optimization": False}):
        try:
            with _silenced():
                simplified: onnx.ModelProto = onnxsim.simplify(model, **options)[0]
        except (RuntimeError, ValueError, IndexError, onnx.checker.ValidationError):
            continue
        return simplified
    return model


@contextmanager
def _silenced() -> Iterator[None]:
    """Close the mouth of native code, which prints whole tracebacks for a node it cannot fold."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(fd) for fd in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        for fd, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, fd)
            os.close(copy)
        os.close(nowhere)


def infer_shapes(model: onnx.ModelProto, *, strict: bool = False) -> onnx.ModelProto:
    """Infer every type and shape anew.

    ``strict`` raises ModelError where the model contradicts itself. Without it such values have no
    shape, as in a branch that is never taken.
    """
    import onnx

    del model.graph.value_info[:]
    operators = [node.op_type for node in _nodes(model)]
    _rename(model, [_STAND_INS.get(operator, operator) for operator in operators])
    try:
        inferred = classical_shapes.infer(model, strict=strict)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"the shapes of the model do not fit together: {one_line(error)}",
            "Check the shapes given with --input",
        ) from error
    finally:
        _rename(model, operators)
    _rename(inferred, operators)
    return inferred


def _rename(model: onnx.ModelProto, operators: list[str]) -> None:
    for node, operator in zip(_nodes(model), operators, strict=True):
        if node.op_type != operator:
            node.op_type = operator


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in all_graphs(model.graph):
        yield from graph.node
