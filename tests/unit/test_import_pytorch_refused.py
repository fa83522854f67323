"""PyTorch models that cannot be compiled: refused, with what is wrong and what to do instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgepack.errors import ModelError
from edgepack.importers import import_model
from edgepack.importers.extras import quietly
from tests.torch_models import SEQUENCE, Attention, Counter, Vision, exported, scripted, traced


def test_script_without_shapes_lists_its_parameters(tmp_path: Path) -> None:
    path = scripted(Vision(), tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"forward\(Tensor image, Tensor scale\)") as caught:
        import_model(path, {"scale": (1,)})
    assert caught.value.hint == "Add --input image=DIM0,DIM1,..."


def test_script_that_does_not_run_on_the_shapes_says_why(tmp_path: Path) -> None:
    path = scripted(Vision(), tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"of these shapes.*to have 3 channels, but got 4"):
        import_model(path, {"image": (1, 4, 9, 9), "scale": (1,)})


def test_script_that_takes_no_tensor_is_refused(tmp_path: Path) -> None:
    class Count(nn.Module):
        def forward(self, x: Tensor, count: int) -> Tensor:
            return x * count

    with pytest.raises(ModelError, match="parameter 'count' is of type int, not a tensor"):
        import_model(scripted(Count(), tmp_path / "model.pt"), {"x": (2,)})


@pytest.mark.parametrize("form", ["exported", "scripted"])
def test_model_with_a_state_is_refused(form: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    if form == "exported":
        exported(Counter(), (torch.ones(2),), path)
    else:
        scripted(Counter(), path)
    with pytest.raises(ModelError, match="'output' differs from one run to the next"):
        import_model(path, {"x": (2,)})


@pytest.mark.parametrize("module", [nn.BatchNorm1d(3), nn.Dropout(0.5)], ids=["norm", "dropout"])
@pytest.mark.parametrize("form", ["exported", "traced"])
def test_training_mode_is_refused(module: nn.Module, form: str, tmp_path: Path) -> None:
    x, path = (torch.randn(8, 3),), tmp_path / "model.pt2"
    with quietly():
        if form == "exported":
            torch.export.save(torch.export.export(module.train(), x), path)
        else:
            trace: Any = torch.jit.trace
            torch.jit.save(trace(module.train(), x, check_trace=False), path)
    with pytest.raises(ModelError, match="training mode") as caught:
        import_model(path, {})
    assert "model.eval()" in caught.value.hint


@pytest.mark.parametrize("write", [exported, traced])
def test_custom_operator_is_named(write: Any, tmp_path: Path) -> None:
    class Custom(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return torch.ops.edgepack_tests.twice(torch.relu(x))

    with torch.library._scoped_library("edgepack_tests", "FRAGMENT") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
        torch.library.register_fake("edgepack_tests::twice", torch.empty_like, lib=library)
        path = write(Custom(), (torch.randn(2, 3),), tmp_path / "model.pt2")
    with pytest.raises(ModelError, match=r"unsupported operator: edgepack_tests\.twice"):
        import_model(path, {})


def test_operator_without_a_counterpart_is_named(tmp_path: Path) -> None:
    class Bessel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = torch.special.bessel_j0(x)
            return y

    path = exported(Bessel(), (torch.randn(2, 3),), tmp_path / "model.pt2")
    with pytest.raises(ModelError, match=r"unsupported operator: prims\.bessel_j0"):
        import_model(path, {})


def test_fast_path_of_a_transformer_that_was_traced_is_named(tmp_path: Path) -> None:
    with torch.no_grad():
        path = traced(Attention(), SEQUENCE, tmp_path / "model.pt")
    with pytest.raises(
        ModelError, match=r"operator: aten\._transformer_encoder_layer_fwd"
    ) as caught:
        import_model(path, {})
    assert caught.value.hint.startswith("Trace it outside of torch.no_grad()")


def test_shape_that_no_memory_holds_is_refused(tmp_path: Path) -> None:
    path = scripted(nn.Sequential(nn.ReLU()), tmp_path / "model.pt")
    with pytest.raises(ModelError, match="does not run on inputs of these shapes"):
        import_model(path, {"input": (1 << 30, 1 << 30)})
