"""MatMul and Gemm. 16-bit types are multiplied and summed in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgepack.compiler.frontend.converters.values import cast, widened
from edgepack.compiler.frontend.node import Converter, Node, constant, dtype_of

DOMAIN = ""


def _matmul(node: Node) -> Any:
    from tvm import relax

    left, right = (widened(node, operand) for operand in node.inputs)
    return cast(node.emit(relax.op.matmul(left, right)), node.dtype())


def _gemm(node: Node) -> Any:
    """alpha A B + beta C; integers by way of float64 where a factor is not whole."""
    factors = [float(node.attributes.get(name, 1.0)) for name in ("alpha", "beta")]
    operands = [widened(node, operand) for operand in node.inputs if operand is not None]
    kind = dtype_of(operands[0])
    if not kind.startswith("float") and any(factor != int(factor) for factor in factors):
        operands = [node.emit(cast(operand, "float64")) for operand in operands]
    left, right = oriented(node, operands[:2])
    return cast(_scaled_sum(node, left, right, operands[2:], factors), node.dtype())


def oriented(node: Node, operands: Sequence[Any]) -> list[Any]:
    """Both operands of a product as they are multiplied: a Gemm may transpose them."""
    from tvm import relax

    return [
        node.emit(relax.op.permute_dims(operand)) if node.attributes.get(name, 0) else operand
        for operand, name in zip(operands, ("transA", "transB"), strict=True)
    ]


def _scaled_sum(node: Node, left: Any, right: Any, offset: list[Any], factors: list[float]) -> Any:
    from tvm import relax

    alpha, beta = factors
    product = node.emit(relax.op.matmul(left, right))
    dtype = dtype_of(product)
    if alpha != 1:
        product = node.emit(relax.op.multiply(product, constant(alpha, dtype)))
    if not offset or beta == 0:
        return product
    (added,) = offset
    if beta != 1:
        added = node.emit(relax.op.multiply(added, constant(beta, dtype)))
    return node.emit(relax.op.add(product, added))


CONVERTERS: dict[str, Converter] = {"Gemm": _gemm, "MatMul": _matmul}
