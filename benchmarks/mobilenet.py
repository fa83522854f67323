"""MobileNetV2 (Sandler et al., CVPR 2018, table 2) at 224x224, with weights of unit gain.

No package ships it pretrained. Batch norms are folded away and weights keep activations at about
unit scale (He et al., 2015), so that its output does depend on its input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
           (6, 320, 1, 1))  # fmt: skip
"""Expansion, output channels, blocks, stride of the first block."""


def mobilenet_v2() -> onnx.ModelProto:
    """Input ``x`` float32[1,3,224,224], output ``y`` float32[1,1000]; 3.5 million parameters."""
    net = _Network()
    channels, value = 32, net.convolution("x", 3, 32, 3, stride=2)
    for expansion, width, blocks, stride in _STAGES:
        for block in range(blocks):
            step = stride if block == 0 else 1
            value = net.bottleneck(value, channels, width, expansion, step)
            channels = width
    value = net.convolution(value, channels, 1280, 1)
    value = net.add("GlobalAveragePool", [value])
    value = net.add("Flatten", [value])
    weight = net.weight(1000, 1280, gain=1.0)
    net.add("Gemm", [value, weight], output="y", transB=1)
    return net.model()


class _Network:
    """Nodes and weights, in order."""

    def __init__(self) -> None:
        import numpy as np

        self.generator = np.random.default_rng(2018)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def weight(self, *shape: int, gain: float) -> str:
        import numpy as np
        from onnx import numpy_helper

        fan_in = int(np.prod(shape[1:]))
        values = self.generator.standard_normal(shape) * np.sqrt(gain / fan_in)
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def constant(self, value: float) -> str:
        import numpy as np
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def convolution(
        self, value: str, inputs: int, outputs: int, kernel: int, *, stride: int = 1,
        group: int = 1, activate: bool = True,
    ) -> str:  # fmt: skip
        weight = self.weight(
            outputs, inputs // group, kernel, kernel, gain=2.0 if activate else 1.0
        )
        pads, strides = [kernel // 2] * 4, [stride] * 2
        made = self.add("Conv", [value, weight], pads=pads, strides=strides, group=group)
        if not activate:
            return made
        return self.add("Clip", [made, self.constant(0.0), self.constant(6.0)])

    def bottleneck(self, value: str, inputs: int, outputs: int, expansion: int, stride: int) -> str:
        width = inputs * expansion
        inner = value if expansion == 1 else self.convolution(value, inputs, width, 1)
        inner = self.convolution(inner, width, width, 3, stride=stride, group=width)
        inner = self.convolution(inner, width, outputs, 1, activate=False)
        if stride == 1 and inputs == outputs:
            return self.add("Add", [inner, value])
        return inner

    def model(self) -> onnx.ModelProto:
        import onnx
        from onnx import TensorProto, helper

        graph = helper.make_graph(
            self.nodes,
            "mobilenet_v2",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 224, 224])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1000])],
            self.weights,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(made)
        return made
