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
    """Writes the body of one function. Values are operands; Python floats become constants.

    features: of the processor, as a Target names them; instructions that only some have are used
    where they fit the lanes.
    """

    def __init__(
        self,
        module: ModuleText,
        shape: Shape,
        parameters: int = 1,
        features: frozenset[str] = frozenset(),
    ) -> None:
        self.module = module
        self.shape = shape
        self.features = features
        self.lines: list[str] = []
        self.arguments = [f"%x{i}" for i in range(parameters)]
        self.lane_function: Callable[[str], str] = _no_functions
        """Gives the identifier of another function on the same lanes, by name."""

    def constant(self, value: float) -> str:
        """The same number in all lanes."""
        kind, shape = self.shape.type, self.shape
        text = splat(shape.element, self._element(value), shape.lanes)
        if not self._keeps_constants_whole:
            return text
        return self.line(f"load {kind}, ptr {self.module.whole(kind, text)}, !invariant.load !{{}}")

    @property
    def _keeps_constants_whole(self) -> bool:
        """Whether constants are read from memory in full. AVX2 arithmetic takes an operand from
        memory only so; LLVM would keep one lane and broadcast it into a register each time, as 16
        registers do not hold the constants of a polynomial: one instruction more for each. AVX-512
        has operands that are broadcast."""
        bits = self.shape.bits * self.shape.lanes
        return bits == 256 and "avx2" in self.features and not self.has_avx512

    def _element(self, value: float) -> str:
        rounded = float(np.float32(value)) if self.shape.bits == 32 else value
        bits = struct.unpack("<Q", struct.pack("<d", rounded))[0]
        return f"0x{bits:016X}"

    def integer(self, value: int) -> str:
        """The same integer in all lanes."""
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

    # --- instructions of some processors ---

    @property
    def has_avx512(self) -> bool:
        """Whether the lanes fill a register that AVX-512 instructions work on."""
        bits = self.shape.bits * self.shape.lanes
        needed = {512: "avx512f", 256: "avx512vl", 128: "avx512vl"}.get(bits)
        return needed in self.features

    def _avx512(self, name: str, *operands: str, rounds: bool = False) -> str:
        """An AVX-512 intrinsic on floats with all lanes enabled. rounds: whether its 512-bit form
        takes a rounding mode, of which 4 is the current one."""
        shape = self.shape
        mask = f"i{max(8, shape.lanes)}"
        text = [f"{shape.type} {operand}" for operand in (*operands, "zeroinitializer")]
        kinds = [shape.type] * len(text)
        wide = shape.bits * shape.lanes == 512
        text.append(f"{mask} -1")
        kinds.append(mask)
        if rounds and wide:
            text.append("i32 4")
            kinds.append("i32")
        suffix = f"{'ps' if shape.bits == 32 else 'pd'}.{shape.bits * shape.lanes}"
        identifier = self.module.declare(f"llvm.x86.avx512.{name}.{suffix}", shape.type, kinds)
        return self.line(f"call {shape.type} {identifier}({', '.join(text)})")

    @property
    def table_size(self) -> int:
        """How many numbers a table for `look_up` holds: as many as there are lanes, 0 if there are
        no such instructions."""
        if self.shape.bits != 32:
            return 0
        needed = {16: "avx512f", 8: "avx2"}.get(self.shape.lanes)
        return self.shape.lanes if needed in self.features else 0

    def look_up(self, table: Sequence[float], index: str) -> str:
        """The entries of a table of `table_size` numbers at the low bits of each integer."""
        kind, integers = self.shape.type, self.shape.integers
        entries = ", ".join(f"float {self._element(value)}" for value in table)
        name = {16: "avx512.permvar.sf.512", 8: "avx2.permps"}[len(table)]
        identifier = self.module.declare(f"llvm.x86.{name}", kind, [kind, integers])
        return self.line(f"call {kind} {identifier}({kind} <{entries}>, {integers} {index})")

    def quotient(self, a: str | float, b: str) -> str:
        """a / b to about half a unit in the last place, for b and 1 / b normal numbers.

        A division keeps the divider busy for 16 cycles a register of 16 floats. An estimate of
        1 / b of 14 bits and the remainder of a product with it take four operations.
        """
        if not self.has_avx512 or self.shape.bits != 32:
            return self.div(a, b)
        estimate = self._avx512("rcp14", b)
        first = self.mul(a, estimate)
        rest = self.fma(self.line(f"fneg {self.shape.type} {first}"), b, a)
        return self.fma(rest, estimate, first)

    def scale(self, x: str, number: str, twice_biased: str) -> str:
        """x * 2^n with x near 1: subnormal or infinite where that is the result. `number` is n as
        a float; the low bits of `twice_biased` are n and twice the bias of the exponent."""
        if self.has_avx512:
            return self._avx512("mask.scalef", x, number, rounds=True)
        # In two steps, as a power of two alone may be out of range. What else the integer has, to
        # the left of n, is shifted out.
        half = self.int_op("shl", self.int_op("lshr", twice_biased, 1), self.shape.fraction_bits)
        both = self.int_op("shl", twice_biased, self.shape.fraction_bits)
        first = self.mul(x, self.from_bits(half))
        return self.mul(first, self.from_bits(self.int_op("sub", both, half)))

    def power_of_two(self, biased: str) -> str:
        """2^n for n within the normal exponents: the low bits of `biased` are n and the bias."""
        return self.from_bits(self.int_op("shl", biased, self.shape.fraction_bits))

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
