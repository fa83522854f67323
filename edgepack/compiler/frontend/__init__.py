"""ONNX to Relax: one converter for each operator, and errors that name the node.

converters   an operator family a file, each a dict from operator to function
node         what a converter is given
tvm_importer TVM's own converters, for the operators that have none here
graph        walks the nodes
"""

from __future__ import annotations

from edgepack.compiler.frontend.graph import to_relax
from edgepack.compiler.frontend.support import is_supported

__all__ = ["is_supported", "to_relax"]
