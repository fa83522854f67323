"""Parts of real networks in odd sizes: what a kernel must get right on every architecture."""

from __future__ import annotations

import numpy as np
import onnx

from tests.kernels import integers, weights
from tests.networks import Network, model, node


def attention(length: int, width: int, heads: int, batch: int = 1) -> onnx.ModelProto:
    """Causal attention with its residual and norm, as exporters spell it out."""
    each = width // heads
    nodes = []
    for name in "qkv":
        order = [0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]
        nodes += [
            node("MatMul", f"x w{name}", f"{name}0"),
            node("Reshape", f"{name}0 apart", f"{name}1"),
            node("Transpose", f"{name}1", name, perm=order),
        ]
    nodes += [
        node("MatMul", "q k", "raw"),
        node("Mul", "raw scale", "scaled"),
        node("Add", "scaled mask", "masked"),
        node("Softmax", "masked", "p", axis=-1),
        node("MatMul", "p v", "mixed"),
        node("Transpose", "mixed", "turned", perm=[0, 2, 1, 3]),
        node("Reshape", "turned together", "joined"),
        node("MatMul", "joined wo", "out"),
        node("Add", "out x", "residual"),
        node("LayerNormalization", "residual gain bias", "y", axis=-1),
    ]
    parameters: dict[str, np.ndarray | np.generic] = {
        **{f"w{name}": weights(width, width) for name in "qkvo"},
        "apart": integers(batch, length, heads, each),
        "together": integers(batch, length, width),
        "scale": np.float32(each**-0.5),
        "mask": np.triu(np.full((length, length), -1e4, np.float32), 1),
        "gain": weights(width) + 1,
        "bias": weights(width),
    }
    shape = [batch, length, width]
    return model(nodes, {"x": shape}, {"y": shape}, parameters)


def squeeze_and_excite(channels: int, height: int, width: int, batch: int = 1) -> onnx.ModelProto:
    """SiLU, depthwise 5x5, a squeeze-and-excite gate, a residual, a concatenation, pooling."""
    c = channels
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]),
        node("Sigmoid", "c1", "g1"),
        node("Mul", "c1 g1", "a1"),
        node("Conv", "a1 w2 b2", "c2", pads=[2, 2, 2, 2], group=c),
        node("HardSwish", "c2", "a2"),
        node("GlobalAveragePool", "a2", "p"),
        node("Conv", "p w3 b3", "s1"),
        node("Relu", "s1", "s2"),
        node("Conv", "s2 w4 b4", "s3"),
        node("HardSigmoid", "s3", "s4"),
        node("Mul", "a2 s4", "m"),
        node("Conv", "m w5", "c5"),
        node("Add", "c5 a1", "r"),
        node("Concat", "r x", "k", axis=1),
        node("MaxPool", "k", "y", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    parameters = {
        "w1": weights(c, 3, 3, 3),
        "b1": weights(c),
        "w2": weights(c, 1, 5, 5),
        "b2": weights(c),
        "w3": weights(5, c, 1, 1),
        "b3": weights(5),
        "w4": weights(c, 5, 1, 1),
        "b4": weights(c),
        "w5": weights(c, c, 1, 1),
    }
    result = [batch, c + 3, height // 2, width // 2]
    return model(nodes, {"x": [batch, 3, height, width]}, {"y": result}, parameters)


def odd_windows() -> onnx.ModelProto:
    """Convolutions whose sizes divide by nothing: dilated, grouped, 1xN, width 1, depthwise k5 s2."""
    nodes = [
        node("Conv", "x w1 b1", "a", pads=[3, 1, 0, 4], dilations=[3, 2], strides=[1, 2]),
        node("LeakyRelu", "a", "b", alpha=0.1),
        node("Conv", "b w2", "c", pads=[2, 2, 2, 2], group=18, strides=[2, 2]),
        node("Conv", "c w3", "d", pads=[1, 1, 1, 1], group=3),
        node("Conv", "d w4", "e", pads=[0, 2, 0, 0]),
        node("ConvTranspose", "e w5 b5", "f", strides=[2, 3], pads=[1, 0, 0, 2], group=3),
        node("AveragePool", "f", "g", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
        node("Softmax", "g", "p", axis=1),
        node("ReduceMax", "p", "h", axes=[3], keepdims=1),
        node("Conv", "h w6", "y", pads=[1, 0, 1, 0]),
    ]
    parameters = {
        "w1": weights(18, 5, 3, 3),
        "b1": weights(18),
        "w2": weights(18, 1, 5, 5),
        "w3": weights(21, 6, 3, 3),
        "w4": weights(15, 21, 1, 5),
        "w5": weights(15, 3, 3, 4),
        "b5": weights(9),
        "w6": weights(7, 9, 3, 1),
    }
    return model(nodes, {"x": [1, 5, 13, 19]}, {"y": [1, 7, 7, 1]}, parameters)


def every_rule() -> onnx.ModelProto:
    """Every rule, each with enough work to be shared by threads."""
    nodes = [
        node("Conv", "x w1", "a", pads=[1, 1, 1, 1]),
        node("Conv", "a w2", "b", pads=[1, 1, 1, 1]),
        node("Conv", "b w3", "c", pads=[2, 2, 2, 2], group=33, strides=[2, 2]),
        node("Conv", "c w4", "d"),
        node("ConvTranspose", "d w5", "e", strides=[2, 2]),
        node("Conv", "e w6", "f", pads=[1, 1, 1, 1], strides=[2, 1]),
        node("Softmax", "f", "g", axis=3),
        node("Transpose", "g", "h", perm=[0, 2, 3, 1]),
        node("MatMul", "h w7", "i"),
        node("ReduceMean", "i", "y", axes=[1], keepdims=0),
    ]
    parameters = {
        "w1": weights(33, 17, 3, 3),
        "w2": weights(33, 33, 3, 3),
        "w3": weights(33, 1, 5, 5),
        "w4": weights(35, 33, 1, 1),
        "w5": weights(35, 17, 2, 2),
        "w6": weights(19, 17, 3, 3),
        "w7": weights(19, 31),
    }
    return model(nodes, {"x": [1, 17, 29, 31]}, {"y": [1, 32, 31]}, parameters)


NETWORKS: dict[str, Network] = {
    "attention": lambda: attention(7, 12, 3),
    "squeeze_and_excite": lambda: squeeze_and_excite(13, 7, 9),
    "odd_windows": odd_windows,
    "every_rule": every_rule,
}
