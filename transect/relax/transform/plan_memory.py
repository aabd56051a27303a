"""PlanMemory: every intermediate tensor gets its place in an arena before the program runs.

How places are found is in `memory_layout`; what is allocated at run time in `lower_to_host`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from transect.arith import Analyzer
from transect.ir.expr import Expr, Var
from transect.ir.function import DIMS, IRModule
from transect.ir.node import replace
from transect.ir.types import TensorType, TupleType, Type
from transect.relax import call as special
from transect.relax import expr as rx
from transect.relax.op.memory import AllocStorage, AllocTensor
from transect.relax.shapes import plain_vars
from transect.relax.tail_calls import last_binding
from transect.relax.transform.host_escape import Escapes, Root, all_roots, module_escapes
from transect.relax.transform.host_interface import is_known
from transect.relax.transform.host_values import size_in_bytes
from transect.relax.transform.memory_inplace import may_write_over
from transect.relax.transform.memory_layout import Layout, Tenant, lay_out
from transect.relax.visit import Rewriter, operands
from transect.tir.function import PrimFunc
from transect.transform.base import Context, Pass

ArenaKey = tuple[int, int, str]
"""Where an arena is made: the number of a sequence (0: the body), how many match_casts of that
sequence come before (0 for the start of the body), and the memory scope."""


@dataclass(frozen=True)
class PlanMemory(Pass):
    """Give the results of call_tir that stay inside a function places in arenas.

    One arena per memory scope holds all tensors whose sizes the parameters determine, symbolic
    sizes included; tensors that need a variable of a match_cast get an arena made after it.
    Tensors share bytes where their lifetimes do not overlap and one provably fits the other's
    place. What a packed function may see, and what the function returns, is left alone.

        lv = R.call_tir(f, (x,), …)         storage = R.memory.alloc_storage(R.shape([4 * n]))
        gv = R.call_tir(g, (lv,), …)   ->   alloc = R.memory.alloc_tensor(storage, 0, (n,))
                                            lv = R.call_tir_inplace(f, (x, alloc), [1], …)
                                            gv = R.call_tir(g, (lv,), …)

    inplace: let an elementwise kernel write over an input that is not used again.
    """

    inplace: bool = True

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with allocations written out in its graph functions."""
        del context
        escapes = module_escapes(module)
        result = module
        for name, found in escapes.items():
            function = module[name]
            assert isinstance(function, rx.Function)
            lifetimes = _Lifetimes(function, found, module, inplace=self.inplace)
            if not lifetimes.tenants:
                continue
            result = result.with_function(name, _plan(function, lifetimes))
        return result


@dataclass
class _Lifetimes:
    """When each tensor that can be placed is made and last used.

    Time is the number of a binding in program order, branches one after the other: what is used
    in one branch only may share memory with what is used in the other only.
    """

    function: rx.Function
    escapes: Escapes
    module: IRModule
    inplace: bool
    tenants: dict[Root, Tenant] = field(default_factory=dict[Root, Tenant])
    arenas: dict[Root, ArenaKey] = field(default_factory=dict[Root, ArenaKey])
    numbers: dict[rx.SeqExpr, int] = field(default_factory=dict[rx.SeqExpr, int])

    def __post_init__(self) -> None:
        self._time = 0
        self._last: dict[Root, int] = {}
        self._returned: set[Root] = set()
        self._early = set(plain_vars(param.type for param in self.function.params))
        self._sequence(self.function.body, set(self._early))
        for root in [root for root in self.tenants if root in self._returned]:
            del self.tenants[root], self.arenas[root]
        for root, tenant in self.tenants.items():
            tenant.last = max(tenant.first, self._last.get(root, tenant.first))
        if self.inplace:
            self._reuse_inputs()

    def _sequence(self, seq: rx.SeqExpr, bound: set[Var]) -> None:
        number = self.numbers.setdefault(seq, len(self.numbers))
        casts = 0
        for block in seq.blocks:
            for binding in block.bindings:
                self._time += 1
                if isinstance(binding, rx.MatchCast):
                    bound |= set(plain_vars((binding.type,)))
                    casts += 1
                    self._use(binding.value)
                    continue
                value = binding.value
                for operand in operands(value):
                    self._use(operand)
                if isinstance(value, rx.If):
                    self._sequence(value.then_branch, set(bound))
                    self._sequence(value.else_branch, set(bound))
                elif isinstance(value, rx.Call):
                    self._made(binding.var, value, bound, (number, casts))
        self._time += 1
        self._use(seq.body)
        self._returned |= all_roots(self.escapes.of(seq.body))
        last = last_binding(seq)
        if self.escapes.loop is not None and last is not None:
            # What the next iteration gets is made where it looks for it.
            for value in self.escapes.loop.next_values(last.var):
                self._returned |= all_roots(self.escapes.of(value))

    def _use(self, value: rx.Value) -> None:
        for root in all_roots(self.escapes.of(value)):
            self._last[root] = self._time

    def _made(self, var: rx.Var, call: rx.Call, bound: set[Var], place: tuple[int, int]) -> None:
        for root, kind in fresh_outputs(var, call):
            if root in self.escapes.escaping or not is_known(kind, bound):
                # The outputs keep their order, so what follows cannot be an input either.
                break
            assert kind.shape is not None
            assert kind.dtype is not None
            scope = kind.device.scope if kind.device is not None else "global"
            early = is_known(kind, self._early)
            self.arenas[root] = (0, 0, scope) if early else (*place, scope)
            size = size_in_bytes(kind.shape, kind.dtype)
            self.tenants[root] = Tenant(size, self._time, self._time)

    def _reuse_inputs(self) -> None:
        """Let elementwise kernels take over the place of an input that dies with the call."""
        for binding in _calls(self.function.body):
            call = binding.value
            assert isinstance(call, rx.Call)
            if not isinstance(call.op, special.CallTIR) or isinstance(call.type, TupleType):
                continue
            output: Root = (binding.var, ())
            tenant = self.tenants.get(output)
            callee = call.args[0]
            func = self.module[callee.name] if isinstance(callee, rx.GlobalFunc) else None
            if tenant is None or not isinstance(func, PrimFunc):
                continue
            inputs = special.call_inputs(call)
            trees = [all_roots(self.escapes.of(item)) for item in inputs]
            for number, roots in enumerate(trees):
                if len(roots) != 1:
                    continue
                (root,) = roots
                other = self.tenants.get(root)
                alone = sum(root in tree for tree in trees) == 1
                if (
                    other is not None
                    and alone
                    and other.last == tenant.first
                    and other.successor is None
                    and self.arenas[root] == self.arenas[output]
                    and may_write_over(func, number, len(inputs))
                ):
                    other.successor, tenant.predecessor = tenant, other
                    break


def fresh_outputs(var: rx.Var, call: rx.Call) -> Iterator[tuple[Root, TensorType]]:
    """The new tensors that a call of a tensor program makes, in the order of its parameters."""
    if not isinstance(call.op, special.CallTIR | special.CallTIRInplace):
        return
    kind: Type = call.type_args[0]
    kinds = kind.items if isinstance(kind, TupleType) else (kind,)
    inplace = isinstance(call.op, special.CallTIRInplace)
    indices = call.op.inplace_indices if isinstance(call.op, special.CallTIRInplace) else ()
    for number, item in enumerate(kinds):
        if (not inplace or indices[number] < 0) and isinstance(item, TensorType):
            yield (var, (number,) if isinstance(kind, TupleType) else ()), item


def _calls(seq: rx.SeqExpr) -> Iterator[rx.VarBinding]:
    """The bindings of calls in a sequence and its branches, in order."""
    for block in seq.blocks:
        for binding in block.bindings:
            if not isinstance(binding, rx.VarBinding):
                continue
            if isinstance(binding.value, rx.Call):
                yield binding
            elif isinstance(binding.value, rx.If):
                yield from _calls(binding.value.then_branch)
                yield from _calls(binding.value.else_branch)


def _plan(function: rx.Function, lifetimes: _Lifetimes) -> rx.Function:
    analyzer = Analyzer()
    # The bounds that the entry checks: other functions have dimensions of the same names.
    bounds = function.attrs.get(DIMS, {})
    for var in plain_vars(param.type for param in function.params):
        low, _ = bounds.get(var.name, (0, 0))
        analyzer.bind(var, (max(0, low), None))
    groups: dict[ArenaKey, list[Root]] = {}
    for root, key in lifetimes.arenas.items():
        groups.setdefault(key, []).append(root)
    layouts = {
        key: lay_out([lifetimes.tenants[root] for root in roots], analyzer)
        for key, roots in groups.items()
    }
    offsets = {
        root: offset
        for key, roots in groups.items()
        for root, offset in zip(roots, layouts[key].offsets, strict=True)
    }
    return _Rewrite(lifetimes, layouts, offsets).run(function)


class _Rewrite(Rewriter):
    """Writes the allocations out."""

    def __init__(
        self, lifetimes: _Lifetimes, layouts: dict[ArenaKey, Layout], offsets: dict[Root, Expr]
    ) -> None:
        super().__init__()
        self.lifetimes = lifetimes
        self.layouts = layouts
        self.offsets = offsets
        self.arenas: dict[ArenaKey, rx.Var] = {}

    def rewrite_block(self, block: rx.BindingBlock) -> None:
        """The arenas of the body are made before everything else: ahead of a dataflow block, or
        at the start of another one, as two blocks of that kind in a row are one."""
        if block.dataflow:
            self._make_early_arenas()
        super().rewrite_block(block)

    def _make_early_arenas(self) -> None:
        for key in self.layouts:
            if key[:2] == (0, 0) and key not in self.arenas:
                self._make_arena(key)

    def _make_arena(self, key: ArenaKey) -> None:
        size = rx.shape_expr(self.layouts[key].size)
        call = AllocStorage(key[2])(size)
        self.arenas[key] = self.out.bind(call, "storage", output=True)

    def rewrite_binding(self, binding: rx.Binding) -> None:
        """A call whose outputs have places writes into tensors made there."""
        self._make_early_arenas()
        value = binding.value
        if not isinstance(binding, rx.VarBinding) or not isinstance(value, rx.Call):
            super().rewrite_binding(binding)
            return
        placed: list[rx.Value] = []
        for root, kind in fresh_outputs(binding.var, value):
            if root not in self.offsets:
                break
            placed.append(self._tensor(root, kind, binding))
        if not placed:
            super().rewrite_binding(binding)
            return
        rewritten = self.rewrite(value)
        assert isinstance(rewritten, rx.Call)
        self.bind(binding, _into(rewritten, placed))

    def _tensor(self, root: Root, kind: TensorType, binding: rx.Binding) -> rx.Var:
        key = self.lifetimes.arenas[root]
        if key not in self.arenas:
            self._make_arena(key)
        assert kind.shape is not None
        assert kind.dtype is not None
        offset = rx.prim_value(self.offsets[root])
        call = AllocTensor(kind.dtype)(self.arenas[key], offset, rx.shape_expr(*kind.shape))
        return self.emit(call, "alloc", binding.span)


def _into(call: rx.Call, placed: list[rx.Value]) -> rx.Call:
    """The call with its first new outputs written over `placed`, which become inputs."""
    inputs = special.call_inputs(call)
    kind = call.type_args[0]
    count = len(kind.items) if isinstance(kind, TupleType) else 1
    old = call.op.inplace_indices if isinstance(call.op, special.CallTIRInplace) else (-1,) * count
    indices: list[int] = []
    for index in old:
        if index >= 0 or not placed:
            indices.append(index)
        else:
            indices.append(len(inputs))
            inputs = (*inputs, placed.pop(0))
    op = special.CallTIRInplace(tuple(indices))
    args = (call.args[0], rx.make_tuple(*inputs), *call.args[2:])
    return replace(call, op=op, args=args)
