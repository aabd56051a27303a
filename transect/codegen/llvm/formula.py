"""Lane-wise formulas on float or double vectors of any length, as IR functions to be inlined.

The arithmetic that polynomials are made of; the polynomials themselves are in `elementary`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from transect.codegen.llvm.module import ModuleText
from transect.codegen.llvm.types import splat, vector_of


@dataclass(frozen=True)
class Shape:
    """The type of the lanes: 32 or 64 bits, and how many."""

    bits: int
    lanes: int

    @property
    def element(self) -> str:
        """One lane."""
        return "float" if self.bits == 32 else "double"

    @property
    def type(self) -> str:
        """All lanes."""
        return vector_of(self.element, self.lanes)

    @property
    def integers(self) -> str:
        """Integers of the same size."""
        return vector_of(f"i{self.bits}", self.lanes)

    @property
    def flags(self) -> str:
        """One truth value a lane."""
        return vector_of("i1", self.lanes)

    @property
    def suffix(self) -> str:
        """As LLVM spells overloads."""
        return f"f{self.bits}" if self.lanes == 1 else f"v{self.lanes}f{self.bits}"

    @property
    def fraction_bits(self) -> int:
        """Bits of the significand that are stored."""
        return 23 if self.bits == 32 else 52

    @property
    def bias(self) -> int:
        """Of the exponent."""
        return 127 if self.bits == 32 else 1023


class Formula:
    """Writes the body of one function. Values are operands; Python floats become constants."""

    def __init__(self, module: ModuleText, shape: Shape, parameters: int = 1) -> None:
        self.module = module
        self.shape = shape
        self.lines: list[str] = []
        self.arguments = [f"%x{i}" for i in range(parameters)]
        self.lane_function: Callable[[str], str] = _no_functions
        """Gives the identifier of another function on the same lanes, by name."""

    def constant(self, value: float) -> str:
        """A splat constant."""
        rounded = float(np.float32(value)) if self.shape.bits == 32 else value
        bits = struct.unpack("<Q", struct.pack("<d", rounded))[0]
        return splat(self.shape.element, f"0x{bits:016X}", self.shape.lanes)

    def integer(self, value: int) -> str:
        """A splat integer constant."""
        return splat(f"i{self.shape.bits}", str(value), self.shape.lanes)

    def _operand(self, value: str | float) -> str:
        return value if isinstance(value, str) else self.constant(value)

    def line(self, text: str) -> str:
        """One instruction."""
        name = f"%t{len(self.lines)}"
        self.lines.append(f"  {name} = {text}")
        return name

    def add(self, a: str | float, b: str | float) -> str:
        return self.line(f"fadd {self.shape.type} {self._operand(a)}, {self._operand(b)}")

    def sub(self, a: str | float, b: str | float) -> str:
        return self.line(f"fsub {self.shape.type} {self._operand(a)}, {self._operand(b)}")

    def mul(self, a: str | float, b: str | float) -> str:
        return self.line(f"fmul {self.shape.type} {self._operand(a)}, {self._operand(b)}")

    def div(self, a: str | float, b: str | float) -> str:
        return self.line(f"fdiv {self.shape.type} {self._operand(a)}, {self._operand(b)}")

    def call(self, name: str, *operands: str | float) -> str:
        """An overloaded LLVM intrinsic."""
        kind = self.shape.type
        identifier = self.module.declare(
            f"llvm.{name}.{self.shape.suffix}", kind, [kind] * len(operands)
        )
        return self.line(
            f"call {kind} {identifier}({', '.join(f'{kind} {self._operand(o)}' for o in operands)})"
        )

    def fma(self, a: str | float, b: str | float, c: str | float) -> str:
        """a * b + c, fused where that is fast."""
        return self.call("fmuladd", a, b, c)

    def polynomial(self, x: str, coefficients: Sequence[float]) -> str:
        """Horner's rule, highest power first."""
        result: str = self.constant(coefficients[0])
        for coefficient in coefficients[1:]:
            result = self.fma(result, x, coefficient)
        return result

    def test(self, predicate: str, a: str | float, b: str | float) -> str:
        """fcmp."""
        return self.line(
            f"fcmp {predicate} {self.shape.type} {self._operand(a)}, {self._operand(b)}"
        )

    def select(self, condition: str, a: str | float, b: str | float) -> str:
        kind = self.shape.type
        return self.line(
            f"select {self.shape.flags} {condition}, "
            f"{kind} {self._operand(a)}, {kind} {self._operand(b)}"
        )

    def bits(self, x: str) -> str:
        """The lanes as integers."""
        return self.line(f"bitcast {self.shape.type} {x} to {self.shape.integers}")

    def from_bits(self, x: str) -> str:
        """The opposite of `bits`."""
        return self.line(f"bitcast {self.shape.integers} {x} to {self.shape.type}")

    def int_op(self, operation: str, a: str, b: str | int) -> str:
        """An integer instruction."""
        right = b if isinstance(b, str) else self.integer(b)
        return self.line(f"{operation} {self.shape.integers} {a}, {right}")

    def fabs(self, x: str) -> str:
        return self.call("fabs", x)

    def copysign(self, magnitude: str, sign: str) -> str:
        return self.call("copysign", magnitude, sign)

    def apply(self, name: str, *operands: str) -> str:
        """Another function of `elementary`, on the same lanes."""
        kind = self.shape.type
        identifier = self.lane_function(name)
        return self.line(f"call {kind} {identifier}({', '.join(f'{kind} {o}' for o in operands)})")

    def text(self, name: str, result: str) -> str:
        """The finished function."""
        parameters = ", ".join(f"{self.shape.type} {argument}" for argument in self.arguments)
        return "\n".join(
            [
                f"define internal {self.shape.type} @{name}({parameters}) alwaysinline nounwind {{",
                *self.lines,
                f"  ret {self.shape.type} {result}",
                "}",
            ]
        )


def _no_functions(name: str) -> str:
    raise KeyError(name)
