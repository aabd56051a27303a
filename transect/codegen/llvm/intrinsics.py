"""Intrinsics on scalars and vectors: rounding, bits, tests, control, memory, extern calls.

Transcendental functions are in `math`, values of tvm-ffi in `host`.
"""

from __future__ import annotations

from collections.abc import Callable

from transect.codegen.llvm.expression import ExpressionEmitter, Handler, alignment
from transect.codegen.llvm.features import require_instruction
from transect.codegen.llvm.types import (
    element_type,
    is_soft_float,
    memory_type,
    register_type,
    splat,
    vector_of,
)
from transect.ir.dtype import FLOAT32, INT64, DType
from transect.ir.expr import Broadcast, Call, Expr, StringImm, as_int
from transect.ir.traverse import walk
from transect.support.errors import UnsupportedError
from transect.tir.buffer import BufferLoad
from transect.tir.op import is_checked


def overload(dtype: DType) -> str:
    """The suffix of an overloaded LLVM intrinsic: "f32", "v8i16"."""
    element = {"float": "f32", "double": "f64"}.get(element_type(dtype), element_type(dtype))
    return element if dtype.lanes == 1 else f"v{dtype.lanes}{element}"


def call_overloaded(
    emitter: ExpressionEmitter, name: str, operands: list[str], dtype: DType, extra: str = ""
) -> str:
    """Call llvm.<name>.<suffix> on operands of `dtype`; `extra` is appended to the arguments."""
    kind = register_type(dtype)
    parameters = [kind] * len(operands) + ([extra.split()[0]] if extra else [])
    identifier = emitter.text.module.declare(f"llvm.{name}.{overload(dtype)}", kind, parameters)
    arguments = ", ".join(
        [*(f"{kind} {operand}" for operand in operands), *([extra] if extra else [])]
    )
    return emitter.text.define(f"call {kind} {identifier}({arguments})")


def on_float32(
    emitter: ExpressionEmitter, call: Call, compute: Callable[[list[str], DType], str]
) -> str:
    """`compute(operands, dtype)`, through float32 for the narrow formats."""
    dtype = call.dtype
    operands = [emitter.emit(arg) for arg in call.args]
    if not is_soft_float(dtype):
        return compute(operands, dtype)
    wide = FLOAT32.with_lanes(dtype.lanes)
    widened = [emitter.convert(operand, dtype, wide) for operand in operands]
    return emitter.convert(compute(widened, wide), wide, dtype)


def _rounding(name: str) -> Handler:
    def handle(emitter: ExpressionEmitter, call: Call) -> str:
        if not call.dtype.is_float:
            return emitter.emit(call.args[0])
        return on_float32(emitter, call, lambda a, kind: call_overloaded(emitter, name, a, kind))

    return handle


def _rsqrt(emitter: ExpressionEmitter, call: Call) -> str:
    def compute(operands: list[str], kind: DType) -> str:
        root = call_overloaded(emitter, "sqrt", operands, kind)
        lanes = register_type(kind)
        one = splat(element_type(kind), "1.0", kind.lanes)
        return emitter.text.define(f"fdiv {lanes} {one}, {root}")

    return on_float32(emitter, call, compute)


def _abs(emitter: ExpressionEmitter, call: Call) -> str:
    if call.dtype.is_float:
        return _rounding("fabs")(emitter, call)
    if call.dtype.is_int:
        return call_overloaded(emitter, "abs", [emitter.emit(call.args[0])], call.dtype, "i1 false")
    return emitter.emit(call.args[0])


def _bits(name: str, extra: str = "") -> Handler:
    def handle(emitter: ExpressionEmitter, call: Call) -> str:
        source = call.args[0].dtype
        value = call_overloaded(emitter, name, [emitter.emit(call.args[0])], source, extra)
        return emitter.convert(value, source, call.dtype)

    return handle


def _test(name: str) -> Handler:
    """isnan, isinf, isfinite by comparing the magnitude with infinity."""
    predicate = {"isnan": "uno", "isinf": "oeq", "isfinite": "one"}[name]

    def handle(emitter: ExpressionEmitter, call: Call) -> str:
        kind = call.args[0].dtype
        if not kind.is_float:
            return splat("i1", "true" if name == "isfinite" else "false", kind.lanes)
        value = emitter.emit(call.args[0])
        if is_soft_float(kind):
            wide = FLOAT32.with_lanes(kind.lanes)
            value, kind = emitter.convert(value, kind, wide), wide
        lanes = register_type(kind)
        magnitude = call_overloaded(emitter, "fabs", [value], kind)
        infinity = splat(element_type(kind), "0x7FF0000000000000", kind.lanes)
        return emitter.text.define(f"fcmp {predicate} {lanes} {magnitude}, {infinity}")

    return handle


def _bitwise(operation: str) -> Handler:
    def handle(emitter: ExpressionEmitter, call: Call) -> str:
        a, b = (emitter.emit(arg) for arg in call.args)
        return emitter.text.define(f"{operation} {register_type(call.dtype)} {a}, {b}")

    return handle


def _bitwise_not(emitter: ExpressionEmitter, call: Call) -> str:
    ones = splat(element_type(call.dtype), "true" if call.dtype.is_bool else "-1", call.dtype.lanes)
    return emitter.text.define(
        f"xor {register_type(call.dtype)} {emitter.emit(call.args[0])}, {ones}"
    )


def _shift(emitter: ExpressionEmitter, call: Call) -> str:
    """A shift by the width or more gives what shifting bit by bit would: 0, or the sign."""
    kind = call.dtype
    left = "left" in getattr(call.op, "name", "")
    lanes, flag, element = register_type(kind), vector_of("i1", kind.lanes), element_type(kind)
    a, b = (emitter.emit(arg) for arg in call.args)
    operation = "shl" if left else "ashr" if kind.is_int else "lshr"
    amount = as_int(call.args[1])
    if amount is not None and 0 <= amount < kind.bits:
        return emitter.text.define(f"{operation} {lanes} {a}, {b}")
    fits = emitter.text.define(
        f"icmp ult {lanes} {b}, {splat(element, str(kind.bits), kind.lanes)}"
    )
    top = splat(element, str(kind.bits - 1), kind.lanes)
    safe = emitter.text.define(f"select {flag} {fits}, {lanes} {b}, {lanes} {top}")
    shifted = emitter.text.define(f"{operation} {lanes} {a}, {safe}")
    if operation == "ashr":
        return shifted
    zero = splat(element, "0", kind.lanes)
    return emitter.text.define(f"select {flag} {fits}, {lanes} {shifted}, {lanes} {zero}")


def _if_then_else(emitter: ExpressionEmitter, call: Call) -> str:
    condition, a, b = call.args
    if not condition.dtype.is_scalar:
        raise UnsupportedError("if_then_else with a vector condition", remedy="run VectorizeLoop")
    if emitter.effect(a) == 0 and emitter.effect(b) == 0 and not _may_be_slow(a, b):
        return emitter.text.define(
            f"select i1 {emitter.emit(condition)}, {emitter.typed(a)}, {emitter.typed(b)}"
        )
    return emitter.choose(
        emitter.emit(condition), lambda: emitter.emit(a), lambda: emitter.emit(b), call.dtype
    )


def _may_be_slow(*values: Expr) -> bool:
    # What is checked must not be evaluated where it is not asked for.
    return any(
        value in values or is_checked(value) for value in walk(*values) if isinstance(value, Call)
    )


def _first(emitter: ExpressionEmitter, call: Call) -> str:
    return emitter.emit(call.args[0])


def _assume(emitter: ExpressionEmitter, call: Call) -> str:
    name = emitter.text.module.declare("llvm.assume", "void", ["i1"])
    emitter.text.emit(f"call void {name}(i1 {emitter.emit(call.args[0])})")
    return ""


def _return(emitter: ExpressionEmitter, call: Call) -> str:
    if as_int(call.args[0]) != 0:
        raise UnsupportedError(
            "T.ret of a value: native functions return their status, which is 0",
            remedy="write the result to a buffer parameter",
        )
    emitter.text.branch("exit")
    emitter.text.begin(emitter.text.label("unreachable"))
    return ""


def _undefined(emitter: ExpressionEmitter, call: Call) -> str:
    # Any value will do: zero, so that a mistake shows the same way every time.
    kind = register_type(call.dtype)
    return (
        emitter.text.define(f"freeze {kind} zeroinitializer")
        if call.dtype.lanes > 1
        else (
            "null"
            if kind == "ptr"
            else "0.0"
            if kind in ("float", "double")
            else "false"
            if kind == "i1"
            else "0"
        )
    )


def _reinterpret(emitter: ExpressionEmitter, call: Call) -> str:
    source, target = call.args[0].dtype, call.dtype
    value = emitter.emit(call.args[0])
    before, after = register_type(source), register_type(target)
    if before == after:
        return value
    if source.bits * source.lanes != target.bits * target.lanes:
        raise UnsupportedError(f"reinterpret of {source} as {target}: sizes differ")
    if "ptr" in (before, after):
        operation = "ptrtoint" if before == "ptr" else "inttoptr"
        return emitter.text.define(f"{operation} {before} {value} to {after}")
    return emitter.text.define(f"bitcast {before} {value} to {after}")


def _lane_mask(emitter: ExpressionEmitter, call: Call) -> str:
    kind, index = register_type(call.dtype), call.args[0].dtype
    name = emitter.text.module.declare(
        f"llvm.get.active.lane.mask.v{call.dtype.lanes}i1.{element_type(index)}",
        kind,
        [element_type(index)] * 2,
    )
    return emitter.text.define(
        f"call {kind} {name}({emitter.typed(call.args[0])}, {emitter.typed(call.args[1])})"
    )


def _large_uint(emitter: ExpressionEmitter, call: Call) -> str:
    low, high = as_int(call.args[0]), as_int(call.args[1])
    if low is None or high is None:
        raise UnsupportedError("large_uint_imm of values that are not constants")
    return str((high << 32) + low)


def _multiply_shift(emitter: ExpressionEmitter, call: Call) -> str:
    """round(x * y * 2^(s - q)) with x, y of q fractional bits; halves round up. A left shift is
    taken of x before the product. Source: tir.q_multiply_shift of TVM."""
    q, s = (as_int(item.value if isinstance(item, Broadcast) else item) for item in call.args[2:])
    if q is None or s is None or q < 0:
        raise UnsupportedError("q_multiply_shift with a shift that is not a constant, or below 0")
    kind, wide = call.dtype, INT64.with_lanes(call.dtype.lanes)
    lanes = register_type(wide)
    x, y = (emitter.convert(emitter.emit(arg), kind, wide) for arg in call.args[:2])
    product = emitter.text.define(f"mul {lanes} {x}, {y}")
    if s > 0:
        product = emitter.text.define(f"shl {lanes} {product}, {splat('i64', str(s), kind.lanes)}")
    shift = q + max(-s, 0)
    if shift > 0:
        half = splat("i64", str(1 << (shift - 1)), kind.lanes)
        product = emitter.text.define(f"add {lanes} {product}, {half}")
        product = emitter.text.define(
            f"ashr {lanes} {product}, {splat('i64', str(shift), kind.lanes)}"
        )
    return emitter.convert(product, wide, kind)


# --- memory ---


def _address_of(emitter: ExpressionEmitter, call: Call) -> str:
    load = call.args[0]
    if not isinstance(load, BufferLoad) or len(load.indices) != 1:
        raise UnsupportedError("address_of something that is not a flat buffer element")
    return emitter.element_address(load.buffer.data, load.buffer.dtype, load.indices[0])


def _is_null(emitter: ExpressionEmitter, call: Call) -> str:
    return emitter.text.define(f"icmp eq ptr {emitter.emit(call.args[0])}, null")


def _access_pointer(emitter: ExpressionEmitter, call: Call) -> str:
    kind, data, offset = call.args[0].dtype, call.args[1], call.args[2]
    return emitter.text.define(
        f"getelementptr {memory_type(kind)}, ptr {emitter.pointer(data)}, "
        f"i64 {emitter.index(offset)}"
    )


def _prefetch(emitter: ExpressionEmitter, call: Call) -> str:
    target, *level = call.args
    # LLVM counts the other way: 3 is closest to the processor.
    locality = 4 - (as_int(level[0]) or 1) if level else 3
    if isinstance(target, BufferLoad):
        address = emitter.element_address(
            target.buffer.data, target.buffer.dtype, target.indices[0]
        )
    else:
        address = emitter.emit(target)
    name = emitter.text.module.declare("llvm.prefetch.p0", "void", ["ptr", "i32", "i32", "i32"])
    emitter.text.emit(f"call void {name}(ptr {address}, i32 0, i32 {locality}, i32 1)")
    return ""


def _memory_copy(emitter: ExpressionEmitter, call: Call) -> str:
    to, source, size = call.args
    name = emitter.text.module.declare(
        "llvm.memmove.p0.p0.i64", "void", ["ptr", "ptr", "i64", "i1"]
    )
    emitter.text.emit(
        f"call void {name}(ptr {emitter.emit(to)}, ptr {emitter.emit(source)}, "
        f"i64 {emitter.index(size)}, i1 false)"
    )
    return ""


# --- calls ---


def _callee_and_arguments(call: Call) -> tuple[str, tuple[Expr, ...]]:
    name = call.args[0]
    if not isinstance(name, StringImm):
        raise UnsupportedError("a call whose first argument is not the name of the callee")
    return name.value, call.args[1:]


def _extern(emitter: ExpressionEmitter, call: Call) -> str:
    name, args = _callee_and_arguments(call)
    result = register_type(call.dtype)
    types = [register_type(arg.dtype) for arg in args]
    identifier = emitter.text.module.declare(name, result, types)
    arguments = ", ".join(emitter.typed(arg) for arg in args)
    if result == "void":
        emitter.text.emit(f"call void {identifier}({arguments})")
        return ""
    return emitter.text.define(f"call {result} {identifier}({arguments})")


def _llvm(emitter: ExpressionEmitter, call: Call) -> str:
    name, args = _callee_and_arguments(call)
    if not name.startswith("llvm."):
        raise UnsupportedError(
            f"call_llvm_intrin of {name!r}", remedy='give the full name, "llvm.…"'
        )
    require_instruction(name, emitter.unit.target)
    operands = [_native(emitter, arg) for arg in args]
    result = _native_type(call.dtype)
    identifier = emitter.text.module.declare(name, result, [kind for kind, _ in operands])
    arguments = ", ".join(f"{kind} {operand}" for kind, operand in operands)
    if result == "void":
        emitter.text.emit(f"call void {identifier}({arguments})")
        return ""
    value = emitter.text.define(f"call {result} {identifier}({arguments})")
    kind = register_type(call.dtype)
    return value if kind == result else emitter.text.define(f"bitcast {result} {value} to {kind}")


_NATIVE = {"float16": "half", "bfloat16": "bfloat"}


def _native_type(dtype: DType) -> str:
    """The type that LLVM's own functions have for values of `dtype`."""
    native = _NATIVE.get(str(dtype.element)) if dtype.is_float else None
    return register_type(dtype) if native is None else vector_of(native, dtype.lanes)


def _native(emitter: ExpressionEmitter, arg: Expr) -> tuple[str, str]:
    """The type and the operand as LLVM's own functions take them."""
    value, held, wanted = emitter.emit(arg), register_type(arg.dtype), _native_type(arg.dtype)
    if held == wanted:
        return held, value
    return wanted, emitter.text.define(f"bitcast {held} {value} to {wanted}")


HANDLERS: dict[str, Handler] = {
    "floor": _rounding("floor"),
    "ceil": _rounding("ceil"),
    "round": _rounding("round"),
    "nearbyint": _rounding("rint"),
    "trunc": _rounding("trunc"),
    "sqrt": _rounding("sqrt"),
    "fabs": _abs,
    "abs": _abs,
    "fma": _rounding("fma"),
    "copysign": _rounding("copysign"),
    "rsqrt": _rsqrt,
    "popcount": _bits("ctpop"),
    "clz": _bits("ctlz", "i1 false"),
    "isnan": _test("isnan"),
    "isinf": _test("isinf"),
    "isfinite": _test("isfinite"),
    "bitwise_and": _bitwise("and"),
    "bitwise_or": _bitwise("or"),
    "bitwise_xor": _bitwise("xor"),
    "bitwise_not": _bitwise_not,
    "shift_left": _shift,
    "shift_right": _shift,
    "if_then_else": _if_then_else,
    "likely": _first,
    "tvm_thread_invariant": _first,
    "assume": _assume,
    "ret": _return,
    "undef": _undefined,
    "reinterpret": _reinterpret,
    "get_active_lane_mask": _lane_mask,
    "large_uint_imm": _large_uint,
    "q_multiply_shift": _multiply_shift,
    "address_of": _address_of,
    "isnullptr": _is_null,
    "tvm_access_ptr": _access_pointer,
    "prefetch": _prefetch,
    "memory_copy": _memory_copy,
    "call_extern": _extern,
    "call_pure_extern": _extern,
    "call_llvm_intrin": _llvm,
    "call_llvm_pure_intrin": _llvm,
}
"""Intrinsic name -> what emits it."""

__all__ = ["HANDLERS", "alignment", "call_overloaded", "on_float32", "overload"]
