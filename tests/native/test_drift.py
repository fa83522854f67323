"""Statistics and drift of what the real agent serves, beside NumPy's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from edgepack.artefacts import Baseline, TensorBaseline, TensorSpec
from edgepack.baseline import measure_baseline
from edgepack.channels.device_status import DeviceStatus
from edgepack.cli import text
from tests.native.fake_device import Device, FakeModel, request
from tests.native.test_metrics import scrape

ELEMENTS = 64
pytestmark = pytest.mark.also_on("aarch64")

INFER = "/v2/models/m/infer"
STATISTICS = "/v2/models/m/statistics"

Batch = Sequence[np.ndarray]


def batches(*, seed: int, number: int = 40, shift: float = 0.0, scale: float = 1.0) -> Batch:
    """Inputs for ``x`` of the fake model with ELEMENTS elements."""
    drawn = np.random.default_rng(seed).standard_normal((number, ELEMENTS)) * scale + shift
    return list(drawn.astype(np.float32))


def with_baseline(drawn: Batch, **more: Any) -> FakeModel:
    bare = FakeModel(elements=ELEMENTS, **more)
    shape = bare.inputs[0].shape
    inputs = [{"x": x.reshape(shape)} for x in drawn]
    # "calls" counts up: it is left out, and so it has no baseline.
    outputs = [{"y": (x + np.float32(1)).reshape(shape)} for x in drawn]
    return dataclasses.replace(
        bare, baseline=measure_baseline(inputs, outputs, bare.inputs, bare.outputs)
    )


NORMAL = with_baseline(batches(seed=1, number=200))


@pytest.fixture
def watched(idle: Device) -> Iterator[Device]:
    """The model ``m`` with a baseline of standard normal inputs, served."""
    idle.install("m", {"1.0.0": NORMAL})
    with idle.serving():
        yield idle


def send(device: Device, drawn: Batch) -> None:
    connection = device.connect()
    for x in drawn:
        # As bytes: JSON has no infinity.
        tensor = {
            "name": "x",
            "shape": [len(x) // 2, 2],
            "datatype": "FP32",
            "parameters": {"binary_data_size": x.nbytes},
        }
        head = json.dumps({"inputs": [tensor]}).encode()
        length = {"Inference-Header-Content-Length": str(len(head))}
        assert connection.ask("POST", INFER, head + x.tobytes(), **length)[0] == 200
    connection.close()


def told(device: Device) -> dict[str, Any]:
    code, answer = device.ask("GET", STATISTICS)
    assert code == 200
    assert isinstance(answer, dict)
    return answer


def psi_of(normal: TensorBaseline, values: np.ndarray) -> float:
    """By its definition, with NumPy alone."""
    wide = values.astype(np.float64).ravel()
    numbers = wide[~np.isnan(wide)]
    counts = np.histogram(numbers, [-np.inf, *normal.edges, np.inf])[0]
    p = np.maximum([*(counts / wide.size), 1 - numbers.size / wide.size], 1e-4)
    q = np.maximum([*(np.array(normal.counts) / normal.count), normal.nan / normal.count], 1e-4)
    return float(((p - q) * np.log(p / q)).sum())


def assert_summary(summary: dict[str, Any], values: np.ndarray, edges: Sequence[float]) -> None:
    wide = values.astype(np.float64).ravel()
    finite = wide[np.isfinite(wide)]
    assert summary["count"] == wide.size
    assert summary["nan"] == np.isnan(wide).sum()
    assert summary["infinite"] == np.isinf(wide).sum()
    assert summary["mean"] == pytest.approx(finite.mean(), rel=1e-9)
    assert summary["variance"] == pytest.approx(finite.var(), rel=1e-9)
    assert (summary["min"], summary["max"]) == (finite.min(), finite.max())
    bounds = [-np.inf, *edges, np.inf]
    assert summary["counts"] == list(np.histogram(wide[~np.isnan(wide)], bounds)[0])


def test_statistics_are_those_of_numpy_and_drift_is_small_without_any(watched: Device) -> None:
    drawn = batches(seed=2)
    send(watched, drawn)
    found = told(watched)
    assert (found["name"], found["version"]) == ("m", "1.0.0")
    assert (found["requests"], found["samples"]) == (40, 200)
    (x,), (y, calls) = found["inputs"], found["outputs"]
    assert NORMAL.baseline is not None
    normal = NORMAL.baseline.inputs[0]
    assert normal is not None
    assert x["baseline"] == {k: v for k, v in normal.to_dict().items() if k != "edges"}
    assert x["edges"] == list(normal.edges)
    for tensor, values in ((x, np.array(drawn)), (y, np.array(drawn) + np.float32(1))):
        assert tensor["datatype"] == "FP32"
        assert_summary(tensor["total"], values, tensor["edges"])
        assert tensor["window"]["summary"] == tensor["total"]
        assert tensor["window"]["requests"] == 40
    assert x["psi"] == pytest.approx(psi_of(normal, np.array(drawn)), rel=1e-9)
    assert 0 < x["psi"] < 0.05
    assert 0 < y["psi"] < 0.05
    assert (calls["psi"], calls["baseline"], calls["edges"]) == (None, None, None)
    assert calls["total"]["mean"] == pytest.approx((20.5 + 1) / 2)
    assert calls["total"]["counts"] is None


@pytest.mark.parametrize(("shift", "scale"), [(1.0, 1.0), (0.0, 3.0), (0.0, 0.1)])
def test_other_data_drift_in_metrics_and_status(
    watched: Device, shift: float, scale: float
) -> None:
    drawn = batches(seed=3, shift=shift, scale=scale)
    send(watched, drawn)
    assert NORMAL.baseline is not None
    normal = NORMAL.baseline.inputs[0]
    assert normal is not None
    wanted = psi_of(normal, np.array(drawn))
    assert wanted > 0.2
    found = scrape(watched)
    labels = {"kind": "input", "model": "m", "tensor": "x", "version": "1.0.0"}
    x = tuple(sorted(labels.items()))
    assert found["edgepack_tensor_psi", x] == pytest.approx(wanted, rel=1e-9)
    mean = np.array(drawn).astype(np.float64).mean()
    assert found["edgepack_tensor_mean", x] == pytest.approx(mean, rel=1e-9)
    assert found["edgepack_tensor_nan_total", x] == 0
    indices = [value for (name, _), value in found.items() if name == "edgepack_tensor_psi"]
    assert len(indices) == 2, "one for x, one for y"
    status = watched.ask("GET", "/v2/status")[1]
    assert status["models"][0]["served"]["psi"] == max(indices)
    read = DeviceStatus.from_dict(status)
    assert read.models[0].served is not None
    assert read.models[0].served.psi == max(indices)
    assert f"drift {max(indices):.2f}" in text.device_status(read.to_dict())


def test_what_is_no_number_has_a_bin_of_its_own_and_spoils_no_moment(watched: Device) -> None:
    drawn = batches(seed=4)
    for x in drawn:
        x[:8], x[8], x[9] = np.nan, np.inf, -np.inf
    send(watched, drawn)
    (x,) = told(watched)["inputs"]
    assert_summary(x["total"], np.array(drawn), x["edges"])
    assert NORMAL.baseline is not None
    normal = NORMAL.baseline.inputs[0]
    assert normal is not None
    assert x["psi"] == pytest.approx(psi_of(normal, np.array(drawn)), rel=1e-9)
    assert x["psi"] > 0.5
    found = scrape(watched)
    nans = [value for (name, _), value in found.items() if name == "edgepack_tensor_nan_total"]
    assert sorted(nans) == [0, 320, 320]


def test_there_is_no_index_of_few_requests(watched: Device) -> None:
    drawn = batches(seed=5, shift=5)
    send(watched, drawn[:29])
    assert told(watched)["inputs"][0]["psi"] is None
    assert not any(name == "edgepack_tensor_psi" for name, _ in scrape(watched))
    assert watched.ask("GET", "/v2/status")[1]["models"][0]["served"]["psi"] is None
    send(watched, drawn[29:30])
    assert told(watched)["inputs"][0]["psi"] > 1


def test_requests_that_fail_leave_no_trace(watched: Device) -> None:
    assert watched.ask("POST", INFER, request([0.0] * 2))[0] == 400
    assert watched.ask("POST", INFER, request([-1001.0] + [0.0] * (ELEMENTS - 1)))[0] == 500
    found = told(watched)
    assert found["requests"] == 0
    empty = {"count": 0, "nan": 0, "infinite": 0, "mean": None, "variance": None}
    empty |= {"min": None, "max": None}
    (x,) = found["inputs"]
    assert {key: x["total"][key] for key in empty} == empty
    assert x["window"]["seconds"] == 0


def test_another_version_begins_anew(watched: Device) -> None:
    send(watched, batches(seed=6, shift=2))
    other = with_baseline(batches(seed=7, number=200, shift=2), tag=2)
    watched.install("m", {"1.0.0": NORMAL, "2.0.0": other})
    assert watched.ask("POST", "/v2/repository/models/m/load")[0] == 200
    assert told(watched)["requests"] == 0
    send(watched, batches(seed=8, shift=2))
    found = told(watched)
    assert (found["version"], found["requests"]) == ("2.0.0", 40)
    assert found["inputs"][0]["psi"] < 0.05
    versions = {
        dict(k)["version"] for (name, k) in scrape(watched) if name == "edgepack_tensor_psi"
    }
    assert versions == {"2.0.0"}
    assert watched.ask("GET", "/v2/models/m/versions/1.0.0/statistics")[0] == 404
    assert watched.ask("GET", "/v2/models/m/versions/2.0.0/statistics")[0] == 200
    assert watched.ask("POST", STATISTICS, {})[0] == 405


def test_every_dtype_has_statistics_also_without_a_baseline(idle: Device) -> None:
    model = FakeModel(all_dtypes=True)
    idle.install("m", {"1.0.0": model})
    kinds = {"bool": "BOOL", "uint": "UINT", "int": "INT", "float": "FP"}

    def datatype(spec: TensorSpec) -> str:
        kind = spec.dtype.rstrip("0123456789")
        return kinds[kind] + spec.dtype[len(kind) :]

    data: dict[str, list[Any]] = {
        "bool": [True, False, True],
        "uint8": [250, 1, 4],
        "uint64": [2**64 - 1, 0, 0],
    }
    given = {
        spec.name: data.get(spec.dtype, [100, 7, 1])[: int(np.prod(spec.shape))]
        for spec in model.inputs
    } | {"x": [1.5, -2, 3, 0]}
    body = {
        "inputs": [
            {"name": s.name, "shape": s.shape, "datatype": datatype(s), "data": given[s.name]}
            for s in model.inputs
        ]
    }
    with idle.serving():
        assert idle.ask("POST", INFER, body)[0] == 200
        found = told(idle)
        assert len([1 for name, _ in scrape(idle) if name == "edgepack_tensor_mean"]) == 27
    assert found["samples"] is None
    assert len(found["inputs"]) == len(model.inputs)
    for tensor, spec in zip(found["inputs"], model.inputs, strict=True):
        values = np.array(given[spec.name], spec.dtype).astype(np.float64)
        assert tensor["name"] == spec.name
        assert tensor["psi"] is tensor["baseline"] is None
        assert tensor["total"]["mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert tensor["total"]["variance"] == pytest.approx(values.var(), rel=1e-12)
        assert (tensor["total"]["min"], tensor["total"]["max"]) == (values.min(), values.max())


def test_of_a_large_tensor_a_part_is_looked_at_and_tells_the_whole(idle: Device) -> None:
    elements = 100_000
    spread = np.sin(np.arange(elements)).astype(np.float32)
    shape = (elements // 2, 2)
    bare = FakeModel(elements=elements)
    normal = measure_baseline([{"x": spread.reshape(shape)}], [{}], bare.inputs, bare.outputs)
    idle.install("m", {"1.0.0": dataclasses.replace(bare, baseline=normal)})
    with idle.serving():
        send(idle, [spread] * 30)
        (x,) = told(idle)["inputs"]
    assert x["total"]["count"] == 30 * 1024
    assert x["total"]["mean"] == pytest.approx(0, abs=0.02)
    assert x["total"]["variance"] == pytest.approx(spread.var(), rel=0.02)
    assert x["psi"] < 0.01


def test_a_model_whose_baseline_is_malformed_is_not_served(idle: Device) -> None:
    assert NORMAL.baseline is not None
    (x,) = NORMAL.baseline.inputs
    assert x is not None
    wrong = dataclasses.replace(x, counts=(*x.counts[:-1], x.counts[-1] + 1))
    broken = Baseline(samples=1, inputs=(wrong,), outputs=(None, None))
    idle.install("m", {"1.0.0": FakeModel(elements=ELEMENTS, baseline=broken)})
    with idle.serving():
        (entry,) = idle.ask("POST", "/v2/repository/index", {})[1]
    assert entry["state"] == "UNAVAILABLE"
    assert "do not make up" in entry["reason"]
