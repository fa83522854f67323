"""PyTorch networks for the tests, and the files that PyTorch writes of them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from edgepack.importers.extras import quietly


def exported(module: nn.Module, args: tuple[Any, ...], path: Path, **options: Any) -> Path:
    """The module in evaluation mode as an exported program."""
    with quietly():
        torch.export.save(torch.export.export(module.eval(), args, **options), path)
    return path


def scripted(module: nn.Module, path: Path) -> Path:
    return saved(torch.jit.script, module.eval(), path)


def traced(module: nn.Module, args: tuple[Any, ...], path: Path) -> Path:
    return saved(torch.jit.trace, module.eval(), path, args, strict=False, check_trace=False)


def saved(
    compile: Callable[..., Any], module: nn.Module, path: Path, *args: Any, **options: Any
) -> Path:
    with quietly():
        torch.jit.save(compile(module, *args, **options), path)
    return path


def symbolic_program(path: Path) -> Path:
    """Vision as an exported program whose batch is a symbol."""
    sizes = {"image": {0: Dim("batch")}, "scale": None}
    return exported(Vision(), VISION, path, dynamic_shapes=sizes)


def in_old_layout(program: Path, path: Path) -> Path:
    """The same program as PyTorch 2.7 wrote it."""
    from torch._export.serde.serialize import serialize

    with quietly():
        artifact = serialize(torch.export.load(program))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.8")
        archive.writestr("serialized_exported_program.json", artifact.exported_program)
        archive.writestr("serialized_state_dict.pt", artifact.state_dict)
        archive.writestr("serialized_constants.pt", artifact.constants)
        archive.writestr("serialized_example_inputs.pt", artifact.example_inputs)
    return path


class Vision(nn.Module):
    """Two inputs, a dict of two outputs; statistics of batch normalisation as after training."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)
        nn.init.uniform_(self.norm.running_mean)  # type: ignore[arg-type]
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]

    def forward(self, image: Tensor, scale: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.norm(self.conv(image))).mean((2, 3))
        return {"logits": self.head(features) * scale, "features": features}


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, 8)
        self.lstm = nn.LSTM(8, 6, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(12, 4, batch_first=True)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        states, (last, _) = self.lstm(self.embedding(ids))
        return self.gru(states)[0], last


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer(x)
        return self.attention(hidden, hidden, hidden)[0]  # type: ignore[no-any-return]


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, count: int = 3, mask: Tensor | None = None) -> Tensor:
        for _ in range(count):
            x = torch.tanh(self.layer(x))
        if mask is not None:
            x = x.masked_fill(mask, 0.5)
        return x


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):  # noqa: SIM108 (TorchScript keeps it as a branch)
            y = x * 2
        else:
            y = x - 1
        return y


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.count = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return x + self.count


class LiteBlock(nn.Module):
    """An inverted residual of EfficientNet-Lite, padded as TensorFlow does."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.stride, self.kernel = stride, kernel
        if expansion > 1:
            self._expand_conv = nn.Conv2d(inputs, inner, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(inner, eps=1e-3)
        self._depthwise_conv = nn.Conv2d(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = nn.BatchNorm2d(inner, eps=1e-3)
        self._project_conv = nn.Conv2d(inner, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x
        if hasattr(self, "_expand_conv"):
            y = nn.functional.relu6(self._bn0(self._expand_conv(y)))
        y = same_padding(y, self.kernel, self.stride)
        y = nn.functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        if self.residual:
            y = x + y
        return y


class Lite0(nn.Module):
    """EfficientNet-Lite0 with the names of its published checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self._blocks = nn.ModuleList()
        inputs = 32
        for count, kernel, stride, expansion, outputs in (
            (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
            (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
        ):  # fmt: skip
            for i in range(count):
                first = i == 0
                self._blocks.append(
                    LiteBlock(inputs, outputs, kernel, stride if first else 1, expansion)
                )
                inputs = outputs
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, image: Tensor) -> Tensor:
        x = nn.functional.relu6(self._bn0(self._conv_stem(same_padding(image, 3, 2))))
        for block in self._blocks:
            x = block(x)
        x = nn.functional.relu6(self._bn1(self._conv_head(x)))
        return self._fc(x.mean((2, 3)))  # type: ignore[no-any-return]


def same_padding(x: Tensor, kernel: int, stride: int) -> Tensor:
    size = x.shape[-1]
    needed = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    before, after = needed // 2, needed - needed // 2
    return nn.functional.pad(x, (before, after, before, after))


IMAGE = torch.ones(2, 3, 12, 12)
VISION = (IMAGE, torch.ones(1))
IDS = (torch.ones(2, 7, dtype=torch.int64),)
SEQUENCE = (torch.ones(2, 5, 16),)
