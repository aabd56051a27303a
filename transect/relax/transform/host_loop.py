"""A function that calls itself last, as a native loop: where its state lives, and how it advances.

State of fixed size is held in two places that change roles after every iteration, or in one where
the body changes it in place; scalars in cells; everything else as objects in slots. Nothing is
allocated in an iteration but what has another size each time. The body is lowered by `host_body`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

from transect.ir.dtype import BOOL, INT64, UINT8
from transect.ir.expr import Expr, IntImm, as_expr
from transect.ir.expr import Var as Symbol
from transect.ir.traverse import free_vars
from transect.ir.types import PrimType, TensorType
from transect.relax import expr as rx
from transect.relax.shapes import dimensions
from transect.relax.tail_calls import TailLoop, tail_results
from transect.relax.transform.host_body import BodyLowering, Target
from transect.relax.transform.host_escape import Tree, all_roots, flatten_roots
from transect.relax.transform.host_interface import Interface
from transect.relax.transform.host_values import (
    HostValue,
    ScalarValue,
    Slot,
    TensorValue,
    size_in_bytes,
)
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import While, seq

ALIGNMENT = 64
"""Of the two places of a state, in bytes: a cache line."""


def start_symbols(tail: TailLoop | None) -> dict[Symbol, Expr]:
    """For each symbolic variable that changes, the one that the function's parameters bind: its
    value in the first iteration."""
    varying = () if tail is None else sorted(tail.varying, key=lambda var: var.name)
    return {var: Symbol(f"{var.name}_start", var.dtype) for var in varying}


class NativeLoop:
    """The loop of one host function while its body is lowered by `body`.

    Each carried parameter has one kind of storage: cells hold scalars, kept the tensors that are
    changed in place, pairs the memory of tensors in two places (with the bytes between them),
    slots everything else.
    """

    def __init__(
        self, function: rx.Function, tail: TailLoop, interface: Interface, body: BodyLowering
    ) -> None:
        self.params = function.params
        self.tail = tail
        self.interface = interface
        self.body = body
        self.out = body.out
        self.results = [
            flatten_roots(body.escapes.of(value)) for value in tail_results(function, tail)
        ]
        self.cells: dict[int, Buffer] = {}
        self.kept: dict[int, TensorValue] = {}
        self.pairs: dict[int, tuple[Buffer, Expr]] = {}
        self.slots: dict[int, Slot] = {}
        self.next: dict[int, TensorValue] = {}
        self.going = self.out.cell(BOOL, "going")
        self.parity = self.out.cell(INT64, "parity")
        self.turn: Expr = as_expr(0)

    # --- before the loop --------------------------------------------------------------------

    def start(self, number: int, value: HostValue, target: Target) -> None:
        """Store the first value of carried parameter `number`."""
        kind = self.params[number].type
        if self.interface.kinds[number] == "scalar" and isinstance(kind, PrimType):
            cell = self.cells[number] = self.out.cell(kind.dtype, self.params[number].name)
            self.out.store(cell, self.body.as_scalar(value, kind.dtype))
        elif isinstance(value, TensorValue) and self._is_fixed(number):
            self._start_tensor(number, value, target)
        else:
            slot = self.slots[number] = self.out.new_slot()
            self.out.to_slot(value, slot)

    def _start_tensor(self, number: int, value: TensorValue, target: Target) -> None:
        name, shape = self.params[number].name, value.shape or ()
        if self._is_kept(number):
            place = self._result_place(number, target)
            if place is None:
                place = TensorValue(
                    self.out.workspace(name, value.dtype, shape), value.dtype, shape
                )
            self.kept[number] = place
        else:
            size = size_in_bytes(shape, value.dtype)
            apart = (size + (ALIGNMENT - 1)) // ALIGNMENT * ALIGNMENT
            both = (apart * 2,)
            memory = TensorValue(self.out.workspace(name, UINT8, both), UINT8, both)
            self.pairs[number] = (self.out.view(memory, name), apart)
            place = self._place(number, as_expr(0))
        self.out.copy(place, value)

    def _is_fixed(self, number: int) -> bool:
        """Whether a state is a tensor of one size in all iterations."""
        kind = self.params[number].type
        return (
            self.interface.kinds[number] == "buffer"
            and isinstance(kind, TensorType)
            and not self.tail.varying.intersection(free_vars(dimensions(kind)))
        )

    def _is_kept(self, number: int) -> bool:
        """Whether every iteration changes a state in place, or not at all."""
        own = frozenset({(self.params[number], ())})
        calls = self.tail.calls.values()
        return all(all_roots(self.body.escapes.of(call.args[number])) == own for call in calls)

    def _result_place(self, number: int, target: Target) -> TensorValue | None:
        """The destination of a state that is given back at every exit: it can live there."""
        own = frozenset({(self.params[number], ())})
        for leaf in self.interface.destinations:
            if all(result.get(leaf.path) == own for result in self.results):
                place = target
                for index in leaf.path:
                    place = place[index] if isinstance(place, tuple) else None
                return place if isinstance(place, TensorValue) else None
        return None

    def _place(self, number: int, turn: Expr) -> TensorValue:
        """One of the two places of a state."""
        kind = self.params[number].type
        assert isinstance(kind, TensorType)
        assert kind.dtype is not None
        view, apart = self.pairs[number]
        address = INTRINSICS["address_of"](BufferLoad(view, (turn * apart,)))
        data = self.out.pointer(self.params[number].name, address, kind.dtype)
        return TensorValue(data, kind.dtype, kind.shape)

    # --- iterations -------------------------------------------------------------------------

    @contextmanager
    def iterations(self) -> Generator[None]:
        """What is emitted inside runs until `leave`, each time with the state of that iteration."""
        out = self.out
        out.store(self.going, IntImm(1, BOOL))
        out.store(self.parity, as_expr(0))
        with out.loop_body() as statements:
            self._open()
            yield
        zero = (as_expr(0),)
        out.emit(While(BufferLoad(self.going, zero), seq(*statements), out.span))

    def _open(self) -> None:
        """Give the parameters and their symbolic variables the values of this iteration."""
        body, out = self.body, self.out
        zero = (as_expr(0),)
        for number, cell in self.cells.items():
            param = self.params[number]
            kind = param.type
            held = BufferLoad(cell, zero)
            if isinstance(kind, PrimType) and isinstance(kind.value, Symbol):
                body.define(kind.value, held)
                body.values[param] = ScalarValue(kind.value)
            else:
                body.values[param] = ScalarValue(out.bind(param.name, held))
        for number, place in self.kept.items():
            body.values[self.params[number]] = place
        if self.pairs:
            self.turn = out.bind("turn", BufferLoad(self.parity, zero))
        for number in self.pairs:
            body.values[self.params[number]] = self._place(number, self.turn)
            self.next[number] = self._place(number, as_expr(1) - self.turn)
        for number, slot in self.slots.items():
            param = self.params[number]
            body.values[param] = body.open(slot, param.type, param.name)

    def goals(self, var: rx.Var) -> Iterator[tuple[Tree, Target]]:
        """Where the values that a tail call passes on are best made."""
        call = self.tail.calls[var]
        for number, place in self.next.items():
            yield self.body.escapes.of(call.args[number]), place
        for number in self.slots:
            yield self.body.escapes.of(call.args[number]), self.out.new_slot()

    def again(self, var: rx.Var) -> None:
        """Make the state of the next iteration of what a tail call passes on."""
        out, body, call = self.out, self.body, self.tail.calls[var]
        for number, place in (self.next | self.kept).items():
            body.deliver(body.value(call.args[number]), place)
        self._move_objects(call)
        for number, cell in self.cells.items():
            out.store(cell, body.as_scalar(body.value(call.args[number]), cell.dtype))
        if self.pairs:
            out.store(self.parity, as_expr(1) - self.turn)

    def _move_objects(self, call: rx.Call) -> None:
        """Objects change hands by way of further slots, as one may be another's next value."""
        out = self.out
        moves: list[tuple[Slot, Slot]] = []
        for number, slot in self.slots.items():
            source = out.to_slot(self.body.value(call.args[number]))
            if source == slot:
                continue
            if source in self.slots.values():
                source = out.to_slot(self.body.value(call.args[number]), out.new_slot())
            moves.append((slot, source))
        for slot, source in moves:
            out.run("anylist_move", slot.items, slot.index, source.items, source.index)
        for source in dict.fromkeys(source for _, source in moves):
            if source.items is out.slots and source.index >= out.first_loop_slot:
                out.run("anylist_resetitem", source.items, source.index)

    def leave(self) -> None:
        """Let this iteration be the last."""
        self.out.store(self.going, IntImm(0, BOOL))
