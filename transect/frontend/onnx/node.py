"""One ONNX node as converters see it, and the form of a converter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx

from transect.frontend.onnx.data_shapes import read_elements, read_sizes
from transect.frontend.onnx.emitter import Emitter
from transect.frontend.onnx.scope import Scope
from transect.frontend.onnx.values import Elements, Operand, constant_array
from transect.ir.expr import IntImm, as_int
from transect.ir.types import TensorType
from transect.relax.expr import Value

ResultT = TypeVar("ResultT")

RunGraph = Callable[[onnx.GraphProto, Scope], list[Operand]]
"""Appends the nodes of a subgraph, whose inputs the scope defines; its outputs."""


@dataclass(frozen=True)
class Node(Emitter):
    """A node with its operands and attributes.

    wanted: for each output whether the model names it. run_graph: appends a subgraph of it where
    the builder stands.
    """

    opset: int
    attributes: dict[str, Any]
    operands: tuple[Operand | None, ...]
    wanted: tuple[bool, ...]
    run_graph: RunGraph

    @property
    def outputs(self) -> int:
        """The number of outputs, those left out before the last one included."""
        return len(self.wanted)

    def wants(self, index: int) -> bool:
        """Whether the model uses output `index`."""
        return index < len(self.wanted) and self.wanted[index]

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

    def type(self, index: int) -> TensorType:
        """The tensor type of operand `index`."""
        return self.type_of(self.value(index))

    def constant(self, index: int) -> np.ndarray | None:
        """Operand `index` as an array if it is known while importing."""
        return constant_array(self.operand(index)) if self.has(index) else None

    def is_constant(self, index: int) -> bool:
        """Whether the elements of operand `index` are known while importing, if it has any."""
        return self.constant(index) is not None or self.is_empty(index)

    def is_empty(self, index: int) -> bool:
        """Whether operand `index` is a tensor without elements, whatever it is computed from."""
        return any(as_int(dim) == 0 for dim in self.shape(self.value(index)))

    def elements(self, index: int, what: str) -> Elements:
        """Operand `index`, which says `what` ("shape", "begin"), element by element.

        A tensor is read when the model runs: its elements are then expressions of new variables,
        of any sign. Raises ImportModelError if it is not a vector of known length, or a scalar.
        """
        operand = self.operand(index)
        if operand.elements is not None:
            return operand.elements
        array = constant_array(operand)
        if array is not None and array.ndim <= 1 and array.dtype.kind in "iub":
            values = tuple(IntImm(int(item)) for item in array.reshape(-1))
            return Elements(values, array.ndim, self.dtype(self.value(index)))
        return read_elements(self, self.value(index), what)

    def sizes(self, index: int, what: str) -> Elements:
        """As `elements` for numbers that must not be negative, checked when the model runs."""
        operand = self.operand(index)
        if operand.elements is None and constant_array(operand) is None:
            return read_sizes(self, self.value(index), what)
        elements = self.elements(index, what)
        for value in elements.values:
            number = as_int(value)
            if number is not None and number < 0:
                raise self.error(f"the {what} is {number}", "it must not be negative")
        return elements

    def integers(self, index: int, what: str) -> list[int]:
        """Operand `index`, which must be constant integers."""
        operand = self.operand(index)
        known = operand.elements is not None or constant_array(operand) is not None
        known = known or self.is_empty(index)
        values = self.elements(index, what).values if known else (None,)
        if not all(isinstance(value, IntImm) for value in values):
            raise self.error(f"the {what} must be constant", "export the model with constant ones")
        return [value.value for value in values if isinstance(value, IntImm)]


Result = Value | Operand | Sequence[Value | Operand]
"""What a converter gives: one output, or a sequence of them."""


@dataclass(frozen=True)
class Converter:
    """How one ONNX operator becomes graph operators, from opset `since` on.

    convert: takes the node and gives its outputs. Source: the ONNX operator of the same name.
    """

    convert: Callable[[Node], Result]
    since: int = 1
