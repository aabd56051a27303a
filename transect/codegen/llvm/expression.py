"""Expressions -> instructions. Intrinsic calls are looked up in a table that is handed in.

A term is emitted once per region of code that it dominates; loads are forgotten at every write.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from transect.codegen.llvm import floats
from transect.codegen.llvm.builder import FunctionText, Line
from transect.codegen.llvm.hoist import Motion, summands, total
from transect.codegen.llvm.tile_registers import TileRegisters, is_tile
from transect.codegen.llvm.types import (
    element_type,
    float_constant,
    is_soft_float,
    memory_type,
    register_type,
    splat,
    vector_of,
)
from transect.ir.dtype import BOOL, FLOAT32, INT64, DType
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
    Comparison,
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
    Ramp,
    Select,
    Shuffle,
    StringImm,
    Sub,
    Var,
    as_int,
)
from transect.ir.function import IRModule
from transect.ir.term import Term
from transect.support.errors import UnsupportedError
from transect.target import Target
from transect.tir.buffer import Buffer, BufferLoad


@dataclass
class Region:
    """What is known in a stretch of code that dominates everything emitted while it is on the
    stack: the values of pure terms, addresses, the values of terms that read memory, and the
    tensors behind handles; the last two are valid until the next write. before: the place in front
    of it, where what does not change in it is computed."""

    before: list[Line] | None = None
    pure: dict[Term, str] = field(default_factory=dict[Term, str])
    addresses: dict[tuple[str, str, Term], str] = field(
        default_factory=dict[tuple[str, str, Term], str]
    )
    reads: dict[Term, str] = field(default_factory=dict[Term, str])
    tensors: dict[Term, str] = field(default_factory=dict[Term, str])


@dataclass
class CodeUnit:
    """What the functions of one module share while they are emitted."""

    module: IRModule
    target: Target
    native_half: bool


_FLOAT_OP = {Add: "fadd contract", Sub: "fsub contract", Mul: "fmul contract", Div: "fdiv"}
_INT_OP = {Add: "add", Sub: "sub", Mul: "mul"}
_COMPARE: dict[type[Comparison], tuple[str, str, str]] = {
    EQ: ("oeq", "eq", "eq"),
    NE: ("une", "ne", "ne"),
    LT: ("olt", "slt", "ult"),
    LE: ("ole", "sle", "ule"),
    GT: ("ogt", "sgt", "ugt"),
    GE: ("oge", "sge", "uge"),
}
"""The predicates for floats, signed and unsigned integers."""

_EFFECT = {"pure": 0, "read": 1, "write": 2}

Handler = Callable[[Any, Call], str]
"""Emits the call of an intrinsic: (emitter, call) -> operand, "" for a void call."""


class ExpressionEmitter:
    """Emits expressions of one function into `text`.

    variables: the operand of each bound variable. handles: for a handle variable, the call that
    made it, which says what it points to.
    """

    def __init__(
        self, unit: CodeUnit, text: FunctionText, intrinsics: Mapping[str, Handler]
    ) -> None:
        self.unit = unit
        self.text = text
        self.intrinsics = intrinsics
        self.variables: dict[Var, str] = {}
        self.handles: dict[Var, Call] = {}
        self.regions: list[Region] = [Region()]
        self.tiles = TileRegisters()
        self.message = ""
        """The memory for the text of an error, once there is one that needs it."""
        self._effects: dict[Term, int] = {}
        self._motion = Motion()

    # --- regions ---

    def bind(self, var: Var, operand: str) -> None:
        """Give a variable its value, known from here to the end of the region."""
        self.variables[var] = operand
        self._motion.define(var, len(self.regions) - 1)

    def enter(self, before: list[Line] | None = None) -> None:
        """Begin code that may not run, or may run again after its own writes. before: a bookmark
        in front of the branch to it."""
        self.regions.append(Region(before))

    def leave(self) -> None:
        """End what `enter` began."""
        self.regions.pop()

    def forget_reads(self) -> None:
        """Memory may have changed."""
        for region in self.regions:
            region.reads.clear()
            region.tensors.clear()

    def place_of(self, depth: int | None) -> int:
        """The region to compute in what is known from region `depth` on, or, None, only here: as
        far out as bookmarks stand in front of what is inside."""
        place = len(self.regions) - 1
        while depth is not None and place > depth and self.regions[place].before is not None:
            place -= 1
        return place

    @contextmanager
    def outside(self, place: int) -> Generator[None]:
        """Write at the end of what has been emitted in a region around, in front of the next."""
        regions = self.regions
        before = regions[place + 1].before
        assert before is not None
        self.regions = regions[: place + 1]
        try:
            with self.text.writing_at(before):
                yield
        finally:
            self.regions = regions

    def effect(self, expr: Term) -> int:
        """What evaluating `expr` may do: 0 nothing, 1 read memory, 2 anything."""
        known = self._effects.get(expr)
        if known is None:
            known = (
                1
                if isinstance(expr, BufferLoad)
                else _EFFECT[expr.effect]
                if isinstance(expr, Call)
                else 0
            )
            for child in expr.children():
                if known == 2:
                    break
                known = max(known, self.effect(child))
            self._effects[expr] = known
        return known

    # --- entry points ---

    def emit(self, expr: Expr) -> str:
        """The operand that holds `expr`."""
        if isinstance(expr, Var):
            value = self.variables.get(expr)
            if value is None:
                raise UnsupportedError(f"variable {expr.name!r} is used where it has no value")
            return value
        if isinstance(expr, IntImm | FloatImm):
            return self.constant(expr)
        effect = self.effect(expr)
        if effect == 2:
            # It may appear twice and mean two calls.
            return _EMIT[type(expr)](self, expr)
        for region in reversed(self.regions):
            found = (region.reads if effect else region.pure).get(expr)
            if found is not None:
                return found
        place = self.place_of(None if effect else self._motion.target(expr))
        region = self.regions[place]
        if region is self.regions[-1]:
            value = _EMIT[type(expr)](self, expr)
        else:
            with self.outside(place):
                value = _EMIT[type(expr)](self, expr)
        (region.reads if effect else region.pure)[expr] = value
        return value

    def constant(self, expr: IntImm | FloatImm) -> str:
        """A literal."""
        if isinstance(expr, FloatImm):
            return float_constant(expr.value, expr.dtype)
        if expr.dtype.is_bool:
            return "true" if expr.value else "false"
        if expr.dtype.is_handle:
            return "null" if expr.value == 0 else f"inttoptr (i64 {expr.value} to ptr)"
        return str(expr.value)

    def typed(self, expr: Expr) -> str:
        """ "type operand", as instructions want it."""
        return f"{register_type(expr.dtype)} {self.emit(expr)}"

    def index(self, expr: Expr) -> str:
        """A scalar integer as an i64 operand."""
        return self.convert(self.emit(expr), expr.dtype, INT64)

    # --- arithmetic on operands ---

    def arithmetic(self, kind: type[Binary], a: str, b: str, dtype: DType) -> str:
        """`kind(a, b)` on operands of `dtype`."""
        if is_soft_float(dtype):
            wide = FLOAT32.with_lanes(dtype.lanes)
            result = self.arithmetic(
                kind, self.convert(a, dtype, wide), self.convert(b, dtype, wide), wide
            )
            return self.convert(result, wide, dtype)
        lanes = register_type(dtype)
        if kind in (Min, Max):
            return self._extreme(kind, a, b, dtype)
        if dtype.is_float:
            if kind in _FLOAT_OP:
                return self.text.define(f"{_FLOAT_OP[kind]} {lanes} {a}, {b}")
            raise UnsupportedError(f"{kind.__name__} of {dtype}", remedy="use floor(a / b) or fmod")
        if kind in _INT_OP:
            return self.text.define(f"{_INT_OP[kind]} {lanes} {a}, {b}")
        if kind in (And, Or):
            return self.text.define(f"{'and' if kind is And else 'or'} {lanes} {a}, {b}")
        return self._divide(kind, a, b, dtype)

    def _extreme(self, kind: type[Binary], a: str, b: str, dtype: DType) -> str:
        lanes, flag = register_type(dtype), vector_of("i1", dtype.lanes)
        define = self.text.define
        if dtype.is_float:
            first = define(f"fcmp {'olt' if kind is Min else 'ogt'} {lanes} {a}, {b}")
            chosen = define(f"select {flag} {first}, {lanes} {a}, {lanes} {b}")
            # The comparison is false for NaN and gives b: only a NaN in `a` is left to keep, which
            # takes no instruction where the extreme itself can be masked.
            ordered = define(f"fcmp ord {lanes} {a}, {a}")
            return define(f"select {flag} {ordered}, {lanes} {chosen}, {lanes} {a}")
        order = ("s" if dtype.is_int else "u") + ("lt" if kind is Min else "gt")
        first = define(f"icmp {order} {lanes} {a}, {b}")
        return define(f"select {flag} {first}, {lanes} {a}, {lanes} {b}")

    def _divide(self, kind: type[Binary], a: str, b: str, dtype: DType) -> str:
        """Integer division. A zero divisor gives 0, as numpy does, and the smallest value divided
        by -1 wraps around: neither may trap."""
        lanes, flag, element = (
            register_type(dtype),
            vector_of("i1", dtype.lanes),
            element_type(dtype),
        )
        define = self.text.define

        def splatted(value: int) -> str:
            return splat(element, str(value), dtype.lanes)

        divisor = _literal(b)
        if divisor == 0:
            return splatted(0) if dtype.lanes > 1 else "0"
        signed = dtype.is_int
        if (
            divisor is not None
            and divisor > 0
            and divisor & (divisor - 1) == 0
            and kind in (FloorDiv, FloorMod)
        ):
            if kind is FloorMod:
                return define(f"and {lanes} {a}, {splatted(divisor - 1)}")
            return define(
                f"{'ashr' if signed else 'lshr'} {lanes} {a}, {splatted(divisor.bit_length() - 1)}"
            )
        safe, zero, minus = b, None, None
        if divisor is None:
            zero = define(f"icmp eq {lanes} {b}, {splatted(0)}")
            safe = define(f"select {flag} {zero}, {lanes} {splatted(1)}, {lanes} {b}")
        if signed and divisor in (None, -1):
            minus = define(f"icmp eq {lanes} {safe}, {splatted(-1)}")
            safe = define(f"select {flag} {minus}, {lanes} {splatted(1)}, {lanes} {safe}")
        quotient = kind in (Div, FloorDiv)
        operation = ("s" if signed else "u") + ("div" if quotient else "rem")
        result = define(f"{operation} {lanes} {a}, {safe}")
        if signed and kind in (FloorDiv, FloorMod):
            rest = define(f"srem {lanes} {a}, {safe}") if quotient else result
            inexact = define(f"icmp ne {lanes} {rest}, {splatted(0)}")
            mixed = define(
                f"icmp slt {lanes} {define(f'xor {lanes} {rest}, {safe}')}, {splatted(0)}"
            )
            below = define(f"and {flag} {inexact}, {mixed}")
            if quotient:
                result = define(
                    f"add {lanes} {result}, {define(f'sext {flag} {below} to {lanes}')}"
                )
            else:
                fixed = define(f"add {lanes} {result}, {safe}")
                result = define(f"select {flag} {below}, {lanes} {fixed}, {lanes} {result}")
        if minus is not None:
            other = define(f"sub {lanes} {splatted(0)}, {a}") if quotient else splatted(0)
            result = define(f"select {flag} {minus}, {lanes} {other}, {lanes} {result}")
        if zero is not None:
            result = define(f"select {flag} {zero}, {lanes} {splatted(0)}, {lanes} {result}")
        return result

    def convert(self, value: str, source: DType, target: DType) -> str:
        """An operand of `source` as `target`: C rules; floats round to nearest even."""
        if source is target:
            return value
        define = self.text.define
        before, after = register_type(source), register_type(target)
        if source.is_handle or target.is_handle:
            if before == after:
                return value
            return define(
                f"{'ptrtoint' if source.is_handle else 'inttoptr'} {before} {value} to {after}"
            )
        if is_soft_float(source):
            wide = FLOAT32.with_lanes(source.lanes)
            single = floats.bits_to_float32(
                self.text, value, source, native_half=self.unit.native_half
            )
            return self.convert(single, wide, target)
        if is_soft_float(target):
            wide = FLOAT32.with_lanes(source.lanes)
            if source.is_float and source.bits == 64:
                value = floats.double_to_float_odd(self.text, value, source.lanes)
            else:
                value = self.convert(value, source, wide)
            return floats.float32_to_bits(
                self.text, value, target, native_half=self.unit.native_half
            )
        if target.is_bool:
            zero = "zeroinitializer" if source.lanes > 1 else ("0.0" if source.is_float else "0")
            return define(
                f"{'fcmp une' if source.is_float else 'icmp ne'} {before} {value}, {zero}"
            )
        if source.is_float and target.is_float:
            return define(
                f"{'fpext' if target.bits > source.bits else 'fptrunc'} {before} {value} to {after}"
            )
        if source.is_float:
            return self._float_to_int(value, source, target)
        if target.is_float:
            return define(f"{'sitofp' if source.is_int else 'uitofp'} {before} {value} to {after}")
        if source.bits == target.bits:
            return value
        if source.bits > target.bits:
            return define(f"trunc {before} {value} to {after}")
        literal = _literal(value)
        if literal is not None and source.lanes == 1:
            return value
        return define(f"{'sext' if source.is_int else 'zext'} {before} {value} to {after}")

    def _float_to_int(self, value: str, source: DType, target: DType) -> str:
        """Through the next wider integer for small targets, which then wrap like numpy's do."""
        bits = 64 if target.bits == 64 or (target.bits == 32 and target.is_uint) else 32
        middle = vector_of(f"i{bits}", source.lanes)
        operation = "fptoui" if target.is_uint and target.bits == 64 else "fptosi"
        result = self.text.define(f"{operation} {register_type(source)} {value} to {middle}")
        # Of NaN, and of what is too large, it is poison, which no later test would stop.
        result = self.text.define(f"freeze {middle} {result}")
        if bits == target.bits:
            return result
        return self.text.define(f"trunc {middle} {result} to {register_type(target)}")

    # --- memory ---

    def pointer(self, data: Expr) -> str:
        """The address that a handle expression holds."""
        if isinstance(data, Var) and is_tile(data):
            raise UnsupportedError(
                f"an access to an element of {data.name!r}, which is in tile registers",
                remedy="they are read and written as a whole, by the T.amx_tile_... intrinsics",
            )
        return self.emit(data)

    def to_memory(self, value: str, dtype: DType) -> str:
        """A value as its memory type."""
        if register_type(dtype) == memory_type(dtype):
            return value
        return self.text.define(f"zext {register_type(dtype)} {value} to {memory_type(dtype)}")

    def from_memory(self, value: str, dtype: DType) -> str:
        """A value loaded as its memory type."""
        if register_type(dtype) == memory_type(dtype):
            return value
        return self.text.define(f"trunc {memory_type(dtype)} {value} to {register_type(dtype)}")

    def element_address(self, data: Var, kind: DType, index: Expr) -> str:
        """The address of element `index` (a scalar) of memory that holds `kind`s."""
        address, element = self.pointer(data), memory_type(kind)
        terms, constant = summands(index)
        here = len(self.regions) - 1
        least = self._motion.depth(data) or 0
        levels: dict[int, list[Expr]] = {}
        for term in terms:
            depth = self._motion.depth(term)
            levels.setdefault(here if depth is None else max(depth, least), []).append(term)
        for depth in sorted(levels):
            address = self._offset(address, element, total(levels[depth]), depth)
        if constant:
            address = self.text.define(f"getelementptr {element}, ptr {address}, i64 {constant}")
        return address

    def _offset(self, address: str, element: str, offset: Expr, depth: int) -> str:
        """An address and an offset that is known from region `depth` on."""
        known = address, element, offset
        for region in reversed(self.regions):
            if known in region.addresses:
                return region.addresses[known]
        place = self.place_of(depth)
        region = self.regions[place]
        with nullcontext() if region is self.regions[-1] else self.outside(place):
            made = self.text.define(
                f"getelementptr {element}, ptr {address}, i64 {self.index(offset)}"
            )
        if not self.effect(offset):  # What it reads may change.
            region.addresses[known] = made
        return made

    def emit_load(self, load: BufferLoad) -> str:
        if len(load.indices) != 1:
            raise UnsupportedError(
                f"a load from {load.buffer.name} that is not flat",
                remedy="run FlattenBuffer; axis separators are for memory of several dimensions",
            )
        index, kind = load.indices[0], load.buffer.dtype
        if index.dtype.is_scalar:
            address = self.element_address(load.buffer.data, kind, index)
            if load.predicate is not None:
                raise UnsupportedError("a predicate on a scalar load", remedy="use if_then_else")
            memory = memory_type(kind)
            value = self.text.define(f"load {memory}, ptr {address}, align {alignment(kind)}")
            return self.from_memory(value, kind)
        if isinstance(index, Ramp) and as_int(index.stride) == 1 and kind.is_scalar:
            address = self.element_address(load.buffer.data, kind, index.base)
            memory = memory_type(load.dtype)
            if load.predicate is None or _is_inside(load.buffer, index):
                value = self.text.define(f"load {memory}, ptr {address}, align {alignment(kind)}")
                if load.predicate is not None:
                    # Only plain loads and stores let an array live in registers.
                    value = self.text.define(
                        f"select {self.typed(load.predicate)}, {memory} {value}, "
                        f"{memory} zeroinitializer"
                    )
            else:
                name = self.text.module.declare(
                    f"llvm.masked.load.v{load.dtype.lanes}{_suffix(memory_type(kind))}.p0",
                    memory,
                    ["ptr", "i32", f"<{load.dtype.lanes} x i1>", memory],
                )
                value = self.text.define(
                    f"call {memory} {name}(ptr {address}, i32 {alignment(kind)}, "
                    f"{self.typed(load.predicate)}, {memory} zeroinitializer)"
                )
            return self.from_memory(value, load.dtype)
        return self.from_memory(self._gather(load, index), load.dtype)

    def addresses(self, data: Var, kind: DType, index: Expr) -> str:
        """The vector of addresses of the elements at a vector index."""
        lanes = index.dtype.lanes
        stride = as_int(index.stride) if isinstance(index, Ramp) else None
        if isinstance(index, Ramp) and stride is not None:
            # One address and constants, which take half the bits of general offsets.
            first = self.element_address(data, kind, index.base)
            steps = ", ".join(f"i64 {lane * stride}" for lane in range(lanes))
            return self.text.define(
                f"getelementptr {memory_type(kind)}, ptr {first}, <{lanes} x i64> <{steps}>"
            )
        offsets = self.convert(self.emit(index), index.dtype, INT64.with_lanes(lanes))
        return self.text.define(
            f"getelementptr {memory_type(kind)}, ptr {self.pointer(data)}, "
            f"<{lanes} x i64> {offsets}"
        )

    def _gather(self, load: BufferLoad, index: Expr) -> str:
        kind, lanes = load.buffer.dtype, index.dtype.lanes
        if not kind.is_scalar:
            raise UnsupportedError("a vector index into a buffer of vectors")
        memory = vector_of(memory_type(kind), lanes)
        pointers = self.addresses(load.buffer.data, kind, index)
        mask = "splat (i1 true)" if load.predicate is None else self.emit(load.predicate)
        name = self.text.module.declare(
            f"llvm.masked.gather.v{lanes}{_suffix(memory_type(kind))}.v{lanes}p0",
            memory,
            [f"<{lanes} x ptr>", "i32", f"<{lanes} x i1>", memory],
        )
        return self.text.define(
            f"call {memory} {name}(<{lanes} x ptr> {pointers}, i32 {alignment(kind)}, "
            f"<{lanes} x i1> {mask}, {memory} zeroinitializer)"
        )

    # --- kinds of terms ---

    def emit_string(self, expr: StringImm) -> str:
        return self.text.module.string(expr.value)

    def emit_binary(self, expr: Binary) -> str:
        return self.arithmetic(type(expr), self.emit(expr.a), self.emit(expr.b), expr.dtype)

    def emit_compare(self, expr: Comparison) -> str:
        kind, a, b = expr.a.dtype, self.emit(expr.a), self.emit(expr.b)
        if is_soft_float(kind):
            wide = FLOAT32.with_lanes(kind.lanes)
            a, b, kind = self.convert(a, kind, wide), self.convert(b, kind, wide), wide
        predicates = _COMPARE[type(expr)]
        if kind.is_float:
            return self.text.define(f"fcmp {predicates[0]} {register_type(kind)} {a}, {b}")
        return self.text.define(
            f"icmp {predicates[1 if kind.is_int else 2]} {register_type(kind)} {a}, {b}"
        )

    def emit_logic(self, expr: And | Or) -> str:
        if not expr.dtype.is_scalar or self.effect(expr.b) == 0:
            # Nothing is read on the right, so evaluating it anyway cannot be seen.
            return self.arithmetic(type(expr), self.emit(expr.a), self.emit(expr.b), expr.dtype)
        first = self.emit(expr.a)
        is_and = isinstance(expr, And)
        return self.choose(
            first,
            (lambda: self.emit(expr.b)) if is_and else (lambda: "true"),
            (lambda: "false") if is_and else (lambda: self.emit(expr.b)),
            BOOL,
        )

    def emit_not(self, expr: Not) -> str:
        value = self.emit(expr.a)
        return self.text.define(
            f"xor {register_type(expr.dtype)} {value}, {splat('i1', 'true', expr.dtype.lanes)}"
        )

    def emit_select(self, expr: Select) -> str:
        return self.text.define(
            f"select {self.typed(expr.condition)}, "
            f"{self.typed(expr.true_value)}, {self.typed(expr.false_value)}"
        )

    def choose(
        self, condition: str, then: Callable[[], str], otherwise: Callable[[], str], dtype: DType
    ) -> str:
        """A value from one of two branches, of which only one runs."""
        text = self.text
        yes, no, done = text.label("then"), text.label("else"), text.label("join")
        text.branch_if(condition, yes, no)
        arrivals: list[str] = []
        for label, make in ((yes, then), (no, otherwise)):
            text.begin(label)
            self.enter()
            value = make()
            self.leave()
            arrivals.append(f"[ {value}, %{text.block} ]")
            text.branch(done)
        text.begin(done)
        return text.define(f"phi {register_type(dtype)} {', '.join(arrivals)}")

    def emit_cast(self, expr: Cast) -> str:
        return self.convert(self.emit(expr.value), expr.value.dtype, expr.to)

    def broadcast(self, value: str, dtype: DType, lanes: int) -> str:
        """The vector of `lanes` copies of a scalar operand."""
        element = element_type(dtype)
        if not value.startswith("%"):
            return splat(element, value, lanes)
        kind = vector_of(element, lanes)
        first = self.text.define(f"insertelement {kind} poison, {element} {value}, i64 0")
        return self.text.define(
            f"shufflevector {kind} {first}, {kind} poison, <{lanes} x i32> zeroinitializer"
        )

    def emit_broadcast(self, expr: Broadcast) -> str:
        if not expr.value.dtype.is_scalar:
            raise UnsupportedError("a broadcast of a vector")
        register_type(expr.dtype)
        return self.broadcast(self.emit(expr.value), expr.value.dtype, expr.lanes)

    def emit_ramp(self, expr: Ramp) -> str:
        kind, element = register_type(expr.dtype), expr.base.dtype
        base = self.broadcast(self.emit(expr.base), element, expr.lanes)
        stride = as_int(expr.stride)
        if stride is not None:
            steps = ", ".join(f"{element_type(element)} {i * stride}" for i in range(expr.lanes))
            return self.text.define(f"add {kind} {base}, <{steps}>")
        steps = ", ".join(f"{element_type(element)} {i}" for i in range(expr.lanes))
        factor = self.broadcast(self.emit(expr.stride), element, expr.lanes)
        offsets = self.text.define(f"mul {kind} {factor}, <{steps}>")
        return self.text.define(f"add {kind} {base}, {offsets}")

    def emit_shuffle(self, expr: Shuffle) -> str:
        indices = [as_int(index) for index in expr.indices]
        parts: list[tuple[str, DType]] = [(self.emit(item), item.dtype) for item in expr.vectors]
        lanes_of = [(part, lane) for part in parts for lane in range(part[1].lanes)]
        if any(index is None or not 0 <= index < len(lanes_of) for index in indices):
            raise UnsupportedError(
                "Shuffle with indices that are not constants of the vectors' lanes"
            )
        kind, element = register_type(expr.dtype), element_type(expr.dtype)
        if (
            len(parts) <= 2
            and expr.dtype.lanes > 1
            and len({part[1] for part in parts}) == 1
            and parts[0][1].lanes > 1
        ):
            source = register_type(parts[0][1])
            second = parts[1][0] if len(parts) == 2 else "poison"
            mask = ", ".join(f"i32 {index}" for index in indices)
            return self.text.define(
                f"shufflevector {source} {parts[0][0]}, {source} {second}, "
                f"<{len(indices)} x i32> <{mask}>"
            )
        result = "poison"
        for place, index in enumerate(indices):
            (operand, part), lane = lanes_of[index or 0]
            value = operand
            if part.lanes > 1:
                value = self.text.define(
                    f"extractelement {register_type(part)} {operand}, i64 {lane}"
                )
            if expr.dtype.lanes == 1:
                return value
            result = self.text.define(
                f"insertelement {kind} {result}, {element} {value}, i64 {place}"
            )
        return result

    def emit_call(self, expr: Call) -> str:
        if isinstance(expr.op, GlobalVar):
            return self.call_function(expr.op.name, expr.args)
        name = expr.op.name if isinstance(expr.op, Intrinsic) else str(expr.op)
        handler = self.intrinsics.get(name)
        if handler is None:
            raise UnsupportedError(
                f"T.{name} on the CPU",
                remedy="lower it before code generation, or compile for a target that has it",
            )
        value = handler(self, expr)
        if expr.effect == "write":
            self.forget_reads()
        return value

    def call_function(self, name: str, args: tuple[Expr, ...]) -> str:
        """A call of a function of the module; leaves through the exit if it fails."""
        if name not in self.unit.module:
            raise UnsupportedError(f"a call of {name!r}, which the module does not have")
        operands = ", ".join(self.typed(arg) for arg in args)
        status = self.text.define(f"call i32 @{native_name(name)}({operands})")
        self.text.fail_unless_zero(status)
        self.forget_reads()
        return ""


def native_name(name: str) -> str:
    """The symbol of a PrimFunc's machine code: never that of a C function, nor of an entry."""
    return f'"transect.{name}"'


def alignment(dtype: DType) -> int:
    """The alignment of one element in bytes; callers promise no more."""
    return max(1, (dtype.bits + 7) // 8)


def _is_inside(buffer: Buffer, index: Ramp) -> bool:
    """Whether neighbours that a load takes are surely elements of an array of the function's."""
    first, size = as_int(index.base), as_int(buffer.shape[0])
    if buffer.scope != "local" or first is None or size is None:
        return False
    return first >= 0 and first + index.lanes <= size


def _suffix(element: str) -> str:
    return {"float": "f32", "double": "f64", "ptr": "p0"}.get(element, element)


def _literal(operand: str) -> int | None:
    text = operand.removeprefix("splat (").removesuffix(")").rsplit(" ", 1)[-1]
    digits = text.removeprefix("-")
    return int(text) if digits.isdigit() and not operand.startswith("%") else None


_EMIT: dict[type[Term], Callable[[ExpressionEmitter, Any], str]] = {
    StringImm: ExpressionEmitter.emit_string,
    BufferLoad: ExpressionEmitter.emit_load,
    Not: ExpressionEmitter.emit_not,
    Select: ExpressionEmitter.emit_select,
    Cast: ExpressionEmitter.emit_cast,
    Broadcast: ExpressionEmitter.emit_broadcast,
    Ramp: ExpressionEmitter.emit_ramp,
    Shuffle: ExpressionEmitter.emit_shuffle,
    Call: ExpressionEmitter.emit_call,
    And: ExpressionEmitter.emit_logic,
    Or: ExpressionEmitter.emit_logic,
    **dict.fromkeys(
        (Add, Sub, Mul, Div, Mod, FloorDiv, FloorMod, Min, Max), ExpressionEmitter.emit_binary
    ),
    **dict.fromkeys(_COMPARE, ExpressionEmitter.emit_compare),
}
