"""Converters by domain and operator; a family of operators is a module with a dict CONVERTERS.

The keys of a module's dict are operators of its DOMAIN. What is not here goes to TVM's own
converters (tvm_importer.py).
"""

from __future__ import annotations

from types import ModuleType

from edgepack.compiler.frontend.converters import shapes
from edgepack.compiler.frontend.node import Converter

_FAMILIES: tuple[ModuleType, ...] = (shapes,)

CONVERTERS: dict[tuple[str, str], Converter] = {
    (family.DOMAIN, operator): converter
    for family in _FAMILIES
    for operator, converter in family.CONVERTERS.items()
}
"""Converters by domain (empty for ONNX's own) and operator."""
