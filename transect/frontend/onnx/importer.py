"""Walking an ONNX graph: inputs to variables, nodes to graph operators, outputs to the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import onnx

from transect.arith.analyzer import Analyzer
from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators import find_converter
from transect.frontend.onnx.reader import attributes, opset_of, weights
from transect.frontend.onnx.values import Operand, constant_operand
from transect.ir.dtype import DType, as_dtype
from transect.ir.expr import Expr, IntImm
from transect.ir.expr import Var as SymbolicVar
from transect.ir.function import DIMS, IRModule
from transect.ir.types import tensor_type
from transect.relax.block_builder import BlockBuilder
from transect.relax.expr import Value, Var, make_tuple
from transect.support.errors import ImportModelError, InputTypeError
from transect.support.span import Layer

LARGEST_DIMENSION = 10**9 - 1
"""The bound that dynamic dimensions get where the user gives none: exporters write "to the end" of
a slice as any large number from here on. A compiled model checks it at every call."""


def import_model(model: onnx.ModelProto, name: str) -> IRModule:
    """The module of a checked model; `name` is what errors call it.

    Raises ImportModelError for operators that are not covered, all of them at once, and for what
    is wrong at a node, which it names.
    """
    versions = {item.domain or "ai.onnx": item.version for item in model.opset_import}
    versions.setdefault("ai.onnx", opset_of(model))
    converters = _converters(model, versions, name)
    return _Import(model.graph, name, versions, converters).run()


def _domain(node: onnx.NodeProto) -> str:
    return node.domain or "ai.onnx"


def _converters(
    model: onnx.ModelProto, versions: dict[str, int], name: str
) -> dict[tuple[str, str], Converter]:
    """The converter of every operator in the model; raises with the list of those missing."""
    counts = Counter((_domain(node), node.op_type) for node in model.graph.node)
    found: dict[tuple[str, str], Converter] = {}
    missing: list[str] = []
    for (domain, op_type), count in counts.items():
        converter = find_converter(domain, op_type, versions.get(domain, 1))
        if converter is not None:
            found[domain, op_type] = converter
            continue
        first = next(n for n in model.graph.node if (_domain(n), n.op_type) == (domain, op_type))
        title = op_type if domain == "ai.onnx" else f"{domain}.{op_type}"
        where = first.name or (first.output[0] if first.output else "unnamed")
        nodes = f"{count} node{'s'[: count > 1]}"
        missing.append(f"{title} (opset {versions.get(domain, 1)}): {nodes}, first {where!r}")
    if missing:
        raise ImportModelError(
            f"{name} uses {len(missing)} operator{'s'[: len(missing) > 1]} that "
            f"{'is' if len(missing) == 1 else 'are'} not covered",
            notes=missing,
            remedy="add a Converter for each in transect/frontend/onnx/operators",
        )
    return found


class _Import:
    """One graph on its way into a function."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        name: str,
        versions: dict[str, int],
        converters: dict[tuple[str, str], Converter],
    ) -> None:
        self.graph = graph
        self.name = name
        self.versions = versions
        self.converters = converters
        self.builder = BlockBuilder()
        self.analyzer = Analyzer()
        self.dimensions: dict[str, SymbolicVar] = {}
        self.operands: dict[str, Operand] = {}

    def run(self) -> IRModule:
        """The module with the function `main`."""
        arrays = weights(self.graph, self.name)
        for name, array in arrays.items():
            self.operands[name] = constant_operand(array)
        params = [self.parameter(item) for item in self.graph.input if item.name not in arrays]
        with self.builder.function("main", params):
            with self.builder.dataflow():
                for node in self.graph.node:
                    self.convert(node)
                outputs = [
                    self.builder.emit_output(self.output(item.name)) for item in self.graph.output
                ]
            self.builder.emit_func_output(outputs[0] if len(outputs) == 1 else make_tuple(*outputs))
        return self.builder.finish().map_functions(
            lambda _, function: function.with_attrs(
                **{DIMS: {var.name: (0, LARGEST_DIMENSION) for var in self.dimensions.values()}}
            )
        )

    def parameter(self, item: onnx.ValueInfoProto) -> Var:
        """The variable of a graph input; its dynamic dimensions become symbolic variables."""
        if not item.type.HasField("tensor_type"):
            raise ImportModelError(
                f"input {item.name!r} of {self.name} is not a tensor",
                remedy="sequences, maps and optionals cannot be model inputs",
            )
        kind = item.type.tensor_type
        shape: list[Expr] | None = None
        if kind.HasField("shape"):
            shape = [self.dimension(item.name, i, dim) for i, dim in enumerate(kind.shape.dim)]
        var = Var(
            item.name, tensor_type(None if shape is None else tuple(shape), self.element_type(item))
        )
        self.operands[item.name] = Operand(var)
        return var

    def element_type(self, item: onnx.ValueInfoProto) -> DType:
        """The dtype of a graph input."""
        code = item.type.tensor_type.elem_type
        try:
            return as_dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
        except (KeyError, InputTypeError) as error:
            raise ImportModelError(
                f"input {item.name!r} of {self.name} has element type "
                f"{onnx.TensorProto.DataType.Name(code)}, which has no counterpart",
                remedy="use a numeric or bool tensor",
            ) from error

    def dimension(self, name: str, index: int, dim: onnx.TensorShapeProto.Dimension) -> Expr:
        """A dimension of an input: a constant, or the variable of its name."""
        if dim.HasField("dim_value"):
            return IntImm(dim.dim_value)
        key = dim.dim_param or f"{name}_{index}"
        if key not in self.dimensions:
            taken = {var.name for var in self.dimensions.values()}
            self.dimensions[key] = SymbolicVar(_unique(_identifier(key), taken))
            self.analyzer.bind(self.dimensions[key], (0, LARGEST_DIMENSION))
        return self.dimensions[key]

    def convert(self, proto: onnx.NodeProto) -> None:
        """Append one node to the function."""
        domain = _domain(proto)
        layer = Layer(
            self.name, proto.name or (proto.output[0] if proto.output else ""), proto.op_type
        )
        missing = [name for name in proto.input if name and name not in self.operands]
        if missing:
            raise ImportModelError(
                f"{proto.op_type} uses {missing[0]!r}, which nothing before it computes",
                span=layer,
                remedy="the model is not valid ONNX: check it with onnx.checker",
            )
        node = Node(
            proto.op_type,
            self.versions.get(domain, 1),
            attributes(proto),
            tuple(self.operands[name] if name else None for name in proto.input),
            len(proto.output),
            layer,
            self.builder,
            self.analyzer,
        )
        results = _as_operands(self.converters[domain, proto.op_type].convert(node))
        for name, result in zip(proto.output, results, strict=False):
            if name:
                self.operands[name] = result
        lost = [name for name in proto.output[len(results) :] if name]
        if lost:
            raise node.error(f"its output {lost[0]!r} is not covered")

    def output(self, name: str) -> Value:
        """The graph value of a model output."""
        if name not in self.operands:
            raise ImportModelError(
                f"nothing computes the output {name!r} of {self.name}",
                remedy="the model is not valid ONNX: check it with onnx.checker",
            )
        layer = Layer(self.name, name, "output")
        node = Node("output", 1, {}, (self.operands[name],), 0, layer, self.builder, self.analyzer)
        return node.value(0)


def _as_operands(result: Result) -> list[Operand]:
    items: Sequence[Value | Operand] = [result] if isinstance(result, Value | Operand) else result
    return [item if isinstance(item, Operand) else Operand(item) for item in items]


def _unique(name: str, taken: set[str]) -> str:
    """`name`, or with the first number behind it that makes it differ from those taken."""
    found, number = name, 1
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found


def _identifier(name: str) -> str:
    """`name` as a Python identifier, for the printed program."""
    text = "".join(c if c.isalnum() or c == "_" else "_" for c in name)
    return text if text[:1].isalpha() or text[:1] == "_" else f"_{text}"
