"""What is measured side by side; one file for each, entered by hand."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.peers import edgepack, executorch, iree, litert, ncnn, onnx_runtime, openvino
from benchmarks.peers.protocol import Peer

SELF = "edgepack"
REFERENCE = "onnxruntime"

PEERS: Mapping[str, Peer] = {
    SELF: edgepack,
    REFERENCE: onnx_runtime,
    "openvino": openvino,
    "ncnn": ncnn,
    "litert": litert,
    "executorch": executorch,
    "iree": iree,
}
