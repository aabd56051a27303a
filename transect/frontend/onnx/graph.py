"""Walking a graph node by node: converters, bodies of functions, subgraphs.

What a model takes and gives as a whole is in `importer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import onnx

from transect.frontend.onnx.attributes import (
    Given,
    kind_name,
    plain,
    resolved,
    with_attributes,
)
from transect.frontend.onnx.coverage import name_of
from transect.frontend.onnx.emitter import Emitter
from transect.frontend.onnx.functions import (
    FunctionKey,
    attribute_kinds,
    default_attributes,
    domain_of,
    fixed_body,
    most_operands,
    objection,
    typed_body,
    versions_of,
)
from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators import find_converter
from transect.frontend.onnx.operators.known import known_result
from transect.frontend.onnx.scope import Scope
from transect.frontend.onnx.symbols import Symbols
from transect.frontend.onnx.values import (
    MOST_ELEMENTS,
    Operand,
    constant_array,
    constant_operand,
)
from transect.frontend.onnx.weights import Weights, stored_tensors
from transect.ir.expr import as_int
from transect.ir.types import TensorType, Type, tensor_type
from transect.relax.block_builder import BlockBuilder
from transect.relax.expr import Value
from transect.support.errors import ImportModelError, TransectError
from transect.support.span import Layer

_OF_INVALID_NODES = (
    TypeError, ValueError, IndexError, KeyError, AttributeError, ArithmeticError, AssertionError
)  # fmt: skip
"""What converters raise where a node is not what ONNX allows."""

_INVALID = "the model is not valid ONNX: check it with onnx.checker"

LARGEST_TENSOR = 1 << 47
"""Bytes that a process can address at most: a tensor that is larger for every input is a mistake.
Far from where the sizes of expressions would overflow."""

MOST_EXPANDED = 50_000
"""Nodes of functions put in place of their calls: functions that call each other twice are more
than any memory holds after some dozen."""

DEEPEST = 48
"""How deep subgraphs and functions may be nested."""


@dataclass(frozen=True)
class Frame:
    """Where a node stands: the names in sight, the versions of its operators, the functions around
    it, the name that it goes by (its own, or that of the outermost call), and how deep it is."""

    scope: Scope
    versions: Mapping[str, int]
    layer: Layer | None = None
    given: Given = field(default_factory=dict[str, onnx.AttributeProto])
    calls: tuple[FunctionKey, ...] = ()
    depth: int = 0


class GraphWalker:
    """Appends the nodes of a model's graphs to the function that `builder` has open."""

    def __init__(
        self,
        weights: Weights,
        functions: Mapping[FunctionKey, onnx.FunctionProto],
        builder: BlockBuilder,
        symbols: Symbols,
    ) -> None:
        self.name = weights.name
        self.weights = weights
        self.functions = functions
        self.builder = builder
        self.symbols = symbols
        self._expanded = 0

    # --- graphs -----------------------------------------------------------------------------

    def store(self, graph: onnx.GraphProto, scope: Scope) -> None:
        """Define the stored tensors of a graph."""
        for name, array in stored_tensors(graph, self.weights):
            if scope.defines(name):
                raise ImportModelError(
                    f"{self.name} has two weights called {name!r}",
                    remedy=_INVALID,
                )
            scope.define(name, constant_operand(array))

    def nodes(self, nodes: Sequence[onnx.NodeProto], frame: Frame) -> None:
        """Append nodes, each of which must come after those whose results it uses."""
        for index, proto in enumerate(nodes):
            layer = frame.layer or Layer(self.name, name_of(proto), proto.op_type)
            for name in proto.input:
                if name and frame.scope.find(name) is None:
                    raise self._undefined(proto, name, nodes[index:], layer)
            for name in filter(None, proto.output):
                if frame.scope.defines(name):
                    raise ImportModelError(
                        f"{proto.op_type} computes {name!r}, which has a value already",
                        span=layer,
                        remedy=_INVALID,
                    )
            results = self.node(proto, layer, frame)
            for name, result in zip(proto.output, results, strict=False):
                if name:
                    frame.scope.define(name, result)

    def outputs(self, names: Sequence[str], scope: Scope, where: str) -> list[Operand]:
        """The results of a graph. Raises ImportModelError for one that nothing computes."""
        found: list[Operand] = []
        for name in names:
            operand = scope.find(name)
            if operand is None:
                raise ImportModelError(
                    f"nothing computes the output {name!r} of {where}",
                    remedy=_INVALID,
                )
            found.append(operand)
        return found

    def _undefined(
        self, proto: onnx.NodeProto, name: str, later: Sequence[onnx.NodeProto], layer: Layer
    ) -> ImportModelError:
        maker = next((item for item in later if name in item.output), None)
        if maker is None:
            return ImportModelError(
                f"{proto.op_type} uses {name!r}, which nothing before it computes",
                span=layer,
                remedy=_INVALID,
            )
        return ImportModelError(
            f"{proto.op_type} uses {name!r}, which nothing before it computes: "
            f"{maker.op_type} node {name_of(maker)!r} does, which stands after it or is itself",
            span=layer,
            remedy="nodes must be in an order in which each can be computed, without a cycle",
        )

    # --- nodes ------------------------------------------------------------------------------

    def node(self, proto: onnx.NodeProto, layer: Layer, frame: Frame) -> list[Operand]:
        """Append one node; its outputs."""
        domain = domain_of(proto)
        opset = frame.versions.get(domain, 1)
        key = (domain, proto.op_type, proto.overload)
        given = resolved(proto, frame.given)
        if key not in self.functions:
            _check_form(proto, given, opset, layer)
        converter = find_converter(domain, proto.op_type, opset)
        if frame.depth > DEEPEST or len(frame.calls) > DEEPEST:
            raise ImportModelError(
                f"{proto.op_type} is nested more than {DEEPEST} graphs deep", span=layer
            )
        operands = tuple(frame.scope.find(name) if name else None for name in proto.input)
        if converter is None or key in self.functions:
            function = self._body(with_attributes(proto, given), opset, operands, layer, frame)
            return self._call(function, proto, given, operands, layer, frame)
        return self._convert(converter, proto, opset, given, operands, layer, frame)

    def _convert(
        self,
        converter: Converter,
        proto: onnx.NodeProto,
        opset: int,
        given: Given,
        operands: tuple[Operand | None, ...],
        layer: Layer,
        frame: Frame,
    ) -> list[Operand]:
        def run_graph(graph: onnx.GraphProto, scope: Scope) -> list[Operand]:
            inner = replace(frame, scope=scope, depth=frame.depth + 1)
            self.store(graph, scope)
            self.nodes(graph.node, inner)
            names = [item.name for item in graph.output]
            return self.outputs(names, scope, f"a subgraph of {layer}")

        node = Node(
            op_type=proto.op_type,
            layer=layer,
            builder=self.builder,
            symbols=self.symbols,
            scope=frame.scope,
            opset=opset,
            attributes=plain(given, self.weights),
            operands=operands,
            wanted=tuple(map(bool, proto.output)),
            run_graph=run_graph,
        )
        results = self._converted(converter, node, proto)
        lost = [name for name in proto.output[len(results) :] if name]
        if lost:
            raise node.error(f"its output {lost[0]!r} is not covered")
        for result in results:
            _check_size(node, result)
        return results

    @staticmethod
    def _converted(converter: Converter, node: Node, proto: onnx.NodeProto) -> list[Operand]:
        """What a node gives. A converter may trust that it is what ONNX allows: where it is not,
        the error says so, if onnx agrees."""
        try:
            known = known_result(node) if domain_of(proto) == "ai.onnx" else None
            return _as_operands(converter.convert(node)) if known is None else known
        except TransectError as error:
            raise error.at((node.layer,)) from None
        except _OF_INVALID_NODES as error:
            reason = _objection(node, proto)
            if reason is not None:
                raise node.error(f"the node is not valid ONNX: {reason}") from error
            raise node.error(
                f"it could not be converted ({type(error).__name__}: {error})",
                "if onnx.checker.check_model finds nothing wrong with the model, report this",
            ) from error

    # --- functions --------------------------------------------------------------------------

    def _body(
        self,
        proto: onnx.NodeProto,
        opset: int,
        operands: Sequence[Operand | None],
        layer: Layer,
        frame: Frame,
    ) -> onnx.FunctionProto:
        """The body of an operator without a converter."""
        key = (domain_of(proto), proto.op_type, proto.overload)
        if key in frame.calls:
            raise ImportModelError(
                f"the function {proto.op_type} calls itself",
                span=layer,
                remedy="the model is not valid ONNX: functions must not be recursive",
            )
        local = self.functions.get(key)
        if local is not None:
            return local
        emitter = Emitter(proto.op_type, layer, self.builder, self.symbols, frame.scope)

        def types() -> list[Type | None]:
            return [None if item is None else _type(item, emitter) for item in operands]

        body = typed_body(proto, opset, types) or fixed_body(proto, opset)
        if body is None:
            raise emitter.error("it is not covered", "add a Converter for it")
        return body

    def _call(
        self,
        function: onnx.FunctionProto,
        proto: onnx.NodeProto,
        given: Given,
        operands: Sequence[Operand | None],
        layer: Layer,
        frame: Frame,
    ) -> list[Operand]:
        """Append the body of a function in place of its call, under the call's name."""
        key = (domain_of(proto), proto.op_type, proto.overload)
        opset = frame.versions.get(key[0], 1)
        if len(proto.output) > len(function.output):
            raise ImportModelError(
                f"{proto.op_type} has {len(proto.output)} outputs, its function "
                f"{len(function.output)}",
                span=layer,
                remedy=_INVALID,
            )
        self._expanded += len(function.node)
        if self._expanded > MOST_EXPANDED:
            raise ImportModelError(
                f"the functions that {proto.op_type} is among come to more than {MOST_EXPANDED} "
                "nodes, as each call is put in place",
                span=layer,
            )
        scope = frame.scope.function()
        for name, operand in zip(function.input, operands, strict=False):
            if operand is not None:
                scope.define(name, operand)
        inner = Frame(
            scope,
            versions_of(function, frame.versions),
            layer,
            {**default_attributes(proto, function, opset), **given},
            (*frame.calls, key),
            frame.depth + 1,
        )
        missing = set(function.input) - set(scope.names())
        self.nodes([_without(node, missing) for node in function.node], inner)
        wanted = [name for name, used in zip(function.output, proto.output, strict=False) if used]
        found = iter(self.outputs(wanted, scope, f"the function {proto.op_type}"))
        return [next(found) if used else Operand(None) for used in proto.output]


def _check_form(proto: onnx.NodeProto, given: Given, opset: int, layer: Layer) -> None:
    """Raise ImportModelError for more operands than the operator has, for attributes that it does
    not have, and for those of another kind. What an operator does not know has a meaning at another
    of its versions, which would be lost."""
    most = most_operands(proto, opset)
    if most is not None and len(proto.input) > most:
        raise ImportModelError(
            f"{proto.op_type} has {len(proto.input)} operands, at most {most} at opset {opset}",
            span=layer,
            remedy=_INVALID,
        )
    kinds = attribute_kinds(proto, opset)
    for name, item in given.items():
        if kinds is not None and name not in kinds:
            raise ImportModelError(
                f"{proto.op_type} has no attribute {name!r} at opset {opset}",
                span=layer,
                remedy=_INVALID,
            )
        wanted = item.type if kinds is None else kinds[name]
        if item.type != wanted or item.type == onnx.AttributeProto.UNDEFINED:
            raise ImportModelError(
                f"{proto.op_type}: the attribute {name!r} is {kind_name(item.type)}, "
                f"not {kind_name(wanted)}",
                span=layer,
                remedy=_INVALID,
            )


def _without(node: onnx.NodeProto, missing: set[str]) -> onnx.NodeProto:
    """A node of a function's body with the parameters that the call leaves out left out."""
    if missing.isdisjoint(node.input):
        return node
    made = onnx.NodeProto()
    made.CopyFrom(node)
    del made.input[:]
    made.input.extend("" if name in missing else name for name in node.input)
    return made


def _objection(node: Node, proto: onnx.NodeProto) -> str | None:
    """What onnx finds wrong with a node that could not be converted."""
    try:
        types = [None if item is None else _type(item, node) for item in node.operands]
        arrays = [None if item is None else constant_array(item) for item in node.operands]
    except TransectError as error:
        return str(error)
    small = {
        name: array
        for name, array in zip(proto.input, arrays, strict=True)
        if array is not None and array.size <= MOST_ELEMENTS
    }
    return objection(proto, node.opset, types, small)


def _type(operand: Operand, emitter: Emitter) -> Type:
    if operand.value is None and operand.known is not None:
        return tensor_type(operand.known.array.shape, operand.known.dtype)
    return emitter.tensor(operand).type


def _as_operands(result: Result) -> list[Operand]:
    items: Sequence[Value | Operand] = [result] if isinstance(result, Value | Operand) else result
    return [item if isinstance(item, Operand) else Operand(item) for item in items]


def _check_size(node: Node, result: Operand) -> None:
    """Raise ImportModelError for a result that cannot exist, whatever the inputs are."""
    kind = None if result.value is None else result.value.type
    if not isinstance(kind, TensorType) or kind.shape is None or kind.dtype is None:
        return
    known = [size for size in map(as_int, kind.shape) if size is not None]
    bits = prod(known) * kind.dtype.bits
    if bits >= LARGEST_TENSOR * 8 or any(size < 0 for size in known):
        dims = ", ".join(map(repr, kind.shape))
        raise node.error(
            f"its result would have the shape ({dims}), more than can be addressed"
            if all(size > 0 for size in known)
            else f"its result would have the shape ({dims}), with a negative dimension",
            "check the sizes that the model computes or stores",
        )
