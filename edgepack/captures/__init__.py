"""Requests that devices captured: brought here, kept as a dataset, and read.

    from edgepack import captures

    for record in captures.read("dataset/"):
        record.inputs["x"], record.outputs["y"]  # numpy arrays, as the model had them

``read`` takes a folder that ``edgepack device capture pull`` filled, and files as they come: .npz,
.parquet, what devices push (.epc), and segments (.seg) taken from a device by hand.
"""

from edgepack.captures.pulling import CaptureSource, PulledModel, PullResult, pull
from edgepack.captures.reading import read
from edgepack.captures.record import CaptureRecord, RecordStream

__all__ = [
    "CaptureRecord",
    "CaptureSource",
    "PullResult",
    "PulledModel",
    "RecordStream",
    "pull",
    "read",
]
