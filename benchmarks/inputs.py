"""What a model is measured on and checked with: inputs from a fixed seed, and ONNX Runtime's answers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

_CANDIDATES = 8
_DOUBT = 2e-5
_COARSE = 7
"""An image is made of about so many by so many patches, under some noise."""
_BYTE = 256

Tensors = dict[str, "np.ndarray"]


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Two sets of inputs whose answers differ clearly, and those answers, in the graph's order."""

    inputs: tuple[Tensors, Tensors]
    answers: tuple[list[np.ndarray], list[np.ndarray]]

    def save(self, path: Path) -> None:
        """Inputs as ``0/NAME`` and ``1/NAME``, answers as ``0:0`` and so on, in one .npz file."""
        import numpy as np

        arrays: Tensors = {}
        for number, (inputs, answers) in enumerate(zip(self.inputs, self.answers, strict=True)):
            arrays |= {f"{number}/{name}": array for name, array in inputs.items()}
            arrays |= {f"{number}:{place}": array for place, array in enumerate(answers)}
        np.savez(path, **arrays)  # type: ignore[arg-type]


def load_vectors(path: Path) -> Vectors:
    """What ``save`` wrote."""
    import numpy as np

    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}

    def inputs(number: int) -> Tensors:
        mark = f"{number}/"
        return {name.removeprefix(mark): a for name, a in arrays.items() if name.startswith(mark)}

    def answers(number: int) -> list[np.ndarray]:
        return [array for name, array in arrays.items() if name.startswith(f"{number}:")]

    return Vectors(inputs=(inputs(0), inputs(1)), answers=(answers(0), answers(1)))


def make_vectors(model: onnx.ModelProto) -> Vectors:
    """Of several candidates the two whose answers lie farthest apart.

    Only those count where ONNX Runtime with and without graph optimisation agrees: elsewhere (a
    detector that sees nothing and answers 1e-7) a comparison would measure rounding.
    """
    optimised, plain = (_session(model, optimise=optimise) for optimise in (True, False))
    answered = []
    for seed in range(_CANDIDATES):
        inputs = sample_inputs(model, seed)
        answers = optimised.run(None, inputs)
        answered.append((error(plain.run(None, inputs), answers), inputs, answers))
    sure = [candidate for candidate in answered if candidate[0] < _DOUBT]
    if len(sure) < 2:
        sure = sorted(answered, key=lambda candidate: candidate[0])[:2]
    first, second = max(
        itertools.combinations(sure, 2), key=lambda pair: distance(pair[0][2], pair[1][2])
    )
    return Vectors(inputs=(first[1], second[1]), answers=(first[2], second[2]))


def _session(model: onnx.ModelProto, *, optimise: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def sample_inputs(model: onnx.ModelProto, seed: int) -> Tensors:
    """One set of inputs; every other seed gives images like scenes, and like pages."""
    import numpy as np
    from onnx import helper

    generator = np.random.default_rng(seed)
    inputs: Tensors = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = tuple(dim.dim_value for dim in kind.shape.dim)
        if dtype.kind != "f":
            inputs[value.name] = _codes(generator, shape, seed).astype(dtype)
        elif len(shape) == 4 and seed % 2:
            inputs[value.name] = _pages(generator, shape).astype(dtype)
        else:
            inputs[value.name] = sample(generator, shape).astype(dtype)
    return inputs


def sample(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Values of about unit scale; four dimensions are an image, with a colour cast and patches."""
    import numpy as np

    noise = generator.standard_normal(shape)
    if len(shape) != 4:
        return noise * generator.uniform(0.3, 1.5, (shape[0], *[1] * (len(shape) - 1)))
    rows, columns = (-(-size // _COARSE) for size in shape[2:])
    patches = generator.standard_normal((*shape[:2], _COARSE, _COARSE))
    smooth = np.kron(patches, np.ones((rows, columns)))[:, :, : shape[2], : shape[3]]
    cast = generator.standard_normal((*shape[:2], 1, 1))
    return np.asarray(0.5 * cast + 0.8 * smooth + 0.3 * noise)


def _pages(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Light paper with lines of dark marks as large as letters, from -1 to 1 as text readers take it."""
    import numpy as np

    _, _, height, width = shape
    paper = np.full((height, width), 0.9)
    letter = min(24, height)
    for top in range(height // 10, height - letter + 1, 2 * letter):
        for left in range(width // 10, width - width // 10 - letter, letter // 2 + 3):
            mark = generator.random((5, 3)) < 0.6
            scale = (letter // 6, letter // 8)
            strokes = np.kron(mark, np.ones((max(scale[0], 1), max(scale[1], 1)))) > 0
            rows, columns = strokes.shape
            region = paper[top : top + rows, left : left + columns]
            region[strokes[: region.shape[0], : region.shape[1]]] = -0.8
    noise = 0.02 * generator.standard_normal(shape)
    return np.asarray(np.broadcast_to(paper, shape) + noise)


def _codes(generator: np.random.Generator, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Bytes: any, those of words and lines, or one pattern again and again."""
    import numpy as np

    kind = seed % 3
    if kind == 0:
        return generator.integers(0, _BYTE, shape)
    if kind == 1:
        return generator.choice(np.frombuffer(b"etaoin shrdlu,.\n", np.uint8), shape)
    return np.resize(generator.integers(32, 127, 24), shape)


def distance(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    """How far two answers lie apart, in units of the larger one."""
    return min(error(first, second), error(second, first))


def error(answers: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """``max|y - ref| / max|ref|``, the largest over the outputs; infinity where sizes or integers differ.

    Shapes are not compared: some engines drop dimensions of one.
    """
    import numpy as np

    if len(answers) != len(wanted):
        return float("inf")
    worst = 0.0
    for answer, right in zip(answers, wanted, strict=True):
        if answer.size != right.size:
            return float("inf")
        difference = answer.ravel().astype(np.float64) - right.ravel().astype(np.float64)
        largest = float(np.abs(difference).max())
        scale = max(float(np.abs(right).max()), 1e-30)
        found = largest / scale if right.dtype.kind == "f" else float("inf") * (largest > 0 or 0)
        worst = max(worst, found if np.isfinite(difference).all() else float("inf"))
    return worst
