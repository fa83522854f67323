"""Memory that is asked for before it is needed.

Most networks have more weights than the caches hold, so that every inference reads them from memory
anew. Of a panel of B the first row tile waits for them, and all others find them in the cache: memory
rests most of the time, and the core waits the rest. Therefore each row tile of a panel asks for its part
of the panel after it, a few lines every some terms, into the second cache level. A single row tile
computes too little to hide that behind, but it reads in order, which cores foresee up to the end of a page
of memory: it asks for a line of each page some pages before it gets there, so that the page is found by
then. Weights of 64 MB by four rows took a sixth longer without.

What an epilogue adds to a tile is a line or two in each of several rows that lie far apart, which no
prefetcher foresees. It is asked for before the loop over the terms, into the first level (residual_of).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index, loads
from edgepack.compiler.schedules.nest import Request
from edgepack.compiler.schedules.stages import shape_of
from edgepack.compiler.schedules.values import LINE, Values

if TYPE_CHECKING:
    from edgepack.targets import Target

PAGE = 1024
"""Elements of a page of memory, where it is smallest."""
PAGES_AHEAD = 8
"""Further than what is asked for at once, and near enough to be there still; half as many did as well."""
_LEAST_TERMS = 32
"""Between two requests, if there are as many: a loop of fewer terms is mostly loop."""
_LEAST_TO_WAIT = 64
"""Terms of a tile, for asking to be worth it: a few hundred cycles, about what memory takes."""


def is_worth(elements: int, target: Target) -> bool:
    """Whether so many values leave the first cache level before they are read again."""
    return 4 * elements > target.l1_bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Ahead:
    """What one row tile asks for: ``lines`` of ``buffer``, ``apart`` elements from each other.

    With ``streams``, as many lines of each of these, ``between`` elements from one to the next.
    """

    buffer: Any
    start: Any
    """The first of their elements."""
    lines: int
    apart: int = LINE
    streams: int = 1
    between: int = 0

    def loop(
        self, length: int, body: Callable[[Any], Any], part: Any = None, parts: int = 1
    ) -> list[Any]:
        """A loop over ``length`` terms that asks for lines: all, or those of one of ``parts``."""
        if not self.lines:
            return [emit.serial(length, body)]
        lines = -(-self.lines // parts)
        every = _chunk(length, min(length, max(_LEAST_TERMS, length // lines)))
        count, rest = divmod(length, every)
        each = -(-lines // count)
        statements: list[Any] = []
        first = self.start if part is None else self.start + part * index(lines * self.apart)
        first = emit.bind(first, "ahead", statements)

        def some(i: Any) -> list[Any]:
            asked = [
                emit.prefetch(self.buffer, place + index(stream * self.between), 2)
                for line in range(each)
                for place in [first + (i * index(each) + index(line)) * index(self.apart)]
                for stream in range(self.streams)
            ]
            terms = emit.serial(every, lambda k: body(i * index(every) + k))
            return [*asked, terms]

        statements.append(emit.serial(count, some))
        if rest:
            statements.append(emit.serial(rest, lambda k: body(index(count * every) + k)))
        return statements


def _chunk(length: int, most: int) -> int:
    """A number of terms of about ``most``, which divides ``length`` if there is one."""
    return next((c for c in range(most, most // 2, -1) if length % c == 0), most)


def residual_of(
    request: Request, columns: int, width: int, where: Callable[[int, Any], list[Any]]
) -> list[Any]:
    """Ask for what the epilogue of a tile of ``columns`` by ``width`` reads of other tensors of its size.

    ``where(column, offset)`` is a result's position.
    """
    group, memory = request.group, request.memory
    main = group.main
    assert main is not None
    size = math.prod(group.result.shape)
    depth = math.prod(extent for _, extent in main.reduced)
    if group.result is main or depth < _LEAST_TO_WAIT or not is_worth(size, request.target):
        return []
    statements: list[Any] = []
    for column in range(columns):
        for offset in range(0, width, LINE):
            position = where(column, index(offset))
            values = Values(
                memory=memory, inlined=group.inlined, held=[(main.buffer, _no_load)], looking=True
            )
            for load in loads(values.of_stage(group.result, position)):
                (place,) = load.indices
                if math.prod(shape_of(load.source)) >= size and not loads(place):
                    statements.append(emit.prefetch(load.source, place, 1))
    return statements


def _no_load(_: list[Any]) -> Any:
    """What is in registers is no memory to ask for."""
    from tvm import tirx

    return tirx.FloatImm("float32", 0.0)
