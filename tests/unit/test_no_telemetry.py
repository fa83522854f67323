"""A model that is compiled here is nobody else's business."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_onnx_runtime_leaves_no_telemetry_behind(tmp_path: Path) -> None:
    names = ("ORT_DISABLE_TELEMETRY", "CI", "TMPDIR", "XDG_CACHE_HOME")  # ORT is quiet under CI
    environment = {name: value for name, value in os.environ.items() if name not in names}
    code = (
        "import edgepack, onnxruntime, onnxruntime.datasets as data;"
        "onnxruntime.InferenceSession(data.get_example('sigmoid.onnx'))"
    )
    homes = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment | homes)
    assert list(tmp_path.rglob("*")) == []


def test_a_user_may_decide_otherwise() -> None:
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "0"}
    code = "import os, edgepack; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "0\n"
