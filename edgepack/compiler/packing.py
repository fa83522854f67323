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
        ordered = _results_of_groups(ordered, groups)
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


def _results_of_groups(array: np.ndarray, groups: int) -> np.ndarray:
    """[..., input channel of all groups, result] as [..., input channel of a group, group and result]."""
    import numpy as np

    *taps, inputs, out = array.shape
    split = array.reshape(*taps, groups, inputs // groups, out)
    return np.moveaxis(split, -3, -2).reshape(*taps, inputs // groups, groups * out)


def _phases(array: np.ndarray, arguments: Mapping[str, Any]) -> np.ndarray:
    """[group][y, x looped][panel][tap, channel][y, x held, result] of a kernel, by the phases of its strides.

    Kernel row ``y + stride * t`` belongs to phase y; the last t come first, as the input's rows do that
    they meet, and those that the kernel lacks are zero. ``held`` phases are lanes, all others groups.
    """
    import numpy as np

    array = np.transpose(array, arguments["order"])
    groups, strides, held = (arguments[name] for name in ("of_inputs", "strides", "held"))
    array = _results_of_groups(array, groups)
    missing = [-k % s for k, s in zip(array.shape, strides, strict=False)]
    array = np.pad(array, [(0, more) for more in (*missing, 0, 0)])
    rows, columns, channels, out = array.shape
    split = []
    for extent, stride, lanes in zip((rows, columns), strides, held, strict=True):
        split += [extent // stride, stride // lanes, lanes]
    array = np.flip(array.reshape(*split, channels, groups, out // groups), (0, 3))
    array = array.transpose(0, 3, 6, 7, 1, 4, 2, 5, 8)
    taps = array.reshape(*array.shape[:3], -1)
    return _panels(taps, {**arguments, "order": [0, 1, 2, 3]})


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
    "phases": _phases,
    "winograd": _winograd,
}
