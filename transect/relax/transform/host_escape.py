"""Which tensors of a graph function packed functions may see, and which parameters are written.

A packed function may keep what it is given, so such a tensor must be an object of its own. The
analysis follows each value to its roots: the parameters and the bindings that make new values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from transect.ir.function import IRModule
from transect.ir.types import TupleType, Type
from transect.relax import expr as rx
from transect.relax.call import (
    AssertOp,
    CallDPSPacked,
    CallInplacePacked,
    CallPurePacked,
    CallTIR,
    CallTIRInplace,
    NullValue,
    ShapeOf,
    ShapeToTensor,
    TensorToShape,
    call_inputs,
)
from transect.relax.tail_calls import tail_loop
from transect.relax.visit import direct_bindings

Root = tuple[rx.Var, tuple[int, ...]]
"""A variable that a new value is bound to (or a parameter), and the item of it if it is a tuple."""

Tree = frozenset[Root] | tuple["Tree", ...]
"""The roots that a value may be, item by item for a tuple."""

_HARMLESS = (CallTIR, NullValue, ShapeOf, TensorToShape, ShapeToTensor, AssertOp)

NOTHING: frozenset[Root] = frozenset()


def is_view(call: rx.Call) -> bool:
    """Whether the call, not legalized, gives its first operand's memory under another shape."""
    return isinstance(call.op, rx.Op) and call.op.is_view


def fresh(var: rx.Var, kind: Type, path: tuple[int, ...] = ()) -> Tree:
    """The roots of a new value of type `kind` bound to `var`."""
    if isinstance(kind, TupleType):
        return tuple(fresh(var, item, (*path, i)) for i, item in enumerate(kind.items))
    return frozenset({(var, path)})


def all_roots(tree: Tree) -> frozenset[Root]:
    """The roots of a value and of everything in it."""
    if isinstance(tree, frozenset):
        return tree
    return NOTHING.union(*map(all_roots, tree))


def flatten_roots(tree: Tree, path: tuple[int, ...] = ()) -> dict[tuple[int, ...], frozenset[Root]]:
    """The roots of each part that is not a tuple, by its path."""
    if isinstance(tree, frozenset):
        return {path: tree}
    return {
        key: roots
        for i, item in enumerate(tree)
        for key, roots in flatten_roots(item, (*path, i)).items()
    }


class Escapes:
    """What escapes from one function.

    seen, written: for each function of the module the parameters that are known to escape there,
    or to be written. escaping: the roots that escape. params: the parameters. result: the roots
    of the result. roots: of every variable.
    """

    def __init__(
        self,
        function: rx.Function,
        name: str,
        seen: Mapping[str, frozenset[int]],
        written: Mapping[str, frozenset[int]],
    ) -> None:
        self.roots: dict[rx.Var, Tree] = {}
        self.escaping: set[Root] = set()
        self.written: set[Root] = set()
        self._seen = seen
        self._written = written
        self.params = set(function.params)
        for param in function.params:
            self.roots[param] = fresh(param, param.type)
        self.result = self._seq(function.body)
        self.escaping_params = self._numbers(function.params, self.escaping)
        self.loop = tail_loop(function, name)
        # What a loop carries is copied first.
        carried = self.loop.carried if self.loop is not None else frozenset[int]()
        self.written_params = self._numbers(function.params, self.written) - carried

    def _numbers(self, params: Iterable[rx.Var], roots: set[Root]) -> frozenset[int]:
        held = {var for var, _ in roots}
        return frozenset(i for i, param in enumerate(params) if param in held)

    def of(self, value: rx.Value) -> Tree:
        """The roots of an operand."""
        if isinstance(value, rx.Var):
            return self.roots.get(value, NOTHING)
        if isinstance(value, rx.Tuple):
            return tuple(self.of(item) for item in value.items)
        if isinstance(value, rx.TupleGetItem):
            tree = self.of(value.tuple_value)
            # An item of an object is part of the object.
            return tree if isinstance(tree, frozenset) else tree[value.index]
        return NOTHING

    def _seq(self, seq: rx.SeqExpr) -> Tree:
        for binding in direct_bindings(seq):
            if isinstance(binding, rx.MatchCast):
                self.roots[binding.var] = self._cast(self.of(binding.value), binding.type)
            else:
                self.roots[binding.var] = self._value(binding.var, binding.value)
        return self.of(seq.body)

    def _cast(self, tree: Tree, kind: Type) -> Tree:
        if isinstance(kind, TupleType) and isinstance(tree, frozenset):
            return tuple(self._cast(tree, item) for item in kind.items)
        return tree

    def _value(self, var: rx.Var, value: rx.Value) -> Tree:
        if isinstance(value, rx.Call):
            return self._call(var, value)
        if isinstance(value, rx.If):
            for branch in (value.then_branch, value.else_branch):
                self._seq(branch)
            return fresh(var, value.type)
        return self.of(value)

    def _call(self, var: rx.Var, call: rx.Call) -> Tree:
        if is_view(call):
            return self.of(call.args[0])
        new = fresh(var, call.type)
        if isinstance(call.op, CallTIRInplace | CallInplacePacked):
            return self._inplace(call, call.op.inplace_indices, new)
        if isinstance(call.op, rx.GlobalFunc):
            self._mark_call(call.op.name, call.args)
        elif isinstance(call.op, CallDPSPacked):
            self._see(call_inputs(call))
            self.escaping |= all_roots(new)
        elif isinstance(call.op, CallPurePacked):
            self._see(call.args[1:])
        elif not isinstance(call.op, _HARMLESS) and not _is_memory(call):
            self._see(call.args, written=True)
        return new

    def _inplace(self, call: rx.Call, indices: tuple[int, ...], new: Tree) -> Tree:
        if isinstance(call.op, CallTIRInplace):
            inputs = call_inputs(call)
        else:
            inputs = call.args[1:]
            self._see(inputs)
            self.escaping |= all_roots(new)
        parts = new if isinstance(new, tuple) else (new,)
        outputs = [
            self.of(inputs[index]) if index >= 0 else part
            for index, part in zip(indices, parts, strict=True)
        ]
        for index in indices:
            if index >= 0:
                self.written |= all_roots(self.of(inputs[index]))
        return tuple(outputs) if isinstance(new, tuple) else outputs[0]

    def _mark_call(self, name: str, args: Iterable[rx.Value]) -> None:
        for number, arg in enumerate(args):
            if number in self._seen.get(name, ()):
                self.escaping |= all_roots(self.of(arg))
            if number in self._written.get(name, ()):
                self.written |= all_roots(self.of(arg))

    def _see(self, args: Iterable[rx.Value], *, written: bool = False) -> None:
        for arg in args:
            roots = all_roots(self.of(arg))
            self.escaping |= roots
            if written:
                self.written |= roots


def module_escapes(module: IRModule) -> dict[str, Escapes]:
    """What escapes from each graph function of a module, calls between them taken into account."""
    functions = {n: f for n, f in module.functions.items() if isinstance(f, rx.Function)}
    # What escapes in a callee escapes in its callers: repeat until nothing is added.
    seen: dict[str, frozenset[int]] = dict.fromkeys(functions, frozenset())
    written: dict[str, frozenset[int]] = dict.fromkeys(functions, frozenset())
    while True:
        found = {name: Escapes(f, name, seen, written) for name, f in functions.items()}
        now_seen = {name: escapes.escaping_params for name, escapes in found.items()}
        now_written = {name: escapes.written_params for name, escapes in found.items()}
        if now_seen == seen and now_written == written:
            return found
        seen, written = now_seen, now_written


def _is_memory(call: rx.Call) -> bool:
    return isinstance(call.op, rx.Op) and call.op.name.startswith("memory.")
