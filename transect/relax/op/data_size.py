"""Operators behind those whose results have a size that depends on data: one kernel that counts,
one that fills what a shape of that size holds.

Graph code joins them: the count, `tensor_to_shape`, `match_cast` to a variable, and the second.
"""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.dtype import BOOL, FLOAT32, INT64
from transect.ir.expr import (
    EQ,
    Expr,
    IntImm,
    Var,
    cast,
    const,
    logical_and,
    logical_or,
    maximum,
    minimum,
    not_equal,
    select,
)
from transect.ir.types import TensorType, TupleType, Type, tensor_type
from transect.relax.op.heap import first_positions
from transect.relax.op.inference import (
    common_dtype,
    fail,
    normalize_axis,
    product,
    require_integer,
    require_rank,
    shape,
    simplify,
    tensor,
)
from transect.relax.op.loops import reduce, unflatten_index
from transect.relax.op.operator import Operator
from transect.relax.op.sort import comes_before
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder, repeat_while, serial, store, when
from transect.tir.stmt import Stmt, seq

_FIRST = (IntImm(0),)
_ONE = (IntImm(1),)


def is_set(value: Expr) -> Expr:
    """Whether an element is not zero."""
    return value if value.dtype.is_bool else not_equal(value, const(0, value.dtype))


@dataclass(frozen=True)
class CountNonzero(Operator):
    """count_nonzero(x): the number of elements that are not zero, as an int64 vector of one.

    Source: numpy.count_nonzero.
    """

    name = "count_nonzero"

    def infer(self, x: Type) -> TensorType:
        """(1,)."""
        return tensor_type(_ONE, INT64, device=tensor(self, x, "x").device)

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """One sum."""

        def element(*i: Expr) -> Expr:
            return select(is_set(x[i[1:]]), const(1, INT64), const(0, INT64))

        return reduce(b, _ONE, x.shape, element, "sum", "count")


@dataclass(frozen=True)
class NonzeroPositions(Operator):
    """nonzero_positions(x, count): the positions of the elements that are not zero, in row-major
    order: int64 (rank of x, count).

    count: a shape of one value, which count_nonzero gives. Source: ONNX NonZero-13.
    """

    name = "nonzero_positions"

    def infer(self, x: Type, count: Type) -> TensorType:
        """One column for each element that is found."""
        data, sizes = tensor(self, x, "x"), shape(self, count, "count")
        if data.ndim < 0 or sizes is None:
            return tensor_type(None, INT64, 2, data.device)
        return tensor_type((IntImm(data.ndim), *sizes), INT64, device=data.device)

    def legalize(self, b: FunctionBuilder, x: Buffer, count: tuple[Expr, ...]) -> Buffer:
        """One pass that appends."""
        target = b.allocate((IntImm(x.ndim), *count), INT64, name="y")
        found = b.allocate(_ONE, INT64, name="found")

        def start(i: Var) -> Stmt:
            return store(found, (i,), 0)

        def visit(*i: Var) -> Stmt:
            here = found[_FIRST]
            puts = [store(target, (axis, here), item) for axis, item in enumerate(i)]
            fits = logical_and(is_set(x[i]), here < count[0])
            return when(fits, seq(*puts, store(found, _FIRST, here + 1)))

        b.block(_ONE, start, name="start")
        b.block(x.shape, visit, kinds="N" * x.ndim, name="append")
        return target


@dataclass(frozen=True)
class UniqueGroups(Operator):
    """unique_groups(x, axis, sorted): which elements are equal.

    axis: compare slices along it; None for the elements of the flattened tensor. The groups of
    equal items are numbered in ascending order or (not sorted) of first appearance.
    Result, all int64: for each group the position of its first item (n,), for each item its group
    (n,), for each group its size (n,), and the number of groups (1,); the first and the third have
    as many meaningful elements as there are groups. Source: ONNX Unique-11.
    """

    name = "unique_groups"
    axis: int | None = None
    sorted: bool = True

    def infer(self, x: Type) -> TupleType:
        """Three vectors over the items, and the number of groups."""
        data = tensor(self, x, "x")
        if data.shape is None:
            items = tensor_type(None, INT64, 1, data.device)
        else:
            items = tensor_type((self._count(data.shape),), INT64, device=data.device)
        return TupleType((items, items, items, tensor_type(_ONE, INT64, device=data.device)))

    def _count(self, sizes: tuple[Expr, ...]) -> Expr:
        if self.axis is None:
            return simplify(product(sizes))
        return sizes[normalize_axis(self, self.axis, len(sizes))]

    def legalize(self, b: FunctionBuilder, x: Buffer) -> tuple[Buffer, ...]:
        """The order of items, then a pass over them."""
        count = self._count(x.shape)
        axis = 0 if self.axis is None else normalize_axis(self, self.axis, x.ndim)
        rest = () if self.axis is None else (*x.shape[:axis], *x.shape[axis + 1 :])

        def element(place: Expr, inner: tuple[Expr, ...]) -> Expr:
            if self.axis is None:
                return x[unflatten_index(place, x.shape)]
            return x[(*inner[:axis], place, *inner[axis:])]

        step = b.allocate(_ONE, INT64, name="step")
        width = simplify(product(rest))

        def decide(flag: Buffer, first: Expr, second: Expr, tie: Expr) -> Stmt:
            """flag = items at first and second are in order; `tie` if they are equal."""
            if not rest:
                a, c = element(first, ()), element(second, ())
                return store(flag, _FIRST, comes_before(a, c, tie, descending=False))
            inner = unflatten_index(step[_FIRST], rest)
            a, c = element(first, inner), element(second, inner)
            never = const(False, BOOL)
            less = comes_before(a, c, never, descending=False)
            more = comes_before(c, a, never, descending=False)
            compare = when(
                less,
                seq(store(flag, _FIRST, True), store(step, _FIRST, width)),
                when(
                    more,
                    seq(store(flag, _FIRST, False), store(step, _FIRST, width)),
                    store(step, _FIRST, step[_FIRST] + 1),
                ),
            )
            return seq(
                store(flag, _FIRST, tie),
                store(step, _FIRST, 0),
                repeat_while(step[_FIRST] < width, compare),
            )

        def in_order(flag: Buffer, row: tuple[Expr, ...], first: Expr, second: Expr) -> Stmt:
            del row
            return decide(flag, first, second, first < second)

        order = first_positions(b, (), count, count, in_order)
        heads, groups, sizes = (
            b.allocate((count,), INT64, name=name) for name in ("first", "inverse", "counts")
        )
        number = b.allocate(_ONE, INT64, name="number")
        flag = b.allocate(_ONE, BOOL, name="differs")

        def group() -> Stmt:
            now = number[_FIRST]

            def visit(t: Var) -> Stmt:
                place = order[t]
                differs = decide(flag, order[maximum(t - 1, 0)], place, const(False, BOOL))
                begin = seq(
                    store(number, _FIRST, now + 1),
                    store(heads, (now - 1,), place),
                    store(sizes, (now - 1,), 0),
                )
                return seq(
                    differs,
                    when(logical_or(EQ(t, IntImm(0)), flag[_FIRST]), begin),
                    store(sizes, (now - 1,), sizes[now - 1] + 1),
                    store(groups, (place,), now - 1),
                )

            return seq(store(number, _FIRST, 0), serial(count, visit, name="t"))

        b.block((), group, name="group")
        if self.sorted:
            return heads, groups, sizes, number
        return (*_by_appearance(b, count, heads, groups, sizes), number)


def _by_appearance(
    b: FunctionBuilder, count: Expr, heads: Buffer, groups: Buffer, sizes: Buffer
) -> tuple[Buffer, Buffer, Buffer]:
    """The groups numbered in the order of their first items."""
    names = ("first_seen", "inverse_seen", "counts_seen", "rank")
    new_heads, new_groups, new_sizes, rank = (
        b.allocate((count,), INT64, name=name) for name in names
    )
    next_one = b.allocate(_ONE, INT64, name="next")

    def renumber() -> Stmt:
        now = next_one[_FIRST]

        def visit(i: Var) -> Stmt:
            group = groups[i]
            name = seq(
                store(rank, (group,), now),
                store(new_heads, (now,), i),
                store(new_sizes, (now,), sizes[group]),
                store(next_one, _FIRST, now + 1),
            )
            known = store(new_groups, (i,), rank[group])
            return seq(when(EQ(heads[group], i), name), known)

        return seq(store(next_one, _FIRST, 0), serial(count, visit, name="i"))

    b.block((), renumber, name="renumber")
    return new_heads, new_groups, new_sizes


# --- boxes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SelectBoxes(Operator):
    """select_boxes(boxes, scores, most, overlap, threshold, center): for each class of each item
    of the batch, the boxes kept by non-maximum suppression, the best first.

    boxes: (batch, n, 4) float: two opposite corners (y, x, y, x), or with `center` (x, y, width,
    height). scores: (batch, classes, n). most: int64, of one element: boxes kept of each class.
    overlap, threshold: float, of one element: boxes that overlap a kept one by more, intersection
    over union, are dropped, and boxes with no higher score than the threshold.
    Result, int64: the boxes (batch, classes, n), and how many there are (batch, classes).
    Source: ONNX NonMaxSuppression-11.
    """

    name = "select_boxes"
    center: bool = False

    def infer(
        self, boxes: Type, scores: Type, most: Type, overlap: Type, threshold: Type
    ) -> TupleType:
        """The numbers of boxes, and the numbers of numbers."""
        places, marks = tensor(self, boxes, "boxes"), tensor(self, scores, "scores")
        common_dtype(self, places, marks)
        require_rank(self, places, 3, "boxes")
        require_rank(self, marks, 3, "scores")
        require_integer(self, tensor(self, most, "most"), "most")
        tensor(self, overlap, "overlap")
        tensor(self, threshold, "threshold")
        found = TensorType(marks.shape, INT64, 3, marks.device)
        sizes = None if marks.shape is None else marks.shape[:2]
        return TupleType((found, TensorType(sizes, INT64, 2, marks.device)))

    def legalize(
        self,
        b: FunctionBuilder,
        boxes: Buffer,
        scores: Buffer,
        most: Buffer,
        overlap: Buffer,
        threshold: Buffer,
    ) -> tuple[Buffer, Buffer]:
        """The order of scores, then each box against those kept so far."""
        batch, classes, count = scores.shape
        limit, share, least = (
            item[(IntImm(0),) * item.ndim] for item in (most, overlap, threshold)
        )

        def decide(flag: Buffer, row: tuple[Expr, ...], first: Expr, second: Expr) -> Stmt:
            a, c = scores[(*row, first)], scores[(*row, second)]
            return store(flag, _FIRST, comes_before(a, c, first < second, descending=True))

        order = first_positions(b, (batch, classes), count, count, decide)
        kept = b.allocate((batch, classes, count), INT64, name="boxes_kept")
        number = b.allocate((batch, classes), INT64, name="number_kept")
        clear = b.allocate(_ONE, BOOL, name="clear")

        def corners(item: Expr, box: Expr) -> tuple[Expr, Expr, Expr, Expr]:
            a, c, d, e = (boxes[item, box, IntImm(k)] for k in range(4))
            if self.center:
                half = const(0.5, a.dtype)
                return a - d * half, a + d * half, c - e * half, c + e * half
            return minimum(a, d), maximum(a, d), minimum(c, e), maximum(c, e)

        def covers(item: Expr, one: Expr, other: Expr) -> Expr:
            low, high, left, right = corners(item, one)
            low_2, high_2, left_2, right_2 = corners(item, other)
            height = minimum(high, high_2) - maximum(low, low_2)
            width = minimum(right, right_2) - maximum(left, left_2)
            zero = const(0, height.dtype)
            shared = maximum(height, zero) * maximum(width, zero)
            area, area_2 = (high - low) * (right - left), (high_2 - low_2) * (right_2 - left_2)
            whole = area + area_2 - shared
            exists = logical_and(shared > zero, area > zero, area_2 > zero, whole > zero)
            return logical_and(exists, cast(shared / whole, FLOAT32) > share)

        def visit_class(item: Var, group: Var) -> Stmt:
            row = (item, group)
            now = number[row]

            def visit(t: Var) -> Stmt:
                box = order[(*row, t)]

                def against(k: Var) -> Stmt:
                    return when(covers(item, box, kept[(*row, k)]), store(clear, _FIRST, False))

                keep = seq(store(kept, (*row, now), box), store(number, row, now + 1))
                test = seq(
                    store(clear, _FIRST, True),
                    serial(now, against, name="k"),
                    when(clear[_FIRST], keep),
                )
                good = scores[(*row, box)] > cast(least, scores.dtype)
                return when(logical_and(good, now < cast(limit, INT64)), test)

            return seq(store(number, row, 0), serial(count, visit, name="t"))

        b.block((batch, classes), visit_class, name="suppress")
        return kept, number


@dataclass(frozen=True)
class ListBoxes(Operator):
    """list_boxes(kept, number, count): the boxes that select_boxes kept, one row (item of the
    batch, class, box) for each: int64 (count, 3).

    count: a shape of one value, the sum of `number`. Source: ONNX NonMaxSuppression-11.
    """

    name = "list_boxes"

    def infer(self, kept: Type, number: Type, count: Type) -> TensorType:
        """Three columns."""
        data = tensor(self, kept, "kept")
        require_rank(self, data, 3, "kept")
        require_rank(self, tensor(self, number, "number"), 2, "number")
        sizes = shape(self, count, "count")
        if sizes is None:
            fail(self, "the count is not known")
        return tensor_type((*sizes, IntImm(3)), INT64, device=data.device)

    def legalize(
        self, b: FunctionBuilder, kept: Buffer, number: Buffer, count: tuple[Expr, ...]
    ) -> Buffer:
        """One pass that appends."""
        target = b.allocate((*count, IntImm(3)), INT64, name="y")
        found = b.allocate(_ONE, INT64, name="found")

        def start(i: Var) -> Stmt:
            return store(found, (i,), 0)

        def visit(*i: Var) -> Stmt:
            item, group, _ = i
            here = found[_FIRST]
            row = seq(
                store(target, (here, 0), item),
                store(target, (here, 1), group),
                store(target, (here, 2), kept[i]),
                store(found, _FIRST, here + 1),
            )
            return when(logical_and(i[2] < number[item, group], here < count[0]), row)

        b.block(_ONE, start, name="start")
        b.block(kept.shape, visit, kinds="NNN", name="append")
        return target
