"""torchvision's classifiers at 224x224: MobileNetV2, ResNet, SqueezeNet 1.1. NCHW, 1000 logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.networks.network import Network

if TYPE_CHECKING:
    import onnx

_IMAGE = (1, 3, 224, 224)

_MOBILENET = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
              (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip
"""Expansion, output channels, blocks, stride of the first block: table 2 of the paper."""


def mobilenet_v2() -> onnx.ModelProto:
    """MobileNetV2 (Sandler et al., CVPR 2018); 3.5 million parameters."""
    net = Network("mobilenet_v2", _IMAGE, seed=2018)
    value = net.relu6(net.convolve("x", 32, 3, stride=2))
    for expansion, width, blocks, stride in _MOBILENET:
        for block in range(blocks):
            value = _inverted(net, value, expansion, width, stride if block == 0 else 1)
    value = net.relu6(net.convolve(value, 1280))
    return net.model(net.classify(value, 1000))


def _inverted(net: Network, value: str, expansion: int, width: int, stride: int) -> str:
    """Expand, filter each channel, project without an activation; a residual where shapes allow."""
    inner = value
    if expansion != 1:
        inner = net.relu6(net.convolve(value, net.channels[value] * expansion))
    inner = net.relu6(net.depthwise(inner, stride=stride))
    inner = net.convolve(inner, width)
    if stride == 1 and net.channels[value] == width:
        return net.add("Add", [value, inner])
    return inner


def resnet18() -> onnx.ModelProto:
    """ResNet-18 (He et al., CVPR 2016, table 1); 11.7 million parameters."""
    return _resnet("resnet18", (2, 2, 2, 2), bottleneck=False)


def resnet50() -> onnx.ModelProto:
    """ResNet-50, with the stride in the 3x3 as torchvision has it; 25.6 million parameters."""
    return _resnet("resnet50", (3, 4, 6, 3), bottleneck=True)


def _resnet(name: str, stages: tuple[int, ...], *, bottleneck: bool) -> onnx.ModelProto:
    net = Network(name, _IMAGE, seed=2016)
    value = net.relu(net.convolve("x", 64, 7, stride=2))
    value = net.add("MaxPool", [value], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    for stage, blocks in enumerate(stages):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            value = _residual(net, value, 64 << stage, stride, bottleneck=bottleneck)
    return net.model(net.classify(value, 1000))


def _residual(net: Network, value: str, width: int, stride: int, *, bottleneck: bool) -> str:
    outputs = width * 4 if bottleneck else width
    if bottleneck:
        inner = net.relu(net.convolve(value, width))
        inner = net.relu(net.convolve(inner, width, 3, stride=stride))
        inner = net.convolve(inner, outputs)
    else:
        inner = net.relu(net.convolve(value, width, 3, stride=stride))
        inner = net.convolve(inner, outputs, 3)
    if stride != 1 or net.channels[value] != outputs:
        value = net.convolve(value, outputs, stride=stride)
    return net.relu(net.add("Add", [inner, value]))


_FIRE = ((16, 64), (16, 64), (0, 0), (32, 128), (32, 128), (0, 0), (48, 192), (48, 192), (64, 256),
         (64, 256))  # fmt: skip
"""Squeezed and expanded channels; zeros stand for a pooling between."""


def squeezenet1_1() -> onnx.ModelProto:
    """SqueezeNet 1.1 (Iandola et al., 2016); 1.2 million parameters.

    It has no batch norms; ours are folded whole into its convolutions, which have a bias anyway.
    """
    net = Network("squeezenet1_1", _IMAGE, seed=2017)
    value = net.relu(net.convolve("x", 64, 3, stride=2, pad=0))
    value = _pool(net, value)
    for squeezed, expanded in _FIRE:
        value = _fire(net, value, squeezed, expanded) if squeezed else _pool(net, value)
    value = net.relu(net.convolve(value, 1000))
    return net.model(net.add("Flatten", [net.add("GlobalAveragePool", [value])], axis=1))


def _pool(net: Network, value: str) -> str:
    return net.add("MaxPool", [value], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)


def _fire(net: Network, value: str, squeezed: int, expanded: int) -> str:
    value = net.relu(net.convolve(value, squeezed))
    wide = [net.relu(net.convolve(value, expanded, kernel)) for kernel in (1, 3)]
    return net.add("Concat", wide, axis=1, channels=2 * expanded)
