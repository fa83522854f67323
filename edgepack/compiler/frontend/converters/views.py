"""The same elements in other axes: Reshape and its kin, transpositions, and blocks of depth and space.

Shapes are those that ONNX infers for the output, whatever the operands say them with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgepack.compiler.frontend.converters.values import reshaped
from edgepack.compiler.frontend.node import Converter, Node, constant, constant_of

DOMAIN = ""


def _reshape(node: Node) -> Any:
    return reshaped(node.inputs[0], node.outputs[0].shape)


def _transpose(node: Node) -> Any:
    rank = len(node.shape())
    return permuted(node.inputs[0], node.attributes.get("perm", list(range(rank))[::-1]))


def permuted(data: Any, axes: Sequence[int]) -> Any:
    """``data`` with its axes in the order ``axes``; a constant becomes another constant."""
    from tvm import relax

    if list(axes) == list(range(len(axes))):
        return data
    value = constant_of(data)
    if value is not None:
        return constant(value.transpose(axes))
    return relax.op.permute_dims(data, list(axes))


def _expand(node: Node) -> Any:
    from tvm import relax

    shape = node.outputs[0].shape
    return node.inputs[0] if node.shape() == shape else relax.op.broadcast_to(node.inputs[0], shape)


def _tile(node: Node) -> Any:
    """Each axis with an axis of repetitions before it, along which the elements are repeated."""
    from tvm import relax

    shape, result = node.shape(), node.outputs[0].shape
    if shape == result:
        return node.inputs[0]
    counts = [new // old for old, new in zip(shape, result, strict=True)]
    spread, repeated = [], []
    for extent, count in zip(shape, counts, strict=True):
        spread += [extent] if count == 1 else [1, extent]
        repeated += [extent] if count == 1 else [count, extent]
    data = node.emit(reshaped(node.inputs[0], spread))
    return reshaped(node.emit(relax.op.broadcast_to(data, repeated)), result)


def _depth_to_space(node: Node) -> Any:
    """Blocks of channels become blocks of places; the block's axes come first unless ``mode`` is CRD."""
    batch, channels, height, width = node.shape()
    size = int(node.attributes["blocksize"])
    rest = channels // (size * size)
    if node.attributes.get("mode", "DCR") == "CRD":
        blocks, order = [batch, rest, size, size, height, width], [0, 1, 4, 2, 5, 3]
    else:
        blocks, order = [batch, size, size, rest, height, width], [0, 3, 4, 1, 5, 2]
    return _rearranged(node, blocks, order)


def _space_to_depth(node: Node) -> Any:
    batch, channels, height, width = node.shape()
    size = int(node.attributes["blocksize"])
    blocks = [batch, channels, height // size, size, width // size, size]
    crd = node.attributes.get("mode", "DCR") == "CRD"
    return _rearranged(node, blocks, [0, 1, 3, 5, 2, 4] if crd else [0, 3, 5, 1, 2, 4])


def _rearranged(node: Node, blocks: Sequence[int], order: Sequence[int]) -> Any:
    data = node.emit(reshaped(node.inputs[0], blocks))
    moved = node.emit(permuted(data, order))
    return reshaped(moved, node.outputs[0].shape)


CONVERTERS: dict[str, Converter] = {
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _reshape),
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "SpaceToDepth": _space_to_depth,
    "Tile": _tile,
    "Transpose": _transpose,
}
