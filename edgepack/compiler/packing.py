"""Constants in the layout that a kernel reads them in: done once, at compile time.

A schedule rule says in the function's attributes how a parameter is packed; the plan packs the
constant when it puts it into the weights blob. Nothing is repacked on the device.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgepack.compiler.cook_toom import filtering

if TYPE_CHECKING:
    import numpy as np
    from tvm.tirx import PrimFunc

ATTRIBUTE = "edgepack.packing"


def packings_of(function: PrimFunc) -> dict[int, str]:
    """The packing, as JSON, of each packed parameter of ``function``."""
    if not function.attrs or ATTRIBUTE not in function.attrs:
        return {}
    described = [str(item) for item in function.attrs[ATTRIBUTE]]
    return {int(json.loads(item)["parameter"]): item for item in described}


def pack(array: np.ndarray, description: str) -> np.ndarray:
    """``array`` as one dense vector in the layout that ``description`` names."""
    arguments = json.loads(description)
    return _LAYOUTS[arguments["layout"]](array, arguments)


def _panels(array: np.ndarray, arguments: Mapping[str, Any]) -> np.ndarray:
    """[group][panel][term][lane] of an array whose last axis, after ``order``, holds the results.

    Each of ``panels`` is (count, width, padded): lanes from width to padded are zero. Where the
    groups are parts of the axis before the last (``inputs_grouped``), they are moved to the last.
    """
    import numpy as np

    groups = int(arguments["groups"])
    ordered = np.transpose(array, arguments["order"])
    if arguments.get("inputs_grouped"):
        *taps, inputs, out = ordered.shape
        split = ordered.reshape(*taps, groups, inputs // groups, out)
        ordered = np.moveaxis(split, -3, -2).reshape(*taps, inputs // groups, groups * out)
    terms = ordered.reshape(-1, groups, ordered.shape[-1] // groups)
    parts = []
    for group in range(groups):
        start = 0
        for count, width, padded in arguments["panels"]:
            for _ in range(count):
                panel = terms[:, group, start : start + width]
                parts.append(np.pad(panel, ((0, 0), (0, padded - width))).ravel())
                start += width
    return np.concatenate(parts)


def _winograd(array: np.ndarray, arguments: Mapping[str, Any]) -> np.ndarray:
    """[product][panel][input channel][lane] of a kernel [KH, KW, I, O]: G g Gt, as panels."""
    import numpy as np

    array = np.transpose(array, arguments["order"])
    rows, columns = (
        np.array(filtering(outputs, taps).g, dtype=np.float64)
        for outputs, taps in zip(arguments["outputs"], array.shape[:2], strict=True)
    )
    transformed = np.einsum("ph,hwio,qw->pqio", rows, array.astype(np.float64), columns)
    products = transformed.reshape(-1, *array.shape[2:]).astype(array.dtype)
    panels = {**arguments, "groups": 1, "order": [0, 1]}
    return np.concatenate([_panels(product, panels) for product in products])


_LAYOUTS: dict[str, Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]] = {
    "panels": _panels,
    "winograd": _winograd,
}
