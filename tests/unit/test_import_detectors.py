"""Detectors end in a selection of boxes: as exporters write it, from the image to the rows that count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgepack import build, golden
from edgepack.errors import ModelError
from edgepack.importers import ImportOptions, import_model
from edgepack.targets import load_target
from tests.bounded_models import Arrays, agree, differ, imported, network, node, normal
from tests.kernels import expected

ANCHORS = 50
CLASSES = 3
END = np.iinfo(np.int64).max


def image(seed: int) -> Arrays:
    """Noise that is stronger from seed to seed: more boxes are above the threshold."""
    return {"image": normal(1, 3, 16, 16, seed=seed) * np.float32(0.1 + 0.2 * seed)}


def heads() -> tuple[list[onnx.NodeProto], dict[str, np.ndarray | np.generic]]:
    """A convolution with boxes [1, ANCHORS, 4] around their places, and scores [1, CLASSES, ANCHORS]."""
    nodes = [
        node("Conv", "image kernel", "map", strides=[3, 3]),
        node("Reshape", "map channels", "flat"),
        node("Transpose", "flat", "rows", perm=[0, 2, 1]),
        node("Split", "rows parts", "offsets raw", axis=2),
        node("Add", "offsets places", "boxes"),
        node("Sigmoid", "raw", "likely"),
        node("Transpose", "likely", "scores", perm=[0, 2, 1]),
    ]
    grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0), indexing="ij"), -1).reshape(-1, 2)
    middle = np.repeat(grid, 2, axis=0)
    places = np.concatenate([middle - 0.8, middle + 0.8], 1).astype(np.float32)
    constants: dict[str, np.ndarray | np.generic] = {
        "kernel": normal(2 * (4 + CLASSES), 3, 3, 3) * np.float32(0.3),
        "channels": np.array([1, 4 + CLASSES, ANCHORS]),
        "parts": np.array([4, CLASSES]),
        "places": places[None],
        "most": np.array([10]),
        "all": np.array([END]),
        "overlap": np.array([0.3], np.float32),
        "threshold": np.array([0.8], np.float32),
        "first": np.array([0]),
        "second": np.array([1]),
        "third": np.array([2]),
        "end": np.array([END]),
        "flat_shape": np.array([-1]),
    }
    return nodes, constants


def single_shot() -> onnx.ModelProto:
    """NMS on the heads; boxes, scores and labels of what it selects."""
    nodes, constants = heads()
    nodes += [
        node("NonMaxSuppression", "boxes scores most overlap threshold", "selected", name="nms"),
        node("Slice", "selected third end second", "index"),
        node("Slice", "selected second third second", "label"),
        node("Squeeze", "index second", "which"),
        node("Squeeze", "boxes first", "all_boxes"),
        node("Gather", "all_boxes which", "found_boxes", axis=0),
        node("GatherND", "scores selected", "found_scores"),
        node("Squeeze", "label second", "found_labels"),
        node("Shape", "found_labels", "number"),
    ]
    outputs = "found_boxes found_scores found_labels number"
    return network(nodes, image(1), outputs, constants)


def filtered() -> onnx.ModelProto:
    """Rows above a threshold, the best of them, NMS class by class through offsets, the first twelve."""
    nodes, constants = heads()
    nodes += [
        node("Reshape", "likely flat_shape", "every"),
        node("Greater", "every threshold", "above"),
        node("NonZero", "above", "positions", name="filter"),
        node("Squeeze", "positions first", "position"),
        node("Gather", "every position", "kept", axis=0),
        node("Shape", "kept", "number"),
        node("Concat", "number twenty", "either", axis=0),
        node("ReduceMin", "either", "best", keepdims=1),
        node("TopK", "kept best", "top order"),
        node("Gather", "position order", "place", axis=0),
        node("Div", "place classes", "anchor"),
        node("Mod", "place classes", "label"),
        node("Squeeze", "boxes first", "all_boxes"),
        node("Gather", "all_boxes anchor", "candidates", axis=0),
        node("ReduceMax", "candidates", "extent", keepdims=0),
        node("Add", "extent one", "step"),
        node("Cast", "label", "label_number", to=onnx.TensorProto.FLOAT),
        node("Mul", "label_number step", "offset"),
        node("Unsqueeze", "offset second", "offsets_column"),
        node("Add", "candidates offsets_column", "apart"),
        node("Unsqueeze", "apart first", "nms_boxes"),
        node("Unsqueeze", "top both", "nms_scores"),
        node("NonMaxSuppression", "nms_boxes nms_scores all overlap", "selected", name="nms"),
        node("Slice", "selected third end second", "index"),
        node("Squeeze", "index second", "left"),
        node("Slice", "left first twelve first", "final"),
        node("Gather", "candidates final", "found_boxes", axis=0),
        node("Gather", "top final", "found_scores", axis=0),
        node("Gather", "label final", "found_labels", axis=0),
    ]
    constants |= {
        "twenty": np.array([20]),
        "classes": np.int64(CLASSES),
        "one": np.float32(1),
        "both": np.array([0, 1]),
        "twelve": np.array([12]),
    }
    return network(nodes, image(1), "found_boxes found_scores found_labels", constants)


def class_by_class() -> onnx.ModelProto:
    """NMS for each class on its own, joined, the best eight, and filled up to eight."""
    nodes, constants = heads()
    nodes.append(node("Squeeze", "boxes first", "all_boxes"))
    for number in range(CLASSES):
        n = str(number)
        constants[f"at{n}"] = np.array([number])
        nodes += [
            node("Gather", f"scores at{n}", f"s{n}", axis=1),
            node(
                "NonMaxSuppression", f"boxes s{n} most overlap threshold", f"i{n}", name=f"nms{n}"
            ),
            node("Slice", f"i{n} third end second", f"j{n}"),
            node("Squeeze", f"j{n} second", f"k{n}"),
            node("Gather", f"all_boxes k{n}", f"b{n}", axis=0),
            node("Reshape", f"s{n} flat_shape", f"t{n}"),
            node("Gather", f"t{n} k{n}", f"c{n}", axis=0),
        ]
    parts = {word: " ".join(f"{word}{n}" for n in range(CLASSES)) for word in "bc"}
    nodes += [
        node("Concat", parts["b"], "joined_boxes", axis=0),
        node("Concat", parts["c"], "joined_scores", axis=0),
        node("Shape", "joined_scores", "number"),
        node("Min", "number eight", "best"),
        node("TopK", "joined_scores best", "top order"),
        node("Gather", "joined_boxes order", "top_boxes", axis=0),
        node("Sub", "eight best", "missing"),
        node("Concat", "nothing missing no_column", "pads", axis=0),
        node("Pad", "top_boxes pads", "found_boxes"),
        node("Concat", "first missing", "score_pads", axis=0),
        node("Pad", "top score_pads", "found_scores"),
    ]
    constants |= {
        "eight": np.array([8]),
        "nothing": np.array([0, 0]),
        "no_column": np.array([0]),
    }
    return network(nodes, image(1), "found_boxes found_scores best", constants)


def test_boxes_scores_and_labels_of_a_single_shot_detector() -> None:
    counts = agree(single_shot(), [image(seed) for seed in (1, 2, 3, 4)])
    assert counts[0] == {"nms_count": 0}
    assert differ(counts)


def test_number_of_boxes_that_the_model_states_is_its_bound() -> None:
    assert imported(single_shot()).outputs[0].shape == (CLASSES * 10, 4)
    assert imported(single_shot(), {"nms": 12}).outputs[0].shape == (12, 4)


def test_filter_and_suppression_class_by_class_through_offsets() -> None:
    counts = agree(filtered(), [image(seed) for seed in (2, 3)], {"filter": ANCHORS * CLASSES})
    assert set(counts[0]) == {"found_boxes_count"}
    assert differ(counts)
    assert counts[1]["found_boxes_count"] == 12
    with pytest.raises(ModelError, match="NonZero 'filter' depends on data") as caught:
        imported(filtered())
    assert "Add --bound filter=100: it can have 150 rows at most" in caught.value.hint


def test_selections_of_all_classes_filled_up_to_a_fixed_number() -> None:
    model = class_by_class()
    assert agree(model, [image(seed) for seed in (1, 2, 3)]) == [{}] * 3
    assert [spec.shape for spec in imported(model).outputs] == [(8, 4), (8,), (1,)]


def test_too_many_boxes_to_be_a_bound_need_one() -> None:
    given = {"boxes": normal(1, 2000, 4), "scores": normal(1, 10, 2000)}
    constants = {"all": np.array([END]), "overlap": np.array([0.5], np.float32)}
    nodes = [node("NonMaxSuppression", "boxes scores all overlap", "selected", name="nms")]
    model = network(nodes, given, "selected", constants)
    with pytest.raises(ModelError, match="NonMaxSuppression 'nms' depends on data") as caught:
        imported(model)
    assert caught.value.hint == "Add --bound nms=100: it can have 20000 rows at most"
    assert imported(model, {"nms": 100}).outputs[0].shape == (100, 3)


def test_golden_vectors_have_numbers_of_rows_that_differ(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(single_shot(), path)
    vectors = golden.make_golden(import_model(path, {}), 1e-4)
    counts = [int(outputs["nms_count"]) for outputs in vectors.outputs]
    assert vectors.distinct
    assert len(set(counts)) == len(counts) == golden.VECTORS


def test_package_of_a_detector_gives_rows_and_their_number(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(single_shot(), path)
    said: list[str] = []
    opened = build.compile_package(
        path,
        targets=[load_target("host")],
        out=tmp_path / "model.epk",
        options=build.CompileOptions(
            name="detector", version="1.0.0", importing=ImportOptions(bounds={"nms": 20})
        ),
        progress=lambda _: None,
        warn=said.append,
    )
    assert any("'found_boxes' has room for 20 rows; output 'nms_count' tells" in s for s in said)
    with build.worker_of(opened, opened.targets[0]) as worker:
        counts = []
        for seed in (1, 2, 3):
            answer = worker.infer(image(seed))
            boxes, scores, *_ = expected(single_shot(), ["image"], [image(seed)["image"]])
            count = int(answer["nms_count"])
            counts.append(count)
            assert count == len(boxes)
            assert np.allclose(answer["found_boxes"][:count], boxes, atol=1e-5)
            assert np.allclose(answer["found_scores"][:count], scores, atol=1e-5)
            assert not answer["found_boxes"][count:].any()
    assert len(set(counts)) == len(counts)
