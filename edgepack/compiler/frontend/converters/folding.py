"""Col2Im: blocks of columns added up where they lay in the image they were cut from."""

from __future__ import annotations

import math
from typing import Any

from edgepack.compiler.frontend.converters.values import cast, widened
from edgepack.compiler.frontend.node import Converter, Node

DOMAIN = ""


def _col2im(node: Node) -> Any:
    image = [int(extent) for extent in node.known(1, "image shape").reshape(-1)]
    block = [int(extent) for extent in node.known(2, "block shape").reshape(-1)]
    rank = len(image)
    strides, dilations = (
        list(node.attributes.get(name, [1] * rank)) for name in ("strides", "dilations")
    )
    pads = list(node.attributes.get("pads", [0] * (2 * rank)))
    counts = [
        (image[i] + pads[i] + pads[rank + i] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1
        for i in range(rank)
    ]
    batch, channels, _ = node.shape()
    shape = (batch, channels // math.prod(block), *image)

    def kernel(columns: Any) -> Any:
        """A gather: an image's element has what each tap of a block that covers it holds for it."""
        from tvm import te, tirx

        taps = [te.reduce_axis((0, extent), f"r{i}") for i, extent in enumerate(block)]

        def element(n: Any, c: Any, *at: Any) -> Any:
            offsets = [at[i] + pads[i] - taps[i] * dilations[i] for i in range(rank)]
            blocks = [tirx.floordiv(offsets[i], strides[i]) for i in range(rank)]
            covered = [
                test
                for i in range(rank)
                for test in (
                    blocks[i] >= 0,
                    blocks[i] < counts[i],
                    tirx.floormod(offsets[i], strides[i]) == 0,
                )
            ]
            row, column = c, 0
            for i in range(rank):
                row, column = row * block[i] + taps[i], column * counts[i] + blocks[i]
            zero = tirx.const(0, columns.dtype)
            value = tirx.if_then_else(tirx.all(*covered), columns(n, row, column), zero)
            return te.sum(value, axis=taps)

        return te.compute(shape, element)

    return cast(node.compute(kernel, widened(node, node.inputs[0])), node.dtype())


CONVERTERS: dict[str, Converter] = {"Col2Im": _col2im}
