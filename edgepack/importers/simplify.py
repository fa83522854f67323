"""onnxsim and ONNX's shape inference, with their failures turned into something to go on from."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgepack.errors import ModelError
from edgepack.importers.functions import inline_functions
from edgepack.importers.onnx_file import one_line

if TYPE_CHECKING:
    import onnx

_IR_VERSION = 8
"""At least this: before 4 an initializer had to be an input too; what is newer stays."""

_SKIPPED = ["eliminate_if_with_const_cond"]
"""It puts nodes before those they need where branches are nested; passes/branches.py does it."""


def normalise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Inline functions and drop what does not bear on the model's numbers."""
    model.ir_version = max(model.ir_version, _IR_VERSION)
    del model.metadata_props[:]
    del model.training_info[:]
    return inline_functions(model)


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
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=strict, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"the shapes of the model do not fit together: {one_line(error)}",
            "Check the shapes given with --input",
        ) from error
