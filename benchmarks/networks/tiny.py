"""The four reference networks of MLPerf Tiny (Banbury et al., 2021), as its closed division defines them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.networks.network import Network

if TYPE_CHECKING:
    import onnx

_SHARP = 16.0
"""Gain of the last layer, so that a softmax of few classes takes sides."""


def keyword_spotting() -> onnx.ModelProto:
    """DS-CNN: 49x10 MFCC features to the probabilities of 12 words."""
    net = Network("tiny_kws", (1, 1, 49, 10), seed=1)
    first = net.random(64, 1, 10, 4)
    value = net.relu(net.convolution("x", first, stride=2, pads=(4, 1, 5, 1)))
    for _ in range(4):
        value = net.relu(net.depthwise(value))
        value = net.relu(net.convolve(value, 64))
    return _probabilities(net, value, 12, pool=(25, 5))


_MOBILENET = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2),
              (1024, 1))  # fmt: skip
"""Output channels before the quarter, and stride: table 1 of MobileNets (Howard et al., 2017)."""


def visual_wake_words() -> onnx.ModelProto:
    """MobileNetV1 with a quarter of the channels at 96x96: person or no person."""
    net = Network("tiny_vww", (1, 3, 96, 96), seed=2)
    value = net.relu(net.convolve("x", 8, 3, stride=2))
    for channels, stride in _MOBILENET:
        value = net.relu(net.depthwise(value, stride=stride))
        value = net.relu(net.convolve(value, channels // 4))
    return _probabilities(net, value, 2, pool=(3, 3))


def anomaly_detection() -> onnx.ModelProto:
    """Autoencoder of 640 spectrogram values through 8; its batch norms stay nodes of their own."""
    net = Network("tiny_ad", (1, 640), seed=3)
    value = "x"
    for width in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        value = net.linear(value, net.random(width, net.channels[value]))
        value = net.relu(net.norm(value, None))
    return net.model(net.linear(value, net.random(640, 128, gain=1.0)))


def image_classification() -> onnx.ModelProto:
    """ResNet-8 for CIFAR-10: three residual blocks of 16, 32 and 64 channels at 32x32."""
    net = Network("tiny_ic", (1, 3, 32, 32), seed=4)
    value = net.relu(net.convolve("x", 16, 3))
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        inner = net.relu(net.convolve(value, width, 3, stride=stride))
        inner = net.convolve(inner, width, 3)
        if stride != 1:
            value = net.convolve(value, width, stride=stride)
        value = net.relu(net.add("Add", [inner, value]))
    return _probabilities(net, value, 10, pool=(8, 8))


def _probabilities(
    net: Network, value: str, classes: int, pool: tuple[int, int]
) -> onnx.ModelProto:
    """Average pooling with a fixed window, a linear layer and a softmax."""
    flat = net.add("Flatten", [net.add("AveragePool", [value], kernel_shape=pool)], axis=1)
    logits = net.linear(flat, net.random(classes, net.channels[flat], gain=_SHARP))
    return net.model(net.add("Softmax", [logits], axis=-1))
