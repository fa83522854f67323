"""Pipelines: several models as one, which computes what they compute one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgepack import compiler, reference
from edgepack.artefacts import Infer
from edgepack.errors import ModelError
from edgepack.importers import ImportOptions, detect, import_model
from tests import bounded_models, kernels

FLOAT = TensorProto.FLOAT
Types = Mapping[str, tuple[int, Sequence[int | str]]]
IMAGE = {"image": (1, 3, 64, 64)}
SEED = np.random.default_rng(0)
HANGAR = """
[models.detector]
file = "detector.onnx"
inputs = { image = "image" }

[models.crop]
file = "crop.onnx"
inputs = { boxes = "detector.boxes", image = "image" }

[models.reader]
file = "reader.onnx"
inputs = { image = "crop.patches" }
"""


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (SEED.standard_normal(shape) * scale).astype(np.float32)


def saved(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Types,
    outputs: Types,
    constants: Mapping[str, Any] | None = None,
    opset: int = 17,
) -> Path:
    def values(types: Types) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, *type_) for name, type_ in types.items()]

    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), path.stem, values(inputs), values(outputs), tensors)
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def detector(path: Path, opset: int = 17) -> Path:
    """Two boxes from an image; names that the other models have, too."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["f"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Relu", ["f"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Reshape", ["p", "s"], ["q"]),
        helper.make_node("MatMul", ["q", "m"], ["t"]),
        helper.make_node("Sigmoid", ["t"], ["u"]),
        helper.make_node("Mul", ["u", "scale"], ["boxes"]),
    ]
    constants = {
        "w": normal(8, 3, 8, 8, scale=0.1),
        "s": np.array([2, 4]),
        "m": normal(4, 4),
        "scale": np.array([20, 20, 60, 60], np.float32),
    }
    image: Types = {"image": (FLOAT, ["n", 3, 64, 64])}
    return saved(path, nodes, image, {"boxes": (FLOAT, [2, 4])}, constants, opset)


def crop(path: Path) -> Path:
    roi: dict[str, Any] = {"output_height": 16, "output_width": 16, "sampling_ratio": 2}
    return saved(
        path,
        [helper.make_node("RoiAlign", ["image", "boxes", "which"], ["patches"], **roi)],
        {"image": (FLOAT, [1, 3, "h", "w"]), "boxes": (FLOAT, ["k", 4])},
        {"patches": (FLOAT, ["k", 3, 16, 16])},
        {"which": np.zeros(2, np.int64)},
    )


def reader(path: Path, opset: int = 18) -> Path:
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["f"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["f"], ["g"]),
        helper.make_node("MatMul", ["g", "m"], ["scores"]),
    ]
    constants = {"w": normal(4, 3, 4, 4), "m": normal(64, 5)}
    image: Types = {"image": (FLOAT, ["n", 3, 16, 16])}
    return saved(path, nodes, image, {"scores": (FLOAT, ["n", 5])}, constants, opset)


@pytest.fixture
def hangar(tmp_path: Path) -> Path:
    detector(tmp_path / "detector.onnx")
    crop(tmp_path / "crop.onnx")
    reader(tmp_path / "reader.onnx")
    path = tmp_path / "hangar.toml"
    path.write_text(HANGAR)
    return path


def one_after_the_other(folder: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    def run(file: str, **inputs: np.ndarray) -> np.ndarray:
        session = onnxruntime.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, inputs)[0])

    boxes = run("detector.onnx", image=image)
    patches = run("crop.onnx", image=image, boxes=boxes)
    return {"boxes": boxes, "patches": patches, "scores": run("reader.onnx", image=patches)}


def refused(path: Path, shapes: Mapping[str, tuple[int, ...]] = IMAGE) -> ModelError:
    with pytest.raises(ModelError) as caught:
        import_model(path, shapes)
    assert "\n" not in caught.value.message
    return caught.value


def test_whole_computes_what_the_models_compute_one_after_the_other(hangar: Path) -> None:
    imported = import_model(hangar, IMAGE, is_supported=compiler.is_supported)
    assert imported.source.format == "pipeline"
    assert [spec.name for spec in imported.inputs] == ["image"]
    assert [(spec.name, spec.shape) for spec in imported.outputs] == [("scores", (2, 5))]
    original = reference.reference(imported, optimise=False)
    answers = []
    for _ in range(2):
        image = normal(*IMAGE["image"])
        wanted = one_after_the_other(hangar.parent, image)["scores"]
        simplified = kernels.expected(imported.model, ["image"], [image])[0]
        assert kernels.error_of(simplified, wanted) < 1e-4
        assert kernels.error_of(original({"image": image})["scores"], wanted) < 1e-4
        answers.append(wanted)
    assert np.abs(answers[0] - answers[1]).max() > 0.1


def test_outputs_are_those_that_the_file_names(hangar: Path) -> None:
    hangar.write_text(f'{HANGAR}\n[outputs]\ntext = "reader.scores"\nwhere = "detector.boxes"\n')
    imported = import_model(hangar, IMAGE)
    assert [spec.name for spec in imported.outputs] == ["text", "where"]
    image = normal(*IMAGE["image"])
    wanted = one_after_the_other(hangar.parent, image)
    text, where = kernels.expected(imported.model, ["image"], [image])
    np.testing.assert_allclose(text, wanted["scores"], atol=1e-5)
    np.testing.assert_allclose(where, wanted["boxes"], atol=1e-5)


def test_models_of_several_formats_are_held_to_their_frameworks(hangar: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 4, stride=4), torch.nn.Flatten(), torch.nn.Linear(64, 5)
    ).eval()
    example = torch.randn(2, 3, 16, 16)
    torch.export.save(torch.export.export(net, (example,)), hangar.parent / "reader.pt2")
    hangar.write_text(
        HANGAR.replace("reader.onnx", "reader.pt2").replace('image = "crop', 'input = "crop')
    )
    imported = import_model(hangar, IMAGE)
    assert imported.framework == "PyTorch"
    assert imported.original is not None
    image = normal(*IMAGE["image"])
    patches = one_after_the_other(hangar.parent, image)["patches"]
    with torch.no_grad():
        wanted = net(torch.from_numpy(patches)).numpy()
    np.testing.assert_allclose(imported.original({"image": image})["output"], wanted, atol=1e-5)
    simplified = kernels.expected(imported.model, ["image"], [image])[0]
    np.testing.assert_allclose(simplified, wanted, atol=1e-5)


def test_bound_of_a_models_node_has_the_models_name_in_front(tmp_path: Path) -> None:
    saved(
        tmp_path / "find.onnx",
        [
            helper.make_node("Greater", ["x", "half"], ["c"]),
            helper.make_node("Compress", ["x", "c"], ["found"], name="find"),
        ],
        {"x": (FLOAT, [6])},
        {"found": (FLOAT, ["n"])},
        {"half": np.float32(0)},
    )
    saved(
        tmp_path / "double.onnx",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        {"x": (FLOAT, ["n"])},
        {"y": (FLOAT, ["n"])},
    )
    path = tmp_path / "both.toml"
    path.write_text(
        '[models.first]\nfile = "find.onnx"\n'
        '[models.second]\nfile = "double.onnx"\ninputs = { x = "first.found" }\n'
    )
    error = refused(path, {})
    assert "first/find" in error.message
    assert "--bound first/find=" in error.hint
    imported = import_model(path, {}, options=ImportOptions(bounds={"first/find": 4}))
    x = np.array([1, -1, 2, -1, -1, 3], np.float32)
    kernel = bounded_models.compiled(imported)
    infers: list[Infer] = [
        reference.reference(imported, optimise=False),
        lambda inputs: bounded_models.answers(kernel, inputs),
    ]
    for infer in infers:
        answer = infer({"x": x})
        np.testing.assert_array_equal(answer.pop("y"), [2, 4, 6, 0])
        assert [int(count) for count in answer.values()] == [3]


def test_digest_is_of_all_files(hangar: Path) -> None:
    first = import_model(hangar, IMAGE).source.sha256
    assert first == import_model(hangar, IMAGE).source.sha256
    reader(hangar.parent / "reader.onnx")  # other weights
    assert import_model(hangar, IMAGE).source.sha256 != first
    assert detect(hangar).format == "pipeline"


def test_shapes_that_are_missing_are_asked_for_by_the_names_of_the_whole(hangar: Path) -> None:
    error = refused(hangar, {})
    assert "input 'image'" in error.message
    assert "--input image=" in error.hint


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("detector.boxes", "detectr.boxes", "input 'boxes' of 'crop' is fed by 'detectr.boxes'"),
        ("detector.boxes", "detector.boxs", "'detector' has no output 'boxs'"),
        ("boxes = ", "box = ", "model 'crop' has no input 'box'"),
        ('file = "crop.onnx"', 'file = "none.onnx"', "model 'crop': cannot read"),
        ('file = "crop.onnx"', "", "[models.crop] has no file"),
        ('file = "crop.onnx"', "file = 3", "file of [models.crop] must be a text"),
        ('file = "crop.onnx"', 'fil = "crop.onnx"', "the key 'fil' of [models.crop]"),
        ('{ image = "image" }', '{ image = "reader.scores" }', "in a circle: "),
        ('inputs = { image = "image" }\n', "", "would both be the input 'image'"),
        ("[models.crop]", "[models.'a b']", "a model cannot be called 'a b'"),
        ("[models.detector]", "[settings]\n[models.detector]", "the key 'settings'"),
        (
            'image = "crop.patches"',
            'image = "detector.boxes"',
            "reader.image is float32[?,3,16,16]",
        ),
    ],
)
def test_wrong_file_is_told_by_name(old: str, new: str, words: str, hangar: Path) -> None:
    hangar.write_text(HANGAR.replace(old, new, 1))
    assert words.replace("[?", "[n") in refused(hangar).message


def test_damaged_model_is_told_by_its_name(hangar: Path) -> None:
    path = hangar.parent / "crop.onnx"
    path.write_bytes(path.read_bytes()[:50])
    assert refused(hangar).message.startswith("model 'crop': ")


def test_file_that_is_no_toml_is_told(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("[models.a\n")
    assert "is not TOML: " in refused(path).message
    path.write_text("x = 1\n")
    assert "the key 'x'" in refused(path).message
    path.write_text("")
    assert "there are no models" in refused(path).message


def test_pipeline_of_pipelines_is_refused(hangar: Path) -> None:
    outer = hangar.parent / "outer.toml"
    outer.write_text('[models.inner]\nfile = "hangar.toml"\n')
    assert "cannot be pipelines" in refused(outer).message
