"""The first items of sequences under an order, as loops: a heap of positions.

It takes n log k steps for the first k of n, whatever the data. What the orders are, and the
operators, live in `sort.py` and `search.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transect.ir.dtype import BOOL, INT64
from transect.ir.expr import Expr, IntImm, Var, as_int, minimum, select
from transect.relax.op.inference import simplify
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder, repeat_while, serial, store, when
from transect.tir.stmt import Stmt, seq

Decide = Callable[[Buffer, tuple[Expr, ...], Expr, Expr], Stmt]
"""Stores in the first element of a bool buffer whether, in a row, item a comes before item b: one
of them always does."""

_HOLE, _NEXT, _GOING, _KEPT = ((IntImm(number),) for number in range(4))
"""Elements of the state: where the item that moves is, where it may go, whether it may have to move
on, and the item that it is swapped with."""


def first_positions(
    b: FunctionBuilder, rows: Sequence[Expr], size: Expr, count: Expr, decide: Decide
) -> Buffer:
    """The positions of the first `count` of the `size` items of each row, in order: int64
    (rows..., count), of which as many are meaningful as there are items.

    While items come, the heap holds the first ones of those so far, the last of them on top.
    """
    filled = simplify(minimum(count, size))
    heap = b.allocate((*rows, count), INT64, name="heap")
    if as_int(filled) == 0:
        return heap
    state = b.allocate((4,), INT64, name="state")
    flag = b.allocate((1,), BOOL, name="flag")
    yes = flag[(IntImm(0),)]

    def sort_row(*row: Var) -> Stmt:
        def at(place: Expr) -> tuple[Expr, ...]:
            return (*row, place)

        def precedes(a: Expr, c: Expr) -> Stmt:
            return decide(flag, row, a, c)

        def move_to(place: Expr) -> Stmt:
            """Swap the item that moves with that at `place`, which must not read the hole."""
            hole = state[_HOLE]
            return seq(
                store(state, _KEPT, heap[at(place)]),
                store(heap, at(place), heap[at(hole)]),
                store(heap, at(hole), state[_KEPT]),
                store(state, _HOLE, place),
            )

        def rise(start: Expr) -> Stmt:
            parent = (state[_HOLE] - 1) // 2
            step = seq(
                precedes(heap[at(parent)], heap[at(state[_HOLE])]),
                when(
                    yes,
                    seq(
                        store(state, _NEXT, parent),
                        move_to(state[_NEXT]),
                        store(state, _GOING, select(state[_HOLE] > 0, IntImm(1), IntImm(0))),
                    ),
                    store(state, _GOING, 0),
                ),
            )
            return seq(
                store(state, _HOLE, start),
                store(state, _GOING, select(start > 0, IntImm(1), IntImm(0))),
                repeat_while(state[_GOING] > 0, step),
            )

        def sink(length: Expr) -> Stmt:
            child = state[_NEXT]
            descend = seq(
                when(
                    child + 1 < length,
                    seq(
                        precedes(heap[at(child)], heap[at(child + 1)]),
                        when(yes, store(state, _NEXT, child + 1)),
                    ),
                ),
                precedes(heap[at(state[_HOLE])], heap[at(child)]),
                when(
                    yes,
                    seq(move_to(child), store(state, _GOING, 1)),
                    store(state, _GOING, 0),
                ),
            )
            step = seq(
                store(state, _NEXT, state[_HOLE] * 2 + 1),
                when(child < length, descend, store(state, _GOING, 0)),
            )
            return seq(
                store(state, _HOLE, 0),
                store(state, _GOING, 1),
                repeat_while(state[_GOING] > 0, step),
            )

        def begin(item: Var) -> Stmt:
            return seq(store(heap, at(item), item), rise(item))

        def go_on(number: Var) -> Stmt:
            item = number + filled
            better = seq(store(heap, at(IntImm(0)), item), sink(filled))
            return seq(precedes(item, heap[at(IntImm(0))]), when(yes, better))

        def put_last(done: Var) -> Stmt:
            last = filled - 1 - done
            return seq(store(state, _HOLE, 0), move_to(last), sink(last))

        order = seq(
            serial(filled, begin, name="item"),
            serial(size - filled, go_on, name="number"),
            serial(filled, put_last, name="done"),
        )
        return when(filled > 0, order)

    b.block(tuple(rows), sort_row, name="order")
    return heap
