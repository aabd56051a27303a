"""Scalar expressions, indices, regions and attribute values as script text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields as dataclass_fields
from typing import Any

import numpy as np

from transect.ir.dtype import FLOAT32, INDEX, VOID, DType, as_dtype
from transect.ir.expr import (
    EQ,
    GE,
    GT,
    LE,
    LT,
    NE,
    Add,
    And,
    Binary,
    Broadcast,
    Call,
    Cast,
    Div,
    Expr,
    FloatImm,
    FloorDiv,
    FloorMod,
    GlobalVar,
    IntImm,
    Intrinsic,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Pointer,
    Ramp,
    Range,
    Select,
    Shuffle,
    StringImm,
    Sub,
    Var,
    make,
)
from transect.ir.term import Term
from transect.script.axes import make_range
from transect.script.intrinsics import COERCED, FLOAT_FUNCTIONS, dtype_place, implied_dtype
from transect.script.printer.names import Names, quote
from transect.target import Target
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.index_map import IndexMap
from transect.tir.reducer import CommReducer

OR, AND, NOT, COMPARE, SUM, PRODUCT, UNARY, ATOM = 1, 2, 3, 4, 9, 10, 11, 20
"""How tightly Python's operators bind."""

_SYMBOLS: dict[type[Binary], tuple[str, int]] = {
    Add: ("+", SUM),
    Sub: ("-", SUM),
    Mul: ("*", PRODUCT),
    FloorDiv: ("//", PRODUCT),
    FloorMod: ("%", PRODUCT),
    EQ: ("==", COMPARE),
    NE: ("!=", COMPARE),
    LT: ("<", COMPARE),
    LE: ("<=", COMPARE),
    GT: (">", COMPARE),
    GE: (">=", COMPARE),
    And: ("and", AND),
    Or: ("or", OR),
}
_FUNCTIONS: dict[type[Binary], str] = {
    Min: "T.min",
    Max: "T.max",
    Mod: "T.truncmod",
    Div: "T.truncdiv",
}


def is_literal(expr: Expr) -> bool:
    """Whether `expr` may print as a bare Python number."""
    return isinstance(expr, IntImm | FloatImm)


def bare(expr: IntImm | FloatImm) -> str | None:
    """The constant as a Python literal that leaves its dtype to the context; None for inf, nan."""
    if isinstance(expr, IntImm):
        return str(bool(expr.value)) if expr.dtype.is_bool else str(expr.value)
    return repr(expr.value) if math.isfinite(expr.value) else None


class ExpressionPrinter:
    """Prints terms with the names of one scope."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._table: dict[type[Any], Callable[[Any], tuple[str, int]]] = {
            Var: self._var,
            IntImm: self._literal,
            FloatImm: self._literal,
            StringImm: lambda e: (f"T.StringImm({quote(e.value)})", ATOM),
            Not: self._not,
            Select: self._select,
            Cast: lambda e: (f'T.Cast("{e.to}", {self.text(e.value)})', ATOM),
            Ramp: self._ramp,
            Broadcast: self._broadcast,
            Shuffle: lambda e: (
                f"T.Shuffle([{self.join(e.vectors)}], [{self.join(e.indices)}])",
                ATOM,
            ),
            Call: self._call,
            GlobalVar: lambda e: (f"I.GlobalVar({quote(e.name)})", ATOM),
            BufferLoad: self._load,
            Range: self._range,
            BufferRegion: lambda e: (self.region(e), ATOM),
            Pointer: lambda e: (f"T.handle({_quote(e.element)}, {quote(e.scope)})", ATOM),
            DType: lambda e: (_quote(e), ATOM),
        }

    # --- terms ------------------------------------------------------------------------------

    def text(self, expr: Term, level: int = 0) -> str:
        """`expr` where any expression may stand, in parentheses if it binds looser than `level`.

        Constants of the default dtypes (int64, float32, bool) print bare.
        """
        handler = self._table.get(type(expr))
        if handler is not None:
            text, binds = handler(expr)
        else:
            text, binds = self._uncommon(expr)
        return f"({text})" if binds < level else text

    def literal_or(self, expr: Expr, dtype: DType, level: int = 0) -> str:
        """`expr` where a bare number would take `dtype`: operands, stored values, bounds."""
        if isinstance(expr, IntImm | FloatImm):
            plain = bare(expr) if expr.dtype is dtype else None
            return plain if plain is not None else self.typed(expr)
        return self.text(expr, level)

    def typed(self, expr: Expr) -> str:
        """`expr` with the dtype of a constant spelled out, for places that imply none."""
        if isinstance(expr, IntImm | FloatImm):
            plain = bare(expr)
            return f"T.{expr.dtype}({plain if plain is not None else quote(str(expr.value))})"
        return self.text(expr)

    def join(self, items: tuple[Expr, ...]) -> str:
        """Expressions separated by commas."""
        return ", ".join(self.text(item) for item in items)

    def tuple(self, items: tuple[Expr, ...]) -> str:
        """A Python tuple of expressions."""
        return f"({self.join(items)}{',' if len(items) == 1 else ''})"

    def _uncommon(self, expr: Term) -> tuple[str, int]:
        if isinstance(expr, Var):  # One of a class of its own, such as a variable without a name.
            return self._var(expr)
        return self._binary(expr) if isinstance(expr, Binary) else self._other(expr)

    def _other(self, expr: Term) -> tuple[str, int]:
        inside = ", ".join(
            f"{name}={self.value(getattr(expr, name))}" for name in type(expr).fields
        )
        return f"{type(expr).__name__}({inside})", ATOM

    def _var(self, var: Var) -> tuple[str, int]:
        return self.names.get(var) or self.names.define(var, var.name), ATOM

    def _literal(self, expr: IntImm | FloatImm) -> tuple[str, int]:
        default = (
            FLOAT32 if isinstance(expr, FloatImm) else expr.dtype if expr.dtype.is_bool else INDEX
        )
        text = self.literal_or(expr, default)
        return text, UNARY if text.startswith("-") else ATOM

    def _binary(self, expr: Binary) -> tuple[str, int]:
        kind = type(expr)
        a, b = expr.a, expr.b
        either = is_literal(a) or is_literal(b)
        if (is_literal(a) and is_literal(b)) or (either and kind in (And, Or)):
            # The operators fold constants; the constructors do not.
            return f"T.{kind.__name__}({self.text(a)}, {self.text(b)})", ATOM
        if kind is Div and expr.dtype.is_float:
            symbol, binds = "/", PRODUCT
        elif kind in _FUNCTIONS:
            left, right = self.literal_or(a, b.dtype), self.literal_or(b, a.dtype)
            return f"{_FUNCTIONS[kind]}({left}, {right})", ATOM
        else:
            symbol, binds = _SYMBOLS[kind]
        # Comparisons chain in Python, so neither side may be one.
        low = binds + 1 if binds == COMPARE else binds
        left, right = self.literal_or(a, b.dtype, low), self.literal_or(b, a.dtype, binds + 1)
        return f"{left} {symbol} {right}", binds

    def _not(self, expr: Not) -> tuple[str, int]:
        if is_literal(expr.a):
            return f"T.Not({self.typed(expr.a)})", ATOM
        return f"not {self.text(expr.a, NOT)}", NOT

    def pair(self, a: Expr, b: Expr) -> str:
        """Two arguments of one dtype, of which a bare number takes that of the other."""
        if is_literal(a) and is_literal(b):
            return f"{self.text(a)}, {self.text(b)}"
        return f"{self.literal_or(a, b.dtype)}, {self.literal_or(b, a.dtype)}"

    def _select(self, expr: Select) -> tuple[str, int]:
        values = self.pair(expr.true_value, expr.false_value)
        return f"T.Select({self.text(expr.condition)}, {values})", ATOM

    def _ramp(self, expr: Ramp) -> tuple[str, int]:
        scalable = ", scalable=True" if expr.scalable else ""
        base, stride = self.text(expr.base), self.literal_or(expr.stride, expr.base.dtype)
        return (
            f"T.Ramp({base}, {stride}, {expr.lanes}{scalable})",
            ATOM,
        )

    def _broadcast(self, expr: Broadcast) -> tuple[str, int]:
        scalable = ", scalable=True" if expr.scalable else ""
        return f"T.Broadcast({self.typed(expr.value)}, {expr.lanes}{scalable})", ATOM

    def argument(self, expr: Expr) -> str:
        """`expr` as an argument of a call, where strings stand for themselves."""
        return quote(expr.value) if isinstance(expr, StringImm) else self.text(expr)

    def _call(self, expr: Call) -> tuple[str, int]:
        if isinstance(expr.op, GlobalVar):
            name = self.names.get(expr.op) or self.text(expr.op)
            dtype = (
                ""
                if expr.dtype is VOID
                else f"{', ' if expr.args else ''}dtype={_quote(expr.dtype)}"
            )
            return f"{name}({', '.join(self.argument(a) for a in expr.args)}{dtype})", ATOM
        op = expr.op
        assert isinstance(op, Intrinsic)
        args = (
            self._coerced(op, expr.args)
            if op.name in COERCED
            else list(map(self.argument, expr.args))
        )
        if op.arity is not None and op.arity != len(args):
            return f"T.call_intrin({', '.join([_quote(expr.dtype), quote(op.name), *args])})", ATOM
        place = dtype_place(op)
        if place == "first":
            args.insert(0, _quote(expr.dtype))
        elif place == "last":
            args.append(_quote(expr.dtype))
        elif implied_dtype(op, expr.args) is not expr.dtype:
            args.append(f"dtype={_quote(expr.dtype)}")
        return f"T.{op.name}({', '.join(args)})", ATOM

    def _coerced(self, op: Intrinsic, args: tuple[Expr, ...]) -> list[str]:
        """The arguments of a function whose bare numbers take another's dtype."""
        values = args[1:] if op.name == "if_then_else" else args
        others = [item.dtype.element for item in values if not is_literal(item)]
        shown = [self.text(item) if is_literal(item) else self.argument(item) for item in values]
        if others or op.name in FLOAT_FUNCTIONS:
            expected = FLOAT32 if op.name in FLOAT_FUNCTIONS else others[0]
            shown = [self.literal_or(item, expected) for item in values]
        return [self.typed(item) for item in args[: len(args) - len(values)]] + shown

    # --- buffers ----------------------------------------------------------------------------

    def buffer(self, value: Buffer) -> str:
        """The name of a buffer."""
        return self.names.get(value) or self.names.define(value, value.name)

    def indices(self, items: tuple[Expr, ...]) -> str:
        """What stands between the brackets."""
        return self.join(items) if items else "()"

    def _load(self, expr: BufferLoad) -> tuple[str, int]:
        if expr.predicate is not None:
            return (
                f"{self.buffer(expr.buffer)}.vload([{self.join(expr.indices)}], "
                f"predicate={self.text(expr.predicate)})"
            ), ATOM
        return f"{self.buffer(expr.buffer)}[{self.indices(expr.indices)}]", ATOM

    def region(self, region: BufferRegion) -> str:
        """`A[i, 0:n]`."""
        if not region.ranges:
            return f"{self.buffer(region.buffer)}[()]"
        return f"{self.buffer(region.buffer)}[{', '.join(self.slice(r) for r in region.ranges)}]"

    def slice(self, interval: Range) -> str:
        """`i` for one element, `a:b` for more."""
        if isinstance(interval.extent, IntImm) and interval.extent.value == 1:
            return self.text(interval.min)
        return f"{self.text(interval.min)}:{self.stop(interval)}"

    def stop(self, interval: Range) -> str:
        """The end of a range, such that the parser finds the extent again."""
        low, extent = interval.min, interval.extent
        if isinstance(low, IntImm) and low.value == 0:
            return self.text(extent)
        if (
            isinstance(extent, Sub)
            and extent.b is low
            and make_range(low, extent.a).extent is extent
        ):
            return self.text(extent.a)
        if is_literal(low) and is_literal(extent):
            return self.text(make(Add, low, extent))
        return self.text(Add(low, extent))

    def _range(self, interval: Range) -> tuple[str, int]:
        return f"I.Range({self.text(interval.min)}, {self.stop(interval)})", ATOM

    # --- attribute values -------------------------------------------------------------------

    def value(self, value: Any) -> str:
        """Any attribute value: Python values as literals, constants of the IR with their dtype."""
        if isinstance(value, StringImm):
            return self.text(value)
        if isinstance(value, Expr):
            return self.typed(value)
        if isinstance(value, Term):
            return self.text(value)
        if isinstance(value, Buffer):
            return self.buffer(value)
        if isinstance(value, float):
            return repr(value) if math.isfinite(value) else f"float('{value}')"
        if isinstance(value, str):
            return quote(value)
        if value is None or isinstance(value, bool | int):
            return repr(value)
        if isinstance(value, tuple | list):
            items: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType]
            comma = "," if len(items) == 1 and isinstance(value, tuple) else ""
            inside = ", ".join(self.value(item) for item in items)
            return f"({inside}{comma})" if isinstance(value, tuple) else f"[{inside}]"
        if isinstance(value, Mapping):
            pairs: list[tuple[Any, Any]] = list(value.items())  # pyright: ignore[reportUnknownArgumentType]
            return "{" + ", ".join(f"{self.value(k)}: {self.value(v)}" for k, v in pairs) + "}"
        if isinstance(value, frozenset | set):
            parts: list[str] = sorted(self.value(item) for item in value)  # pyright: ignore[reportUnknownVariableType]
            return f"frozenset([{', '.join(parts)}])"
        if isinstance(value, Target):
            return f"T.target({self.target(value)})"
        if isinstance(value, CommReducer):
            return self.reducer(value)
        if isinstance(value, IndexMap):
            return self.index_map(value)
        if isinstance(value, np.ndarray | np.generic):
            return _array(value)
        return repr(value)

    def target(self, value: Target) -> str:
        """A target as a dictionary of the fields that differ from their defaults."""
        plain = Target(value.name, value.arch)
        changed = {
            item.name: getattr(value, item.name)
            for item in dataclass_fields(value)
            if item.name in ("name", "arch")
            or getattr(value, item.name) != getattr(plain, item.name)
        }
        return self.value(changed)

    def reducer(self, value: CommReducer) -> str:
        """`T.comm_reducer(lambda x, y: x + y, [T.float32(0.0)])`."""
        inner = ExpressionPrinter(Names(self.names))
        parameters = [inner.names.define(var, var.name) for var in (*value.left, *value.right)]
        results = [inner.text(item) for item in value.result]
        body = results[0] if len(results) == 1 else f"({', '.join(results)})"
        identity = ", ".join(self.typed(item) for item in value.neutral)
        return f"T.comm_reducer(lambda {', '.join(parameters)}: {body}, [{identity}])"

    def index_map(self, value: IndexMap) -> str:
        """`T.index_map(lambda i, j: (j, i))`."""
        inner = ExpressionPrinter(Names(self.names))
        parameters = [inner.names.define(var, var.name) for var in value.inputs]
        return f"T.index_map(lambda {', '.join(parameters)}: {inner.tuple(value.outputs)})"


def _array(value: Any) -> str:
    data: np.ndarray = np.asarray(value)
    return f'I.array({data.tolist()!r}, "{as_dtype(data.dtype)}")'


def _quote(dtype: DType) -> str:
    return f'"{dtype}"'
