"""Files that are no usable ONNX model: each gets one line that says what is wrong, at little cost."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack.errors import ModelError
from edgepack.importers import FORMATS, detect, import_model, read_onnx

Save = Callable[..., Path]
FLOAT = TensorProto.FLOAT


def small_model(opset: int = 17, ir_version: int = 8) -> onnx.ModelProto:
    """y = relu(x @ w) for x: float32[batch, 4]."""
    weight = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="product"),
        helper.make_node("Relu", ["a"], ["y"], name="activation"),
    ]
    x = helper.make_tensor_value_info("x", FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "small", [x], [y], [weight])
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(content: bytes | onnx.ModelProto, name: str = "model.onnx") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
        return path

    return write


def refused(
    path: Path, *words: str, shapes: dict[str, tuple[int, ...]] | None = None
) -> ModelError:
    with pytest.raises(ModelError) as caught:
        import_model(path, {"x": (1, 4)} if shapes is None else shapes)
    message = caught.value.message
    assert "\n" not in message + caught.value.hint
    assert len(message) < 600
    assert all(word in message for word in words), message
    return caught.value


def test_small_model_is_imported(save: Save) -> None:
    path = save(small_model())
    imported = import_model(path, {"x": (2, 4)})
    assert imported.source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (imported.source.format, imported.source.path) == ("onnx", path)
    assert [spec.to_dict() for spec in imported.inputs + imported.outputs] == [
        {"name": "x", "dtype": "float32", "shape": [2, 4]},
        {"name": "y", "dtype": "float32", "shape": [2, 3]},
    ]


@pytest.mark.parametrize("opset", [*range(1, onnx.defs.onnx_opset_version() + 1)])
def test_every_opset_is_imported(opset: int, save: Save) -> None:
    imported = import_model(save(small_model(opset)), {"x": (1, 4)})
    assert imported.outputs[0].shape == (1, 3)


def test_model_is_known_by_its_contents(save: Save) -> None:
    assert detect(save(small_model(), "model.bin")).format == "onnx"


def test_unknown_file_names_the_formats(save: Save) -> None:
    with pytest.raises(ModelError, match="is not a model file that edgepack knows") as caught:
        detect(save(b"\x89PNG\r\n\x1a\n", "image.png"))
    assert all(name in caught.value.hint for name in FORMATS)


def test_unknown_format_is_refused(save: Save) -> None:
    with pytest.raises(ModelError, match="unknown model format 'onix'") as caught:
        detect(save(small_model()), "onix")
    assert "Did you mean 'onnx'" in caught.value.hint


def test_format_can_be_said(save: Save) -> None:
    with pytest.raises(ModelError, match="is not a whole ONNX model"):
        import_model(save(b"\x89PNG\r\n\x1a\n", "image.png"), {}, format="onnx")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "byte 0 is not the start of one of its fields"),
        (b"a text, nothing but a text\n" * 20, "is not a whole ONNX model"),
        (b"\0" * 4096, "byte 0"),
        (b"\x08", "cut short"),
        (b"\x08\x08", "it has no graph"),
        (b"\x08" + b"\xff" * 20, "is not part of a number"),
        (
            b"\x08\x08\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            "it is cut short: graph goes to byte",
        ),
    ],
)
def test_file_of_another_kind_is_refused(content: bytes, words: str, save: Save) -> None:
    refused(save(content), words)


def test_random_bytes_are_refused(save: Save) -> None:
    source = random.Random(7)
    for size in (1, 2, 3, 10, 100, 1000, 10_000, 100_000):
        for _ in range(20):
            refused(save(source.randbytes(size)), "is not")


def test_truncated_file_is_refused_wherever_it_ends(save: Save) -> None:
    whole = small_model().SerializeToString()
    graph_ends = whole.index(helper.make_opsetid("", 17).SerializeToString()) - 2
    for size in range(len(whole)):
        if size != graph_ends:
            refused(save(whole[:size]), "is not a whole ONNX model")
    refused(save(whole[:graph_ends]), "is not a")


def test_flipped_bits_give_a_model_or_one_line(
    save: Save, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = small_model().SerializeToString()
    messages = []
    for position in range(len(whole)):
        for flip in (0x01, 0x10, 0x80):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            try:
                import_model(save(bytes(damaged)), {"x": (1, 4)})
            except ModelError as error:
                messages.append(error.message)
    assert len(messages) > len(whole)
    assert not any("\n" in message for message in messages)
    assert capfd.readouterr() == ("", "")


def test_large_file_of_another_kind_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "disk.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(ModelError, match="byte 0 is not the start"):
        read_onnx(path)


def test_single_file_over_2_gib_says_how_to_save_it(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.write(b"\x08\x08\x3a\x80\x80\x80\x80\x08")  # ir_version 8, a graph of 2 GiB
        file.truncate((1 << 31) + 8)
    with pytest.raises(ModelError, match="over 2 GiB in one file; save it with external data"):
        read_onnx(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "cannot read", "No such file")
    refused(tmp_path, "is not a model file")
    refused(tmp_path / "nul\0.onnx", "cannot read")
    refused(Path("/dev/null"), "is neither a file nor a folder")


@pytest.mark.parametrize(
    ("opset", "words"), [(0, "its opset is 0"), (99, "uses opset 99; the onnx package here knows")]
)
def test_opset_out_of_range_is_refused(opset: int, words: str, save: Save) -> None:
    refused(save(small_model(opset)), words)


def test_invalid_graph_is_refused(save: Save) -> None:
    model = small_model()
    model.graph.node[0].input[1] = "absent"
    refused(save(model), "is not a valid ONNX model", "absent")
    model = small_model()
    model.graph.node[0].op_type = "MatMull"
    refused(save(model), "is not a valid ONNX model", "MatMull")
    model = small_model()
    del model.graph.output[:]
    refused(save(model), "is not a valid ONNX model", "no outputs")
    model = small_model()
    del model.opset_import[:]
    refused(save(model), "opset")


def test_operator_of_another_domain_is_named(save: Save) -> None:
    model = small_model()
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.graph.node[1].domain = "com.example"
    model.graph.node[1].op_type = "Frobnicate"
    refused(save(model), "unsupported operator: com.example.Frobnicate 'activation'")


def test_tensor_of_another_size_than_its_shape_is_refused(save: Save) -> None:
    model = small_model()
    model.graph.initializer[0].raw_data = b"\0" * 52
    refused(save(model), "the tensor 'w' does not hold what its type and shape say")


@pytest.fixture
def external(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(small_model(), path, save_as_external_data=True, location="w.data", size_threshold=0)
    return path


def test_external_weights_are_loaded(external: Path) -> None:
    imported = import_model(external, {"x": (1, 4)})
    (weight,) = imported.model.graph.initializer
    assert numpy_helper.to_array(weight).sum() == 66


def test_missing_external_weights_are_named(external: Path) -> None:
    (external.parent / "w.data").unlink()
    refused(external, "w.data")


def test_truncated_external_weights_are_refused(external: Path) -> None:
    (external.parent / "w.data").write_bytes(b"\0" * 40)
    refused(external, "the weights of 'w' cannot be read")


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "link"])
def test_external_weights_outside_the_model_folder_are_refused(
    location: str, external: Path
) -> None:
    (external.parent.parent / "secret").write_bytes(b"\0" * 48)
    (external.parent / "link").symlink_to("/etc/passwd")
    model = onnx.load(external, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    external.write_bytes(model.SerializeToString())
    refused(external)


def test_external_weights_of_another_length_are_refused(external: Path) -> None:
    model = onnx.load(external, load_external_data=False)
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 20]
    external.write_bytes(model.SerializeToString())
    refused(external)


def test_twice_the_same_bytes(save: Save) -> None:
    path = save(small_model())
    first, second = (import_model(path, {"x": (2, 4)}).model for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )
