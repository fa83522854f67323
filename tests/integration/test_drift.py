"""A trained model from its samples to the drift that a device tells, by the command line."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.trust import write_key_pair
from tests.conftest import Edgepack
from tests.integration.machines import sshd
from tests.integration.machines.local_device import LocalDevice, UnixConnection, local_device
from tests.integration.machines.models import KEY
from tests.integration.machines.sshd import ssh_server

pytestmark = pytest.mark.needs(*sshd.PROGRAMS)

_DIGITS = """
import warnings; warnings.simplefilter("ignore")
import numpy, skops.io, sklearn.datasets, sklearn.linear_model, sklearn.model_selection, sys

X, y = sklearn.datasets.load_digits(return_X_y=True)
seen, kept, y, _ = sklearn.model_selection.train_test_split(
    X.astype("float32"), y, test_size=400, random_state=0
)
model = sklearn.linear_model.LogisticRegression(max_iter=3000).fit(seen, y)
skops.io.dump(model, sys.argv[1] + "/digits.skops")
numpy.savez(sys.argv[1] + "/normal.npz", X=seen[:, None])
numpy.save(sys.argv[1] + "/kept.npy", kept)
"""
"""Writes the model, the samples that it was trained with, and 400 digits that it never saw."""


@pytest.fixture
def device(tmp_path: Path) -> Iterator[LocalDevice]:
    with ssh_server(tmp_path) as server, local_device(server) as found:
        yield found


def index_of(device: LocalDevice, kind: str) -> dict[str, float]:
    """edgepack_tensor_psi by tensor."""
    with contextlib.closing(UnixConnection(device.root / "run/agent.sock")) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    pattern = rf'^edgepack_tensor_psi{{model="digits",version="1.0.0",kind="{kind}",tensor="(.*)"}} (\S+)$'
    return {name: float(value) for name, value in re.findall(pattern, text, re.MULTILINE)}


def ask(device: LocalDevice, images: np.ndarray) -> None:
    with contextlib.closing(UnixConnection(device.root / "run/agent.sock")) as connection:
        for image in images:
            tensor = {"name": "X", "datatype": "FP32", "shape": [1, 64], "data": image.tolist()}
            body = json.dumps({"inputs": [tensor]})
            connection.request("POST", "/v2/models/digits/infer", body)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()


def test_digits_like_those_of_training_do_not_drift_and_dark_ones_do(
    edgepack: Edgepack,
    edgepack_json: Callable[..., Any],
    tmp_path: Path,
    device: LocalDevice,
) -> None:
    subprocess.run([sys.executable, "-c", _DIGITS, str(tmp_path)], check=True)
    private = tmp_path / "release.key"
    write_key_pair(KEY, private)
    compiling = ["compile", tmp_path / "digits.skops", "--target", "host", "--input", "X=1,64"]
    compiling += ["--baseline", tmp_path / "normal.npz"]
    epk, again = tmp_path / "digits.epk", tmp_path / "again.epk"
    for package in (epk, again):
        edgepack_json(*compiling, "-o", package)
    assert epk.read_bytes() == again.read_bytes()
    assert re.search(r"baseline +1397 samples", edgepack("inspect", epk).stdout)
    edgepack_json("sign", epk, "--key", private)
    edgepack_json("push", epk, "--to", f"dir:{tmp_path / 'stick'}")
    code, answer = device.agent("pull", str(tmp_path / "stick"), "digits")
    assert code == 0, answer

    kept = np.load(tmp_path / "kept.npy")
    ask(device, kept)
    like = index_of(device, "input") | index_of(device, "output")
    assert set(like) == {"X", "probabilities"}, "400 labels are too few to tell"
    assert max(like.values()) < 0.05
    with contextlib.closing(UnixConnection(device.root / "run/agent.sock")) as connection:
        connection.request("POST", "/v2/repository/models/digits/load")
        assert connection.getresponse().status == 200
    ask(device, kept * np.float32(0.4))
    dark = index_of(device, "input") | index_of(device, "output")
    assert min(dark.values()) > 0.2
    (model,) = device.status().models
    assert model.served is not None
    assert model.served.psi == pytest.approx(max(dark.values()), rel=1e-9)
