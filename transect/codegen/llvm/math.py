"""Transcendental intrinsics: polynomials where `elementary` has one, else the C library by lane.

Narrow float formats are computed in float32 and rounded once.
"""

from __future__ import annotations

from transect.codegen.llvm.elementary import ELEMENTARY, TRIGONOMETRIC_LIMIT
from transect.codegen.llvm.expression import ExpressionEmitter, Handler
from transect.codegen.llvm.formula import Formula, Shape
from transect.codegen.llvm.intrinsics import call_overloaded, on_float32
from transect.codegen.llvm.module import ModuleText
from transect.codegen.llvm.types import (
    element_type,
    is_soft_float,
    register_type,
    splat,
    vector_of,
)
from transect.ir.dtype import FLOAT32, FLOAT64, DType
from transect.ir.expr import Call
from transect.support.errors import UnsupportedError


def function_of_lanes(
    module: ModuleText, name: str, bits: int, lanes: int, features: frozenset[str]
) -> str:
    """The identifier of the IR function that computes `name` on lanes, on a processor with
    `features`."""
    shape = Shape(bits, lanes)
    symbol = f"transect.{name}.{shape.suffix}"
    writer, _ = ELEMENTARY[name]

    def write() -> str:
        formula = Formula(module, shape, features=features)
        formula.lane_function = lambda inner: function_of_lanes(
            module, inner, bits, lanes, features
        )
        return formula.text(symbol, writer(formula))

    return module.define_helper(symbol, write)


def by_lane(emitter: ExpressionEmitter, symbol: str, operands: list[str], dtype: DType) -> str:
    """Call a function of the C library on each lane. symbol: its name for double."""
    text, element = emitter.text, element_type(dtype)
    name = symbol if dtype.bits == 64 else f"{symbol}f"
    identifier = text.module.declare(name, element, [element] * len(operands))
    kind = register_type(dtype)
    result = "poison"
    for lane in range(dtype.lanes):
        parts = operands
        if dtype.lanes > 1:
            parts = [
                text.define(f"extractelement {kind} {operand}, i64 {lane}") for operand in operands
            ]
        value = text.define(
            f"call {element} {identifier}({', '.join(f'{element} {part}' for part in parts)})"
        )
        if dtype.lanes == 1:
            return value
        result = text.define(f"insertelement {kind} {result}, {element} {value}, i64 {lane}")
    return result


def _elementary(name: str) -> Handler:
    widths = ELEMENTARY[name][1]

    def compute(emitter: ExpressionEmitter, operands: list[str], dtype: DType) -> str:
        if dtype.bits not in widths:
            return by_lane(emitter, name, operands, dtype)
        kind = register_type(dtype)
        features = emitter.unit.target.features
        identifier = function_of_lanes(emitter.text.module, name, dtype.bits, dtype.lanes, features)
        return emitter.text.define(f"call {kind} {identifier}({kind} {operands[0]})")

    def handle(emitter: ExpressionEmitter, call: Call) -> str:
        _require_float(name, call)
        return on_float32(emitter, call, lambda operands, dtype: compute(emitter, operands, dtype))

    return handle


def _trigonometric(name: str) -> Handler:
    """The polynomial, or the C library if any lane is beyond its range."""

    def compute(emitter: ExpressionEmitter, operands: list[str], dtype: DType) -> str:
        text, kind = emitter.text, register_type(dtype)
        magnitude = call_overloaded(emitter, "fabs", operands, dtype)
        limit = splat(element_type(dtype), "0x411E848000000000", dtype.lanes)
        assert TRIGONOMETRIC_LIMIT == 5e5
        # Infinity goes to the library too; NaN compares false and passes through the polynomial.
        large = text.define(f"fcmp ogt {kind} {magnitude}, {limit}")
        if dtype.lanes > 1:
            flags = vector_of("i1", dtype.lanes)
            reduce = text.module.declare(f"llvm.vector.reduce.or.v{dtype.lanes}i1", "i1", [flags])
            large = text.define(f"call i1 {reduce}({flags} {large})")
        features = emitter.unit.target.features
        identifier = function_of_lanes(text.module, name, dtype.bits, dtype.lanes, features)
        return emitter.choose(
            large,
            lambda: by_lane(emitter, name, operands, dtype),
            lambda: text.define(f"call {kind} {identifier}({kind} {operands[0]})"),
            dtype,
        )

    def handle(emitter: ExpressionEmitter, call: Call) -> str:
        _require_float(name, call)
        return on_float32(emitter, call, lambda operands, dtype: compute(emitter, operands, dtype))

    return handle


def _library(symbol: str) -> Handler:
    def handle(emitter: ExpressionEmitter, call: Call) -> str:
        _require_float(symbol, call)
        return on_float32(
            emitter, call, lambda operands, dtype: by_lane(emitter, symbol, operands, dtype)
        )

    return handle


def _next_after(emitter: ExpressionEmitter, call: Call) -> str:
    """nextafter; for narrow formats by counting in their bits, where neighbours are neighbours."""
    dtype = call.dtype
    if not is_soft_float(dtype):
        return _library("nextafter")(emitter, call)
    define, bits = emitter.text.define, register_type(dtype)
    element, lanes = element_type(dtype), dtype.lanes
    wide, flags = FLOAT32.with_lanes(lanes), vector_of("i1", lanes)
    single = register_type(wide)
    x, y = (emitter.emit(arg) for arg in call.args)
    a, b = (emitter.convert(operand, dtype, wide) for operand in (x, y))

    def number(value: int) -> str:
        return splat(element, str(value), lanes)

    def choose(flag: str, one: str, other: str) -> str:
        return define(f"select {flags} {flag}, {bits} {one}, {bits} {other}")

    sign = 1 << (dtype.bits - 1)
    above = define(f"fcmp olt {single} {a}, {b}")
    negative = define(f"icmp slt {bits} {x}, {number(0)}")
    away = define(f"xor {flags} {above}, {negative}")
    moved = define(f"add {bits} {x}, {choose(away, number(1), number(-1))}")
    smallest = define(f"or {bits} {define(f'and {bits} {y}, {number(sign)}')}, {number(1)}")
    is_zero = define(f"icmp eq {bits} {define(f'and {bits} {x}, {number(sign - 1)}')}, {number(0)}")
    result = choose(is_zero, smallest, moved)
    result = choose(define(f"fcmp ueq {single} {a}, {b}"), y, result)
    return choose(define(f"fcmp uno {single} {a}, {a}"), x, result)


def _ldexp(emitter: ExpressionEmitter, call: Call) -> str:
    """x * 2^n; n is an integer, or a float that holds one."""
    x, n = call.args
    if not n.dtype.is_float and n.dtype.lanes == 1:
        dtype = call.dtype if call.dtype.bits >= 32 else FLOAT32
        value = emitter.convert(emitter.emit(x), x.dtype, dtype)
        power = emitter.convert(emitter.emit(n), n.dtype, DType("int", 32))
        element = element_type(dtype)
        name = "ldexp" if dtype.bits == 64 else "ldexpf"
        identifier = emitter.text.module.declare(name, element, [element, "i32"])
        result = emitter.text.define(f"call {element} {identifier}({element} {value}, i32 {power})")
        return emitter.convert(result, dtype, call.dtype)
    raise UnsupportedError("ldexp of vectors or with an exponent that is not an integer")


def _power(emitter: ExpressionEmitter, call: Call) -> str:
    """pow. float32 is computed as exp2(y log2 x) in double, whose rounding cannot be seen; specials
    follow C. double goes to the C library."""
    if not call.dtype.is_float:
        return _integer_power(emitter, call)

    def compute(operands: list[str], dtype: DType) -> str:
        if dtype.bits == 64:
            return by_lane(emitter, "pow", operands, dtype)
        lanes = dtype.lanes
        wide = FLOAT64.with_lanes(lanes)
        identifier = emitter.text.module.define_helper(
            f"transect.pow.{Shape(32, lanes).suffix}",
            lambda: _power_text(emitter.text.module, lanes, emitter.unit.target.features),
        )
        kind = register_type(wide)
        x, y = (emitter.convert(operand, dtype, wide) for operand in operands)
        result = emitter.text.define(f"call {kind} {identifier}({kind} {x}, {kind} {y})")
        return emitter.convert(result, wide, dtype)

    return on_float32(emitter, call, compute)


def _power_text(module: ModuleText, lanes: int, features: frozenset[str]) -> str:
    shape = Shape(64, lanes)
    f = Formula(module, shape, 2, features)
    f.lane_function = lambda inner: function_of_lanes(module, inner, 64, lanes, features)
    x, y = f.arguments
    infinity = float("inf")
    magnitude = f.apply("exp2", f.mul(y, f.apply("log2", f.fabs(x))))
    whole = f.test("oeq", f.call("trunc", y), y)
    half = f.mul(y, 0.5)
    # An infinite y is even: its half is its own integer part.
    odd = f.line(f"and {shape.flags} {whole}, {f.test('one', f.call('trunc', half), half)}")
    negative = f.line(f"icmp slt {shape.integers} {f.bits(x)}, {f.integer(0)}")
    flip = f.line(f"and {shape.flags} {negative}, {odd}")
    value = f.select(flip, f.line(f"fneg {shape.type} {magnitude}"), magnitude)
    finite = f.test("one", f.fabs(x), infinity)
    below = f.line(f"and {shape.flags} {finite}, {f.test('olt', x, 0.0)}")
    fractional = f.line(f"xor {shape.flags} {whole}, {_all_true(lanes)}")
    value = f.select(f.line(f"and {shape.flags} {below}, {fractional}"), float("nan"), value)
    # |x| = 1 with an infinite y: the product above is 0 * inf.
    unit = f.test("oeq", f.fabs(x), 1.0)
    endless = f.test("oeq", f.fabs(y), infinity)
    value = f.select(f.line(f"and {shape.flags} {unit}, {endless}"), 1.0, value)
    nan = f.test("uno", x, y)
    value = f.select(nan, float("nan"), value)
    one = f.line(f"or {shape.flags} {f.test('oeq', x, 1.0)}, {f.test('oeq', y, 0.0)}")
    return f.text(f"transect.pow.{Shape(32, lanes).suffix}", f.select(one, 1.0, value))


def _all_true(lanes: int) -> str:
    return splat("i1", "true", lanes)


def _integer_power(emitter: ExpressionEmitter, call: Call) -> str:
    """By squaring; a negative exponent gives 0 (1 and -1 keep their powers)."""
    kind = call.dtype
    if not kind.is_scalar:
        raise UnsupportedError("pow of integer vectors", remedy="do not vectorize this loop")
    element = element_type(kind)
    signed = kind.is_int
    symbol = f"transect.pow.{'s' if signed else 'u'}{kind.bits}"
    negative = f"icmp slt {element} %y, 0" if signed else "or i1 false, false"

    def write() -> str:
        return f"""define internal {element} @{symbol}({element} %x, {element} %y) nounwind {{
entry:
  %negative = {negative}
  br i1 %negative, label %inverse, label %loop
inverse:
  %one = icmp eq {element} %x, 1
  %minus = icmp eq {element} %x, -1
  %low = trunc {element} %y to i1
  %signed = select i1 %low, {element} -1, {element} 1
  %a = select i1 %minus, {element} %signed, {element} 0
  %b = select i1 %one, {element} 1, {element} %a
  ret {element} %b
loop:
  %e = phi {element} [ %y, %entry ], [ %e.next, %loop ]
  %base = phi {element} [ %x, %entry ], [ %square, %loop ]
  %result = phi {element} [ 1, %entry ], [ %result.next, %loop ]
  %bit = trunc {element} %e to i1
  %product = mul {element} %result, %base
  %result.next = select i1 %bit, {element} %product, {element} %result
  %square = mul {element} %base, %base
  %e.next = lshr {element} %e, 1
  %more = icmp ne {element} %e.next, 0
  br i1 %more, label %loop, label %done
done:
  ret {element} %result.next
}}"""

    identifier = emitter.text.module.define_helper(symbol, write)
    x, y = (emitter.emit(arg) for arg in call.args)
    return emitter.text.define(f"call {element} {identifier}({element} {x}, {element} {y})")


def _remainder(emitter: ExpressionEmitter, call: Call) -> str:
    """fmod: the remainder of the truncating division, exact."""
    _require_float("fmod", call)
    return on_float32(
        emitter, call, lambda operands, dtype: by_lane(emitter, "fmod", operands, dtype)
    )


def _require_float(name: str, call: Call) -> None:
    if not call.dtype.is_float:
        raise UnsupportedError(
            f"{name} of {call.dtype}", remedy="cast the argument to a float dtype"
        )


HANDLERS: dict[str, Handler] = {
    **{name: _elementary(name) for name in ELEMENTARY},
    "sin": _trigonometric("sin"),
    "cos": _trigonometric("cos"),
    **{
        name: _library(name)
        for name in (
            "tan", "asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2", "hypot",
        )
    },
    "fmod": _remainder,
    "pow": _power,
    "ldexp": _ldexp,
    "nextafter": _next_after,
}  # fmt: skip
"""Intrinsic name -> what emits it."""
