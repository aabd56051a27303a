"""Appending graph operators to the function under construction, under the name of a node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transect.arith.analyzer import Analyzer
from transect.frontend.onnx.agree import agreed
from transect.frontend.onnx.scope import Scope
from transect.frontend.onnx.symbols import Symbols
from transect.frontend.onnx.values import Operand, as_dimension
from transect.ir.dtype import INT64, DType
from transect.ir.expr import Expr, as_int
from transect.ir.types import TensorType
from transect.relax.block_builder import BlockBuilder
from transect.relax.expr import Constant, Op, ShapeExpr, Value, constant, make_tuple, shape_expr
from transect.relax.op import find_operator
from transect.support.errors import ImportModelError, TransectError
from transect.support.span import Layer


@dataclass(frozen=True)
class Emitter:
    """What a node needs to append to the function: its name, the builder, the symbols in use."""

    op_type: str
    layer: Layer
    builder: BlockBuilder
    symbols: Symbols
    scope: Scope

    @property
    def analyzer(self) -> Analyzer:
        """What is known of the model's dimensions."""
        return self.symbols.analyzer

    def error(self, message: str, remedy: str | None = None) -> ImportModelError:
        """An error about this node."""
        return ImportModelError(f"{self.op_type}: {message}", span=self.layer, remedy=remedy)

    def emit(self, name: str, *operands: Value, **fields: Any) -> Value:
        """Bind the call of graph operator `name`, its type inferred, under this node's layer."""
        operator = find_operator(name)(**fields)
        return self.emit_op(operator, *operands)

    def emit_op(self, operator: Op, *operands: Value) -> Value:
        """Bind the call of `operator`; an error of its inference names this node."""
        try:
            operands = agreed(operator, operands, self.checked)
            return self.builder.emit(operator(*operands, span=(self.layer,)))
        except TransectError as error:
            raise error.at((self.layer,)) from None

    def checked(self, value: Value, kind: TensorType) -> Value:
        """`value`, checked to be of type `kind` when the model runs."""
        return self.builder.match_cast(value, kind, self.op_type.lower(), (self.layer,))

    def tensor(self, operand: Operand) -> Value:
        """An operand as a graph value; a shape becomes a tensor here."""
        if operand.value is not None:
            return operand.value
        known = operand.known
        if operand.items is not None:
            raise self.error(
                "an operand is a sequence, not a tensor", "take its elements one by one"
            )
        if known is None:
            raise self.error("an operand has no value", "the model is not valid ONNX")
        array = known.constant()
        if array is not None:
            return constant(array)
        items = list(known.array.reshape(-1))
        if known.dtype.is_float:
            tensor = self._numbers([item.top for item in items], known.dtype)
            if any(as_int(item.bottom) != 1 for item in items):
                bottom = self._numbers([item.bottom for item in items], known.dtype)
                tensor = self.emit("divide", tensor, bottom)
        else:
            tensor = self._numbers(items, known.dtype)
        shape = known.array.shape
        return tensor if len(shape) == 1 else self.emit("reshape", tensor, shape_expr(*shape))

    def output(self, operand: Operand) -> Value:
        """As `tensor`; a sequence as a tuple."""
        if operand.items is None:
            return self.tensor(operand)
        return make_tuple(*map(self.output, operand.items))

    def _numbers(self, values: Sequence[Expr], dtype: DType) -> Value:
        """Expressions over dimensions as a vector."""
        tensor = self.emit("shape_to_tensor", shape_expr(*values))
        return tensor if dtype is INT64 else self.emit("astype", tensor, dtype=dtype)

    def type_of(self, value: Value) -> TensorType:
        """The type of a tensor value. Raises ImportModelError for anything else."""
        if not isinstance(value.type, TensorType):
            raise self.error(f"expected a tensor, got {value.type!r}")
        return value.type

    def shape(self, value: Value) -> tuple[Expr, ...]:
        """The dimensions of a tensor value. Raises ImportModelError if its rank is unknown."""
        shape = self.type_of(value).shape
        if shape is None:
            raise self.error("the number of dimensions of an operand depends on data")
        return shape

    def dtype(self, value: Value) -> DType:
        """The element type of a tensor value."""
        dtype = self.type_of(value).dtype
        if dtype is None:
            raise self.error("the dtype of an operand is unknown")
        return dtype

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
