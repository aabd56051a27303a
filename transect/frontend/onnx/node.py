"""One ONNX node as converters see it, and the form of a converter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from transect.arith.analyzer import Analyzer
from transect.frontend.onnx.values import Elements, Operand, as_dimension, constant_array
from transect.ir.dtype import INT64, DType
from transect.ir.expr import Expr, IntImm
from transect.ir.types import TensorType
from transect.relax.block_builder import BlockBuilder
from transect.relax.expr import Call, Constant, Op, ShapeExpr, Value, constant, shape_expr
from transect.relax.op import find_operator
from transect.support.errors import ImportModelError, TransectError
from transect.support.span import Layer

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Node:
    """A node with its operands, attributes and the builder that its graph operators go to."""

    op_type: str
    opset: int
    attributes: dict[str, Any]
    operands: tuple[Operand | None, ...]
    outputs: int
    layer: Layer
    builder: BlockBuilder
    analyzer: Analyzer

    def error(self, message: str, remedy: str | None = None) -> ImportModelError:
        """An error about this node."""
        return ImportModelError(f"{self.op_type}: {message}", span=self.layer, remedy=remedy)

    def attribute(self, name: str, default: ResultT) -> ResultT:
        """An attribute, or its default where the node leaves it out."""
        return self.attributes.get(name, default)

    def has(self, index: int) -> bool:
        """Whether operand `index` is given."""
        return index < len(self.operands) and self.operands[index] is not None

    def operand(self, index: int) -> Operand:
        """Operand `index`. Raises ImportModelError if the node leaves it out."""
        found = self.operands[index] if index < len(self.operands) else None
        if found is None:
            raise self.error(f"operand {index} is missing", "the model is not valid ONNX")
        return found

    def value(self, index: int) -> Value:
        """Operand `index` as a graph value; a shape becomes a tensor here."""
        return self.tensor(self.operand(index))

    def tensor(self, operand: Operand) -> Value:
        """An operand as a graph value; a shape becomes a tensor here."""
        if operand.value is not None:
            return operand.value
        elements = operand.elements
        if elements is None:
            raise self.error("an operand has no value", "the model is not valid ONNX")
        array = elements.constant()
        if array is not None:
            return constant(array)
        tensor = self.emit("shape_to_tensor", shape_expr(*elements.values))
        if elements.dtype is not INT64:
            tensor = self.emit("astype", tensor, dtype=elements.dtype)
        return tensor if elements.rank == 1 else self.emit("reshape", tensor, shape_expr())

    def type(self, index: int) -> TensorType:
        """The tensor type of operand `index`."""
        return self.type_of(self.value(index))

    def type_of(self, value: Value) -> TensorType:
        """The type of a tensor value. Raises ImportModelError for anything else."""
        if not isinstance(value.type, TensorType):
            raise self.error(f"expected a tensor, got {value.type!r}")
        return value.type

    def shape(self, value: Value) -> tuple[Expr, ...]:
        """The dimensions of a tensor value. Raises ImportModelError if its rank is unknown."""
        shape = self.type_of(value).shape
        if shape is None:
            raise self.error("the shape of an operand depends on data")
        return shape

    def dtype(self, value: Value) -> DType:
        """The element type of a tensor value."""
        dtype = self.type_of(value).dtype
        if dtype is None:
            raise self.error("the dtype of an operand is unknown")
        return dtype

    def constant(self, index: int) -> np.ndarray | None:
        """Operand `index` as an array if it is known while importing."""
        return constant_array(self.operand(index)) if self.has(index) else None

    def elements(self, index: int, what: str) -> Elements:
        """Operand `index`, which says `what` ("shape", "axes"), element by element."""
        elements = self.operand(index).elements
        if elements is None:
            raise self.error(
                f"the {what} depends on the data of a tensor",
                "only values computed from shapes and constants can be a shape here",
            )
        return elements

    def integers(self, index: int, what: str) -> list[int]:
        """Operand `index`, which must be constant integers."""
        values = self.elements(index, what).values
        if not all(isinstance(value, IntImm) for value in values):
            raise self.error(f"the {what} must be constant", "export the model with constant ones")
        return [value.value for value in values if isinstance(value, IntImm)]

    def emit(self, name: str, *operands: Value, **fields: Any) -> Value:
        """Bind the call of graph operator `name`, its type inferred, under this node's layer."""
        operator = find_operator(name)(**fields)
        return self.emit_op(operator, *operands)

    def emit_op(self, operator: Op, *operands: Value) -> Value:
        """Bind the call of `operator`; an error of its inference names this node."""
        try:
            call: Call = operator(*operands, span=(self.layer,))
            return self.builder.emit(call)
        except TransectError as error:
            raise error.at((self.layer,)) from None

    def simplify(self, expr: Expr) -> Expr:
        """An expression over dimensions in its simplest form."""
        return self.analyzer.simplify(expr)

    def shape_of(self, dims: Sequence[Expr]) -> ShapeExpr:
        """A shape with its dimensions simplified."""
        return shape_expr(*(self.simplify(as_dimension(dim)) for dim in dims))

    def axis(self, axis: int, rank: int) -> int:
        """An axis counted from the front. Raises ImportModelError if the tensor has no such."""
        if not -rank <= axis < max(rank, 1):
            raise self.error(f"axis {axis} of a tensor with {rank} dimensions")
        return axis + rank if axis < 0 else axis

    def scalar(self, value: float, like: Value) -> Constant:
        """A scalar constant with the dtype of `like`."""
        return constant(np.asarray(value), self.dtype(like))


Result = Value | Operand | Sequence[Value | Operand]
"""What a converter gives: one output, or a sequence of them."""


@dataclass(frozen=True)
class Converter:
    """How one ONNX operator becomes graph operators, from opset `since` on.

    convert: takes the node and gives its outputs. Source: the ONNX operator of the same name.
    """

    convert: Callable[[Node], Result]
    since: int = 1
