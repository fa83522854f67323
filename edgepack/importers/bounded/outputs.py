"""The model's outputs once rows are bounded: zero beyond those that there are, and their number."""

from __future__ import annotations

from edgepack.artefacts import PaddedAxis
from edgepack.importers.bounded.sizes import Size
from edgepack.importers.bounded.tensors import INT64
from edgepack.importers.bounded.walk import Walk


def pad_outputs(walk: Walk) -> dict[str, tuple[PaddedAxis, ...]]:
    """Clear padding in the graph's outputs and add outputs that count; axes by output."""
    graph = walk.model.graph
    counts: dict[Size, str] = {}
    padded = {}
    for output in list(graph.output):
        if not walk.is_known(output.name):
            continue
        tensor = walk.tensor(output.name)
        if tensor.padded:
            _clear(walk, output.name)
            padded[output.name] = tuple(
                PaddedAxis(
                    axis=axis,
                    bound=tensor.shape[axis],
                    count=_count_output(walk, output.name, tensor.sizes[axis], counts),
                )
                for axis in tensor.padded
            )
            walk.notes += [_note(output.name, entry) for entry in padded[output.name]]
    return padded


def _note(output: str, entry: PaddedAxis) -> str:
    where = f" along axis {entry.axis}" if entry.axis else ""
    return (
        f"output {output!r} has room for {entry.bound} rows{where};"
        f" output {entry.count!r} tells how many there are"
    )


def _clear(walk: Walk, name: str) -> None:
    """Let the output be zero beyond its true size; inside the graph it has another name."""
    inner = walk.editor.fresh(f"{name}/padded")
    for node in walk.model.graph.node:
        node.input[:] = [inner if used == name else used for used in node.input]
        node.output[:] = [inner if made == name else made for made in node.output]
    tensor = walk.tensor(name)
    walk.rename(name, inner)
    *others, last = tensor.padded
    value = walk.masked(inner, others, 0)
    mask = walk.mask(tensor.sizes[last], tensor.shape[last], tensor.rank - 1 - last)
    walk.emit("Where", [mask, value, walk.numeral(0, tensor.dtype)], tensor.sizes, name)


def _count_output(walk: Walk, output: str, size: Size, counts: dict[Size, str]) -> str:
    """The name of the output that tells a size."""
    if size not in counts:
        count, factor = size.terms[0]
        plain = size.constant == 0 and len(size.terms) == factor == 1 and count.is_source
        label = count.label if plain else output
        counts[size] = _new_output(walk, f"{label}_count")
        walk.emit("Identity", [walk.scalar(size)], [], counts[size])
    return counts[size]


def _new_output(walk: Walk, wanted: str) -> str:
    import onnx

    name = walk.editor.unique(wanted)
    walk.model.graph.output.append(onnx.helper.make_tensor_value_info(name, INT64, []))
    return name
