"""Statements of a host function under construction: slots, workspaces, checks, kernel calls.

What each graph value becomes is in `host_body`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from transect.arith import Analyzer
from transect.ir.dtype import HANDLE, INT64, VOID, DType
from transect.ir.expr import (
    EQ,
    GE,
    LE,
    Call,
    Expr,
    ExprLike,
    GlobalVar,
    IntImm,
    Pointer,
    Var,
    as_expr,
    cast,
    logical_and,
    make,
)
from transect.ir.traverse import free_vars, substitute
from transect.relax.transform.host_values import (
    ARRAY_INDEX,
    TENSOR_INDEX,
    HostValue,
    ObjectValue,
    ScalarValue,
    ShapeValue,
    Slot,
    TensorValue,
    TextValue,
    TupleValue,
    fits_in_memory,
)
from transect.support.errors import UnsupportedError
from transect.support.span import Spans
from transect.tir.buffer import Buffer, buffer
from transect.tir.function import PrimFunc, symbolic_vars
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import (
    Allocate,
    AllocateConst,
    AssertStmt,
    Bind,
    BufferStore,
    DeclBuffer,
    Evaluate,
    Stmt,
    seq,
)


class HostEmitter:
    """Appends statements to a host function; allocates its slots.

    span: of the binding being lowered, given to every statement. bound: the symbolic variables
    that have a value here.
    """

    def __init__(self) -> None:
        self.span: Spans = ()
        self.slots = Var("slots", HANDLE)
        self.bound: set[Var] = set()
        self.analyzer = Analyzer()
        self.first_loop_slot = 0
        self._statements: list[Stmt] = []
        self._before: tuple[list[Stmt], set[Var]] | None = None
        self._slot_count = 0
        self._constants: dict[int, tuple[Var, np.ndarray[Any, Any]]] = {}

    # --- statements -------------------------------------------------------------------------

    def emit(self, stmt: Stmt) -> None:
        """Append a statement."""
        self._statements.append(stmt)

    def run(self, name: str, *args: ExprLike | str) -> None:
        """Append a call of an intrinsic for its effect."""
        self.emit(Evaluate(INTRINSICS[name](*args), self.span))

    def bind(self, name: str, value: Expr) -> Var:
        """A new variable with this value."""
        var = Var(name, value.dtype)
        self.emit(Bind(var, value, self.span))
        return var

    def pointer(self, name: str, value: Expr, dtype: DType) -> Var:
        """A new variable for an address of elements of `dtype`."""
        var = Var(name, HANDLE, Pointer(dtype))
        self.emit(Bind(var, value, self.span))
        return var

    def check(self, condition: Expr, *message: str | Expr, kind: str = "ValueError") -> None:
        """Append an assertion, unless it is true as it stands."""
        if isinstance(condition, IntImm) and condition.value:
            return
        self.emit(AssertStmt(condition, message, kind, self.span))

    def check_equal(
        self, actual: Expr, expected: Expr, what: str, was: str = " is ", not_: str = ", expected "
    ) -> None:
        """Append a check that two integers are equal, unless that is certain."""
        left, right = cast(actual, INT64), cast(expected, INT64)
        if left is right or self.analyzer.can_prove(EQ(left, right)):
            return
        self.check(make(EQ, left, right), f"{what}{was}", left, not_, right)

    def check_bounds(self, bounds: Mapping[str, tuple[int, int]]) -> None:
        """Append checks that the variables bound so far keep to the user's bounds, by name."""
        for var in sorted(self.bound, key=lambda item: item.name):
            if var.name in bounds:
                low, high = bounds[var.name]
                inside = logical_and(
                    make(GE, var, as_expr(low, var.dtype)), make(LE, var, as_expr(high, var.dtype))
                )
                self.check(
                    inside, f"{var.name} is ", var, f", outside of its bounds {low} to {high}"
                )

    @contextmanager
    def scope(self) -> Generator[list[Stmt]]:
        """Collect what is emitted inside in a list of its own. What it binds is not known after."""
        outer, outer_bound = self._statements, set(self.bound)
        self._statements = inner = []
        try:
            yield inner
        finally:
            self._statements = outer
            self.bound = outer_bound

    @contextmanager
    def loop_body(self) -> Generator[list[Stmt]]:
        """As `scope`, for what runs many times; `before_loop` writes ahead of it."""
        self._before = self._statements, set(self.bound)
        self.first_loop_slot = self._slot_count
        with self.scope() as statements:
            yield statements
        self._before = None

    @contextmanager
    def before_loop(self, needed: Sequence[Expr]) -> Generator[None]:
        """Emit ahead of the loop around, if there is one and `needed` is known there."""
        inside = self._statements
        if self._before is not None:
            outside, bound = self._before
            if bound.issuperset(free_vars(needed)):
                self._statements = outside
        try:
            yield
        finally:
            self._statements = inside

    def finish(self) -> Stmt:
        """The body: the list of slots and the constants come first."""
        head: list[Stmt] = []
        if self._slot_count:
            head.append(Bind(self.slots, INTRINSICS["any_list"](self._slot_count)))
        head += [AllocateConst(var, data) for var, data in self._constants.values()]
        return seq(*head, *self._statements)

    # --- memory and slots -------------------------------------------------------------------

    def new_slot(self) -> Slot:
        """A slot that is None until something is put there."""
        self._slot_count += 1
        return Slot(self.slots, self._slot_count - 1)

    def own(self, slot: Slot) -> Slot:
        """`slot` if it is one of this function's, else a new one. Another's is only written at the
        end: after an error the caller does not look there."""
        return slot if slot.items is self.slots else self.new_slot()

    def constant(self, data: np.ndarray[Any, Any], dtype: DType) -> TensorValue:
        """The memory of a constant; the same array is placed once."""
        known = self._constants.get(id(data))
        if known is None:
            var = Var(f"constant{len(self._constants)}", HANDLE, Pointer(dtype))
            known = self._constants[id(data)] = (var, data)
        shape = tuple(as_expr(extent) for extent in data.shape)
        return TensorValue(known[0], dtype, shape, constant=True)

    def workspace(self, name: str, dtype: DType, shape: Sequence[Expr]) -> Var:
        """Memory for a tensor, given back at the end of the statements around it. In a loop it is
        taken once if its size is known before."""
        var = Var(name, HANDLE, Pointer(dtype))
        extents = tuple(cast(extent, INT64) for extent in shape) or (as_expr(1),)
        with self.before_loop(extents):
            self.check_size(shape, dtype)
            self.emit(Allocate(var, dtype, extents, {}, self.span))
        return var

    def check_size(self, shape: Sequence[Expr], dtype: DType) -> None:
        """Append a check that a tensor of this shape can exist."""
        self.check(
            fits_in_memory(shape, dtype),
            "a tensor of negative or too large size",
            kind="MemoryError",
        )

    def new_tensor(
        self, name: str, dtype: DType, shape: tuple[Expr, ...], slot: Slot | None = None
    ) -> TensorValue:
        """A new tensor object."""
        place = self.new_slot() if slot is None else slot
        self.check_size(shape, dtype)
        dims = [cast(extent, INT64) for extent in shape]
        self.run("alloc_tensor", place.items, place.index, str(dtype), *dims)
        data = self.pointer(name, INTRINSICS["tensor_data"](place.item()), dtype)
        return TensorValue(data, dtype, shape, place)

    def view(self, tensor: TensorValue, name: str = "view") -> Buffer:
        """A buffer over a tensor, to load from and store to."""
        data = tensor.data
        if not isinstance(data, Var) or tensor.shape is None:
            raise UnsupportedError("elements of a tensor of unknown rank are read")
        made = buffer(name, tensor.shape, tensor.dtype, data=data)
        self.emit(DeclBuffer(made, self.span))
        return made

    def copy(self, target: TensorValue, source: TensorValue) -> None:
        """Copy all elements."""
        self.run("memory_copy", target.data, source.data, target.bytes())

    def cell(self, dtype: DType, name: str) -> Buffer:
        """A variable that can be assigned: memory for one element."""
        var = Var(name, HANDLE, Pointer(dtype, "local"))
        self.emit(Allocate(var, dtype, (as_expr(1),), {}, self.span))
        made = buffer(name, (1,), dtype, data=var)
        self.emit(DeclBuffer(made, self.span))
        return made

    def store(self, cell: Buffer, value: Expr) -> None:
        """Assign to a cell."""
        self.emit(BufferStore(cell, cast(value, cell.dtype), (as_expr(0),), None, self.span))

    # --- objects ----------------------------------------------------------------------------

    def to_slot(self, value: HostValue, slot: Slot | None = None) -> Slot:
        """Put a value into a slot as an object of its own, and give the slot.

        A value that is in a slot already stays there unless another is asked for.
        """
        if isinstance(value, ObjectValue | TensorValue) and value.slot is not None:
            if slot is None or slot == value.slot:
                return value.slot
            self.run("anylist_move", slot.items, slot.index, value.slot.items, value.slot.index)
            return slot
        place = self.new_slot() if slot is None else slot
        if isinstance(value, TensorValue):
            if value.shape is None:
                raise UnsupportedError("a tensor of unknown rank becomes an object")
            self.copy(self.new_tensor("copy", value.dtype, value.shape, place), value)
        elif isinstance(value, ScalarValue):
            self.run("anylist_set", place.items, place.index, widened(value.value))
        elif isinstance(value, ShapeValue):
            dims = [cast(dim, INT64) for dim in value.values]
            self.run("make_shape", place.items, place.index, *dims)
        elif isinstance(value, TupleValue):
            parts = [self.to_slot(item).item() for item in value.items]
            self.run("make_tuple", place.items, place.index, *parts)
        else:
            assert not isinstance(value, ObjectValue)  # it has a slot, and was moved above
            self.run("anylist_set", place.items, place.index, value.text)
        return place

    def argument(self, value: HostValue) -> ExprLike | str:
        """A value as an argument of a packed function."""
        if isinstance(value, ScalarValue):
            return widened(value.value)
        if isinstance(value, TextValue):
            return value.text
        if isinstance(value, TensorValue) and value.slot is None and value.constant:
            # A constant outlives the call; who keeps it must copy it, as the runtime does.
            dims = [cast(dim, INT64) for dim in value.shape or ()]
            return INTRINSICS["tensor_view"](value.data, str(value.dtype), *dims)
        return self.to_slot(value).item()

    def call_packed(self, name: str, values: Sequence[HostValue]) -> Slot:
        """Call a registered function; its result is in the slot."""
        args = [self.argument(value) for value in values]
        slot = self.new_slot()
        self.run("anylist_setitem_call_packed", slot.items, slot.index, name, *args)
        return slot

    def check_index(self, slot: Slot, index: int, what: str, wanted: str) -> None:
        """Append a check that a slot holds an object of a type index of tvm-ffi."""
        actual = INTRINSICS["anylist_type_index"](slot.items, slot.index)
        message = f"{what} is not a {wanted}"
        self.check(make(EQ, actual, as_expr(index, actual.dtype)), message, kind="TypeError")

    def field(self, slot: Slot, index: int, what: str) -> Slot:
        """An item of a tuple object."""
        self.check_index(slot, ARRAY_INDEX, what, "tuple")
        part = self.new_slot()
        self.run("tuple_get", part.items, part.index, slot.items, slot.index, index)
        return part

    def open_tensor(self, slot: Slot, ndim: int, dtype: DType, what: str) -> TensorValue:
        """The tensor in a slot, checked for its rank (-1: any), dtype and compact layout."""
        self.check_index(slot, TENSOR_INDEX, what, "tensor")
        item = slot.item()
        actual = INTRINSICS["tensor_ndim"](item)
        if ndim >= 0:
            condition = make(EQ, actual, as_expr(ndim, actual.dtype))
            self.check(condition, f"{what} has ", actual, f" dimensions, expected {ndim}")
        condition = INTRINSICS["tensor_dtype_is"](item, str(dtype))
        self.check(condition, f"{what} does not have dtype {dtype}", kind="TypeError")
        self.check(INTRINSICS["tensor_is_compact"](item), f"{what} is not contiguous")
        shape = None
        if ndim >= 0:
            sizes = [INTRINSICS["tensor_shape"](item, axis) for axis in range(ndim)]
            shape = tuple(self.bind("extent", size) for size in sizes)
        data = self.pointer("data", INTRINSICS["tensor_data"](item), dtype)
        return TensorValue(data, dtype, shape, slot)

    # --- native calls -----------------------------------------------------------------------

    def call_native(
        self, name: str, func: PrimFunc, values: Sequence[TensorValue | Expr], what: str
    ) -> None:
        """Call a function of the module: one value per parameter, tensors for its buffers."""
        known: dict[Var, Expr] = {}
        args: list[Expr] = []
        pending: list[tuple[Expr, Expr, str]] = []
        for param, value in zip(func.params, values, strict=True):
            if not isinstance(value, TensorValue):
                known[param] = cast(value, param.dtype) if not param.dtype.is_handle else value
                args.append(known[param])
                continue
            declared = func.buffer_map[param]
            args.append(value.data)
            shape = value.shape or ()
            fields = [*zip(declared.shape, shape, strict=True)]
            fields += zip(declared.strides, compact_strides(shape), strict=False)
            fields.append((declared.elem_offset, as_expr(0)))
            for wanted, given in fields:
                if isinstance(wanted, Var) and wanted not in known:
                    known[wanted] = cast(given, wanted.dtype)
                else:
                    pending.append((wanted, given, declared.name))
        for wanted, given, buffer_name in pending:
            if all(var in known for var in free_vars((wanted,))):
                where = f"a dimension of {buffer_name} of {what}"
                self.check_equal(given, substitute(wanted, known), where)
        missing = [var.name for var in symbolic_vars(func) if var not in known]
        if missing:
            raise UnsupportedError(
                f"{what}: the arguments do not determine {', '.join(missing)}", span=self.span
            )
        args += [known[var] for var in symbolic_vars(func)]
        self.emit(Evaluate(Call(GlobalVar(name), tuple(args), VOID), self.span))


def compact_strides(shape: Sequence[Expr]) -> list[Expr]:
    """The strides in elements of a compact tensor."""
    strides: list[Expr] = []
    total: Expr = as_expr(1)
    for extent in reversed(shape):
        strides.append(total)
        total = total * cast(extent, INT64)
    return strides[::-1]


def widened(value: Expr) -> Expr:
    """A scalar in the type that the packed convention has for it: bool, int64 or float64."""
    if value.dtype.is_bool or value.dtype.is_handle:
        return value
    return cast(value, "float64" if value.dtype.is_float else INT64)
