"""LowerToHost: graph functions become host functions, compiled like any tensor program.

The rules, binding by binding, are in `host_body`; the calling convention in `host_interface`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transect.ir.dtype import HANDLE
from transect.ir.expr import Expr, Pointer, Var
from transect.ir.function import DIMS, IRModule
from transect.ir.node import replace
from transect.ir.traverse import free_vars
from transect.ir.types import PrimType, TensorType, TupleType, Type
from transect.relax import expr as rx
from transect.relax.shapes import plain_vars, substitute_type
from transect.relax.transform.host_body import BodyLowering, Target
from transect.relax.transform.host_emit import HostEmitter
from transect.relax.transform.host_escape import module_escapes
from transect.relax.transform.host_interface import Interface, interfaces, signature
from transect.relax.transform.host_loop import NativeLoop, start_symbols
from transect.relax.transform.host_values import (
    HostValue,
    ObjectValue,
    ScalarValue,
    Slot,
    TensorValue,
)
from transect.support.errors import TransectError
from transect.tir.buffer import Buffer, buffer
from transect.tir.function import PrimFunc
from transect.tir.stmt import SeqStmt
from transect.tir.transform.make_packed_api import ARGUMENTS
from transect.transform.base import Context, Pass

SIGNATURE = "transect.signature"
"""The attribute that holds the JSON of the entry's `runtime.Signature`."""


@dataclass(frozen=True)
class LowerToHost(Pass):
    """Replace each graph function by a host PrimFunc of the same name.

    Requires: operators legalized; functions lifted. Leaves: no graph function; a host function
    takes its tensors as buffers (inputs, then destinations), scalars as scalars, everything else
    as a list with one slot, and calls kernels natively. Attributes: those of the graph function,
    `transect.signature`, `transect.arguments`.

        @R.function                           @T.prim_func
        def main(x: R.Tensor((n,))):          def main(x: T.Buffer((n,)), out: T.Buffer((n,))):
            lv = R.call_tir(f, (x,), …)   ->      lv = T.allocate([n], "float32")
            gv = R.call_tir(g, (lv,), …)          f(x.data, lv, n)
            return gv                             g(lv, out.data, n)
    """

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with host functions in place of graph functions."""
        del context
        escapes = module_escapes(module)
        if not escapes:
            return module
        hosts: dict[str, tuple[PrimFunc, Interface]] = {}
        for name, interface in interfaces(module, escapes).items():
            host = _Host(_graph(module, name), interface, start_symbols(escapes[name].loop))
            hosts[name] = (host.declaration(), interface)
        result = module
        for name, (declaration, interface) in hosts.items():
            body = BodyLowering(HostEmitter(), module, hosts, escapes[name])
            lowered = _lower(_graph(module, name), declaration, interface, body)
            result = result.with_function(name, lowered)
        return result


def _graph(module: IRModule, name: str) -> rx.Function:
    function = module[name]
    assert isinstance(function, rx.Function)
    return function


class _Host:
    """The parameters of a host function. starts: of a loop, see `start_symbols`."""

    def __init__(
        self, function: rx.Function, interface: Interface, starts: Mapping[Var, Expr]
    ) -> None:
        self.function = function
        self.interface = interface
        self.starts = starts
        self.params: list[Var] = []
        self.buffers: dict[Var, Buffer] = {}
        self.roles: list[str] = []
        # What buffer and scalar parameters bind; other parameters are opened in the body.
        self.bound: set[Var] = set(
            plain_vars(
                param.type
                for param, kind in zip(function.params, interface.kinds, strict=True)
                if kind != "any"
            )
        )

    def declaration(self) -> PrimFunc:
        """The function without a body."""
        for param, kind in zip(self.function.params, self.interface.kinds, strict=True):
            at_start = substitute_type(param.type, self.starts)
            if kind == "buffer":
                self._buffer(param.name, at_start)
            elif kind == "scalar":
                self._scalar(param.name, at_start)
            else:
                self._list(param.name, "any")
        count = len(self.interface.leaves)
        for number, leaf in enumerate(self.interface.leaves):
            if leaf.destination:
                self._buffer("out" if count == 1 else f"out{number}", leaf.type, fresh=True)
        if self.interface.owned:
            self._list("result", "result")
        attrs = {
            **self.function.attrs,
            SIGNATURE: signature(self.interface).to_json(),
            ARGUMENTS: tuple(self.roles),
        }
        empty = SeqStmt(())
        return PrimFunc(tuple(self.params), self.buffers, empty, attrs, self.function.span)

    def _buffer(self, name: str, kind: Type, *, fresh: bool = False) -> None:
        assert isinstance(kind, TensorType)
        assert kind.shape is not None
        assert kind.dtype is not None
        shape: tuple[Expr, ...] = kind.shape
        if fresh:
            # A dimension that only the body can work out is taken from the destination there.
            shape = tuple(
                dim
                if all(var in self.bound for var in free_vars((dim,)))
                else Var(f"{name}_{axis}")
                for axis, dim in enumerate(shape)
            )
        handle = Var(name, HANDLE, Pointer(kind.dtype))
        self.buffers[handle] = buffer(name, shape, kind.dtype, alignment=kind.dtype.bytes)
        self.params.append(handle)
        self.roles.append("buffer")

    def _scalar(self, name: str, kind: Type) -> None:
        assert isinstance(kind, PrimType)
        value = kind.value
        own = isinstance(value, Var) and value not in self.params
        self.params.append(value if own and isinstance(value, Var) else Var(name, kind.dtype))
        self.roles.append("scalar")

    def _list(self, name: str, role: str) -> None:
        self.params.append(Var(name, HANDLE))
        self.roles.append(role)


def _lower(
    function: rx.Function,
    declaration: PrimFunc,
    interface: Interface,
    body: BodyLowering,
) -> PrimFunc:
    emitter = body.out
    emitter.span = function.span
    starts = start_symbols(body.escapes.loop)
    emitter.bound = {
        var
        for param, kind in zip(function.params, interface.kinds, strict=True)
        for var in plain_vars((param.type,))
        if kind != "any" and var not in starts
    }
    emitter.check_bounds(function.attrs.get(DIMS, {}))
    params = iter(declaration.params)
    tail = body.escapes.loop
    carried = frozenset[int]() if tail is None else tail.carried
    opened: list[tuple[rx.Var, Slot]] = []
    first: dict[int, HostValue] = {}
    for number, (param, kind) in enumerate(zip(function.params, interface.kinds, strict=True)):
        handle = next(params)
        value: HostValue = ObjectValue(Slot(handle, 0))
        if kind == "buffer":
            value = _tensor(declaration.buffer_map[handle])
        elif kind == "scalar":
            value = ScalarValue(handle)
        if number in carried:
            first[number] = value
            continue
        body.values[param] = value
        if isinstance(value, ObjectValue):
            opened.append((param, value.slot))
        elif kind == "scalar" and isinstance(param.type, PrimType) and param.type.value is not None:
            emitter.check_equal(handle, param.type.value, param.name)
    for param, slot in opened:
        body.values[param] = body.open(slot, param.type, param.name)
    try:
        target = _target(interface, declaration, list(params), body)
        if tail is None:
            body.sequence(function.body, target, tail=True)
        else:
            loop = NativeLoop(function, tail, interface, body)
            for number, value in first.items():
                loop.start(number, value, target)
            body.loop = loop
            with loop.iterations():
                body.sequence(function.body, target, tail=True)
        emitter.span = function.span
        _return_owned(interface, declaration, target, emitter)
    except TransectError as error:
        raise error.at(function.span) from None
    return replace(declaration, body=emitter.finish())


def _tensor(declared: Buffer) -> TensorValue:
    return TensorValue(declared.data, declared.dtype, declared.shape)


def _target(
    interface: Interface, declaration: PrimFunc, params: list[Var], body: BodyLowering
) -> Target:
    """Where the result goes: destinations, and slots for owned values."""
    remaining = iter(params)
    parts: dict[tuple[int, ...], Target] = {}
    for leaf in interface.leaves:
        if leaf.destination:
            parts[leaf.path] = _tensor(declaration.buffer_map[next(remaining)])
        elif len(interface.owned) == 1:
            parts[leaf.path] = Slot(declaration.params[-1], 0)
        else:
            parts[leaf.path] = body.out.new_slot()
    return _build(interface.result, parts, ())


def _build(kind: Type, parts: dict[tuple[int, ...], Target], path: tuple[int, ...]) -> Target:
    if isinstance(kind, TupleType):
        return tuple(_build(item, parts, (*path, i)) for i, item in enumerate(kind.items))
    return parts[path]


def _return_owned(
    interface: Interface, declaration: PrimFunc, target: Target, emitter: HostEmitter
) -> None:
    if len(interface.owned) < 2:
        return
    slots = _slots(target)
    result = Slot(declaration.params[-1], 0)
    emitter.run("make_tuple", result.items, result.index, *(slot.item() for slot in slots))


def _slots(target: Target) -> list[Slot]:
    if isinstance(target, tuple):
        return [slot for part in target for slot in _slots(part)]
    return [target] if isinstance(target, Slot) else []
