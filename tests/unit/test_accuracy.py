from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgepack.accuracy import measure, read_samples
from edgepack.artefacts import Accuracy, Tensors, TensorSpec
from edgepack.errors import CompileError, ConfigError

X = TensorSpec(name="x", dtype="float32", shape=(1, 3))
N = TensorSpec(name="n", dtype="int64", shape=())


def sample(seed: int) -> Tensors:
    return {"x": np.random.default_rng(seed).standard_normal((1, 3)).astype(np.float32)}


def measured(wanted: list[Tensors], answers: list[Tensors]) -> Accuracy:
    """Of answers to two samples, in their order."""
    given = iter(answers)
    return measure(
        [sample(0), sample(1)],
        wanted,
        lambda _: next(given),
        original="PyTorch",
        tolerance=0.1,
        what="host",
    )


def test_errors_are_relative_to_the_largest_value_of_each_sample() -> None:
    wanted = [
        {"y": np.array([[1.0, -4.0]], np.float32)},
        {"y": np.array([[0.5, 0.25]], np.float32)},
    ]
    answers = [
        {"y": np.array([[1.0, -4.0 + 0.04]], np.float32)},
        {"y": np.array([[0.5, 0.25 + 0.01]], np.float32)},
    ]
    found = measured(wanted, answers)
    (output,) = found.outputs
    assert output.max_error == pytest.approx(0.02, rel=1e-4)
    assert output.mean_error == pytest.approx((0.01 / 2 + 0.02 / 2) / 2, rel=1e-4)
    assert output.top1_agreement == 1.0
    assert (found.original, found.samples, found.tolerance) == ("PyTorch", 2, 0.1)


@pytest.mark.parametrize(("near_zero", "error"), [(1e-5, 1e-7 * 512), (1.0 / 256, 1e-7 * 256)])
def test_a_sample_near_zero_is_measured_by_a_512th_of_the_largest_at_the_least(
    near_zero: float, error: float
) -> None:
    wanted = [{"y": np.array([1.0])}, {"y": np.array([near_zero])}]
    found = measured(wanted, [wanted[0], {"y": np.array([near_zero + 1e-7])}])
    assert found.outputs[0].max_error == pytest.approx(error, rel=1e-6)


def test_top1_agreement_counts_rows_and_is_for_scores_alone() -> None:
    wanted = [
        {"y": np.array([[1, 2], [3, 1]], np.float32), "image": np.ones((1, 2, 2, 2), np.float32)}
    ]
    answer = {
        "y": np.array([[2, 1], [3, 1]], np.float32),
        "image": np.ones((1, 2, 2, 2), np.float32),
    }
    found = measure(
        [sample(0)], wanted, lambda _: answer, original="Keras", tolerance=1.0, what="host"
    )
    assert {o.name: o.top1_agreement for o in found.outputs} == {"y": 0.5, "image": None}


@pytest.mark.parametrize(
    "answer",
    [
        np.array([1.0, 2.1], np.float32),
        np.array([1.0, np.nan], np.float32),
        np.array([1.0, 2.0, 3.0], np.float32),
        np.array([1.0, 2.0], np.float64),
    ],
    ids=["off", "nan", "shape", "dtype"],
)
def test_an_answer_over_the_tolerance_names_target_output_and_error(answer: np.ndarray) -> None:
    wanted = [{"y": np.array([1.0, 2.0], np.float32)}]
    with pytest.raises(CompileError, match="pi: output 'y' differs from PyTorch's by") as caught:
        measure(
            [sample(0)],
            wanted,
            lambda _: {"y": answer},
            original="PyTorch",
            tolerance=1e-3,
            what="pi",
        )
    assert "nothing was written" in caught.value.hint


def test_samples_come_stacked_or_one_in_a_file(tmp_path: Path) -> None:
    stacked = np.stack([sample(seed)["x"] for seed in range(3)])
    np.savez(tmp_path / "b.npz", x=stacked, n=np.arange(3))
    np.savez(tmp_path / "a.npz", x=sample(7)["x"], n=np.int64(7))
    (tmp_path / "notes.txt").write_text("not data")
    found = read_samples(tmp_path, [X, N])
    assert [int(s["n"]) for s in found] == [7, 0, 1, 2]
    assert all(s["x"].shape == (1, 3) for s in found)
    assert np.array_equal(found[1]["x"], stacked[0])
    assert len(read_samples(tmp_path / "b.npz", [X, N])) == 3


def test_one_array_serves_a_model_with_one_input(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, 1, 3), np.float32))
    assert len(read_samples(tmp_path / "x.npy", [X])) == 5
    with pytest.raises(ConfigError, match="holds one array, the model has 2 inputs"):
        read_samples(tmp_path / "x.npy", [X, N])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.zeros((1, 3), np.float32)}, "has no array 'x'"),
        ({"x": np.zeros((1, 3))}, "'x' is float64"),
        ({"x": np.zeros((1, 4), np.float32)}, "'x' is float32"),
        ({"x": np.zeros((2, 2, 1, 3), np.float32)}, "'x' is float32"),
        ({"x": np.array([["a", "b", "c"]], object)}, "no NumPy file of plain arrays"),
    ],
)
def test_what_does_not_fit_the_input_is_said(
    arrays: dict[str, np.ndarray], words: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "d.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=words):
        read_samples(tmp_path / "d.npz", [X])


def test_inputs_with_different_numbers_of_samples_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 1, 3), np.float32), n=np.zeros(3, np.int64))
    with pytest.raises(ConfigError, match="different numbers of samples"):
        read_samples(tmp_path / "d.npz", [X, N])


def test_unreadable_files_and_empty_folders_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_samples(tmp_path / "none.npz", [X])
    with pytest.raises(ConfigError, match="holds no samples"):
        read_samples(tmp_path, [X])
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(ConfigError, match="no NumPy file"):
        read_samples(tmp_path / "broken.npz", [X])
