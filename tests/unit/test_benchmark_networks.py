from __future__ import annotations

import io
import math
import pickle
import struct
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks.inputs import distance, make_vectors, sample
from benchmarks.models import MODELS, fixed
from benchmarks.networks import images, tiny
from benchmarks.networks.calibrate import calibrate, fold
from benchmarks.networks.checkpoint import load
from benchmarks.networks.efficientnet import efficientnet_lite0
from benchmarks.networks.network import Network

SMALL = ("tiny_kws", "tiny_vww", "tiny_ad", "tiny_ic")


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    answer: np.ndarray = session.run(None, {"x": x})[0]
    return answer


def shape(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def parameters(model: onnx.ModelProto) -> int:
    return sum(math.prod(weight.dims) for weight in model.graph.initializer)


@pytest.mark.parametrize(
    ("make", "inputs", "outputs", "millions"),
    [
        (images.mobilenet_v2, [1, 3, 224, 224], [1, 1000], 3.505),
        (images.resnet18, [1, 3, 224, 224], [1, 1000], 11.690),
        (images.resnet50, [1, 3, 224, 224], [1, 1000], 25.557),
        (images.squeezenet1_1, [1, 3, 224, 224], [1, 1000], 1.235),
        (tiny.keyword_spotting, [1, 1, 49, 10], [1, 12], 0.0229),
        (tiny.visual_wake_words, [1, 3, 96, 96], [1, 2], 0.2126),
        (tiny.anomaly_detection, [1, 640], [1, 640], 0.2671),
        (tiny.image_classification, [1, 3, 32, 32], [1, 10], 0.0777),
    ],
)
def test_networks_have_the_shapes_and_the_size_of_their_papers(
    make: Callable[[], onnx.ModelProto], inputs: list[int], outputs: list[int], millions: float
) -> None:
    model = fold(make())
    onnx.checker.check_model(model, full_check=True)
    assert shape(model.graph.input[0]) == inputs
    assert shape(model.graph.output[0]) == outputs
    assert parameters(model) / 1e6 == pytest.approx(millions, rel=0.015)


@pytest.mark.parametrize("name", SMALL)
def test_the_same_model_comes_out_twice(name: str) -> None:
    first, second = fixed(MODELS[name]), fixed(MODELS[name])
    assert first.SerializeToString() == second.SerializeToString()


@pytest.mark.parametrize("name", [*SMALL, "mobilenet_v2", "squeezenet1_1"])
def test_other_inputs_give_clearly_other_outputs(name: str) -> None:
    vectors = make_vectors(fixed(MODELS[name]))
    assert distance(*vectors.answers) > 0.1


def test_batch_norms_follow_the_samples() -> None:
    net = Network("n", (1, 3, 8, 8), seed=1)
    model = net.model(net.relu(net.convolve("x", 5, 3)))
    samples = sample(np.random.default_rng(0), (4, 3, 8, 8)).astype(np.float32)
    probed = calibrate(model, samples)
    probed.graph.output[0].name = probed.graph.node[1].output[0]
    probed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    probed.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4
    normed = run(probed, samples)
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in probed.graph.initializer}
    norm = probed.graph.node[1]
    np.testing.assert_allclose(normed.mean((0, 2, 3)), weights[norm.input[2]], atol=5e-3)
    np.testing.assert_allclose(normed.std((0, 2, 3)), weights[norm.input[1]], rtol=5e-3)


def test_folding_changes_no_number_and_leaves_norms_that_follow_no_convolution() -> None:
    net = Network("n", (1, 3, 8, 8), seed=1)
    value = net.relu(net.depthwise(net.convolve("x", 6, 3, stride=2)))
    value = net.norm(net.classify(value, 7), None)
    x = sample(np.random.default_rng(3), (2, 3, 8, 8)).astype(np.float32)
    model = calibrate(net.model(value), x)
    folded = fold(model)
    assert [node.op_type for node in folded.graph.node].count("BatchNormalization") == 1
    used = {name for node in folded.graph.node for name in node.input}
    assert {weight.name for weight in folded.graph.initializer} <= used
    np.testing.assert_allclose(run(folded, x[:1]), run(model, x[:1]), rtol=1e-4, atol=1e-5)


# ---- a checkpoint, and the network made of it --------------------------------------------------------


class Storage:
    """Pickled as torch pickles a tensor's memory: by an id."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values


class Tensor:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __reduce__(self) -> tuple[Any, ...]:
        array = np.ascontiguousarray(self.values, np.float32)
        strides = tuple(stride // 4 for stride in array.strides)
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (Storage(array), 0, array.shape, strides, False, OrderedDict())


@pytest.fixture
def save(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, dict[str, np.ndarray]], None]:
    """Writes a checkpoint as torch.save did before 1.6, with stand-ins for torch's own names."""

    def _rebuild_tensor_v2(*_: object) -> None:
        raise AssertionError("only its name is pickled")

    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    kind = type("FloatStorage", (), {"__module__": "torch"})
    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    torch.FloatStorage, utils._rebuild_tensor_v2 = kind, _rebuild_tensor_v2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    def write(path: Path, weights: dict[str, np.ndarray]) -> None:
        storages: dict[str, np.ndarray] = {}

        class Pickler(pickle.Pickler):
            def persistent_id(self, item: object) -> tuple[object, ...] | None:
                if not isinstance(item, Storage):
                    return None
                key = str(len(storages))
                storages[key] = item.values
                return ("storage", kind, key, "cpu", item.values.size, None)

        file = io.BytesIO()
        for head in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(head, file, 2)
        Pickler(file, 2).dump(OrderedDict((n, Tensor(w)) for n, w in weights.items()))
        pickle.dump(sorted(storages), file, 2)
        for key in sorted(storages):
            file.write(struct.pack("<q", storages[key].size) + storages[key].tobytes())
        path.write_bytes(file.getvalue())

    return write


Save = Callable[[Path, dict[str, np.ndarray]], None]


def test_a_checkpoint_gives_its_tensors(tmp_path: Path, save: Save) -> None:
    weights = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([7, 8], np.float32),
    }
    save(tmp_path / "x.pth", weights)
    read = load(tmp_path / "x.pth")
    assert read.keys() == weights.keys()
    for name, values in weights.items():
        np.testing.assert_array_equal(read[name], values)


def test_a_checkpoint_cannot_call_anything(tmp_path: Path) -> None:
    class Call:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("called",)

    file = tmp_path / "x.pth"
    file.write_bytes(pickle.dumps(Call(), 2))
    with pytest.raises(pickle.UnpicklingError, match="print does not belong"):
        load(file)


def test_another_file_is_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(pickle.dumps(5, 2))
    with pytest.raises(ValueError, match="not a checkpoint"):
        load(tmp_path / "x.pth")


def lite_weights() -> dict[str, np.ndarray]:
    """Random weights under the names of efficientnet-lite0's checkpoint."""
    generator = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}

    def layer(name: str, norm: str, *dims: int) -> None:
        weights[f"{name}.weight"] = 0.1 * generator.standard_normal(dims)
        for what in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{norm}.{what}"] = generator.uniform(0.5, 1.5, dims[0])

    layer("_conv_stem", "_bn0", 32, 3, 3, 3)
    stages = ((1, 3, 1, 16), (2, 3, 6, 24), (2, 5, 6, 40), (3, 3, 6, 80), (3, 5, 6, 112),
              (4, 5, 6, 192), (1, 3, 6, 320))  # fmt: skip
    inputs, number = 32, 0
    for blocks, kernel, expansion, outputs in stages:
        for _ in range(blocks):
            prefix, wide = f"_blocks.{number}", inputs * expansion
            if expansion != 1:
                layer(f"{prefix}._expand_conv", f"{prefix}._bn0", wide, inputs, 1, 1)
            layer(f"{prefix}._depthwise_conv", f"{prefix}._bn1", wide, 1, kernel, kernel)
            layer(f"{prefix}._project_conv", f"{prefix}._bn2", outputs, wide, 1, 1)
            inputs, number = outputs, number + 1
    layer("_conv_head", "_bn1", 1280, 320, 1, 1)
    weights["_fc.weight"] = generator.standard_normal((1000, 1280))
    weights["_fc.bias"] = generator.standard_normal(1000)
    return {name: np.asarray(values, np.float32) for name, values in weights.items()}


def test_efficientnet_takes_every_weight_and_pads_as_tensorflow_does(
    tmp_path: Path, save: Save
) -> None:
    save(tmp_path / "lite.pth", lite_weights())
    model = fold(efficientnet_lite0(tmp_path / "lite.pth"))
    assert shape(model.graph.output[0]) == [1, 1000]
    assert parameters(model) / 1e6 == pytest.approx(4.65, rel=0.01)
    pads = {
        (tuple(attribute["kernel_shape"]), tuple(attribute["strides"])): tuple(attribute["pads"])
        for attribute in (
            {a.name: a.ints for a in node.attribute}
            for node in model.graph.node
            if node.op_type == "Conv"
        )
    }
    assert pads[(3, 3), (2, 2)] == (0, 0, 1, 1)
    assert pads[(5, 5), (2, 2)] == (1, 1, 2, 2)
    assert pads[(3, 3), (1, 1)] == (1, 1, 1, 1)
