from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks import clock, host
from benchmarks.inputs import Vectors, distance, error, load_vectors, make_vectors, sample_inputs


def floats(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def model(**inputs: tuple[int, list[int]]) -> onnx.ModelProto:
    """Every input times two."""
    graph = helper.make_graph(
        [helper.make_node("Add", [name, name], [f"{name}2"]) for name in inputs],
        "m",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(f"{name}2", *kind) for name, kind in inputs.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_an_error_is_relative_to_the_largest_value() -> None:
    right = [floats([10, -20])]
    assert error([floats([10, -19])], right) == pytest.approx(0.05)
    assert error([floats([10, -20]).reshape(2, 1)], right) == 0.0


@pytest.mark.parametrize(
    "answers",
    [[], [floats([1, 2, 3])], [floats([10, np.nan])], [floats([10, np.inf])]],
    ids=["missing", "size", "nan", "infinity"],
)
def test_an_answer_that_is_none_is_infinitely_wrong(answers: list[np.ndarray]) -> None:
    assert error(answers, [floats([10, -20])]) == float("inf")


def test_integers_are_right_or_wrong() -> None:
    assert error([np.array([3], np.int64)], [np.array([3], np.int64)]) == 0.0
    assert error([np.array([4], np.int64)], [np.array([3], np.int64)]) == float("inf")


def test_distance_does_not_depend_on_the_order() -> None:
    near, far = [floats([1, 0])], [floats([100, 0])]
    assert distance(near, far) == distance(far, near) == pytest.approx(0.99)


def test_inputs_have_the_models_types_and_shapes_and_come_out_twice() -> None:
    asked = model(
        image=(TensorProto.FLOAT, [1, 3, 40, 60]),
        sound=(TensorProto.FLOAT, [1, 100]),
        bytes=(TensorProto.INT32, [1, 64]),
    )
    for seed in range(6):
        first, second = sample_inputs(asked, seed), sample_inputs(asked, seed)
        assert {name: (a.dtype.name, a.shape) for name, a in first.items()} == {
            "image": ("float32", (1, 3, 40, 60)),
            "sound": ("float32", (1, 100)),
            "bytes": ("int32", (1, 64)),
        }
        assert all(np.array_equal(first[name], second[name]) for name in first)
        assert first["bytes"].min() >= 0
        assert first["bytes"].max() < 256


def test_vectors_come_back_from_their_file(tmp_path: Path) -> None:
    made = make_vectors(model(a=(TensorProto.FLOAT, [1, 5]), b=(TensorProto.INT32, [3])))
    assert distance(*made.answers) > 0.1
    made.save(tmp_path / "v.npz")
    read = load_vectors(tmp_path / "v.npz")
    for number in (0, 1):
        assert list(read.inputs[number]) == ["a", "b"]
        assert error(read.answers[number], made.answers[number]) == 0.0
        np.testing.assert_array_equal(read.inputs[number]["a"], made.inputs[number]["a"])


# ---- the process of an engine --------------------------------------------------------------------------


class Doubling:
    """A session that computes what ``model`` does; a stale one computes only what it is fed first."""

    def __init__(self, *, stale: bool = False) -> None:
        self.pid = os.getpid()
        self.began_ns = time.monotonic_ns()
        self.closed = False
        self._stale = stale
        self._fed: list[np.ndarray] = []

    def feed(self, inputs: Mapping[str, np.ndarray]) -> None:
        if not (self._stale and self._fed):
            self._fed = list(inputs.values())

    def run(self) -> int:
        return 1_000

    def answers(self) -> list[np.ndarray]:
        return [value + value for value in self._fed]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def anywhere() -> Iterator[set[int]]:
    """The CPUs that this process may use, given back after the test."""
    before = os.sched_getaffinity(0)
    yield before
    os.sched_setaffinity(0, before)


def measured(
    session: Doubling, tmp_path: Path, cores: set[int], monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    vectors: Vectors = make_vectors(model(a=(TensorProto.FLOAT, [1, 5])))
    vectors.save(tmp_path / "v.npz")
    peer = ModuleType("peer")
    peer.start = lambda artifact, threads: session  # type: ignore[attr-defined]
    monkeypatch.setattr(host, "PEERS", {"double": peer})
    request = {"engine": "double", "artifact": "-", "threads": 1, "cores": [min(cores)]}
    return host.measure(request | {"vectors": tmp_path / "v.npz", "seconds": 0.0})


def test_an_engine_is_timed_checked_and_closed(
    tmp_path: Path, anywhere: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Doubling()
    found = measured(session, tmp_path, anywhere, monkeypatch)
    assert found["error"] == 0.0
    assert set([*found["undisturbed_ns"], *found["disturbed_ns"]]) == {1_000}  # type: ignore[misc]
    assert session.closed
    assert os.sched_getaffinity(0) == {min(anywhere)}


def test_a_stale_answer_is_found(
    tmp_path: Path, anywhere: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measured(Doubling(stale=True), tmp_path, anywhere, monkeypatch)
    assert isinstance(found["error"], float)
    assert found["error"] > 0.1


def test_an_engine_without_a_clock_of_its_own_is_timed_from_outside() -> None:
    class Slow(Doubling):
        def run(self) -> None:  # type: ignore[override]
            time.sleep(0.002)

    times = clock.measure(Slow(), 0.0)
    everything = (*times.undisturbed, *times.disturbed)
    assert len(everything) >= 3
    assert min(everything) >= 2_000_000


def test_a_process_that_is_gone_has_waited_for_nothing() -> None:
    assert clock.waited_ns(2**22 + 1) == 0
    assert clock.waited_ns(os.getpid()) >= 0


def test_the_peak_is_at_least_what_is_resident() -> None:
    held = np.ones(40_000_000, np.uint8)
    rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
    resident = next(int(line.split()[1]) for line in rollup if line.startswith("Rss:")) * 1024
    assert clock.peak_bytes(os.getpid()) >= resident - 4_000_000 > held.nbytes
