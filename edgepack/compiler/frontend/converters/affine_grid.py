"""AffineGrid: where each element of an image is taken from under an affine map."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgepack.compiler.frontend.converters.values import cast, widened
from edgepack.compiler.frontend.node import Converter, Node, constant, dtype_of

if TYPE_CHECKING:
    import numpy as np

DOMAIN = ""


def _affine_grid(node: Node) -> Any:
    """The grid of plain places, a constant [count, axes + 1], by each map's transpose."""
    from tvm import relax

    _, *extents, _ = node.outputs[0].shape
    corners = bool(node.attributes.get("align_corners", 0))
    axes = _grid([_places(extent, corners=corners) for extent in extents])
    theta = widened(node, node.inputs[0])
    maps = node.emit(relax.op.permute_dims(theta, [0, 2, 1]))
    grid = node.emit(relax.op.matmul(constant(axes, dtype_of(theta)), maps))
    return cast(node.emit(relax.op.reshape(grid, node.outputs[0].shape)), node.dtype())


def _places(extent: int, *, corners: bool) -> np.ndarray:
    """Centres of ``extent`` elements between -1 and 1; with ``corners`` the outer ones are there."""
    import numpy as np

    if corners:
        return np.linspace(-1, 1, extent)
    return (2 * np.arange(extent) + 1) / extent - 1


def _grid(places: list[np.ndarray]) -> np.ndarray:
    """[count, axes + 1]: coordinates, that of the last axis first, and 1."""
    import numpy as np

    along = np.meshgrid(*places, indexing="ij")[::-1]
    count = math.prod(len(p) for p in places)
    return np.stack([*(a.reshape(count) for a in along), np.ones(count)], -1)


CONVERTERS: dict[str, Converter] = {"AffineGrid": _affine_grid}
