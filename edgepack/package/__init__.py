"""The .epk package: an OCI image layout in a canonical tar, the same bytes every time.

write_package    compiled targets → file
read_package     file → Package, with everything checked but trust
attach_envelope  Package + DSSE envelope → signed file
write_thin       Package → only what one device lacks
"""

from __future__ import annotations

from edgepack.package.metadata import MAX_TENSORS
from edgepack.package.read import extract_blob, open_blob, read_blob, read_golden, read_package
from edgepack.package.thin import ThinPackage, write_thin
from edgepack.package.write import TargetContent, attach_envelope, write_package

__all__ = [
    "MAX_TENSORS",
    "TargetContent",
    "ThinPackage",
    "attach_envelope",
    "extract_blob",
    "open_blob",
    "read_blob",
    "read_golden",
    "read_package",
    "write_package",
    "write_thin",
]
