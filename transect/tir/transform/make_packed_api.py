"""MakePackedAPI: exported functions get an entry that checks its arguments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transect.ir.dtype import HANDLE, INT32, INT64, VOID, DType
from transect.ir.expr import (
    Call,
    Expr,
    GlobalVar,
    IntImm,
    Pointer,
    Var,
    as_expr,
    as_int,
    cast,
    equal,
    logical_and,
    logical_not,
    logical_or,
    not_equal,
)
from transect.ir.function import DIMS, IRModule
from transect.ir.traverse import free_vars
from transect.support.errors import VerifyError
from transect.tir.buffer import Buffer, buffer
from transect.tir.function import PrimFunc, symbolic_vars
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import AssertStmt, Bind, DeclBuffer, Evaluate, Stmt, seq
from transect.transform import Context, Pass

ARGUMENTS = "transect.arguments"
"""The attribute that says how each parameter gets its value."""

PREFIX = "__tvm_ffi_"
"""What the names of entries begin with, as tvm-ffi expects."""

_INT, _BOOL, _FLOAT, _DLTENSOR, _TENSOR = 1, 2, 3, 7, 70
(
    _FIELD_DATA,
    _FIELD_STRIDES,
    _FIELD_CODE,
    _FIELD_BITS,
    _FIELD_LANES,
    _FIELD_OFFSET,
    _FIELD_DEVICE,
) = 1, 3, 5, 6, 7, 8, 10
_CPU, _CPU_PINNED = 1, 3


@dataclass(frozen=True)
class MakePackedAPI(Pass):
    """Add `__tvm_ffi_<name>` for each PrimFunc with attrs["global_symbol"] = name.

    Requires the buffer_maps. Leaves the functions as they are and adds entries with attrs
    {"global_symbol", "calling_convention": "packed"} and parameters (self, args, num_args,
    result), which check the number, types, ranks, dtypes, devices, shapes, strides and data of the
    arguments, bind the symbolic variables and call the function. attrs["device_type"] is the
    DLPack device of the tensors, 1 (the CPU) by default. attrs["transect.arguments"], where
    given, says what each parameter is: "buffer", "scalar", "any" (a list whose slot 0 is the
    argument) or "result" (a list whose slot 0 takes what the entry returns; not an argument).

    Raises VerifyError for a symbolic variable that no argument determines.
    """

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with entries added."""
        for name, func in list(module.functions.items()):
            if not isinstance(func, PrimFunc) or func.attrs.get("calling_convention") == "packed":
                continue
            symbol = func.attrs.get("global_symbol")
            if symbol is not None and f"{PREFIX}{symbol}" not in module:
                module = module.with_function(
                    f"{PREFIX}{symbol}", _Entry(name, str(symbol), func).build()
                )
        return module


def _intrinsic(name: str, *args: Expr | str | int, dtype: DType | None = None) -> Call:
    call = INTRINSICS[name]
    result = call(*args, dtype=dtype)
    assert isinstance(result, Call)
    return result


class _Entry:
    def __init__(self, name: str, symbol: str, func: PrimFunc) -> None:
        self.name = name
        self.symbol = symbol
        self.func = func
        self.args = Var("args", HANDLE)
        self.count = Var("num_args", INT32)
        self.result = Var("result", HANDLE)
        self.stmts: list[Stmt] = []
        self.source: dict[Var, str] = {}
        """Where each symbolic variable got its value, for messages."""
        self.late: list[tuple[str, Expr, Expr]] = []
        """Checks of computed dimensions: what it is, its value, what it must be."""

    def build(self) -> PrimFunc:
        """The entry."""
        func = self.func
        roles = func.attrs.get(ARGUMENTS, ("",) * len(func.params))
        role = dict(zip(func.params, roles, strict=True))
        taken = [param for param in func.params if role[param] != "result"]
        self.check(
            equal(self.count, as_expr(len(taken), INT32)),
            f"expected {len(taken)} argument{'s' * (len(taken) != 1)}, got ",
            self.count,
            kind="TypeError",
        )
        values: dict[Var, Expr] = {
            param: self.result for param in func.params if role[param] == "result"
        }
        tensors: list[tuple[str, Var, Buffer]] = []
        for number, param in enumerate(taken):
            matched = func.buffer_map.get(param)
            what = f"argument {number} '{matched.name if matched is not None else param.name}'"
            if matched is not None:
                tensors.append((what, self.tensor(what, number, matched), matched))
            elif role[param] == "any":
                values[param] = _intrinsic("anylist_getitem", self.args, number)
            elif param.dtype.is_handle:
                values[param] = self.handle(number)
            else:
                self.scalar(what, number, param)
                values[param] = param
        # Scalars and plain dimensions first: a computed dimension may use any of them.
        for what, handle, matched in tensors:
            self.shape(what, handle, matched)
        for what, handle, matched in tensors:
            self.layout(what, handle, matched)
        self.finish_checks()
        self.bounds()
        for (what, handle, matched), param in zip(
            tensors, (p for p in taken if p in func.buffer_map), strict=True
        ):
            values[param] = self.data(what, handle, matched)
        extra = symbolic_vars(func)
        arguments = (*(values[param] for param in func.params), *extra)
        self.stmts.append(Evaluate(Call(GlobalVar(self.name), arguments, VOID)))
        params = (Var("self", HANDLE), self.args, self.count, self.result)
        attrs = {"global_symbol": f"{PREFIX}{self.symbol}", "calling_convention": "packed"}
        return PrimFunc(params, {}, seq(*self.stmts), attrs, func.span)

    def check(self, condition: Expr, *message: str | Expr, kind: str = "ValueError") -> None:
        """Add an assertion; the message is put after the function's name."""
        self.stmts.append(AssertStmt(condition, (f"{self.symbol}: ", *message), kind))

    def bounds(self) -> None:
        """Check the user's bounds of dimensions. The host function of a graph does so itself."""
        if ARGUMENTS in self.func.attrs:
            return
        for var in symbolic_vars(self.func):
            low, high = self.func.attrs.get(DIMS, {}).get(var.name, (None, None))
            if low is not None and high is not None:
                self.check(
                    logical_and(var >= low, var <= high),
                    f"{var.name} is ",
                    var,
                    f", outside of its bounds {low} to {high}",
                )

    def bind(self, var: Var, value: Expr) -> Var:
        """Add a binding."""
        self.stmts.append(Bind(var, value))
        return var

    def type_is(self, number: int, *kinds: int) -> Expr:
        """Whether an argument's type index is one of `kinds`."""
        index = _intrinsic("anylist_type_index", self.args, number)
        result = equal(index, as_expr(kinds[0], INT32))
        for kind in kinds[1:]:
            result = logical_or(result, equal(index, as_expr(kind, INT32)))
        return result

    # --- scalars and handles ---

    def scalar(self, what: str, number: int, param: Var) -> None:
        """Check and bind a scalar parameter."""
        dtype = param.dtype
        if dtype.is_float:
            self.check(
                self.type_is(number, _FLOAT, _INT, _BOOL),
                f"{what} must be a number",
                kind="TypeError",
            )
            self.bind(param, cast(_intrinsic("anylist_get_float", self.args, number), dtype))
        else:
            kinds = (_BOOL, _INT) if dtype.is_bool else (_INT, _BOOL)
            noun = "bool" if dtype.is_bool else "an integer"
            self.check(self.type_is(number, *kinds), f"{what} must be {noun}", kind="TypeError")
            value = _intrinsic("anylist_get_int", self.args, number)
            if dtype.bits < 64 and not dtype.is_bool:
                low, high = (
                    as_expr(int(dtype.min_value), INT64),
                    as_expr(int(dtype.max_value), INT64),
                )
                self.check(
                    logical_and(value >= low, value <= high),
                    f"{what} is ",
                    value,
                    f", which {dtype} cannot hold",
                )
            self.bind(
                param, not_equal(value, as_expr(0, INT64)) if dtype.is_bool else cast(value, dtype)
            )
        self.source[param] = what

    def handle(self, number: int) -> Expr:
        """An opaque pointer argument."""
        return _intrinsic(
            "reinterpret", _intrinsic("anylist_get_int", self.args, number), dtype=HANDLE
        )

    # --- tensors ---

    def tensor(self, what: str, number: int, matched: Buffer) -> Var:
        """Check that an argument is a tensor of the right rank, dtype and device."""
        self.check(
            self.type_is(number, _TENSOR, _DLTENSOR), f"{what} must be a tensor", kind="TypeError"
        )
        handle = self.bind(
            Var(f"{matched.name}_handle", HANDLE), _intrinsic("anylist_getitem", self.args, number)
        )
        ndim = _intrinsic("tensor_ndim", handle)
        self.check(
            equal(ndim, as_expr(matched.ndim, INT32)),
            f"{what} must have {matched.ndim} dimension{'s' * (matched.ndim != 1)}, got ",
            ndim,
        )
        got = [self.field(handle, kind) for kind in (_FIELD_CODE, _FIELD_BITS, _FIELD_LANES)]
        self.check(
            _intrinsic("tensor_dtype_is", handle, str(matched.dtype)),
            f"{what} must be {matched.dtype}, got DLPack type code ",
            got[0],
            ", ",
            got[1],
            " bits, ",
            got[2],
            " lanes",
            kind="TypeError",
        )
        expected = int(self.func.attrs.get("device_type", _CPU))
        device = self.field(handle, _FIELD_DEVICE)
        right = equal(device, as_expr(expected, INT32))
        if expected == _CPU:
            right = logical_or(right, equal(device, as_expr(_CPU_PINNED, INT32)))
        place = "on the CPU" if expected == _CPU else f"on a device of DLPack type {expected}"
        self.check(right, f"{what} must be {place}, but its device type is ", device)
        return handle

    def field(self, handle: Expr, kind: int, dtype: DType = INT32) -> Expr:
        """A field of the DLTensor."""
        return _intrinsic("tvm_struct_get", handle, 0, kind, dtype=dtype)

    def shape(self, what: str, handle: Var, matched: Buffer) -> None:
        """Bind dimensions that are seen for the first time, check the others."""
        for axis, extent in enumerate(matched.shape):
            value = _intrinsic("tensor_shape", handle, axis)
            place = f"{what}: dimension {axis}"
            self.unify(place, what, value, extent)

    def unify(self, place: str, what: str, value: Expr, expected: Expr) -> None:
        """Bind `expected` if it is a new variable, else check that `value` equals it."""
        if isinstance(expected, Var) and expected not in self.source:
            self.bind(expected, cast(value, expected.dtype))
            self.source[expected] = what
        elif isinstance(expected, Var):
            self.check(
                equal(value, cast(expected, INT64)),
                f"{place} is ",
                value,
                f", but '{expected.name}' is ",
                cast(expected, INT64),
                f" (from {self.source[expected]})",
            )
        elif as_int(expected) is not None:
            self.check(
                equal(value, cast(expected, INT64)),
                f"{place} is ",
                value,
                f", expected {as_int(expected)}",
            )
        else:
            self.late.append((place, value, cast(expected, INT64)))

    def layout(self, what: str, handle: Var, matched: Buffer) -> None:
        """Bind or check strides and offset."""
        if not matched.strides:
            self.check(_intrinsic("tensor_is_compact", handle), f"{what} must be contiguous")
        else:
            pointer = self.bind(
                Var(f"{matched.name}_strides", HANDLE, Pointer(INT64)),
                self.field(handle, _FIELD_STRIDES, HANDLE),
            )
            view = buffer(f"{matched.name}_strides", (len(matched.strides),), INT64, data=pointer)
            self.stmts.append(DeclBuffer(view))
            compact: Expr = IntImm(1)
            given: list[Expr] = []
            for axis in range(len(matched.strides) - 1, -1, -1):
                absent = _intrinsic("isnullptr", pointer)
                given.append(_intrinsic("if_then_else", absent, compact, view[axis], dtype=INT64))
                compact = compact * _intrinsic("tensor_shape", handle, axis)
            for axis, (value, stride) in enumerate(
                zip(reversed(given), matched.strides, strict=True)
            ):
                self.unify(f"{what}: stride {axis}", what, value, stride)
        if as_int(matched.elem_offset) != 0:
            offset = self.field(handle, _FIELD_OFFSET, INT64) // matched.dtype.bytes
            self.unify(f"{what}: element offset", what, offset, matched.elem_offset)

    def finish_checks(self) -> None:
        """The checks of computed fields, when every variable is bound."""
        known = set(self.source)
        for place, value, expected in self.late:
            missing = [var.name for var in free_vars([expected]) if var not in known]
            if missing:
                self.unbound(missing)
            self.check(
                equal(value, expected),
                f"{place} is ",
                value,
                ", expected ",
                expected,
                " by the signature",
            )
        missing = [var.name for var in symbolic_vars(self.func) if var not in known]
        if missing:
            self.unbound(missing)

    def unbound(self, names: Iterable[str]) -> None:
        raise VerifyError(
            f"no argument of {self.symbol!r} determines {', '.join(names)}",
            span=self.func.span,
            remedy="let a buffer have it as a plain dimension, or make it a scalar parameter",
        )

    def data(self, what: str, handle: Var, matched: Buffer) -> Expr:
        """Check and give the data pointer."""
        raw = as_int(matched.elem_offset) != 0
        pointer = self.bind(
            Var(matched.name, HANDLE, matched.data.pointer),
            self.field(handle, _FIELD_DATA, HANDLE) if raw else _intrinsic("tensor_data", handle),
        )
        elements: Expr = IntImm(1)
        for axis in range(matched.ndim):
            elements = elements * _intrinsic("tensor_shape", handle, axis)
        self.check(
            logical_or(
                equal(elements, as_expr(0, INT64)), logical_not(_intrinsic("isnullptr", pointer))
            ),
            f"{what} has no data",
        )
        return pointer
