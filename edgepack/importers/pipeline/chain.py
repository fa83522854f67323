"""The originals of a pipeline's models, one after the other: what its package must compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgepack.artefacts import Infer, Tensors
from edgepack.importers.pipeline.declaration import Port, Wiring
from edgepack.importers.pipeline.members import ConvertedMember
from edgepack.reference import run_onnx

if TYPE_CHECKING:
    import numpy as np


def chained(members: Mapping[str, ConvertedMember], wiring: Wiring) -> Infer:
    """A function of the inputs of the whole; models that come as ONNX run in ONNX Runtime."""
    infers = {
        name: member.converted.original or _in_onnxruntime(member)
        for name, member in members.items()
    }
    given = {port: name for name, ports in wiring.inputs.items() for port in ports}

    def run(tensors: Tensors) -> Tensors:
        computed: dict[Port, np.ndarray] = {}
        for name, member in members.items():
            ports = [Port(model=name, tensor=tensor) for tensor in member.inputs]
            answer = infers[name](
                {
                    port.tensor: tensors[given[port]]
                    if port in given
                    else computed[wiring.connections[port]]
                    for port in ports
                }
            )
            computed |= {Port(model=name, tensor=key): value for key, value in answer.items()}
        return {name: computed[port] for name, port in wiring.outputs.items()}

    return run


def _in_onnxruntime(member: ConvertedMember) -> Infer:
    content = member.converted.model.SerializeToString()
    return run_onnx(member.source.path, content, list(member.outputs), optimise=True)
