"""Convolutions of stride 1 with fewer products: Winograd's minimal filtering (cook_toom.py).

Output is cut into tiles of a few pixels. Per strip of tiles, small enough for the second cache level:

    for tiles:  for vectors of channels:    V[product] = Bt d B       from the tile's input pixels
    for products:  M[product] = V[product] * U[product]               a matrix product (matmul.py)
    for tiles:  for vectors of results:     At M A, epilogue, store

U = G g Gt is made at compile time. F(4x4, 3x3) needs 36 products where the plain convolution needs
144, F(2x2, 3x3) 16 instead of 36, F(2, 5) 6 instead of 10; what is saved must pay for the transforms
and for reading U, which is larger than the weights. An estimate of both decides. Where the result is
rounded next, as that of a quantised layer, only those will do whose factors are binary fractions:
F(2x2, 3x3) of whole numbers is exact, of thirds it would not be. Strips are shared by threads, each
with its own V and M. Tiles at the edges read zeros outside the image, and store
only what lies inside the output; all others do neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from edgepack.compiler.cook_toom import Filtering, filtering
from edgepack.compiler.schedules.expressions import calls
from edgepack.compiler.schedules.geometry import Geometry, geometry_of
from edgepack.compiler.schedules.groups import Group
from edgepack.compiler.schedules.nest import Nest, Request
from edgepack.compiler.schedules.winograd_form import Form
from edgepack.compiler.schedules.winograd_nest import Writer

if TYPE_CHECKING:
    from edgepack.targets import Target

_MOST_INPUTS = 6
"""Longer transforms lose too many digits of float32."""
_ROUNDING = ("tirx.nearbyint", "tirx.round")
_GAIN = 0.85
"""Of the plain convolution's time, at most: an estimate that is this close is not worth the digits."""
_BYTES_PER_CYCLE = 1.5
"""What one core reads from memory in the time of one vector multiply-add: 11 GB/s where it makes two a
cycle at 3.7 GHz."""


def schedule(request: Request) -> Nest | None:
    """Take an annotated float convolution of stride 1 where the estimate says that it is faster."""
    main = request.group.main
    if main is None or request.prefix or str(main.buffer.dtype) != "float32":
        return None
    geometry = geometry_of(main)
    if geometry is None or not geometry.channels_last or geometry.groups != 1:
        return None
    if geometry.strides != (1, 1) or geometry.dilation != (1, 1):
        return None
    if not request.memory.kernel.is_constant(geometry.weights):
        return None
    exact = _is_rounded(request.group)
    form = choose(geometry, request.lanes, request.target, exact=exact)
    if form is None:
        return None
    writer = Writer(request, geometry, form)
    return Nest(
        rule=f"winograd {form.rows.outputs}x{form.columns.outputs}",
        statements=writer.nest(),
        packings=(writer.weights.packing,),
        workspaces=(writer.inputs, writer.products),
    )


def _is_rounded(group: Group) -> bool:
    """Whether the epilogue rounds: the last bit of a sum can then become a whole number."""
    return any(calls(stage.value, _ROUNDING) for stage in (group.result, *group.inlined))


def choose(geometry: Geometry, lanes: int, target: Target, *, exact: bool = False) -> Form | None:
    """The fastest form by estimate, of those that keep whole numbers ``exact``; None where the plain
    convolution is faster.
    """
    vectors = -(-geometry.out_channels // lanes)
    pixels = geometry.batch * geometry.out_height * geometry.out_width
    plain = float(geometry.depth * vectors * pixels)
    plain += _beyond_cache(4 * geometry.depth * geometry.out_channels, target)
    best, least = None, _GAIN * plain
    for rows in _forms(geometry.kernel[0]):
        for columns in _forms(geometry.kernel[1]):
            if rows.outputs == columns.outputs == 1:
                continue
            if exact and not (rows.is_binary and columns.is_binary):
                continue
            form = Form(rows=rows, columns=columns)
            cost = _cost(geometry, form, lanes, target)
            if cost < least:
                best, least = form, cost
    return best


def _forms(taps: int) -> list[Filtering]:
    if taps == 1:
        return [filtering(1, 1)]
    return [filtering(outputs, taps) for outputs in (2, 4) if outputs + taps - 1 <= _MOST_INPUTS]


def _cost(geometry: Geometry, form: Form, lanes: int, target: Target) -> float:
    """Vector multiply-adds, and what takes as long."""
    tiles = (
        geometry.batch
        * -(-geometry.out_height // form.rows.outputs)
        * -(-geometry.out_width // form.columns.outputs)
    )
    inputs, results = -(-geometry.channels // lanes), -(-geometry.out_channels // lanes)
    product = form.products * geometry.channels * results
    forward = (
        _terms(form.rows.bt) * form.columns.inputs + _terms(form.columns.bt) * form.rows.inputs
    )
    back = _terms(form.rows.at) * form.columns.inputs + _terms(form.columns.at) * form.rows.outputs
    moved = 2 * form.products
    cost = float(tiles * (product + inputs * (forward + moved) + results * (back + moved)))
    return cost + _beyond_cache(
        4 * form.products * geometry.channels * geometry.out_channels, target
    )


def _terms(matrix: Sequence[Sequence[Fraction]]) -> int:
    return sum(bool(value) for row in matrix for value in row)


def _beyond_cache(nbytes: int, target: Target) -> float:
    return nbytes / _BYTES_PER_CYCLE if nbytes > target.l2_bytes // 2 else 0.0
