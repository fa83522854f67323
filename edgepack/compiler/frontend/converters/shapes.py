"""Operators whose result is known as soon as shapes are."""

from __future__ import annotations

import math
from typing import Any

from edgepack.compiler.frontend.node import Converter, Node, constant

DOMAIN = ""


def _shape(node: Node) -> Any:
    shape = node.shape()
    first, last = node.attributes.get("start", 0), node.attributes.get("end", len(shape))
    return constant(list(shape[first:last]), "int64")


def _size(node: Node) -> Any:
    return constant(math.prod(node.shape()), "int64")


def _constant(node: Node) -> Any:
    (kind, value), *_ = node.attributes.items()
    dtype = {"value_float": "float32", "value_floats": "float32"}.get(kind, "int64")
    return constant(value, "" if kind == "value" else dtype)


def _identity(node: Node) -> Any:
    return node.inputs[0]


CONVERTERS: dict[str, Converter] = {
    "Constant": _constant,
    "Identity": _identity,
    "Shape": _shape,
    "Size": _size,
}
