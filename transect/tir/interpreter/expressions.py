"""Expressions as closures: from a frame to a numpy scalar, an array over the grid, or an object.

An array has one axis per open loop, innermost first, and then one for the lanes of a vector; axes
in front may be missing, and those along which a value does not vary have length 1. Loads are in
`memory_access`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from transect.ir.dtype import DType
from transect.ir.expr import (
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
    Mod,
    Not,
    Or,
    Ramp,
    Select,
    Shuffle,
    StringImm,
    Var,
)
from transect.ir.term import Term
from transect.ir.traverse import walk
from transect.support.errors import ExecutionError, UnsupportedError
from transect.tir.affine import Affine
from transect.tir.buffer import BufferLoad
from transect.tir.interpreter.arithmetic import (
    BINARY,
    MATH,
    Value,
    convert,
    on_dtype,
    reinterpret,
    where,
)
from transect.tir.interpreter.failing import require
from transect.tir.interpreter.frame import Frame, ReturnSignal
from transect.tir.interpreter.grid import (
    IntRun,
    Run,
    axis_values,
    full_lanes,
    lanes_of,
    wrap,
)
from transect.tir.interpreter.host import HOST_CALLS
from transect.tir.interpreter.linear import Scope, linear
from transect.tir.interpreter.llvm import instruction
from transect.tir.interpreter.memory_access import compile_address, compile_load
from transect.tir.interpreter.tiles import TILE_CALLS, tile_dtypes


class ExprCompiler:
    """Compiles the expressions of one statement, in one scope.

    roots: all expressions of the statement: a subterm that occurs more than once among them is
    computed once, unless calls with effects make that wrong.
    """

    def __init__(self, scope: Scope, roots: Iterable[Term] = ()) -> None:
        self.scope = scope
        self.shared = _shared_terms(roots)
        self.compiled: dict[Expr, Run] = {}

    def compile(self, expr: Expr) -> Run:
        """The closure that evaluates `expr`."""
        run = self.compiled.get(expr)
        if run is None:
            run = self.compiled[expr] = self._compile(expr)
        return run

    def _compile(self, expr: Expr) -> Run:
        rule = _RULES.get(type(expr))
        if rule is None:
            raise UnsupportedError(f"the interpreter cannot evaluate {type(expr).__name__}")
        run = rule(self, expr)
        return _cached(expr, run) if expr in self.shared else run

    def integer(self, expr: Expr) -> IntRun:
        """The closure that evaluates a scalar that does not vary along the grid to an int."""
        form = linear(expr, self.scope)
        if form.is_const:
            constant = form.const
            return lambda frame: constant
        parts = [(factor, self.atom(atom)) for atom, factor in form.terms.items()]
        if len(parts) == 1 and parts[0][0] == 1 and form.const == 0:
            return parts[0][1]
        return lambda frame: form.const + sum(factor * run(frame) for factor, run in parts)

    def atom(self, atom: Expr) -> IntRun:
        """The closure for one atom of a sum, which does not vary along the grid."""
        if isinstance(atom, Var):
            return lambda frame: frame.ints[atom]
        run = _RULES[type(atom)](self, atom)
        # Inside a grid one value may come as an array with an axis of length 1 per grid axis.
        return lambda frame: int(np.asarray(run(frame)).item())


def _shared_terms(roots: Iterable[Term]) -> frozenset[Term]:
    counts: dict[Term, int] = {}
    items = list(walk(*roots))
    for item in items:
        if isinstance(item, Call) and item.effect == "write":
            return frozenset()
        for child in item.children():
            counts[child] = counts.get(child, 0) + 1
    return frozenset(
        item
        for item, count in counts.items()
        if count > 1 and not isinstance(item, Var | IntImm | FloatImm | StringImm)
    )


def _cached(expr: Expr, run: Run) -> Run:
    def evaluate(frame: Frame) -> Value:
        cache = frame.cache
        if expr in cache:
            return cache[expr]
        value = cache[expr] = run(frame)
        return value

    return evaluate


# --- leaves ---------------------------------------------------------------------------------


def _constant(compiler: ExprCompiler, expr: IntImm | FloatImm) -> Run:
    value = np.asarray(expr.value).astype(expr.dtype.numpy)[()]
    return lambda frame: value


def _string(compiler: ExprCompiler, expr: StringImm) -> Run:
    return lambda frame: expr.value


def _variable(compiler: ExprCompiler, expr: Var) -> Run:
    scope = compiler.scope
    form = scope.forms.get(expr)
    is_axis = any(axis.var is expr for axis in scope.axes)
    if form is None and not is_axis and (expr in scope.varying or not expr.dtype.is_integral):
        return lambda frame: frame.vars[expr]
    return dense(compiler, form or Affine(0, {expr: 1}), expr.dtype)


def dense(compiler: ExprCompiler, form: Affine, dtype: DType) -> Run:
    """The closure that evaluates a sum without `LANE` to a value of an integer dtype."""
    axes = {axis.var: number for number, axis in enumerate(compiler.scope.axes)}
    fixed: list[tuple[int, IntRun]] = []
    along: list[tuple[int, int]] = []
    arrays: list[tuple[int, Run]] = []
    for atom, factor in form.terms.items():
        if isinstance(atom, Var) and atom in axes:
            along.append((factor, axes[atom]))
        elif compiler.scope.varies(atom):
            arrays.append((factor, _RULES[type(atom)](compiler, atom)))
        else:
            fixed.append((factor, compiler.atom(atom)))
    if not along and not arrays:
        return lambda frame: wrap(form.const + sum(k * run(frame) for k, run in fixed), dtype)

    def evaluate(frame: Frame) -> Value:
        base = form.const + sum(factor * run(frame) for factor, run in fixed)
        total: Value = np.int64(base)
        for factor, number in along:
            total = total + axis_values(frame, number) * factor
        for factor, run in arrays:
            total = total + run(frame).astype(np.int64) * factor
        return total.astype(dtype.numpy)

    return evaluate


# --- operators ------------------------------------------------------------------------------


def _binary(compiler: ExprCompiler, expr: Binary) -> Run:
    operation = on_dtype(BINARY[type(expr)], expr.a.dtype)
    a, b = compiler.compile(expr.a), compiler.compile(expr.b)
    if isinstance(expr, Div | Mod | FloorDiv | FloorMod) and expr.dtype.is_integral:
        return _division(operation, a, b, vector=not expr.dtype.is_scalar)
    return lambda frame: operation(a(frame), b(frame))


def _division(operation: Callable[[Value, Value], Value], a: Run, b: Run, *, vector: bool) -> Run:
    def evaluate(frame: Frame) -> Value:
        left, right = a(frame), b(frame)
        zero = right == 0
        if np.any(zero):
            mask = frame.mask if frame.mask is None or not vector else lanes_of(frame.mask)
            if mask is None or np.any(zero & mask):
                raise ExecutionError("integer division by zero")
            right = where(zero, right.dtype.type(1), right)
        return operation(left, right)

    return evaluate


def _masked(run: Run, frame: Frame, condition: Value) -> Value:
    """`run` with only the points active where `condition` holds."""
    mask, cache = frame.mask, frame.cache
    frame.mask = condition if mask is None else mask & condition
    frame.cache = dict(cache)
    value = run(frame)
    frame.mask, frame.cache = mask, cache
    return value


def _and(compiler: ExprCompiler, expr: And) -> Run:
    a, b = compiler.compile(expr.a), compiler.compile(expr.b)

    def evaluate(frame: Frame) -> Value:
        left = a(frame)
        if not np.any(left):
            return left
        if np.ndim(left) == 0:
            return b(frame)
        return np.logical_and(left, _masked(b, frame, left) if expr.dtype.is_scalar else b(frame))

    return evaluate


def _or(compiler: ExprCompiler, expr: Or) -> Run:
    a, b = compiler.compile(expr.a), compiler.compile(expr.b)

    def evaluate(frame: Frame) -> Value:
        left = a(frame)
        if np.all(left):
            return left
        if np.ndim(left) == 0:
            return b(frame)
        return np.logical_or(left, _masked(b, frame, ~left) if expr.dtype.is_scalar else b(frame))

    return evaluate


def _not(compiler: ExprCompiler, expr: Not) -> Run:
    a = compiler.compile(expr.a)
    return lambda frame: np.logical_not(a(frame))


def _choose(condition: Value, left: Value, right: Value) -> Value:
    if np.ndim(condition) == 0:
        return left if condition else right
    return where(condition, left, right)


def _select(compiler: ExprCompiler, expr: Select) -> Run:
    condition = compiler.compile(expr.condition)
    a, b = compiler.compile(expr.true_value), compiler.compile(expr.false_value)
    widen = expr.condition.dtype.is_scalar and not expr.dtype.is_scalar

    def evaluate(frame: Frame) -> Value:
        chosen = condition(frame)
        left, right = a(frame), b(frame)
        if widen and np.ndim(chosen):
            chosen = lanes_of(chosen)
        return _choose(chosen, left, right)

    return evaluate


def _cast(compiler: ExprCompiler, expr: Cast) -> Run:
    value, source, target = compiler.compile(expr.value), expr.value.dtype, expr.to
    if source.is_handle or target.is_handle:
        return value
    return lambda frame: convert(value(frame), source.element, target.element)


def _ramp(compiler: ExprCompiler, expr: Ramp) -> Run:
    base, stride = compiler.compile(expr.base), compiler.compile(expr.stride)
    numbers = np.arange(expr.lanes).astype(expr.dtype.numpy)
    return lambda frame: lanes_of(base(frame)) + lanes_of(stride(frame)) * numbers


def _broadcast(compiler: ExprCompiler, expr: Broadcast) -> Run:
    value = compiler.compile(expr.value)
    return lambda frame: lanes_of(value(frame))


def _shuffle(compiler: ExprCompiler, expr: Shuffle) -> Run:
    vectors = [(compiler.compile(item), item.dtype) for item in expr.vectors]
    indices = [compiler.integer(item) for item in expr.indices]
    scalar = expr.dtype.is_scalar

    def evaluate(frame: Frame) -> Value:
        parts = [
            lanes_of(run(frame)) if dtype.is_scalar else full_lanes(run(frame), dtype.lanes)
            for run, dtype in vectors
        ]
        shape = np.broadcast_shapes(*(part.shape[:-1] for part in parts))
        joined = np.concatenate(
            [np.broadcast_to(part, (*shape, part.shape[-1])) for part in parts], axis=-1
        )
        picked = joined[..., [index(frame) for index in indices]]
        return picked[..., 0] if scalar else picked

    return evaluate


# --- calls ----------------------------------------------------------------------------------


def _call(compiler: ExprCompiler, expr: Call) -> Run:
    if isinstance(expr.op, GlobalVar):
        return _native_call(compiler, expr, expr.op.name)
    if not isinstance(expr.op, Intrinsic):
        raise UnsupportedError(f"the interpreter cannot call {expr.op!r}")
    name = expr.op.name
    special = _SPECIAL.get(name)
    if special is not None:
        return special(compiler, expr)
    args = [compiler.compile(arg) for arg in expr.args]
    if name in TILE_CALLS:
        on_tiles, kinds = TILE_CALLS[name], tile_dtypes(expr)
        return lambda frame: on_tiles(kinds, *(arg(frame) for arg in args))
    if name in MATH:
        return _math_call(on_dtype(MATH[name], expr.args[0].dtype), args)
    if name in HOST_CALLS:
        operation = HOST_CALLS[name]
        return lambda frame: operation(frame.runner, [arg(frame) for arg in args])
    raise UnsupportedError(
        f"the interpreter cannot run T.{name}", remedy="run the compiled function instead"
    )


def _math_call(function: Callable[..., Value], args: list[Run]) -> Run:
    if len(args) == 1:
        (only,) = args
        return lambda frame: function(only(frame))
    return lambda frame: function(*(arg(frame) for arg in args))


def _slot_list(compiler: ExprCompiler, expr: Call) -> Run:
    """A slot as the list that begins with it: what a native call passes."""
    items, index = (compiler.compile(arg) for arg in expr.args)
    return lambda frame: items(frame).from_slot(int(index(frame)))


def _native_call(compiler: ExprCompiler, expr: Call, name: str) -> Run:
    args = [
        _slot_list(compiler, arg)
        if isinstance(arg, Call) and getattr(arg.op, "name", "") == "anylist_getitem"
        else compiler.compile(arg)
        for arg in expr.args
    ]

    def evaluate(frame: Frame) -> Value:
        frame.runner.call_native(name, [arg(frame) for arg in args])

    return evaluate


def _if_then_else(compiler: ExprCompiler, expr: Call) -> Run:
    condition, a, b = (compiler.compile(arg) for arg in expr.args)
    widen = not expr.dtype.is_scalar

    def evaluate(frame: Frame) -> Value:
        chosen = condition(frame)
        if np.ndim(chosen) == 0:
            return (a if chosen else b)(frame)
        if np.all(chosen):
            return a(frame)
        if not np.any(chosen):
            return b(frame)
        left, right = _masked(a, frame, chosen), _masked(b, frame, ~chosen)
        return _choose(lanes_of(chosen) if widen else chosen, left, right)

    return evaluate


def _checked(compiler: ExprCompiler, expr: Call) -> Run:
    value, condition, kind, *message = expr.args
    held, result = compiler.compile(condition), compiler.compile(value)
    assert isinstance(kind, StringImm)
    name, lanes = kind.value, condition.dtype.lanes
    parts = [
        m.value if isinstance(m, StringImm) else _of_lanes(compiler, m, lanes) for m in message
    ]

    def evaluate(frame: Frame) -> Value:
        require(held(frame), frame, name, parts, lanes=lanes)
        return result(frame)

    return evaluate


def _of_lanes(compiler: ExprCompiler, expr: Expr, lanes: int) -> Run:
    """The closure of a value that all lanes of a vector of `lanes` may share."""
    run = compiler.compile(expr)
    if lanes == 1 or not expr.dtype.is_scalar:
        return run
    return lambda frame: lanes_of(run(frame))


def _reinterpret(compiler: ExprCompiler, expr: Call) -> Run:
    source, target = expr.args[0].dtype, expr.dtype
    value = compiler.compile(expr.args[0])
    if source.is_scalar:
        return lambda frame: reinterpret(value(frame), source, target)
    return lambda frame: reinterpret(full_lanes(value(frame), source.lanes), source, target)


def _named_call(compiler: ExprCompiler, expr: Call) -> Run:
    assert isinstance(expr.op, Intrinsic)
    first = expr.args[0]
    if not isinstance(first, StringImm):
        raise UnsupportedError(f"T.{expr.op.name} without a name")
    name, dtype = first.value, expr.dtype
    packed = "packed" in expr.op.name
    args = [compiler.compile(arg) for arg in expr.args[1:]]

    def evaluate(frame: Frame) -> Value:
        call = frame.runner.call_packed if packed else frame.runner.call_extern
        result = call(name, [arg(frame) for arg in args])
        if result is None or dtype.code in ("void", "handle", "str"):
            return result
        return np.asarray(result).astype(dtype.numpy)[()]

    return evaluate


def _llvm_call(compiler: ExprCompiler, expr: Call) -> Run:
    first = expr.args[0]
    name = first.value if isinstance(first, StringImm) else ""
    run = instruction(name, expr.dtype)
    if run is None:
        raise UnsupportedError(
            f"the interpreter does not know {name or 'an LLVM function without a name'}",
            remedy="run the compiled function, or tensorize: the description runs instead",
        )
    args = [(compiler.compile(arg), arg.dtype.lanes) for arg in expr.args[1:]]

    def evaluate(frame: Frame) -> Value:
        return run(*(full_lanes(value(frame), lanes) for value, lanes in args))

    return evaluate


def _return(compiler: ExprCompiler, expr: Call) -> Run:
    value = compiler.compile(expr.args[0])

    def evaluate(frame: Frame) -> Value:
        raise ReturnSignal(value(frame))

    return evaluate


def _assume(compiler: ExprCompiler, expr: Call) -> Run:
    value = compiler.compile(expr.args[0])

    def evaluate(frame: Frame) -> Value:
        held = value(frame)
        failed = ~held if frame.mask is None else frame.mask & ~held
        if np.any(failed):
            raise ExecutionError("what T.assume promises does not hold")
        return held

    return evaluate


def _undef(compiler: ExprCompiler, expr: Call) -> Run:
    lanes = expr.dtype.lanes
    garbage = np.full(expr.dtype.bytes // lanes, 0xFF, np.uint8).view(expr.dtype.numpy)
    return lambda frame: garbage[0] if lanes == 1 else garbage


def _vscale(compiler: ExprCompiler, expr: Call) -> Run:
    raise UnsupportedError("the interpreter has no scalable vectors")


def _active_lanes(compiler: ExprCompiler, expr: Call) -> Run:
    base, limit = (compiler.compile(arg) for arg in expr.args)
    numbers = np.arange(expr.dtype.lanes)
    return lambda frame: lanes_of(base(frame)) + numbers < lanes_of(limit(frame))


def _large_unsigned(compiler: ExprCompiler, expr: Call) -> Run:
    low, high = (compiler.integer(arg) for arg in expr.args)
    return lambda frame: wrap((high(frame) << 32) + low(frame), expr.dtype)


def _void(compiler: ExprCompiler, expr: Call) -> Run:
    return lambda frame: None


_SPECIAL: dict[str, Callable[[ExprCompiler, Call], Run]] = {
    "if_then_else": _if_then_else,
    "checked": _checked,
    "reinterpret": _reinterpret,
    "call_extern": _named_call,
    "call_pure_extern": _named_call,
    "call_packed": _named_call,
    "call_cpacked": _named_call,
    "call_llvm_intrin": _llvm_call,
    "call_llvm_pure_intrin": _llvm_call,
    "address_of": compile_address,
    "ret": _return,
    "assume": _assume,
    "undef": _undef,
    "vscale": _vscale,
    "get_active_lane_mask": _active_lanes,
    "large_uint_imm": _large_unsigned,
    # Lockstep execution is in step at every statement.
    "tvm_storage_sync": _void,
    "prefetch": _void,
    "start_profile_intrinsic": _void,
    "end_profile_intrinsic": _void,
}

_RULES: dict[type[Any], Callable[[ExprCompiler, Any], Run]] = {
    **dict.fromkeys(BINARY, _binary),
    IntImm: _constant,
    FloatImm: _constant,
    StringImm: _string,
    Var: _variable,
    And: _and,
    Or: _or,
    Not: _not,
    Select: _select,
    Cast: _cast,
    Ramp: _ramp,
    Broadcast: _broadcast,
    Shuffle: _shuffle,
    Call: _call,
    BufferLoad: compile_load,
}
