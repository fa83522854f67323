"""Small real models, compiled by the real compiler and signed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgepack import build
from edgepack.artefacts import Package, SignedPackage
from edgepack.package import attach_envelope
from edgepack.targets import load_target
from edgepack.trust import PrivateKey, new_key, sign, verify

KEY = new_key("ecdsa-p256")
"""Signs every package; devices in tests trust it."""
SIZE = 64


def weights(seed: int, size: int = SIZE) -> np.ndarray:
    """The matrix of the model that ``seed`` makes."""
    return np.random.default_rng(seed).standard_normal((size, size), np.float32)


def compile_linear(
    folder: Path,
    version: str,
    *targets: str,
    seed: int = 0,
    name: str = "linear",
    size: int = SIZE,
) -> Package:
    """``y = relu(x @ weights(seed))`` for the targets, unsigned."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, size])],
        [numpy_helper.from_array(weights(seed, size), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    source = folder / f"{name}-{version}-{seed}.onnx"
    onnx.save(model, source)
    return build.compile_package(
        source,
        targets=[load_target(target) for target in targets],
        out=source.with_suffix(".epk"),
        options=build.CompileOptions(name=name, version=version),
        progress=lambda text: None,
        warn=lambda text: None,
    )


def signed(package: Package, key: PrivateKey = KEY) -> SignedPackage:
    """The package with a signature by ``key`` and checked."""
    return verify(attach_envelope(package, sign(package, key)), [key.public_key])
