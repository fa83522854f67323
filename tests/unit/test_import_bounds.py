"""Rows whose number depends on data: padded to a bound, counted, and followed through the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgepack import padding
from edgepack.artefacts import PaddedAxis
from edgepack.errors import ModelError
from edgepack.importers import ImportOptions, import_model
from edgepack.reference import reference
from tests.bounded_models import (
    Arrays,
    agree,
    answers,
    compiled,
    differ,
    imported,
    network,
    node,
    normal,
)

ROWS = 12
"""Of the input from which rows are chosen."""


def chosen(prefix: str = "", limit: str = "limit") -> list[onnx.NodeProto]:
    """Rows of x [ROWS, 4] whose score is above a limit: positions p, rows r, scores q."""
    names = [f"{prefix}{word}" for word in ("above", "found", "p", "r", "q")]
    above, found, p, r, q = names
    return [
        node("Greater", f"score {limit}", above),
        node("NonZero", above, found, name=f"{prefix}find"),
        node("Squeeze", f"{found} front", p),
        node("Gather", f"x {p}", r, axis=0),
        node("Gather", f"score {p}", q, axis=0),
    ]


CONSTANTS = {"limit": np.float32(0), "front": [0]}


def samples(count: int = 3) -> list[Arrays]:
    """Inputs of which more and more rows are chosen."""
    return [
        {"x": normal(ROWS, 4, seed=i), "score": normal(ROWS, seed=i, shift=i - 0.8)}
        for i in range(count)
    ]


def followed(
    nodes: list[onnx.NodeProto],
    outputs: str,
    constants: dict[str, Any] | None = None,
    **options: Any,
) -> list[dict[str, int]]:
    """Hold a model of chosen rows and these nodes against ONNX Runtime; the counts."""
    model = network([*chosen(), *nodes], samples(1)[0], outputs, {**CONSTANTS, **(constants or {})})
    return agree(model, samples(), {"find": ROWS}, **options)


def refused(
    nodes: list[onnx.NodeProto], output: str, constants: dict[str, Any] | None = None
) -> str:
    """The error for such a model."""
    model = network([*chosen(), *nodes], samples(1)[0], output, {**CONSTANTS, **(constants or {})})
    with pytest.raises(ModelError) as caught:
        imported(model, {"find": ROWS, "find2": ROWS})
    return caught.value.message


def test_rows_are_padded_with_zeros_and_counted() -> None:
    counts = followed([], "r q p")
    assert differ(counts)
    assert list(counts[0]) == ["find_count"]


def test_outputs_say_which_axis_is_padded_and_which_output_counts() -> None:
    nodes = [*chosen(), node("Transpose", "r", "t")]
    model = imported(network(nodes, samples(1)[0], "r t", CONSTANTS), {"find": 5})
    assert model.padded == {
        "r": (PaddedAxis(axis=0, bound=5, count="find_count"),),
        "t": (PaddedAxis(axis=1, bound=5, count="find_count"),),
    }
    assert [(spec.name, spec.dtype, spec.shape) for spec in model.outputs] == [
        ("r", "float32", (5, 4)),
        ("t", "float32", (4, 5)),
        ("find_count", "int64", ()),
    ]
    assert "output 'r' has room for 5 rows; output 'find_count' tells how many" in model.notes[0]


def test_work_on_each_row_alone_passes_padding_through() -> None:
    nodes = [
        node("MatMul", "r weight", "h0"),
        node("Add", "h0 bias", "h1"),
        node("Softmax", "h1", "h2", axis=-1),
        node("Unsqueeze", "q last", "column"),
        node("Mul", "h2 column", "h3"),
        node("Reshape", "h3 three", "h4"),
        node("Transpose", "h4", "h5", perm=[1, 0, 2]),
        node("ReduceMean", "h5", "means", axes=[0, 2], keepdims=0),
        node("Gemm", "r weight bias", "g"),
        node("LayerNormalization", "g scale", "n", axis=-1),
        node("Concat", "n r", "joined", axis=1),
        node("Cast", "p", "labels", to=onnx.TensorProto.INT32),
        node("Mod", "p places", "rest"),
        node("OneHot", "rest depth values", "hot"),
    ]
    constants = {
        "weight": normal(4, 6),
        "bias": normal(6),
        "scale": normal(6),
        "three": [-1, 2, 3],
        "last": [1],
        "places": np.int64(3),
        "depth": np.int64(3),
        "values": np.array([0, 1], np.float32),
    }
    assert differ(followed(nodes, "h5 means joined labels hot", constants))


def test_reductions_over_rows_do_not_see_padding() -> None:
    nodes = [
        node("ReduceSum", "r front", "sum"),
        node("ReduceMean", "r", "mean", axes=[0], keepdims=0),
        node("ReduceMax", "shifted", "max", axes=[0]),
        node("ReduceMin", "raised", "min"),
        node("ReduceProd", "r", "product", axes=[0]),
        node("ReduceL2", "r", "norm", axes=[0]),
        node("ReduceLogSumExp", "shifted", "entropy", axes=[0]),
        node("ArgMax", "shifted", "best", axis=0),
        node("Softmax", "q", "weights", axis=0),
        node("Transpose", "r", "turned"),
        node("MatMul", "turned r", "gram"),
        node("Shape", "r", "shape"),
        node("CumSum", "q first", "upwards"),
        node("CumSum", "q first", "downwards", reverse=1),
    ]
    shifts = [node("Sub", "r ten", "shifted"), node("Add", "r ten", "raised")]
    constants = {"ten": np.float32(10), "first": np.int64(0)}
    outputs = "sum mean max min product norm entropy best weights gram shape upwards downwards"
    # Where there is no row at all, the extremes of nothing are not defined.
    model = network(
        [*chosen(), *shifts, *nodes], samples(1)[0], outputs, {**CONSTANTS, **constants}
    )
    assert differ(agree(model, samples(4)[1:], {"find": ROWS}, tolerance=1e-4))


def test_rows_of_several_origins_are_joined_without_gaps() -> None:
    nodes = [
        *chosen("a", "high"),
        node("Concat", "r top ar", "joined", axis=0),
        node("Concat", "q aq", "scores", axis=0),
        node("Shape", "scores", "shape"),
        node("Min", "shape five", "most"),
        node("TopK", "scores most", "best where"),
        node("Concat", "r ar", "both", axis=0),
        node("Gather", "both where", "rows", axis=0),
    ]
    constants = {**CONSTANTS, "high": np.float32(1), "top": normal(2, 4), "five": [5]}
    model = network([*chosen(), *nodes], samples(1)[0], "joined best where rows", constants)
    counts = agree(model, samples(), {"find": ROWS, "afind": ROWS})
    assert [min(each["joined_count"] - 2, 5) for each in counts] == [
        e["best_count"] for e in counts
    ]
    assert len({each["joined_count"] for each in counts}) == 3


def test_first_and_last_rows_and_rows_filled_up() -> None:
    nodes = [
        node("Slice", "r start three front", "firsts"),
        node("Slice", "r one most front", "without_first"),
        node("Slice", "r start minus front", "without_last"),
        node("Gather", "r last", "final", axis=0),
        node("Shape", "r", "shape", end=1),
        node("Sub", "rows shape", "missing"),
        node("Concat", "pads missing zero", "ends", axis=0),
        node("Pad", "r ends fill", "filled"),
        node("Expand", "row size", "expanded"),
        node("Concat", "shape two", "size", axis=0),
        node("ConstantOfShape", "size", "blank"),
        node("Squeeze", "shape front", "number"),
        node("Range", "nothing number step", "numbers"),
        node("Tile", "row times", "tiled"),
        node("Concat", "shape one", "times", axis=0),
    ]
    nodes = [*nodes[:8], nodes[9], nodes[8], *nodes[10:13], nodes[14], nodes[13]]
    constants = {
        "start": [0], "one": [1], "three": [3], "most": [np.iinfo(np.int64).max], "minus": [-1],
        "last": np.int64(-1), "rows": [ROWS + 2], "pads": [0, 0], "zero": [0],
        "fill": np.float32(7), "row": normal(1, 2), "two": [2], "nothing": np.int64(0),
        "step": np.int64(1),
    }  # fmt: skip
    outputs = "firsts without_first without_last final filled expanded blank numbers tiled"
    model = network([*chosen(), *nodes], samples(1)[0], outputs, {**CONSTANTS, **constants})
    counts = agree(model, samples(4)[1:], {"find": ROWS})
    assert len({each["find_count"] for each in counts}) == 3
    assert [each["without_first_count"] for each in counts] == [
        each["find_count"] - 1 for each in counts
    ]
    assert "filled" not in imported(model, {"find": ROWS}).padded


def test_rows_are_flattened_and_taken_apart_again() -> None:
    nodes = [
        node("Reshape", "r flat", "line"),
        node("Reshape", "line pairs", "apart"),
        node("Flatten", "apart", "again", axis=1),
        node("Shape", "r", "shape"),
        node("Reshape", "line shape", "back"),
    ]
    counts = followed(nodes, "line apart again back", {"flat": [-1], "pairs": [-1, 2, 2]})
    assert [each["line_count"] for each in counts] == [4 * each["find_count"] for each in counts]


def test_rows_are_a_batch_of_their_own() -> None:
    nodes = [
        node("Reshape", "r image", "images"),
        node("Conv", "images kernel", "features", pads=[1, 1, 1, 1]),
        node("MaxPool", "features", "pooled", kernel_shape=[2, 2]),
        node("GlobalAveragePool", "features", "means"),
    ]
    constants = {"image": [-1, 1, 2, 2], "kernel": normal(3, 1, 3, 3)}
    assert differ(followed(nodes, "pooled means", constants))


def test_rows_are_written_to_their_places() -> None:
    nodes = [
        node("Unsqueeze", "p last", "places"),
        node("Add", "r r", "double"),
        node("ScatterND", "x places double", "y"),
    ]
    assert followed(nodes, "y", {"last": [1]}) == [{}] * 3


def test_compress_and_unique_of_rows() -> None:
    nodes = [
        node("Mul", "q four", "scaled"),
        node("Floor", "scaled", "whole"),
        node("Unique", "whole", "values firsts which often", name="different"),
        node("Gather", "r firsts", "representatives", axis=0),
        node("Greater", "q one", "clear"),
        node("Compress", "r clear", "kept", axis=0, name="keep"),
    ]
    constants = {"four": np.float32(2), "one": np.float32(0.5)}
    counts = followed(nodes, "values which often representatives kept", constants)
    assert set(counts[0]) == {"find_count", "different_count", "keep_count"}
    assert differ(counts)


def test_number_of_the_largest_may_be_an_input() -> None:
    nodes = [
        node("TopK", "x k", "values places", name="best"),
        node("Gather", "x two", "y", axis=0),
    ]
    sets = [{"x": normal(3, 9, seed=k), "k": np.array([k])} for k in (1, 4, 6)]
    model = network(nodes, sets[0], "values places", {"two": [0]})
    assert differ(agree(model, sets, {"best": 6}))
    with pytest.raises(ModelError, match="TopK 'best' depends on data") as caught:
        imported(model)
    assert caught.value.hint == "Add --bound best=9: it can have 9 rows at most"


def test_ends_of_a_range_may_be_inputs() -> None:
    nodes = [node("Range", "start limit step", "y", name="count")]
    ends = [(0, 2, 1), (1, -3, -0.75), (2, 2.5, 0.125), (3, 1, 1)]
    names = ("start", "limit", "step")
    sets = [
        {name: np.array(value, np.float32) for name, value in zip(names, each, strict=True)}
        for each in ends
    ]
    model = network(nodes, sets[0], "y")
    counts = agree(model, sets, {"count": 8})
    assert [each["count_count"] for each in counts] == [2, 6, 4, 0]


@pytest.mark.parametrize(
    ("nodes", "constants", "words"),
    [
        ([node("Squeeze", "r", "y")], {}, "it removes any axis that happens to be 1"),
        (
            [node("Slice", "r last first front steps", "y")],
            {"last": [-1], "first": [-99], "steps": [-1]},
            "it takes rows from the end, or in steps",
        ),
        ([node("TopK", "r thirteen", "y z", axis=0)], {"thirteen": [13]}, "it takes 13"),
        ([node("LogSoftmax", "r", "y", axis=0)], {}, "it mixes the elements of axis 0"),
        ([node("Split", "r", "y z", axis=0)], {}, "it splits them"),
        ([node("Transpose", "r", "t"), node("Reshape", "t flat", "y")], {"flat": [-1]},
         "from [4, n] to [?] rows would not stay together"),
        ([*chosen("2", "high"), node("Mul", "q 2q", "y")], {"high": np.float32(1)},
         "axis -1 of its operands has sizes that need not be the same"),
        ([node("Mul", "q fixed", "y")], {"fixed": normal(ROWS)}, "sizes that need not be the same"),
        ([node("Einsum", "r r", "y", equation="ab,ac->bc")], {}, "not known to work on each row"),
        ([node("Reshape", "r image", "i"), node("GlobalMaxPool", "i", "y")],
         {"image": [1, 1, -1, 4]}, "input 0 has it along axis 2"),
        ([node("Reshape", "r computed", "y"), node("Identity", "computed", "z")], {},
         "the shape that it makes is computed"),
    ],
    ids=lambda value: value[-1].op_type if isinstance(value, list) else "",
)  # fmt: skip
def test_what_might_mix_rows_with_padding_is_refused_by_name(
    nodes: list[onnx.NodeProto], constants: dict[str, Any], words: str
) -> None:
    given = samples(1)[0] | ({"computed": np.array([-1, 2])} if "computed" in str(nodes) else {})
    model = network([*chosen(), *nodes], given, "y", {**CONSTANTS, **constants})
    with pytest.raises(ModelError) as caught:
        imported(model, {"find": ROWS, "2find": ROWS})
    assert words in caught.value.message
    assert "(rows of " in caught.value.message
    assert nodes[-1].op_type in caught.value.message or nodes[0].op_type in caught.value.message


def test_without_a_bound_the_error_shows_the_option() -> None:
    model = network(chosen(), samples(1)[0], "r", CONSTANTS)
    with pytest.raises(ModelError) as caught:
        imported(model)
    assert caught.value.message == "the output shape of NonZero 'find' depends on data"
    assert caught.value.hint == f"Add --bound find={ROWS}: it can have {ROWS} rows at most"


def test_node_without_a_name_goes_by_its_first_output() -> None:
    model = network(chosen(), samples(1)[0], "r", CONSTANTS)
    for proto in model.graph.node:
        proto.name = ""
    with pytest.raises(ModelError, match="NonZero 'found' depends on data"):
        imported(model)
    found = imported(model, {"found": 7})
    assert [spec.name for spec in found.outputs] == ["r", "found_count"]
    assert found.outputs[0].shape == (7, 4)


def test_bound_above_what_there_can_be_is_lowered() -> None:
    model = network(chosen(), samples(1)[0], "r", CONSTANTS)
    assert imported(model, {"find": 10 * ROWS}).outputs[0].shape == (ROWS, 4)


@pytest.mark.parametrize(
    ("bounds", "words", "hint"),
    [
        ({"find": 0}, "the bound of NonZero 'find' cannot be 0", "It must be 1 or more"),
        (
            {"find": 3, "fimd": 3},
            "no node 'fimd'",
            "Did you mean 'find'? Nodes that take one: find",
        ),
    ],
)
def test_wrong_bounds_are_refused(bounds: dict[str, int], words: str, hint: str) -> None:
    model = network(chosen(), samples(1)[0], "r", CONSTANTS)
    with pytest.raises(ModelError) as caught:
        imported(model, bounds)
    assert words in caught.value.message
    assert caught.value.hint == hint


def test_bound_for_a_model_without_such_nodes_is_refused() -> None:
    model = network([node("Relu", "x", "y")], {"x": normal(3)}, "y")
    with pytest.raises(ModelError, match="--bound y: the model has no node 'y'"):
        imported(model, {"y": 3})


def test_of_more_rows_than_the_bound_the_first_are_given_and_counted() -> None:
    model = network(chosen(), samples(1)[0], "r p", CONSTANTS)
    kernel = compiled(imported(model, {"find": 4}))
    given = samples(4)[-1]
    places = np.flatnonzero(given["score"] > 0)[:4]
    found = answers(kernel, given)
    assert int(found["find_count"]) == 4
    assert np.array_equal(found["p"], places)
    assert np.array_equal(found["r"], given["x"][places])


def test_reference_pads_and_counts_and_refuses_more_than_fits(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(network(chosen(), samples(1)[0], "r", CONSTANTS), path)
    found = import_model(path, {}, options=ImportOptions(bounds={"find": 6}))
    few, _, many = samples()
    infer = reference(found, optimise=False)
    answer = infer(few)
    count = int((few["score"] > 0).sum())
    assert 0 < count < 6
    assert answer["r"].shape == (6, 4)
    assert np.array_equal(answer["r"][:count], few["x"][few["score"] > 0])
    assert not answer["r"][count:].any()
    assert int(answer["find_count"]) == count
    with pytest.raises(ModelError, match=r"output 'r' has \d+ rows, more than its bound of 6"):
        infer(many)


def test_opset_without_selections_is_refused() -> None:
    nodes = [node("NonZero", "x", "y", name="find")]
    model = network(nodes, {"x": normal(3)}, "y", opset=9)
    model.opset_import[0].version = 8
    with pytest.raises(ModelError):
        imported(model, {"find": 3})


def test_padding_is_undone_by_cutting() -> None:
    padded = {"m": (PaddedAxis(axis=0, bound=4, count="n"), PaddedAxis(axis=1, bound=3, count="k"))}
    answer = {"m": normal(2, 3), "other": normal(2)}
    whole = padding.pad(padded, answer)
    assert whole["m"].shape == (4, 3)
    assert (int(whole["n"]), int(whole["k"])) == (2, 3)
    back = padding.cut(padded, whole)
    assert back.keys() == answer.keys()
    assert all(np.array_equal(back[name], answer[name]) for name in answer)
