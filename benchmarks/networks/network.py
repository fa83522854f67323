"""Writes an ONNX network layer by layer, with weights of unit gain from a fixed seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

_OPSET = 17
_IR_VERSION = 8
_EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A batch norm's scale, shift, mean and variance, each float32[channels]."""

    scale: np.ndarray
    shift: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float = _EPSILON


class Network:
    """Nodes and weights, in order. Values are named by what the methods return; the input is ``x``."""

    def __init__(self, name: str, shape: tuple[int, ...], seed: int) -> None:
        import numpy as np

        self.name = name
        self.shape = shape
        self._generator = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self.channels: dict[str, int] = {"x": shape[1]}
        """How many channels a value has."""

    def add(self, operator: str, values: list[str], *, channels: int = 0, **attributes: Any) -> str:
        """Any node with one output; as many channels as its first input where none are given."""
        from onnx import helper

        made = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, values, [made], **attributes))
        self.channels[made] = channels or self.channels[values[0]]
        return made

    def constant(self, array: np.ndarray | np.generic) -> str:
        """A float32 initializer."""
        import numpy as np
        from onnx import numpy_helper

        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def random(self, *shape: int, gain: float = 2.0) -> np.ndarray:
        """Weights that keep a layer's output at about the scale of its input (He et al., 2015)."""
        import numpy as np

        values = self._generator.standard_normal(shape) * math.sqrt(gain / math.prod(shape[1:]))
        return values.astype(np.float32)

    def convolution(
        self, value: str, weight: np.ndarray, *, stride: int = 1, group: int = 1,
        pads: tuple[int, int, int, int] | None = None, norm: Norm | None = None,
    ) -> str:  # fmt: skip
        """A convolution [O,I,kh,kw] and its batch norm; padded to the same size unless ``pads`` is given."""
        height, width = weight.shape[2:]
        around = pads or (height // 2, width // 2, height // 2, width // 2)
        made = self.add(
            "Conv", [value, self.constant(weight)], channels=weight.shape[0],
            kernel_shape=[height, width], pads=around, strides=[stride] * 2, group=group,
        )  # fmt: skip
        return self.norm(made, norm)

    def convolve(
        self, value: str, outputs: int, kernel: int = 1, *, stride: int = 1, pad: int | None = None
    ) -> str:
        """A convolution with weights made here."""
        weight = self.random(outputs, self.channels[value], kernel, kernel)
        pads = None if pad is None else (pad, pad, pad, pad)
        return self.convolution(value, weight, stride=stride, pads=pads)

    def depthwise(self, value: str, *, stride: int = 1) -> str:
        """A depthwise 3x3 convolution with weights made here."""
        channels = self.channels[value]
        weight = self.random(channels, 1, 3, 3)
        return self.convolution(value, weight, stride=stride, group=channels)

    def norm(self, value: str, norm: Norm | None) -> str:
        """A batch norm; without statistics it gets some shape of its own and is calibrated later."""
        import numpy as np

        channels = self.channels[value]
        given = norm or Norm(
            scale=self._generator.uniform(0.8, 1.2, channels),
            shift=self._generator.normal(0.0, 0.2, channels),
            mean=np.zeros(channels),
            variance=np.ones(channels),
        )
        tensors = (given.scale, given.shift, given.mean, given.variance)
        names = [self.constant(tensor) for tensor in tensors]
        return self.add("BatchNormalization", [value, *names], epsilon=given.epsilon)

    def relu(self, value: str) -> str:
        """max(0, x)."""
        return self.add("Relu", [value])

    def relu6(self, value: str) -> str:
        """As exporters write it: Clip with constant bounds."""
        import numpy as np

        return self.add("Clip", [value, self.constant(np.float32(0)), self.constant(np.float32(6))])

    def linear(self, value: str, weight: np.ndarray, bias: np.ndarray | None = None) -> str:
        """``x @ weight.T + bias`` for a weight [outputs, inputs]."""
        import numpy as np

        outputs = weight.shape[0]
        shift = np.zeros(outputs) if bias is None else bias
        names = [self.constant(weight), self.constant(shift)]
        return self.add("Gemm", [value, *names], channels=outputs, transB=1)

    def classify(self, value: str, classes: int, *, gain: float = 1.0) -> str:
        """The mean over the map and a linear layer: logits [1, classes]."""
        flat = self.add("Flatten", [self.add("GlobalAveragePool", [value])], axis=1)
        return self.linear(flat, self.random(classes, self.channels[flat], gain=gain))

    def model(self, output: str) -> onnx.ModelProto:
        """Input ``x`` float32 of the network's shape, output ``y`` with the shape that follows."""
        import onnx
        from onnx import TensorProto, helper

        assert list(self._nodes[-1].output) == [output]
        self._nodes[-1].output[0] = "y"
        graph = helper.make_graph(
            self._nodes,
            self.name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            self._weights,
        )
        stamp = [helper.make_opsetid("", _OPSET)]
        made = helper.make_model(graph, opset_imports=stamp, ir_version=_IR_VERSION)
        made = onnx.shape_inference.infer_shapes(made, strict_mode=True)
        onnx.checker.check_model(made, full_check=True)
        return made
