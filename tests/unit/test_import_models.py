"""Pretrained models and a large one: imported, and still computing what ONNX Runtime computes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack.errors import ModelError
from edgepack.importers import import_model
from tests.conftest import unavailable

Shapes = dict[str, tuple[int, ...]]
VAD: Shapes = {"input": (1, 576), "state": (2, 1, 128)}
MODELS: list[tuple[str, str, Shapes]] = [
    ("silero_vad", "data/silero_vad_openvino_16k.onnx", {}),
    ("silero_vad", "data/silero_vad_16k_op15.onnx", VAD),
    ("silero_vad", "data/silero_vad_half.onnx", VAD),
    ("silero_vad", "data/silero_vad_op18_ifless.onnx", VAD),
    ("silero_vad", "data/silero_vad_16k_sequence.onnx", {"input": (4, 576)}),
    (
        "rapidocr_onnxruntime",
        "models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        {"x": (1, 3, 48, 192)},
    ),
    ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", {"x": (1, 3, 48, 160)}),
    ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", {"x": (1, 3, 160, 160)}),
    ("magika", "models/standard_v3_3/model.onnx", {"bytes": (1, 2048)}),
]


def run(model: bytes | str, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, feed)]


@pytest.mark.parametrize(("package", "file", "shapes"), MODELS, ids=[file for _, file, _ in MODELS])
def test_pretrained_model_computes_the_same_after_import(
    package: str,
    file: str,
    shapes: Shapes,
    pretrained: Callable[[str, str], Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = pretrained(package, file)
    imported = import_model(path, shapes)
    assert capfd.readouterr() == ("", "")
    operators = {node.op_type for node in imported.model.graph.node}
    assert not operators & {"If", "LSTM", "Constant", "Shape", "Identity"}
    source = np.random.default_rng(5)
    feed = {
        spec.name: np.asarray(
            source.standard_normal(spec.shape)
            if spec.dtype.startswith("float")
            else np.full((), 16_000) if spec.name == "sr" else source.integers(0, 255, spec.shape)
        ).astype(spec.dtype)
        for spec in imported.inputs
    }  # fmt: skip
    expected = run(str(path), feed)
    actual = run(imported.model.SerializeToString(), feed)
    assert [spec.shape for spec in imported.outputs] == [value.shape for value in expected]
    for value, reference in zip(actual, expected, strict=True):
        assert np.abs(value - reference).max() <= 1e-4 * np.abs(reference).max()


def test_missing_shapes_of_silero_show_the_options(pretrained: Callable[[str, str], Path]) -> None:
    with pytest.raises(ModelError, match=r"input 'input': batch \(axis 0\), sequence") as caught:
        import_model(pretrained("silero_vad", "data/silero_vad_16k_op15.onnx"), {})
    assert caught.value.hint == "Add --input input=BATCH,SEQUENCE --input state=2,BATCH,128"


def test_truncated_pretrained_model_is_refused(
    pretrained: Callable[[str, str], Path], tmp_path: Path
) -> None:
    whole = pretrained("silero_vad", "data/silero_vad_openvino_16k.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    for size in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match="is not a whole ONNX model"):
            import_model(path, {})


def external(name: str, shape: tuple[int, ...], offset: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    length = 4 * int(np.prod(shape))
    for key, value in (("location", "w.data"), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def test_model_over_2_gib_is_imported_with_every_weight(tmp_path: Path) -> None:
    """2.2 GiB in a file with holes: its last row of each weight is all that is not zero."""
    if shutil.disk_usage(tmp_path).free < 4 << 30 or available_memory() < 6 << 30:
        unavailable("needs 6 GiB of memory and 4 GiB of disk")
    count, rows, columns = 9, 4096, 16_000
    size = 4 * rows * columns
    assert count * size > 1 << 31
    last = np.random.default_rng(0).standard_normal((count, columns)).astype(np.float32)
    with (tmp_path / "w.data").open("wb") as file:
        for i in range(count):
            file.seek((i + 1) * size - 4 * columns)
            file.write(last[i].tobytes())
    weights = [external(f"w{i}", (rows, columns), i * size) for i in range(count)]
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["flat"]),
        *(helper.make_node("MatMul", ["flat", f"w{i}"], [f"y{i}"]) for i in range(count)),
    ]
    constants = [
        numpy_helper.from_array(np.array([0]), "zero"),
        numpy_helper.from_array(np.array([-1]), "rest"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64, 64])
    outputs = [
        helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, ["n", columns])
        for i in range(count)
    ]
    graph = helper.make_graph(nodes, "large", [x], outputs, [*weights, *constants])
    opsets = [helper.make_opsetid("", 17)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    imported = import_model(path, {"x": (2, 64, 64)})
    assert [spec.name for spec in imported.inputs] == ["x"]
    assert {spec.shape for spec in imported.outputs} == {(2, columns)}
    assert [n.op_type for n in imported.model.graph.node] == ["Reshape", *["MatMul"] * count]
    tensors = {tensor.name: tensor for tensor in imported.model.graph.initializer}
    for i in range(count):
        data = tensors[f"w{i}"].raw_data
        assert len(data) == size
        assert data[-4 * columns :] == last[i].tobytes()


def available_memory() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
