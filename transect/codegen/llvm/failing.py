"""Leaving a function with an error: the message, formatted at run time, and the exit."""

from __future__ import annotations

from collections.abc import Sequence

from transect.codegen.llvm.expression import ExpressionEmitter
from transect.codegen.llvm.types import element_type, register_type, vector_of
from transect.ir.dtype import FLOAT64, INT64, DType
from transect.ir.expr import Call, Expr, StringImm
from transect.support.errors import UnsupportedError

MESSAGE_BYTES = 1024

Part = str | tuple[str, DType]
"""Text, or a scalar operand that is printed as a number."""


def raise_error(emitter: ExpressionEmitter, kind: str, parts: Sequence[Part]) -> None:
    """Set the error and leave. kind: the name of the Python exception class."""
    text = emitter.text
    message = _format(emitter, parts)
    setter = text.module.declare("TVMFFIErrorSetRaisedFromCStr", "void", ["ptr", "ptr"])
    text.emit(f"call void {setter}(ptr {text.module.string(kind)}, ptr {message})")
    text.fail()


def _format(emitter: ExpressionEmitter, parts: Sequence[Part]) -> str:
    """A pointer to the message; numbers in it are printed at run time."""
    text = emitter.text
    if all(isinstance(part, str) for part in parts):
        return text.module.string("".join(str(part) for part in parts))
    pattern, operands = "", list[str]()
    for part in parts:
        if isinstance(part, str):
            pattern += part.replace("%", "%%")
            continue
        operand, dtype = part
        if dtype.is_float:
            pattern += "%.9g"
            operands.append(f"double {emitter.convert(operand, dtype, FLOAT64)}")
        elif dtype.is_handle:
            pattern += "%p"
            operands.append(f"ptr {operand}")
        else:
            pattern += "%llu" if dtype.is_uint else "%lld"
            operands.append(f"i64 {emitter.convert(operand, dtype, INT64)}")
    if not emitter.message:
        emitter.message = text.allocate(f"[{MESSAGE_BYTES} x i8]", 1)
    text.module.declare("snprintf", "i32", ["ptr", "i64", "ptr", "..."])
    text.define(
        f"call i32 (ptr, i64, ptr, ...) @snprintf(ptr {emitter.message}, i64 {MESSAGE_BYTES}, "
        f"ptr {text.module.string(pattern)}, {', '.join(operands)})"
    )
    return emitter.message


def emit_checked(emitter: ExpressionEmitter, call: Call) -> str:
    """T.checked: a test and a branch that is never taken; of vectors, one for all lanes.

    The message of a vector is that of its first lane that fails.
    """
    value, condition, kind, *message = call.args
    if not isinstance(kind, StringImm):
        raise UnsupportedError("T.checked without the name of an exception")
    test = emitter.emit(condition)
    if test == "true":
        return emitter.emit(value)
    text, lanes = emitter.text, condition.dtype.lanes
    good, bad = text.label("ok"), text.label("failed")
    held = test
    if lanes > 1:
        name = text.module.declare(f"llvm.vector.reduce.and.v{lanes}i1", "i1", [f"<{lanes} x i1>"])
        held = text.define(f"call i1 {name}(<{lanes} x i1> {test})")
    text.branch_if(held, good, bad, likely=True)
    text.begin(bad)
    emitter.enter()
    lane = _first_false(emitter, test, lanes) if lanes > 1 else ""
    raise_error(emitter, kind.value, [_part(emitter, item, lane) for item in message])
    emitter.leave()
    text.begin(good)
    return emitter.emit(value)


def _part(emitter: ExpressionEmitter, item: Expr, lane: str) -> Part:
    if isinstance(item, StringImm):
        return item.value
    operand = emitter.emit(item)
    if item.dtype.is_scalar:
        return operand, item.dtype
    picked = emitter.text.define(
        f"extractelement {register_type(item.dtype)} {operand}, i64 {lane}"
    )
    return picked, item.dtype.element


def _first_false(emitter: ExpressionEmitter, mask: str, lanes: int) -> str:
    """The number of the first lane of a mask that is false, as an i64 operand."""
    text = emitter.text
    # The position of the lowest number among those of the lanes that fail.
    numbers = f"<{', '.join(f'i64 {lane}' for lane in range(lanes))}>"
    wide, flags = vector_of(element_type(INT64), lanes), vector_of("i1", lanes)
    candidates = text.define(
        f"select {flags} {mask}, {wide} splat (i64 {lanes - 1}), {wide} {numbers}"
    )
    name = text.module.declare(f"llvm.vector.reduce.umin.v{lanes}i64", "i64", [wide])
    return text.define(f"call i64 {name}({wide} {candidates})")
