"""The original model's answers, by the framework that it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgepack.artefacts import ImportedModel, Tensors
from edgepack.errors import EdgepackError, ModelError
from edgepack.reference import reference


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Inputs beyond the golden vectors, and what the original model makes of them."""

    inputs: Sequence[Tensors]
    outputs: Sequence[Tensors]
    original: str


def ask_original(
    imported: ImportedModel, inputs: Sequence[Tensors], progress: Callable[[str], None]
) -> Answered | None:
    """What the original model makes of the inputs; None where there are none.

    The original is the framework that the model comes from, where there is one, else ONNX Runtime.
    Raises ModelError where it cannot run the model on them.
    """
    if not inputs:
        return None
    progress(f"running the original in {imported.framework}")
    run = imported.original or reference(imported, optimise=True)
    try:
        outputs = [run(sample) for sample in inputs]
    except EdgepackError:
        raise
    except Exception as error:  # frameworks raise anything
        raise ModelError(
            f"{imported.framework} cannot run the original model: {str(error).splitlines()[0]}",
            "check that the model runs there with these inputs",
        ) from error
    return Answered(inputs=inputs, outputs=outputs, original=imported.framework)
