"""Runs ONNX networks as Relax modules, in TVM's own virtual machine, and beside onnxruntime."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import helper

from edgepack.compiler import frontend

Arrays = list[np.ndarray]


def relax_of(network: onnx.ModelProto) -> Any:
    """The network as the compiler's passes get it: imported, its constants folded."""
    from tvm import relax

    return relax.transform.FoldConstant()(frontend.to_relax(network))


def inputs_of(network: onnx.ModelProto, seed: int = 7) -> dict[str, np.ndarray]:
    """Values of about unit size for every input."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for value in network.graph.input:
        tensor = value.type.tensor_type
        shape = [dim.dim_value for dim in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        arrays[value.name] = (generator.standard_normal(shape) * 2).astype(dtype)
    return arrays


def run(module: Any, inputs: dict[str, np.ndarray]) -> Arrays:
    """The outputs of ``main``, compiled by TVM for this machine without any rule of ours."""
    import tvm
    from tvm import relax

    module = relax.transform.LegalizeOps({"relax.nn.conv2d_transpose": _transposed_convolution})(
        module
    )
    machine = relax.VirtualMachine(tvm.compile(module, "llvm"), tvm.cpu())
    names = [parameter.name for parameter in module["main"].params]
    made = machine["main"](*(tvm.runtime.tensor(inputs[name]) for name in names))
    return [item.numpy() for item in (made if hasattr(made, "__len__") else [made])]


def expected(network: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> Arrays:
    """What onnxruntime makes of the same inputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, inputs))


def operators(module: Any) -> Counter[str]:
    """How many calls of each operator ``main`` has; ``call_tir`` for loops without an operator."""
    from tvm import ir

    return Counter(
        binding.value.op.name.removeprefix("relax.")
        for block in module["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, ir.Call)
    )


def assert_same_results(module: Any, network: onnx.ModelProto, *, tolerance: float = 1e-5) -> None:
    """``module`` computes what onnxruntime does, to ``tolerance`` of the outputs' size."""
    inputs = inputs_of(network)
    for ours, theirs in zip(run(module, inputs), expected(network, inputs), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        size = max(float(np.abs(theirs.astype(np.float64)).max(initial=0)), 1e-3)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * size)


def _transposed_convolution(builder: Any, call: Any) -> Any:
    """TVM can lower it channels first alone."""
    from tvm import topi

    attrs = call.attrs
    numbers = [list(map(int, field)) for field in (attrs.strides, attrs.padding)]
    output_padding, groups = list(map(int, attrs.output_padding)), int(attrs.groups)
    dilation = list(map(int, attrs.dilation))
    last = str(attrs.data_layout) == "NHWC"

    def convolution(data: Any, kernel: Any) -> Any:
        if last:
            data, kernel = topi.transpose(data, [0, 3, 1, 2]), topi.transpose(kernel, [2, 3, 0, 1])
        kernel = topi.nn.dilate(kernel, [1, 1, *dilation])
        made = topi.nn.group_conv2d_transpose_nchw(
            data, kernel, *numbers, data.dtype, output_padding, groups
        )
        return topi.transpose(made, [0, 2, 3, 1]) if last else made

    return builder.call_te(convolution, *call.args)
