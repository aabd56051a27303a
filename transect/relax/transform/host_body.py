"""The body of a graph function as statements of a host function.

Each binding becomes calls of kernels, packed functions and other host functions on memory that is
a destination of the caller, an arena of the memory plan, a workspace, or an object in a slot.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from transect.ir.dtype import BOOL, INT64, DType
from transect.ir.expr import Expr, StringImm, as_expr, as_int, cast
from transect.ir.expr import Var as Symbol
from transect.ir.function import IRModule
from transect.ir.types import (
    PrimType,
    ShapeType,
    TensorType,
    TupleType,
    Type,
    tensor_type,
)
from transect.relax import call as special
from transect.relax import expr as rx
from transect.relax.legalize import has_decomposition, has_loops, is_concrete
from transect.relax.op.memory import AllocStorage, AllocTensor
from transect.relax.tail_calls import TailLoop, last_binding
from transect.relax.transform.host_emit import HostEmitter
from transect.relax.transform.host_escape import Escapes, Root, Tree, is_view
from transect.relax.transform.host_interface import Interface, is_known, type_leaves
from transect.relax.transform.host_values import (
    BOOL_INDEX,
    FLOAT_INDEX,
    INT_INDEX,
    SHAPE_INDEX,
    HostValue,
    ObjectValue,
    ScalarValue,
    ShapeValue,
    Slot,
    TensorValue,
    TextValue,
    TupleValue,
    size_in_bytes,
)
from transect.relax.visit import direct_bindings
from transect.support.errors import UnsupportedError
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import Bind, BufferStore, IfThenElse, Stmt, seq

Target = TensorValue | Slot | Buffer | tuple["Target", ...] | None
"""Where a value should go: memory, a slot, a cell for a scalar; None: wherever it is."""


class Loop(Protocol):
    """A function that calls itself last, as a loop around its body (see `host_loop`)."""

    @property
    def tail(self) -> TailLoop: ...
    def goals(self, var: rx.Var) -> Iterator[tuple[Tree, Target]]: ...
    def again(self, var: rx.Var) -> None: ...
    def leave(self) -> None: ...


class BodyLowering:
    """Lowers one body.

    hosts: of each graph function of the module its host PrimFunc without a body (its parameters
    are all that a caller needs) and its interface.
    """

    def __init__(
        self,
        emitter: HostEmitter,
        module: IRModule,
        hosts: Mapping[str, tuple[PrimFunc, Interface]],
        escapes: Escapes,
    ) -> None:
        self.out = emitter
        self.module = module
        self.hosts = hosts
        self.escapes = escapes
        self.values: dict[rx.Var, HostValue] = {}
        self.placed: dict[Root, TensorValue | Slot] = {}
        self.loop: Loop | None = None
        self.arenas: dict[Expr, Buffer] = {}

    # --- sequences --------------------------------------------------------------------------

    def sequence(self, seq_expr: rx.SeqExpr, target: Target, *, tail: bool = False) -> None:
        """Lower the bindings, and bring the result to `target`.

        tail: nothing follows in the function, so that branches deliver themselves, and a call of
        the function itself jumps.
        """
        last = last_binding(seq_expr) if tail else None
        if last is not None and isinstance(last.value, rx.If):
            self._bindings(seq_expr, last)
            with self._at(last):
                self._branches(last.value, target, tail=True)
        elif last is not None and self.loop is not None and last.var in self.loop.tail.calls:
            self._place(seq_expr, self.loop.goals(last.var))
            self._bindings(seq_expr, last)
            with self._at(last):
                self.loop.again(last.var)
        else:
            self._place(seq_expr, self._goals(seq_expr.body, target))
            self._bindings(seq_expr)
            self.deliver(self.value(seq_expr.body), target)
            if tail and self.loop is not None:
                self.loop.leave()

    def _bindings(self, seq_expr: rx.SeqExpr, end: rx.Binding | None = None) -> None:
        for binding in direct_bindings(seq_expr):
            if binding is not end:
                self._binding(binding)

    @contextmanager
    def _at(self, binding: rx.Binding) -> Generator[None]:
        """Give what is emitted inside the span of `binding`."""
        outer = self.out.span
        self.out.span = binding.span or binding.value.span or outer
        yield
        self.out.span = outer

    def _goals(self, result: rx.Value, target: Target) -> Iterator[tuple[Tree, Target]]:
        for path, goal in _target_leaves(target):
            tree = self.escapes.of(result)
            for index in path:
                tree = tree[index] if isinstance(tree, tuple) else frozenset[Root]()
            yield tree, goal

    def _place(self, seq_expr: rx.SeqExpr, goals: Iterable[tuple[Tree, Target]]) -> None:
        """Let what the sequence makes anew be made where it goes: in the target's memory, or as an
        object in a slot."""
        local = {
            binding.var
            for binding in direct_bindings(seq_expr)
            if isinstance(binding, rx.VarBinding)
        }
        for tree, goal in goals:
            if not isinstance(goal, TensorValue | Slot) or not isinstance(tree, frozenset):
                continue
            root = next(iter(tree)) if len(tree) == 1 else None
            if root is None or root[0] not in local or root in self.placed:
                continue
            if isinstance(goal, TensorValue) and root in self.escapes.escaping:
                continue
            self.placed[root] = self.out.own(goal) if isinstance(goal, Slot) else goal

    def deliver(self, value: HostValue, target: Target) -> None:
        """Bring a value to where it should go, unless it is there."""
        if target is None:
            return
        if isinstance(target, tuple):
            for index, part in enumerate(target):
                self.deliver(self.item(value, index), part)
        elif isinstance(target, TensorValue):
            source = self.as_tensor(value, target.dtype, len(target.shape or ()))
            for given, wanted in zip(source.shape or (), target.shape or (), strict=True):
                self.out.check_equal(given, wanted, "a dimension of the result")
            if source.data is not target.data:
                self.out.copy(target, source)
        elif isinstance(target, Slot):
            self.out.to_slot(value, target)
        else:
            self.out.store(target, self.as_scalar(value, target.dtype))

    # --- values -----------------------------------------------------------------------------

    def value(self, value: rx.Value) -> HostValue:
        """The value of an operand."""
        if isinstance(value, rx.Var):
            if value not in self.values:
                raise UnsupportedError(f"{value.name} has no value here", span=self.out.span)
            return self.values[value]
        if isinstance(value, rx.Constant):
            kind = value.type
            dtype = kind.dtype if isinstance(kind, TensorType) else None
            if dtype is None:
                raise UnsupportedError("a constant of unknown dtype", span=self.out.span)
            return self.out.constant(value.data, dtype)
        if isinstance(value, rx.ShapeExpr):
            return ShapeValue(value.values)
        if isinstance(value, rx.PrimValue):
            if isinstance(value.value, StringImm):
                return TextValue(value.value.value)
            return ScalarValue(value.value)
        if isinstance(value, rx.StringValue):
            return TextValue(value.value)
        if isinstance(value, rx.DataTypeValue):
            return TextValue(str(value.value))
        if isinstance(value, rx.Tuple):
            return TupleValue(tuple(self.value(item) for item in value.items))
        if isinstance(value, rx.TupleGetItem):
            return self.item(self.value(value.tuple_value), value.index)
        if isinstance(value, rx.GlobalFunc | rx.ExternFunc | rx.Function):
            raise UnsupportedError(
                "a function is used as a value",
                span=self.out.span,
                remedy="call it directly; run LambdaLift for nested functions",
            )
        raise UnsupportedError(f"a {type(value).__name__} in a host function", span=self.out.span)

    def item(self, value: HostValue, index: int) -> HostValue:
        """One item of a tuple."""
        if isinstance(value, TupleValue):
            return value.items[index]
        if isinstance(value, ObjectValue):
            return ObjectValue(self.out.field(value.slot, index, "the value"))
        raise UnsupportedError("an item of what is not a tuple", span=self.out.span)

    def as_tensor(self, value: HostValue, dtype: DType, ndim: int) -> TensorValue:
        """A value as a tensor, opened if it is an object."""
        if isinstance(value, ObjectValue):
            return self.out.open_tensor(value.slot, ndim, dtype, "the value")
        if isinstance(value, TensorValue):
            return value
        raise UnsupportedError("a tensor is expected here", span=self.out.span)

    def as_scalar(self, value: HostValue, dtype: DType) -> Expr:
        """A value as a number: a tensor of rank 0 is read."""
        if isinstance(value, ScalarValue):
            return value.value
        if isinstance(value, ObjectValue):
            opened = self.open(value.slot, PrimType(dtype), "the value")
            assert isinstance(opened, ScalarValue)
            return opened.value
        tensor = self.as_tensor(value, dtype, 0)
        view = self.out.view(tensor)
        indices = tuple(as_expr(0) for _ in view.shape)
        return self.out.bind("scalar", BufferLoad(view, indices))

    # --- objects ----------------------------------------------------------------------------

    def open(self, slot: Slot, kind: Type, what: str) -> HostValue:
        """What a slot holds as a value of `kind`: checked, new symbolic variables bound."""
        out = self.out
        if isinstance(kind, TensorType):
            if kind.dtype is None:
                return ObjectValue(slot)
            tensor = out.open_tensor(slot, kind.ndim, kind.dtype, what)
            return self.cast(tensor, kind, what)
        if isinstance(kind, TupleType):
            items = [
                self.open(out.field(slot, i, what), item, f"item {i} of {what}")
                for i, item in enumerate(kind.items)
            ]
            return TupleValue(tuple(items))
        if isinstance(kind, PrimType):
            if kind.dtype.is_float:
                out.check_index(slot, FLOAT_INDEX, what, "float")
                number = INTRINSICS["anylist_get_float"](slot.items, slot.index)
            else:
                index, wanted = (BOOL_INDEX, "bool") if kind.dtype.is_bool else (INT_INDEX, "int")
                out.check_index(slot, index, what, wanted)
                number = INTRINSICS["anylist_get_int"](slot.items, slot.index)
            value = ScalarValue(out.bind("number", cast(number, kind.dtype)))
            return self.cast(value, kind, what)
        if isinstance(kind, ShapeType) and kind.ndim >= 0:
            out.check_index(slot, SHAPE_INDEX, what, "shape")
            dims = [INTRINSICS["shape_get"](slot.item(), axis) for axis in range(kind.ndim)]
            return self.cast(ShapeValue(tuple(out.bind("dim", dim) for dim in dims)), kind, what)
        return ObjectValue(slot)

    def cast(self, value: HostValue, kind: Type, what: str) -> HostValue:
        """`value` checked to be of `kind`; new symbolic variables are bound."""
        out = self.out
        if isinstance(value, ObjectValue):
            return self.open(value.slot, kind, what)
        if isinstance(kind, TensorType) and isinstance(value, TensorValue):
            if kind.dtype is not None and kind.dtype is not value.dtype:
                raise UnsupportedError(
                    f"{what} has dtype {value.dtype}, not {kind.dtype}", span=out.span
                )
            if kind.shape is None:
                return value
            if value.shape is None:
                if value.slot is None:
                    raise UnsupportedError(f"{what} has an unknown rank", span=out.span)
                value = out.open_tensor(value.slot, kind.ndim, value.dtype, what)
            self._match(value.shape or (), kind.shape, f"a dimension of {what}")
            return TensorValue(value.data, value.dtype, kind.shape, value.slot, value.constant)
        if isinstance(kind, ShapeType) and isinstance(value, ShapeValue):
            if kind.values is None:
                return value
            self._match(value.values, kind.values, f"a value of {what}")
            return ShapeValue(kind.values)
        if isinstance(kind, PrimType) and isinstance(value, ScalarValue):
            if kind.value is not None:
                self._match((value.value,), (kind.value,), what)
            return value
        if isinstance(kind, TupleType) and isinstance(value, TupleValue):
            pairs = zip(value.items, kind.items, strict=True)
            return TupleValue(
                tuple(self.cast(v, k, f"item {i} of {what}") for i, (v, k) in enumerate(pairs))
            )
        return value

    def _compare(self, value: HostValue, binding: rx.MatchCast) -> HostValue:
        """A shape that must be another, which is known as well."""
        kind = binding.type
        if isinstance(value, ShapeValue) and isinstance(kind, ShapeType) and kind.values:
            for given, wanted in zip(value.values, kind.values, strict=True):
                self.out.check_equal(given, wanted, binding.what, " differ: ", " and ")
        return value

    def _match(self, actual: Sequence[Expr], declared: Sequence[Expr], what: str) -> None:
        """Bind the variables that stand alone in `declared`, then compare the rest."""
        if len(actual) != len(declared):
            raise UnsupportedError(f"{what}: the ranks differ", span=self.out.span)
        pending: list[tuple[Expr, Expr]] = []
        for given, wanted in zip(actual, declared, strict=True):
            if isinstance(wanted, Symbol) and wanted not in self.out.bound:
                self.define(wanted, given)
            else:
                pending.append((given, wanted))
        for given, wanted in pending:
            self.out.check_equal(given, wanted, what)

    def define(self, symbol: Symbol, value: Expr) -> None:
        """Give a symbolic variable its value."""
        self.out.emit(Bind(symbol, cast(value, symbol.dtype), self.out.span))
        self.out.bound.add(symbol)

    # --- bindings ---------------------------------------------------------------------------

    def _binding(self, binding: rx.Binding) -> None:
        with self._at(binding):
            self.values[binding.var] = self._bound(binding)

    def _bound(self, binding: rx.Binding) -> HostValue:
        var, value = binding.var, binding.value
        if isinstance(binding, rx.MatchCast):
            if binding.what:
                return self._compare(self.value(value), binding)
            return self.cast(self.value(value), binding.type, var.name)
        if isinstance(value, rx.Call):
            return self._call(var, value)
        if isinstance(value, rx.If):
            target = self._branch_target(var, value.type, ())
            self._branches(value, target)
            return self._from_target(target, value.type)
        return self.value(value)

    def _branches(self, value: rx.If, target: Target, *, tail: bool = False) -> None:
        condition = self.as_scalar(self.value(value.condition), BOOL)
        branches: list[Stmt] = []
        for branch in (value.then_branch, value.else_branch):
            with self.out.scope() as statements:
                self.sequence(branch, target, tail=tail)
            branches.append(seq(*statements))
        self.out.emit(IfThenElse(condition, branches[0], branches[1], self.out.span))

    def _branch_target(self, var: rx.Var, kind: Type, path: tuple[int, ...]) -> Target:
        """Where both branches put their result."""
        if isinstance(kind, TupleType):
            parts = [
                self._branch_target(var, item, (*path, i)) for i, item in enumerate(kind.items)
            ]
            return tuple(parts)
        if isinstance(kind, TensorType) and is_known(kind, self.out.bound):
            return self.allocate((var, path), kind)
        if isinstance(kind, PrimType):
            return self.out.cell(kind.dtype, var.name)
        return self.out.new_slot()

    def _from_target(self, target: Target, kind: Type) -> HostValue:
        if isinstance(target, tuple) and isinstance(kind, TupleType):
            pairs = zip(target, kind.items, strict=True)
            return TupleValue(tuple(self._from_target(part, item) for part, item in pairs))
        if isinstance(target, TensorValue):
            return target
        if isinstance(target, Buffer):
            return ScalarValue(self.out.bind("value", BufferLoad(target, (as_expr(0),))))
        if isinstance(target, Slot):
            if isinstance(kind, TensorType | ShapeType):
                return self.open(target, kind, "the result of a branch")
            return ObjectValue(target)
        raise UnsupportedError("a branch of no value", span=self.out.span)

    def allocate(self, root: Root, kind: Type) -> TensorValue:
        """Memory for a new tensor: the destination it is for, an object, or a workspace."""
        if not isinstance(kind, TensorType) or kind.dtype is None or kind.shape is None:
            raise UnsupportedError(
                f"the shape of {root[0].name} is not known when it is computed",
                span=self.out.span,
                remedy="match_cast its inputs first",
            )
        placed = self.placed.get(root)
        if isinstance(placed, Slot):
            return self.out.new_tensor(root[0].name, kind.dtype, kind.shape, placed)
        if placed is not None:
            self._check_place(kind.shape, placed)
            return TensorValue(placed.data, kind.dtype, kind.shape)
        name = root[0].name
        if root in self.escapes.escaping or not is_known(kind, self.out.bound):
            return self.out.new_tensor(name, kind.dtype, kind.shape)
        return TensorValue(self.out.workspace(name, kind.dtype, kind.shape), kind.dtype, kind.shape)

    def _check_place(self, shape: tuple[Expr, ...], placed: TensorValue) -> None:
        """Check that what is made fits the memory that the caller provides for it."""
        # It may be there under another shape, as a view of it is what is returned.
        needed = size_in_bytes(shape, placed.dtype)
        self.out.check_equal(placed.bytes(), needed, "the size of the destination")

    # --- calls ------------------------------------------------------------------------------

    def _call(self, var: rx.Var, call: rx.Call) -> HostValue:
        op = call.op
        if isinstance(op, rx.GlobalFunc):
            return self._call_function(var, op.name, call)
        if isinstance(op, rx.ExternFunc):
            return self._packed(op.name, call.args, call.type)
        if isinstance(op, special.CallTIR | special.CallTIRInplace):
            return self._call_tir(var, call)
        if isinstance(op, special.CallDPSPacked):
            return self._call_dps_packed(var, call)
        if isinstance(op, special.CallPacked | special.CallPurePacked):
            kind = call.type_args[0] if call.type_args else call.type
            return self._packed(_extern_name(call), call.args[1:], kind)
        if isinstance(op, special.CallInplacePacked):
            return self._packed(_extern_name(call), call.args[1:], call.type_args[0])
        if isinstance(op, AllocStorage | AllocTensor):
            return self._memory(var, call)
        simple = self._simple(var, call)
        if simple is None:
            raise self._unsupported(var, call)
        return simple

    def _unsupported(self, var: rx.Var, call: rx.Call) -> UnsupportedError:
        """Why a call is still there, and what can be done about it."""
        op = call.op
        if not isinstance(op, rx.Op):
            return UnsupportedError(
                f"{var.name} is the call of a function that is a value",
                span=self.out.span,
                remedy="call functions by name; LambdaLift makes nested ones functions by name",
            )
        can = has_loops(op) or has_decomposition(op)
        unknown = [arg for arg in call.args if not is_concrete(arg.type)]
        if can and unknown:
            first = unknown[0]
            label = first.name if isinstance(first, rx.Var) else "an operand"
            return UnsupportedError(
                f"{var.name} = R.{op.name}(...): the type of {label} is not known well enough to"
                f" write loops: {first.type!r}",
                span=self.out.span,
                remedy=f"R.match_cast({label}, R.Tensor((n, ...), dtype)) checks it at run time",
            )
        if can:
            return UnsupportedError(
                f"{var.name} = R.{op.name}(...) is still an operator",
                span=self.out.span,
                remedy="run LegalizeOps before LowerToHost",
            )
        return UnsupportedError(
            f"{var.name} = R.{op.name}(...): this operator cannot be compiled, it has no loops",
            span=self.out.span,
            remedy=f'register a function that computes it and call that: R.call_pure_packed("my.'
            f'{op.name}", ..., sinfo_args=(R.Tensor(...),)) with transect.register_function',
        )

    def _simple(self, var: rx.Var, call: rx.Call) -> HostValue | None:
        """The operators on shapes, views, and those that exist for an effect."""
        op = call.op
        if isinstance(op, special.NullValue):
            return ObjectValue(self.out.new_slot())
        if isinstance(op, special.ShapeOf):
            source = self.value(call.args[0])
            if isinstance(source, TensorValue) and source.shape is not None:
                return ShapeValue(source.shape)
        if isinstance(op, special.TensorToShape):
            return self._tensor_to_shape(self.value(call.args[0]))
        if isinstance(op, special.ShapeToTensor):
            return self._shape_to_tensor(var, self.value(call.args[0]))
        if isinstance(op, special.AssertOp):
            condition = self.as_scalar(self.value(call.args[0]), BOOL)
            self.out.check(condition, op.format or "assertion failed", kind="AssertionError")
            return TupleValue(())
        if isinstance(op, special.Print):
            values = [self.value(arg) for arg in call.args]
            self.out.call_packed("transect.print", [TextValue(op.format), *values])
            return TupleValue(())
        if is_view(call) and isinstance(call.type, TensorType) and call.type.shape is not None:
            source = self.value(call.args[0])
            if isinstance(source, TensorValue):
                # An object keeps its own shape, so a view of it is bare memory.
                return TensorValue(
                    source.data, source.dtype, call.type.shape, None, source.constant
                )
        return None

    def _tensor_to_shape(self, value: HostValue) -> ShapeValue:
        tensor = self.as_tensor(value, INT64, 1)
        count = as_int((tensor.shape or (as_expr(0),))[0])
        if count is None:
            raise UnsupportedError(
                "a shape of unknown rank is made of a tensor", span=self.out.span
            )
        view = self.out.view(tensor)
        return ShapeValue(tuple(self.out.bind("dim", view[axis]) for axis in range(count)))

    def _shape_to_tensor(self, var: rx.Var, value: HostValue) -> TensorValue:
        if not isinstance(value, ShapeValue):
            raise UnsupportedError("a shape of unknown rank becomes a tensor", span=self.out.span)
        tensor = self.allocate((var, ()), tensor_type((as_expr(len(value.values)),), INT64))
        view = self.out.view(tensor)
        for axis, dim in enumerate(value.values):
            self.out.emit(
                BufferStore(view, cast(dim, INT64), (as_expr(axis),), None, self.out.span)
            )
        return tensor

    def _memory(self, var: rx.Var, call: rx.Call) -> TensorValue:
        kind = call.type
        assert isinstance(kind, TensorType)
        if isinstance(call.op, AllocStorage):
            arena = self.allocate((var, ()), kind)
            self.arenas[arena.data] = self.out.view(arena, "arena")
            return arena
        storage, offset = self.value(call.args[0]), self.value(call.args[1])
        if (
            not isinstance(storage, TensorValue)
            or storage.data not in self.arenas
            or not isinstance(offset, ScalarValue)
            or kind.dtype is None
            or kind.shape is None
        ):
            raise UnsupportedError("memory.alloc_tensor of unknown size", span=self.out.span)
        address = INTRINSICS["address_of"](
            BufferLoad(self.arenas[storage.data], (cast(offset.value, INT64),))
        )
        data = self.out.pointer(var.name, address, kind.dtype)
        return TensorValue(data, kind.dtype, kind.shape)

    def _tensors(self, values: Sequence[rx.Value], func: PrimFunc) -> list[TensorValue]:
        """The inputs of a kernel."""
        inputs: list[TensorValue] = []
        for value, declared in zip(values, func.buffers, strict=False):
            inputs.append(self.as_tensor(self.value(value), declared.dtype, declared.ndim))
        return inputs

    def _call_tir(self, var: rx.Var, call: rx.Call) -> HostValue:
        callee = call.args[0]
        func = self.module[callee.name] if isinstance(callee, rx.GlobalFunc) else None
        if not isinstance(callee, rx.GlobalFunc) or not isinstance(func, PrimFunc):
            raise UnsupportedError("call_tir of what is not a tensor program", span=self.out.span)
        inputs = self._tensors(special.call_inputs(call), func)
        kind = call.type_args[0]
        kinds = list(kind.items) if isinstance(kind, TupleType) else [kind]
        indices = (
            call.op.inplace_indices
            if isinstance(call.op, special.CallTIRInplace)
            else (-1,) * len(kinds)
        )
        outputs: list[TensorValue] = []
        fresh: list[TensorValue] = []
        for number, (item, index) in enumerate(zip(kinds, indices, strict=True)):
            path = (number,) if isinstance(kind, TupleType) else ()
            if index < 0:
                outputs.append(self.allocate((var, path), item))
                fresh.append(outputs[-1])
            else:
                if inputs[index].constant:
                    made = self.allocate((var, path), item)
                    self.out.copy(made, inputs[index])
                    inputs[index] = made
                outputs.append(inputs[index])
        scalars: list[Expr] = []
        if len(call.args) > 2:
            given = self.value(call.args[2])
            scalars = list(given.values) if isinstance(given, ShapeValue) else []
        self.out.call_native(callee.name, func, [*inputs, *fresh, *scalars], callee.name)
        return TupleValue(tuple(outputs)) if isinstance(kind, TupleType) else outputs[0]

    def _call_dps_packed(self, var: rx.Var, call: rx.Call) -> HostValue:
        inputs = [self.value(item) for item in special.call_inputs(call)]
        kind = call.type_args[0]
        kinds = list(kind.items) if isinstance(kind, TupleType) else [kind]
        paths = [(i,) if isinstance(kind, TupleType) else () for i in range(len(kinds))]
        outputs = [self.allocate((var, p), item) for p, item in zip(paths, kinds, strict=True)]
        self.out.call_packed(_extern_name(call), [*inputs, *outputs])
        return TupleValue(tuple(outputs)) if isinstance(kind, TupleType) else outputs[0]

    def _packed(self, name: str, args: Sequence[rx.Value], kind: Type) -> HostValue:
        slot = self.out.call_packed(name, [self.value(arg) for arg in args])
        if isinstance(kind, TupleType) and not kind.items:
            return TupleValue(())
        return self.open(slot, kind, f"the result of {name}")

    # --- calls of graph functions -----------------------------------------------------------

    def _call_function(self, var: rx.Var, name: str, call: rx.Call) -> HostValue:
        func = self.module[name]
        if isinstance(func, PrimFunc):
            return self._call_prim_func(name, func, call)
        host, interface = self.hosts[name]
        values: list[TensorValue | Expr] = []
        pairs = zip(interface.params, interface.kinds, call.args, strict=True)
        for number, (param, kind, arg) in enumerate(pairs):
            value = self.value(arg)
            if number in interface.mutated:
                value = self._writable(param.name, value)
            if kind == "scalar" and isinstance(param.type, PrimType):
                values.append(self.as_scalar(value, param.type.dtype))
            elif kind == "buffer" and isinstance(param.type, TensorType) and param.type.dtype:
                values.append(self.as_tensor(value, param.type.dtype, param.type.ndim))
            else:
                values.append(self.out.to_slot(value).item())
        kinds = dict(type_leaves(call.type))
        results: dict[tuple[int, ...], HostValue] = {}
        for leaf in interface.destinations:
            tensor = self.allocate((var, leaf.path), kinds[leaf.path])
            results[leaf.path] = tensor
            values.append(tensor)
        slot = self.out.new_slot() if interface.owned else None
        if slot is not None:
            values.append(slot.item())
        self.out.call_native(name, host, values, name)
        if slot is None:
            return _assemble(call.type, results, ())
        for number, leaf in enumerate(interface.owned):
            part = slot if len(interface.owned) == 1 else self.out.field(slot, number, name)
            results[leaf.path] = self.open(part, kinds[leaf.path], f"the result of {name}")
        return _assemble(call.type, results, ())

    def _writable(self, name: str, value: HostValue) -> HostValue:
        """A value that may be written: a constant is copied."""
        if isinstance(value, TensorValue) and value.constant and value.shape is not None:
            copy = TensorValue(
                self.out.workspace(name, value.dtype, value.shape), value.dtype, value.shape
            )
            self.out.copy(copy, value)
            return copy
        return value

    def _call_prim_func(self, name: str, func: PrimFunc, call: rx.Call) -> HostValue:
        values: list[TensorValue | Expr] = []
        for param, arg in zip(func.params, call.args, strict=True):
            declared = func.buffer_map.get(param)
            value = self.value(arg)
            if declared is None:
                values.append(self.as_scalar(value, param.dtype))
            else:
                values.append(self.as_tensor(value, declared.dtype, declared.ndim))
        self.out.call_native(name, func, values, name)
        return TupleValue(())


def _assemble(
    kind: Type, results: Mapping[tuple[int, ...], HostValue], path: tuple[int, ...]
) -> HostValue:
    if isinstance(kind, TupleType):
        return TupleValue(
            tuple(_assemble(k, results, (*path, i)) for i, k in enumerate(kind.items))
        )
    return results[path]


def _target_leaves(
    target: Target, path: tuple[int, ...] = ()
) -> list[tuple[tuple[int, ...], Target]]:
    if isinstance(target, tuple):
        return [leaf for i, part in enumerate(target) for leaf in _target_leaves(part, (*path, i))]
    return [(path, target)]


def _extern_name(call: rx.Call) -> str:
    callee = call.args[0]
    if isinstance(callee, rx.ExternFunc | rx.GlobalFunc):
        return callee.name
    if isinstance(callee, rx.StringValue):
        return callee.value
    raise UnsupportedError("a packed function that is not known by name", span=call.span)
