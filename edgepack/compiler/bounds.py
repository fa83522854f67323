"""Lookups and scatters whose indices come from a request: kept inside their tensor.

TVM's own lowerings read and write wherever an index points. ONNX leaves an index out of range
undefined; here it means the nearest entry there is, so that no request reaches other memory or
stops the worker. Negative indices count from the end, as in ONNX: where TVM's importer has made
them positive already, the lower bound is 0, else minus the extent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Legalization = Callable[[Any, Any], Any]


def legalizations() -> dict[str, Legalization]:
    """What ``relax.transform.LegalizeOps`` takes in place of TVM's own."""
    return {
        "relax.take": _take,
        "relax.gather_elements": _gather_elements,
        "relax.gather_nd": _gather_nd,
        "relax.scatter_elements": _scatter_elements,
        "relax.scatter_nd": _scatter_nd,
    }


def _take(builder: Any, call: Any) -> Any:
    from tvm import topi

    data, indices = call.args
    return builder.call_te(topi.take, data, indices, call.attrs.axis, mode="clip")


def _gather_elements(builder: Any, call: Any) -> Any:
    from tvm import topi

    axis = int(call.attrs.axis)

    def gather_elements(data: Any, indices: Any) -> Any:
        return topi.gather(data, axis, topi.clip(indices, 0, data.shape[axis] - 1))

    return builder.call_te(gather_elements, *call.args)


def _gather_nd(builder: Any, call: Any) -> Any:
    from tvm import topi

    batch = int(call.attrs.batch_dims)

    def gather_nd(data: Any, indices: Any) -> Any:
        inside = _inside(indices, data.shape[batch:])
        return topi.gather_nd(data, _coordinates_first(inside), batch)

    return builder.call_te(gather_nd, *call.args)


def _scatter_elements(builder: Any, call: Any) -> Any:
    from tvm import topi

    axis = int(call.attrs.axis)

    def scatter_elements(data: Any, indices: Any, updates: Any) -> Any:
        extent = data.shape[axis]
        inside = topi.clip(indices, -extent, extent - 1)
        return topi.scatter_elements(data, inside, updates, axis, call.attrs.reduction)

    return builder.call_te(scatter_elements, *call.args)


def _scatter_nd(builder: Any, call: Any) -> Any:
    from tvm import topi

    def scatter_nd(data: Any, indices: Any, updates: Any) -> Any:
        inside = _inside(indices, data.shape)
        return topi.scatter_nd(data, _coordinates_first(inside), updates, call.attrs.reduction)

    return builder.call_te(scatter_nd, *call.args)


def _coordinates_first(indices: Any) -> Any:
    """ONNX has a position's coordinates along the last axis, TOPI along the first."""
    from tvm import topi

    last = len(indices.shape) - 1
    return topi.transpose(indices, [last, *range(last)])


def _inside(indices: Any, extents: Sequence[Any]) -> Any:
    """``indices`` [..., k] with coordinate j brought into 0 to extents[j] - 1."""
    from tvm import te, tirx

    def bounded(*position: Any) -> Any:
        limit = tirx.const(int(extents[0]) - 1, indices.dtype)
        for coordinate in range(1, int(indices.shape[-1])):
            other = tirx.const(int(extents[coordinate]) - 1, indices.dtype)
            limit = tirx.Select(position[-1] == coordinate, other, limit)
        zero = tirx.const(0, indices.dtype)
        return tirx.min(tirx.max(indices(*position), zero), limit)

    return te.compute(indices.shape, bounded, name="inside")
