"""Preprocessing put into the model, so that an application hands over a camera's bytes as they are.

    uint8, in the application's layout  →  float  →  (x - mean) / std  →  the model's own layout

Every step is optional, and is an ordinary ONNX operator in front of the graph's input, which keeps
its name. The reference that a package is held to is the model with these in front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgepack.artefacts import Infer, Tensors
from edgepack.errors import ConfigError, ModelError
from edgepack.importers.graphs import all_graphs
from edgepack.importers.input_shapes import Dim, dims_of, dtype_name

if TYPE_CHECKING:
    import numpy as np
    import onnx

LAYOUTS = ("nhwc", "nchw")
_CHANNELS = (1, 3, 4)
"""Grey, colour, and colour with alpha: what tells the channels of an image from its sides."""
_IMAGE_RANK = 4


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """``(x - mean) / std`` for each channel; one value stands for all of them."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What is put in front of a model; options by input, ``""`` for every image that it takes."""

    layouts: Mapping[str, str] = field(default_factory=dict)
    """Layout that the application hands over, one of LAYOUTS."""
    normalizations: Mapping[str, Normalization] = field(default_factory=dict)
    uint8: bool = False
    """Images come as bytes, 0 to 255."""

    def __bool__(self) -> bool:
        return bool(self.layouts or self.normalizations or self.uint8)


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What happens to one input."""

    name: str
    given_layout: str
    own_layout: str
    """Both empty where the layout stays."""
    normalization: Normalization | None
    uint8: bool
    dtype: str
    """The model's own."""

    @property
    def permutation(self) -> tuple[int, ...] | None:
        """From the application's layout to the model's; None where they are the same."""
        if self.given_layout == self.own_layout:
            return None
        return (0, 3, 1, 2) if self.given_layout == "nhwc" else (0, 2, 3, 1)

    def channel_shape(self, count: int) -> tuple[int, ...]:
        """Of a value for each channel, to broadcast over what the application hands over."""
        layout = self.given_layout or self.own_layout
        return (count, 1, 1) if layout == "nchw" else (count,)


def given_shapes(
    preprocessing: Preprocessing, shapes: Mapping[str, tuple[int, ...]], model_layout: str
) -> dict[str, tuple[int, ...]]:
    """The shapes that the user gave, which are the application's, as the model has them.

    For importers that need them before there is an ONNX model; ``model_layout`` is their format's.
    """
    return {
        name: _permuted(shape, preprocessing.layouts.get(name, preprocessing.layouts.get("", "")),
                        model_layout)
        for name, shape in shapes.items()
    }  # fmt: skip


def prepend(model: onnx.ModelProto, preprocessing: Preprocessing, model_layout: str) -> list[_Step]:
    """Put the steps in front of the model, in place; ``model_layout`` is its format's, if it has one.

    Raises ConfigError for an input that there is not, ModelError where a layout cannot be told.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in constants}
    for name in (*preprocessing.layouts, *preprocessing.normalizations):
        if name and name not in inputs:
            raise ConfigError(
                f"the model has no input {name!r} to preprocess", f"it has {', '.join(inputs)}"
            )
    images = _images(inputs)
    if not images and ("" in preprocessing.layouts or preprocessing.uint8):
        raise ModelError(
            "the model takes no image: no floating-point input has four dimensions",
            "leave --layout and --uint8-input out, or fix the rank of the input first",
        )
    steps = []
    for value in inputs.values():
        step = _step(value, preprocessing, images, model, model_layout)
        if step is not None:
            _insert(model, value, step)
            steps.append(step)
    return steps


def through(steps: Sequence[_Step], original: Infer) -> Infer:
    """``original``, fed with what an application hands over."""

    def run(inputs: Tensors) -> Tensors:
        prepared = dict(inputs)
        for step in steps:
            prepared[step.name] = _apply(step, inputs[step.name])
        return original(prepared)

    return run


def _images(inputs: Mapping[str, onnx.ValueInfoProto]) -> list[str]:
    return [
        name
        for name, value in inputs.items()
        if dtype_name(value.type.tensor_type.elem_type).startswith("float")
        and len(dims_of(value) or ()) == _IMAGE_RANK
    ]


def _step(
    value: onnx.ValueInfoProto,
    preprocessing: Preprocessing,
    images: Sequence[str],
    model: onnx.ModelProto,
    model_layout: str,
) -> _Step | None:
    name, image = value.name, value.name in images
    layouts, normalizations = preprocessing.layouts, preprocessing.normalizations
    layout = layouts.get(name, layouts.get("", "") if image else "")
    # A single input is meant even where it is no image: a sensor's readings have a mean as well.
    alone = len(model.graph.input) - len(model.graph.initializer) <= 1 and not images
    normalization = normalizations.get(name, normalizations.get("") if image or alone else None)
    uint8 = preprocessing.uint8 and image
    if not layout and normalization is None and not uint8:
        return None
    needs_layout = bool(layout) or (normalization is not None and len(normalization.mean) > 1)
    own = _layout_of(value, model, model_layout) if needs_layout and image else ""
    if layout and not image:
        raise ConfigError(f"--layout {name}={layout}: the input {name!r} is no image")
    return _Step(
        name=name,
        given_layout=layout or own,
        own_layout=own,
        normalization=normalization,
        uint8=uint8,
        dtype=dtype_name(value.type.tensor_type.elem_type),
    )


def _layout_of(value: onnx.ValueInfoProto, model: onnx.ModelProto, model_layout: str) -> str:
    """The model's own layout: by its format, by what reads the input, or by where 3 stands."""
    if model_layout:
        return model_layout
    for node in model.graph.node:
        if value.name in node.input:
            if node.op_type in ("Conv", "MaxPool", "AveragePool", "BatchNormalization"):
                return "nchw"
            permutation = [list(a.ints) for a in node.attribute if a.name == "perm"]
            if node.op_type == "Transpose" and permutation == [[0, 3, 1, 2]]:
                return "nhwc"
    dims: Sequence[Dim] = dims_of(value) or ()
    first, last = dims[1] in _CHANNELS, dims[3] in _CHANNELS
    if first != last:
        return "nchw" if first else "nhwc"
    raise ModelError(
        f"the layout of input {value.name!r} cannot be told from its shape {dims}",
        "put the transposition into the model, and leave --layout out",
    )


def _insert(model: onnx.ModelProto, value: onnx.ValueInfoProto, step: _Step) -> None:
    """Rename what the graph reads, and compute that from the input."""
    import onnx

    names = [f"{step.name}/edgepack.{word}" for word in ("float", "centred", "scaled", "own")]
    nodes: list[onnx.NodeProto] = []
    current = step.name

    def add(
        operator: str, word: int, constant: np.ndarray | None = None, **attributes: Any
    ) -> None:
        nonlocal current
        inputs = [current]
        if constant is not None:
            model.graph.initializer.append(
                onnx.numpy_helper.from_array(constant, f"{names[word]}.constant")
            )
            inputs.append(f"{names[word]}.constant")
        nodes.append(
            onnx.helper.make_node(operator, inputs, [names[word]], name=names[word], **attributes)
        )
        current = names[word]

    if step.uint8:
        add("Cast", 0, to=value.type.tensor_type.elem_type)
    if step.normalization is not None:
        mean, scale = _constants(step)
        add("Sub", 1, mean)
        add("Mul", 2, scale)
    if step.permutation is not None:
        add("Transpose", 3, perm=list(step.permutation))
    for graph in all_graphs(model.graph):
        for node in graph.node:
            for i, name in enumerate(node.input):
                if name == step.name:
                    node.input[i] = current
    _retype(value, step)
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def _constants(step: _Step) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and one over the standard deviation, in the shape that broadcasts."""
    import numpy as np

    assert step.normalization is not None
    mean, std = step.normalization.mean, step.normalization.std

    def shaped(values: Sequence[float]) -> np.ndarray:
        array = np.array(values, step.dtype)
        return array.reshape(step.channel_shape(len(values)) if len(values) > 1 else ())

    return shaped(mean), shaped([1.0 / value for value in std])


def _retype(value: onnx.ValueInfoProto, step: _Step) -> None:
    """The input as the application hands it over."""
    import onnx

    tensor = value.type.tensor_type
    if step.uint8:
        tensor.elem_type = onnx.TensorProto.UINT8
    if step.permutation is not None:
        own = list(tensor.shape.dim)
        given = [onnx.TensorShapeProto.Dimension() for _ in own]
        for place, source in enumerate(step.permutation):
            given[source].CopyFrom(own[place])
        del tensor.shape.dim[:]
        tensor.shape.dim.extend(given)


def _apply(step: _Step, array: np.ndarray) -> np.ndarray:
    """The same in NumPy, for the original framework."""
    import numpy as np

    value = array.astype(step.dtype)
    if step.normalization is not None:
        mean, scale = _constants(step)
        value = (value - mean) * scale
    if step.permutation is not None:
        value = value.transpose(step.permutation)
    return np.ascontiguousarray(value)


def _permuted(shape: tuple[int, ...], given: str, own: str) -> tuple[int, ...]:
    if len(shape) != _IMAGE_RANK or not given or not own or given == own:
        return shape
    order = (0, 3, 1, 2) if given == "nhwc" else (0, 2, 3, 1)
    return tuple(shape[axis] for axis in order)
