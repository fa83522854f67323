"""Pretrained models that PyPI packages ship, through the command line, beside ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.conftest import Edgepack

Shapes = dict[str, tuple[int, ...]]
VAD: Shapes = {"input": (1, 576), "state": (2, 1, 128)}
MODELS: dict[str, tuple[str, str, Shapes]] = {
    "silero-vad": ("silero_vad", "data/silero_vad_16k_op15.onnx", VAD),
    "silero-vad in halves": ("silero_vad", "data/silero_vad_half.onnx", VAD),
    "magika": ("magika", "models/standard_v3_3/model.onnx", {"bytes": (1, 2048)}),
    "PP-OCR recognition": (
        "rapidocr_onnxruntime",
        "models/ch_PP-OCRv4_rec_infer.onnx",
        {"x": (1, 3, 48, 96)},
    ),
    "PP-OCR detection": (
        "rapidocr_onnxruntime",
        "models/ch_PP-OCRv4_det_infer.onnx",
        {"x": (1, 3, 96, 96)},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_pretrained_model_answers_as_onnx_runtime_does_on_inputs_it_never_saw(
    name: str,
    pretrained: Callable[[str, str], Path],
    edgepack: Edgepack,
    edgepack_json: Callable[..., Any],
    tmp_path: Path,
) -> None:
    folder, file, shapes = MODELS[name]
    model, package = pretrained(folder, file), tmp_path / "model.epk"
    fixed = [f"--input={key}={','.join(map(str, dims))}" for key, dims in shapes.items()]
    edgepack_json("compile", model, "--target", "host", *fixed, "-o", package)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    answers = []
    for seed in range(2):
        generator = np.random.default_rng(seed)
        given = []
        feed: dict[str, np.ndarray] = {}
        for spec in edgepack_json("inspect", package)["inputs"]:
            values = (
                generator.standard_normal(spec["shape"]) * 0.5
                if spec["dtype"].startswith("float")
                else np.full(spec["shape"], 16_000)
                if spec["name"] == "sr"
                else generator.integers(0, 255, spec["shape"])
            )
            feed[spec["name"]] = np.asarray(values, spec["dtype"])
            np.save(tmp_path / f"{spec['name']}.npy", feed[spec["name"]])
            given.append(f"--input={spec['name']}={tmp_path / spec['name']}.npy")
        done = edgepack("run", package, *given, "--output", tmp_path / "y.npz")
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / "y.npz") as arrays:
            answer = {key: arrays[key] for key in arrays.files}
        for key, right in zip(answer, session.run(list(answer), feed), strict=True):
            assert np.abs(answer[key] - right).max() <= 1e-4 * max(np.abs(right).max(), 1e-2)
        answers.append(answer)
    assert any(not np.array_equal(answers[0][key], answers[1][key]) for key in answers[0])
