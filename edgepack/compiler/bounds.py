"""Lookups whose indices come from a request: kept inside the table.

TVM's own lowering reads wherever the index points. ONNX leaves an index out of range undefined; here
it means the first or the last entry, so that no request reads other memory or stops the worker.
Negative indices have been made positive by the importer, as ONNX means them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def legalizations() -> dict[str, Callable[[Any, Any], Any]]:
    """What ``relax.transform.LegalizeOps`` takes in place of TVM's own."""
    return {"relax.take": _take, "relax.gather_elements": _gather_elements}


def _take(builder: Any, call: Any) -> Any:
    from tvm import topi

    data, indices = call.args
    return builder.call_te(topi.take, data, indices, call.attrs.axis, mode="clip")


def _gather_elements(builder: Any, call: Any) -> Any:
    from tvm import topi

    axis = int(call.attrs.axis)

    def gather(data: Any, indices: Any) -> Any:
        return topi.gather(data, axis, topi.clip(indices, 0, data.shape[axis] - 1))

    return builder.call_te(gather, *call.args, primfunc_name_hint="gather_elements")
