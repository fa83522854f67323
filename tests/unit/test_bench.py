from __future__ import annotations

import struct

import numpy as np
import pytest

from edgepack import worker_protocol
from edgepack.artefacts import KernelInfo, TensorSpec
from edgepack.bench import Answers, Measured, layers
from edgepack.cli import kernel_text
from edgepack.errors import DeviceError
from edgepack.worker_protocol import MAGIC, Operation

CALLS = (
    KernelInfo(name="conv" * 30, rule="convolution", flops=3_000_000, nbytes=60_000),
    KernelInfo(name="copy", rule="copy", flops=0, nbytes=10_000),
)


def measured(calls: list[list[int]], peak_flops: int) -> Measured:
    return Measured(ready=1, cold_start=2, runs=[3], peak_rss=4, calls=calls, peak_flops=peak_flops)


def test_a_layers_figures_follow_from_its_median_time() -> None:
    profile = layers(
        CALLS, measured([[30_000, 10_000], [31_000, 9_000], [29_000, 90_000]], 10**11), 2
    )
    conv, copy = profile["calls"]
    assert (conv["time_us"], copy["time_us"], profile["total_us"]) == (30.0, 10.0, 40.0)
    assert (conv["share"], copy["share"]) == (0.75, 0.25)
    assert conv["gflops"] == pytest.approx(100)
    assert profile["peak_gflops"] == 200, "of two threads"
    assert conv["peak_share"] == pytest.approx(0.5)
    assert (conv["gbytes_per_s"], copy["gbytes_per_s"]) == (2.0, 1.0)
    assert (copy["gflops"], copy["peak_share"]) == (None, None)
    assert profile["iterations"] == 3


def test_what_was_not_measured_is_null_and_shown_as_a_dash() -> None:
    profile = layers(CALLS, measured([[0, 10_000]], 0), 1)
    assert profile["peak_gflops"] is None
    assert [call["peak_share"] for call in profile["calls"]] == [None, None]
    assert profile["calls"][0]["gbytes_per_s"] is None
    shown = kernel_text.profile(profile)
    assert "not measured" in shown
    assert shown.splitlines()[1].split()[-1] == "-"
    assert max(map(len, shown.splitlines()[:-2])) < 130, "long names are cut"


def reply(value: int, status: int = 0) -> bytes:
    return struct.pack("<Iiq", MAGIC, status, value)


def test_answers_are_told_apart_by_what_was_asked() -> None:
    data = reply(100) + reply(7) + reply(5) + reply(6) + struct.pack("<2Q", 3, 2) + reply(9)
    answers = Answers([Operation.RUN, Operation.OBSERVE, Operation.RUN], data, 2)
    assert answers.started == 100
    assert answers.values(Operation.RUN) == [5, 9]
    assert answers.calls == [[3, 2]]
    for cut in range(len(data)):
        with pytest.raises(DeviceError, match="too early"):
            Answers([Operation.RUN, Operation.OBSERVE, Operation.RUN], data[:cut], 2)
    with pytest.raises(DeviceError, match="-5"):
        Answers([Operation.RUN], reply(100) + reply(7) + reply(0, -5), 2)


def test_the_shared_file_has_every_input_where_the_worker_looks() -> None:
    specs = (
        TensorSpec(name="a", dtype="int8", shape=(3,)),
        TensorSpec(name="b", dtype="float32", shape=(2,)),
    )
    output = TensorSpec(name="y", dtype="float32", shape=(2000,))
    values: dict[str, np.ndarray] = {
        "a": np.array([1, 2, 3], np.int8),
        "b": np.array([0.5, -1], np.float32),
    }
    content = worker_protocol.shared_file(specs, (output,), values)
    assert len(content) == 8192
    assert content[:3] == b"\1\2\3"
    assert np.frombuffer(content[64:72], np.float32).tolist() == [0.5, -1.0]
    assert worker_protocol.layout((*specs, output))[0] == [0, 64, 128]
