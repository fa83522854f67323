"""Every rewrite computes what ONNX Runtime computes on the original, on random inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack.errors import ModelError
from edgepack.importers import import_model
from edgepack.importers.passes import recurrent

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
STEPS, BATCH, WIDTH, HIDDEN = 5, 2, 7, 4
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


def save(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Any]],
    outputs: Mapping[str, tuple[int, Any]],
    constants: dict[str, np.ndarray],
    opset: int = 17,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(k, *v) for k, v in inputs.items()],
        [helper.make_tensor_value_info(k, *v) for k, v in outputs.items()],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def run(model: bytes | str, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, feed)]


def same_as_runtime(path: Path, feed: dict[str, np.ndarray]) -> list[str]:
    """Import and compare; returns the operators of the imported graph."""
    imported = import_model(path, {name: value.shape for name, value in feed.items()})
    expected = run(str(path), feed)
    actual = run(imported.model.SerializeToString(), feed)
    assert [spec.shape for spec in imported.outputs] == [value.shape for value in expected]
    for value, reference in zip(actual, expected, strict=True):
        np.testing.assert_allclose(value, reference, rtol=0, atol=2e-6)
    return [node.op_type for node in imported.model.graph.node]


def recurrent_model(
    folder: Path,
    op: str,
    *,
    direction: str = "forward",
    bias: bool = True,
    states: str = "given",
    lengths: list[int] | None = None,
    outputs: str = "all",
    opset: int = 17,
    peepholes: bool = False,
    **attributes: Any,
) -> tuple[Path, dict[str, np.ndarray]]:
    """A model of one recurrent node, and a feed for it."""
    source = np.random.default_rng(3)
    d, gates = DIRECTIONS[direction], GATES[op]

    def random(*shape: int) -> np.ndarray:
        return (source.standard_normal(shape) * 0.7).astype(np.float32)

    constants = {"w": random(d, gates * HIDDEN, WIDTH), "r": random(d, gates * HIDDEN, HIDDEN)}
    feed = {"x": random(STEPS, BATCH, WIDTH)}
    inputs = ["x", "w", "r", "", ""]
    if bias:
        constants["b"] = random(d, 2 * gates * HIDDEN)
        inputs[3] = "b"
    if lengths:
        constants["lengths"] = np.array(lengths, np.int32)
        inputs[4] = "lengths"
    for name in ("h0", "c0")[: 2 if op == "LSTM" else 1]:
        inputs.append("" if states == "absent" else name)
        if states != "absent":
            place = feed if states == "given" else constants
            zero = states == "zero"
            place[name] = random(d, BATCH, HIDDEN) * np.float32(not zero)
    if peepholes:
        constants["p"] = random(d, 3 * HIDDEN)
        inputs.append("p")
    while not inputs[-1]:
        inputs.pop()
    results = {
        "y": (FLOAT, [STEPS, d, BATCH, HIDDEN]),
        "y_h": (FLOAT, [d, BATCH, HIDDEN]),
        "y_c": (FLOAT, [d, BATCH, HIDDEN]),
    }
    names = ["y", "y_h", "y_c"] if op == "LSTM" else ["y", "y_h"]
    names = names if outputs == "all" else [name if name == outputs else "" for name in names]
    node = helper.make_node(
        op, inputs, names, name="rnn", hidden_size=HIDDEN, direction=direction, **attributes
    )
    given = {name: (FLOAT, ["steps", *value.shape[1:]] if name == "x" else value.shape)
             for name, value in feed.items()}  # fmt: skip
    wanted = {name: results[name] for name in names if name}
    return save(folder, [node], given, wanted, constants, opset), feed


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("states", ["absent", "given", "constant", "zero"])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_operator_is_unrolled_exactly(
    op: str, direction: str, states: str, bias: bool, tmp_path: Path
) -> None:
    path, feed = recurrent_model(tmp_path, op, direction=direction, states=states, bias=bias)
    assert op not in same_as_runtime(path, feed)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("states", ["absent", "given"])
def test_gru_with_the_reset_after_the_product(direction: str, states: str, tmp_path: Path) -> None:
    path, feed = recurrent_model(
        tmp_path, "GRU", direction=direction, states=states, linear_before_reset=1
    )
    assert "GRU" not in same_as_runtime(path, feed)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("opset", [7, 12, 13, 14, 18, 22])
def test_recurrent_operator_of_every_opset(op: str, opset: int, tmp_path: Path) -> None:
    path, feed = recurrent_model(tmp_path, op, direction="bidirectional", opset=opset)
    assert op not in same_as_runtime(path, feed)


@pytest.mark.parametrize("output", ["y", "y_h", "y_c"])
def test_outputs_that_are_left_out(output: str, tmp_path: Path) -> None:
    path, feed = recurrent_model(tmp_path, "LSTM", direction="bidirectional", outputs=output)
    assert "LSTM" not in same_as_runtime(path, feed)


def test_full_sequence_lengths_do_not_matter(tmp_path: Path) -> None:
    path, feed = recurrent_model(tmp_path, "LSTM", lengths=[STEPS] * BATCH)
    assert "LSTM" not in same_as_runtime(path, feed)


def test_other_activations_without_parameters(tmp_path: Path) -> None:
    path, feed = recurrent_model(tmp_path, "LSTM", activations=["Sigmoid", "Relu", "Tanh"])
    assert "LSTM" not in same_as_runtime(path, feed)


LEFT_ALONE: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {"lengths": [STEPS, 2]}),
    ("LSTM", {"clip": 0.5}),
    ("LSTM", {"peepholes": True}),
    ("LSTM", {"input_forget": 1}),
    ("GRU", {"activations": ["Sigmoid", "LeakyRelu"], "activation_alpha": [0.1]}),
    ("RNN", {"activations": ["Softsign"]}),
]


@pytest.mark.parametrize(("op", "options"), LEFT_ALONE)
def test_what_is_not_recognised_is_left_alone(
    op: str, options: dict[str, Any], tmp_path: Path
) -> None:
    path, feed = recurrent_model(tmp_path, op, **options)
    imported = import_model(path, {name: value.shape for name, value in feed.items()})
    assert op in [node.op_type for node in imported.model.graph.node]


def test_more_than_a_few_steps_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurrent, "FEW_STEPS", STEPS - 1)
    path, feed = recurrent_model(tmp_path, "LSTM")
    assert "LSTM" in same_as_runtime(path, feed)


@pytest.mark.parametrize(
    ("direction", "most", "left"),
    [("forward", STEPS, False), ("forward", STEPS - 1, True), ("bidirectional", STEPS, True)],
)
def test_steps_that_threads_would_share_are_unrolled_up_to_a_limit(
    direction: str, most: int, left: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurrent, "FEW_STEPS", STEPS - 1)
    monkeypatch.setattr(recurrent, "SHARED_OPERATIONS", 2 * BATCH * 4 * HIDDEN * HIDDEN)
    monkeypatch.setattr(recurrent, "MAX_STEPS", most)
    path, feed = recurrent_model(tmp_path, "LSTM", direction=direction)
    assert ("LSTM" in same_as_runtime(path, feed)) == left


def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    output = nodes[-1].output[0]
    result = helper.make_tensor_value_info(output, FLOAT, ["a", "b"])
    return helper.make_graph(nodes, name, [], [result])


def choice(condition: str, taken: onnx.GraphProto, other: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node(
        "If", [condition], ["y"], name="choice", then_branch=taken, else_branch=other
    )


@pytest.mark.parametrize("batch", [1, 3])
def test_branch_on_a_shape_folds_away(batch: int, tmp_path: Path) -> None:
    """Both branches use the same names inside, and one is invalid for the shape that is given."""
    squeezed = branch(
        "one",
        helper.make_node("Squeeze", ["x", "axis"], ["t"]),
        helper.make_node("Unsqueeze", ["t", "axis"], ["u"]),
    )
    other = branch(
        "many", helper.make_node("Neg", ["x"], ["t"]), helper.make_node("Exp", ["t"], ["u"])
    )
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Equal", ["n", "one"], ["single"]),
        choice("single", squeezed, other),
    ]
    constants = {"zero": np.array(0), "one": np.array(1), "axis": np.array([0])}
    sizes = {"x": (FLOAT, ["batch", 4])}
    path = save(tmp_path, nodes, sizes, {"y": (FLOAT, [None, 4])}, constants)
    feed = {"x": np.random.default_rng(0).standard_normal((batch, 4)).astype(np.float32)}
    operators = same_as_runtime(path, feed)
    assert "If" not in operators
    assert ("Exp" in operators) == (batch == 3)


@pytest.mark.parametrize("flag", [True, False])
def test_branch_on_data_selects(flag: bool, tmp_path: Path) -> None:
    """A branch within a branch, reading values from both levels outside."""
    inner = choice(
        "flag",
        branch("a", helper.make_node("Add", ["t", "x"], ["v"])),
        branch("b", helper.make_node("Sub", ["t", "x"], ["v"])),
    )
    inner.output[0] = "u"
    outer = choice(
        "flag",
        branch("c", helper.make_node("Exp", ["x"], ["t"]), inner),
        branch("d", helper.make_node("Neg", ["x"], ["t"]), helper.make_node("Abs", ["t"], ["u"])),
    )
    inputs = {"x": (FLOAT, [2, 4]), "flag": (BOOL, [])}
    path = save(tmp_path, [outer], inputs, {"y": (FLOAT, [2, 4])}, {})
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    operators = same_as_runtime(path, {"x": x, "flag": np.array(flag)})
    assert "If" not in operators
    assert "Where" in operators


def test_branches_of_different_shapes_are_named(tmp_path: Path) -> None:
    node = choice(
        "flag",
        branch("all", helper.make_node("Exp", ["x"], ["t"])),
        branch("sum", helper.make_node("ReduceSum", ["x", "axis"], ["t"])),
    )
    inputs = {"x": (FLOAT, [2, 4]), "flag": (BOOL, [])}
    constants = {"axis": np.array([0])}
    path = save(tmp_path, [node], inputs, {"y": (FLOAT, [None, 4])}, constants)
    with pytest.raises(ModelError, match=r"If 'choice.* its branches give \[2, 4\] and \[1, 4\]"):
        import_model(path, {})


def test_lstm_inside_a_branch_is_unrolled(tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    constants = {
        name: source.standard_normal(shape).astype(np.float32)
        for name, shape in {"w": (1, 16, 3), "r": (1, 16, 4)}.items()
    }
    lstm = helper.make_node("LSTM", ["x", "w", "r"], ["", "h"], hidden_size=4)
    squeeze = helper.make_node("Squeeze", ["h", "axis"], ["u"])
    other = helper.make_node("Identity", ["rest"], ["u"])
    node = choice("flag", branch("a", lstm, squeeze), branch("b", other))
    constants |= {"axis": np.array([0]), "rest": np.ones((2, 4), np.float32)}
    inputs = {"x": (FLOAT, [3, 2, 3]), "flag": (BOOL, [])}
    path = save(tmp_path, [node], inputs, {"y": (FLOAT, [2, 4])}, constants)
    x = source.standard_normal((3, 2, 3)).astype(np.float32)
    assert "LSTM" not in same_as_runtime(path, {"x": x, "flag": np.array(True)})


@pytest.mark.parametrize(
    "value",
    [
        {"value": numpy_helper.from_array(np.array([1, 2, 3, 4], np.float32))},
        {"value_float": 2.5},
        {"value_floats": [1.0, 2.0, 3.0, 4.0]},
    ],
)
def test_constant_nodes_become_initializers(value: dict[str, Any], tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], **value),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    path = save(tmp_path, nodes, {"x": (FLOAT, [2, 4])}, {"y": (FLOAT, [2, 4])}, {})
    feed = {"x": np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)}
    assert same_as_runtime(path, feed) == ["Add"]


def test_batch_normalisation_folds_into_the_convolution(tmp_path: Path) -> None:
    source = np.random.default_rng(1)
    names = ("scale", "shift", "mean", "var")
    constants = {name: source.uniform(0.5, 1, 4).astype(np.float32) for name in names}
    constants["w"] = source.standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *names], ["y"]),
    ]
    path = save(
        tmp_path, nodes, {"x": (FLOAT, [1, 3, 8, 8])}, {"y": (FLOAT, [1, 4, 6, 6])}, constants
    )
    feed = {"x": source.standard_normal((1, 3, 8, 8)).astype(np.float32) / 8}
    assert same_as_runtime(path, feed) == ["Conv"]


def test_products_that_share_an_input_are_not_joined(tmp_path: Path) -> None:
    source = np.random.default_rng(2)
    constants = {name: source.standard_normal((8, 8)).astype(np.float32) for name in "qkv"}
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        *(helper.make_node("MatMul", ["r", name], [f"{name}_product"]) for name in "qkv"),
        helper.make_node("Transpose", ["k_product"], ["keys"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q_product", "keys"], ["scores"]),
        helper.make_node("MatMul", ["scores", "v_product"], ["y"]),
    ]
    path = save(tmp_path, nodes, {"x": (FLOAT, [1, 5, 8])}, {"y": (FLOAT, [1, 5, 8])}, constants)
    feed = {"x": source.standard_normal((1, 5, 8)).astype(np.float32) / 16}
    operators = same_as_runtime(path, feed)
    assert "Split" not in operators
    assert operators.count("MatMul") == 5
