"""Losses of classification, which some models give along with their answer."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from edgepack.compiler.frontend.converters.values import bound, cast, widened
from edgepack.compiler.frontend.node import Converter, Node, dtype_of, shape_of

DOMAIN = ""


def _negative_log_likelihood(node: Node) -> Any:
    return _loss(node, widened(node, node.inputs[0]))


def _softmax_cross_entropy(node: Node) -> list[Any]:
    from tvm import relax

    scores = widened(node, node.inputs[0])
    likelihoods = node.emit(relax.op.nn.log_softmax(scores, axis=1))
    return [_loss(node, likelihoods), cast(likelihoods, node.dtype())]


def _loss(node: Node, likelihoods: Any) -> Any:
    """Minus the log-likelihood [N, C, ...] of each target's class, times the class's weight."""
    from tvm import relax

    targets = node.inputs[1]
    ignored = node.attributes.get("ignore_index")
    weights = [bound(node, cast(node.inputs[2], dtype_of(likelihoods)))] if node.has(2) else []
    picked = partial(_picked, ignored=ignored)
    losses = node.compute(picked, targets, likelihoods, *weights, name="loss")
    reduction = node.attributes.get("reduction", "mean")
    if reduction == "none":
        return cast(losses, node.dtype())
    total = node.emit(relax.op.sum(losses))
    if reduction == "mean":
        total = node.emit(relax.op.divide(total, _divisor(node, targets, weights, ignored, total)))
    return cast(total, node.dtype())


def _divisor(node: Node, targets: Any, weights: list[Any], ignored: int | None, total: Any) -> Any:
    """The sum of the weights that were taken; without any, how many targets were."""
    from tvm import relax

    if not weights and ignored is None:
        from edgepack.compiler.frontend.node import constant

        return constant(math.prod(shape_of(targets)), dtype_of(total))
    given = partial(_weights, ignored=ignored, dtype=dtype_of(total))
    return node.emit(relax.op.sum(node.compute(given, targets, *weights, name="loss_weights")))


def _picked(targets: Any, likelihoods: Any, *weights: Any, ignored: int | None) -> Any:
    from tvm import te, tirx

    zero = tirx.const(0, likelihoods.dtype)

    def loss(n: Any, *at: Any) -> Any:
        target = targets(n, *at)
        place = _within(target, int(likelihoods.shape[1]))
        value = zero - likelihoods(n, place, *at)
        if weights:
            value = value * weights[0](place)
        return value if ignored is None else tirx.Select(target.equal(ignored), zero, value)

    return te.compute(targets.shape, loss, name="loss")


def _weights(targets: Any, *weights: Any, ignored: int | None, dtype: str) -> Any:
    from tvm import te, tirx

    def weight(*at: Any) -> Any:
        target = targets(*at)
        value = tirx.const(1, dtype)
        if weights:
            value = weights[0](_within(target, int(weights[0].shape[0])))
        if ignored is None:
            return value
        return tirx.Select(target.equal(ignored), tirx.const(0, dtype), value)

    return te.compute(targets.shape, weight, name="loss_weights")


def _within(target: Any, classes: int) -> Any:
    """A class that there is, whatever a request says."""
    from tvm import tirx

    dtype = str(target.ty)
    return tirx.max(tirx.min(target, tirx.const(classes - 1, dtype)), tirx.const(0, dtype))


CONVERTERS: dict[str, Converter] = {
    "NegativeLogLikelihoodLoss": _negative_log_likelihood,
    "SoftmaxCrossEntropyLoss": _softmax_cross_entropy,
}
