"""Walks an ONNX graph and builds ``main``: a Relax function whose constants are the weights."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from edgepack.artefacts import TensorSpec
from edgepack.compiler.foreign import reason
from edgepack.compiler.frontend.converters import CONVERTERS
from edgepack.compiler.frontend.node import Node, constant, dtype_of, shape_of
from edgepack.compiler.frontend.support import STANDARD_DOMAINS, is_supported
from edgepack.errors import CompileError, EdgepackError
from edgepack.unsupported import refuse_unsupported

if TYPE_CHECKING:
    import onnx
    from tvm.ir import IRModule

    from edgepack.targets import Target


def to_relax(model: onnx.ModelProto, target: Target | None = None) -> IRModule:
    """Convert a checked model with fixed shapes; weights become constants of ``main``.

    ``target`` is for kernels whose loops are written here; without it they are for any core.

    Raises ModelError naming every operator without a converter at once, with its nodes, and
    CompileError where a converter fails or gives another type than ONNX says.
    """
    from tvm import relax

    from edgepack.compiler.lower import llvm_target

    refuse_unsupported(model, is_supported)
    graph = _Graph(model, target)
    builder = graph.builder
    failure: EdgepackError | None = None
    context = nullcontext() if target is None else llvm_target(target)
    with context, builder.function("main", params=graph.parameters):
        with builder.dataflow():
            try:
                results = graph.results()
            except EdgepackError as error:
                # The builder complains on stderr where a function is left unfinished.
                failure, results = error, graph.parameters
            given = builder.emit_output(results[0] if len(results) == 1 else relax.Tuple(results))
        builder.emit_func_output(given)
    if failure is not None:
        raise failure
    return builder.get()


class _Graph:
    """The values known so far, by name."""

    def __init__(self, model: onnx.ModelProto, target: Target | None) -> None:
        from onnx import numpy_helper
        from tvm import relax

        self.model, self.target = model, target
        self.builder = relax.BlockBuilder()
        self.opsets = {entry.domain: entry.version for entry in model.opset_import}
        graph = model.graph
        self.types = {
            value.name: value.type.tensor_type
            for value in (*graph.input, *graph.value_info, *graph.output)
        }
        self.values: dict[str, Any] = {
            tensor.name: constant(numpy_helper.to_array(tensor)) for tensor in graph.initializer
        }
        self.givers: dict[str, Node] = {}
        self.readers = Counter(name for node in graph.node for name in node.input)
        self.readers.update(value.name for value in graph.output)
        self.parameters = []
        for value in (v for v in graph.input if v.name not in self.values):
            spec = self.spec(value.name)
            variable = relax.Var(value.name, relax.TensorType(spec.shape, spec.dtype))
            self.parameters.append(variable)
            self.values[value.name] = variable

    def results(self) -> list[Any]:
        """Convert every node; the graph's outputs."""
        for node in self.model.graph.node:
            self.add(node)
        return [self.values[output.name] for output in self.model.graph.output]

    def spec(self, name: str) -> TensorSpec:
        """The inferred type of a value; without a dtype where nothing was inferred."""
        import onnx

        tensor = self.types.get(name)
        if tensor is None:
            return TensorSpec(name=name, dtype="", shape=())
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        return TensorSpec(
            name=name, dtype=dtype, shape=tuple(dim.dim_value for dim in tensor.shape.dim)
        )

    def add(self, proto: onnx.NodeProto) -> None:
        """Convert one node."""
        node = self.node(proto)
        try:
            results = _convert(node)
        except EdgepackError:
            raise
        except Exception as error:  # TVM's functions raise anything, from KeyError to InternalError
            raise CompileError(
                f"{node.label} could not be converted: {reason(error)}",
                "a simpler export may avoid it; docs/operators.md lists what is known to work",
            ) from error
        for spec, result in zip(node.outputs, results, strict=False):
            if spec.name:
                self.values[spec.name] = self.checked(node, spec, result)
                self.givers[spec.name] = node

    def node(self, proto: onnx.NodeProto) -> Node:
        """A node as converters take it."""
        domain = "" if proto.domain in STANDARD_DOMAINS else proto.domain
        operator = f"{domain}.{proto.op_type}" if domain else proto.op_type
        return Node(
            operator=proto.op_type,
            label=f"{operator} {(proto.name or proto.output[0])!r}",
            opset=self.opsets.get(domain, self.opsets.get("ai.onnx", 1)),
            inputs=tuple(self.values[name] if name else None for name in proto.input),
            attributes={item.name: _value(item) for item in proto.attribute},
            outputs=tuple(self.spec(name) for name in proto.output),
            builder=self.builder,
            proto=proto,
            target=self.target,
            givers=tuple(self.givers.get(name) for name in proto.input),
            readers=sum(self.readers[name] for name in proto.output),
        )

    def checked(self, node: Node, spec: TensorSpec, result: Any) -> Any:
        """The result bound to a variable; a CompileError where it is not what ONNX infers."""
        from tvm import ir

        if not isinstance(result, ir.GenericConst):
            result = self.builder.emit(result)
        found = TensorSpec(name=spec.name, dtype=dtype_of(result), shape=shape_of(result))
        if spec.dtype and found != spec:
            raise CompileError(
                f"{node.label} was converted wrongly: output {spec.name!r} became"
                f" {found.dtype}{list(found.shape)}, not {spec.dtype}{list(spec.shape)}",
                "a simpler export may avoid it; docs/operators.md lists what is known to work",
            )
        return result


def _convert(node: Node) -> list[Any]:
    from edgepack.compiler.frontend import tvm_importer

    domain = "" if node.proto.domain in STANDARD_DOMAINS else node.proto.domain
    converter = CONVERTERS.get((domain, node.operator))
    if converter is None:
        return tvm_importer.convert(node)
    results = converter(node)
    return results if isinstance(results, list) else [results]


def _value(attribute: onnx.AttributeProto) -> Any:
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if attribute.type == onnx.AttributeProto.STRINGS:
        return [text.decode(errors="replace") for text in value]
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return value
