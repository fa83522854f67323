"""Which operators have a converter, here or in TVM."""

from __future__ import annotations

from edgepack.compiler.frontend.converters import CONVERTERS

STANDARD_DOMAINS = ("", "ai.onnx")


def is_supported(domain: str, operator: str) -> bool:
    """Whether nodes of this operator can be converted at all."""
    from edgepack.compiler.frontend import tvm_importer

    domain = "" if domain in STANDARD_DOMAINS else domain
    return (domain, operator) in CONVERTERS or (not domain and tvm_importer.knows(operator))
