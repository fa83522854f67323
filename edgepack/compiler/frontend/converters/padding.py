"""Pad: a constant, the edge, a mirror or a repetition around the data; a negative width crops it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgepack.compiler.frontend.converters.values import filled
from edgepack.compiler.frontend.node import (
    Converter,
    Node,
    constant,
    constant_of,
    dtype_of,
    shape_of,
)

DOMAIN = ""

_RELAX_MODES = {"constant": "constant", "edge": "replicate", "reflect": "reflect"}


def _pad(node: Node) -> Any:
    shape = node.shape()
    widths = node.attributes.get("pads") or node.attributes.get("paddings")
    if node.has(1):
        widths = node.known(1, "pads").reshape(-1)
    assert widths is not None
    axes = range(len(shape)) if not node.has(3) else node.known(3, "axes").reshape(-1)
    around = [(0, 0)] * len(shape)
    for index, axis in enumerate(axes):
        around[int(axis)] = (int(widths[index]), int(widths[index + len(axes)]))
    mode = str(node.attributes.get("mode", "constant"))
    value = node.optional(2)
    if value is None:
        value = constant(node.attributes.get("value", 0), node.dtype())
    return padded(node, node.inputs[0], around, mode, value)


def padded(node: Node, data: Any, widths: Sequence[tuple[int, int]], mode: str, value: Any) -> Any:
    """``data`` with ``widths`` before and after each axis; ``value`` is for the mode "constant"."""
    from edgepack.compiler.frontend.converters.slicing import sliced

    cropped = {
        axis: (max(-before, 0), extent - max(-after, 0), 1)
        for axis, ((before, after), extent) in enumerate(zip(widths, shape_of(data), strict=True))
        if before < 0 or after < 0
    }
    data = sliced(node, data, cropped) if cropped else data
    around = [(max(before, 0), max(after, 0)) for before, after in widths]
    if all(pair == (0, 0) for pair in around):
        return data
    if 0 in shape_of(data):
        shape = [n + sum(pair) for n, pair in zip(shape_of(data), around, strict=True)]
        return filled(shape, _number(value), dtype_of(data))
    if mode == "constant":
        return _with_constant(node, data, around, value)
    return _with_data(node, data, around, mode)


def _number(value: Any) -> float:
    known = constant_of(value)
    return 0 if known is None else known.reshape(-1)[0].item()


def _with_constant(node: Node, data: Any, widths: Sequence[tuple[int, int]], value: Any) -> Any:
    from tvm import relax

    known = constant_of(value)
    flat = [width for pair in widths for width in pair]
    if known is not None and dtype_of(data).startswith("float"):
        return relax.op.nn.pad(data, flat, "constant", float(known.reshape(-1)[0]))
    shape = [n + sum(pair) for n, pair in zip(shape_of(data), widths, strict=True)]

    def kernel(source: Any, around: Any) -> Any:
        from tvm import te, tirx

        def element(*at: Any) -> Any:
            own = [place - before for place, (before, _) in zip(at, widths, strict=True)]
            inside = [
                test
                for place, extent, (before, after) in zip(own, source.shape, widths, strict=True)
                for test in ([place >= 0] if before else []) + ([place < extent] if after else [])
            ]
            return tirx.if_then_else(
                tirx.all(*inside), source(*own), around(*[0] * len(around.shape))
            )

        return te.compute(shape, element)

    return node.compute(kernel, data, value)


def _with_data(node: Node, data: Any, widths: Sequence[tuple[int, int]], mode: str) -> Any:
    """Values of the data itself; Relax mirrors no further than the data goes."""
    from tvm import relax

    extents = shape_of(data)
    near = all(
        max(pair) < extent or pair == (0, 0) for pair, extent in zip(widths, extents, strict=True)
    )
    if mode == "edge" or (mode == "reflect" and near):
        flat = [width for pair in widths for width in pair]
        return relax.op.nn.pad(data, flat, _RELAX_MODES[mode], 0.0)
    shape = [n + sum(pair) for n, pair in zip(extents, widths, strict=True)]

    def kernel(source: Any) -> Any:
        from tvm import te

        def element(*at: Any) -> Any:
            return source(
                *(
                    _source(place - before, extent, mode) if (before, after) != (0, 0) else place
                    for place, (before, after), extent in zip(at, widths, extents, strict=True)
                )
            )

        return te.compute(shape, element)

    return node.compute(kernel, data)


def _source(place: Any, extent: int, mode: str) -> Any:
    """Where an element at ``place``, counted from the data's first, comes from."""
    from tvm import tirx

    if mode == "wrap" or extent == 1:
        return tirx.floormod(place, extent)
    period = 2 * (extent - 1)
    turn = tirx.floormod(place, period)
    return tirx.min(turn, period - turn)


CONVERTERS: dict[str, Converter] = {"Pad": _pad}
