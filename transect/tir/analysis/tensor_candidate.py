"""Which tensor intrinsics could do a contraction, once its operands are laid out as they want.

Variables are matched by the operands that they index, as `contraction` tells rows, columns and
sums apart. Whether the description fits in every detail is for `tensor_match` to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transect.ir.expr import Add, Cast, Expr, FloorDiv, FloorMod, Mul, Var, as_int
from transect.ir.traverse import free_vars, substitute
from transect.tir.affine import difference
from transect.tir.analysis.contraction import Contraction
from transect.tir.buffer import BufferLoad
from transect.tir.stmt import BufferStore, IterVar, SeqStmt
from transect.tir.tensor_intrin import TensorIntrin


@dataclass(frozen=True)
class Tiling:
    """How the operand that holds the columns lies: tiles of lanes x group elements.

    Of axis `columns` of the operand and of axis `reduce`, if the instruction sums over any, the
    number of the tile becomes the first and the last of the other dimensions; the dimensions
    within a tile come last, those of `order`: "columns", "reduce".

        W[k, n]   ->   W[n // 16, k // 4, n % 16, k % 4]      # lanes 16, group 4
    """

    columns: int
    lanes: int
    reduce: int | None
    group: int
    order: tuple[str, ...]


@dataclass(frozen=True)
class TensorCandidate:
    """An intrinsic, and the variables of a contraction that its own become.

    column: runs over its lanes; row, reduce: over its rows and its sum, None if it has none.
    lanes, rows, group: how many values of each it takes. columns, rows_operand: the operand that
    depends on the column, and the other. order: of the dimensions of the former's tiles.
    """

    intrin: TensorIntrin
    contraction: Contraction
    column: IterVar
    row: IterVar | None
    reduce: IterVar | None
    lanes: int
    rows: int
    group: int
    columns: BufferLoad
    rows_operand: BufferLoad
    order: tuple[str, ...]

    @property
    def products(self) -> int:
        """How many multiply-adds one of it does."""
        return self.lanes * self.rows * self.group

    def tiling(self) -> Tiling | None:
        """How the operand of the columns would have to be laid out, if it is not yet."""
        places = [_axes_of(self.columns, item) for item in (self.column, self.reduce) if item]
        if any(len(axes) != 1 for axes in places):
            return None
        column = places[0][0]
        if self.columns.indices[column] is not self.column.var:
            return None
        reduce = None
        if self.reduce is not None:
            reduce = places[1][0]
            if self.columns.indices[reduce] is not self.reduce.var or reduce == column:
                return None
        return Tiling(column, self.lanes, reduce, self.group, self.order)

    def is_tiled(self) -> bool:
        """Whether the operand of the columns is laid out as `tiling` says already."""
        inner: dict[str, tuple[IterVar | None, int]] = {
            "columns": (self.column, self.lanes),
            "reduce": (self.reduce, self.group),
        }
        last = self.columns.indices[len(self.columns.indices) - len(self.order) :]
        sizes = self.columns.buffer.shape[len(self.columns.indices) - len(self.order) :]
        for name, index, size in zip(self.order, last, sizes, strict=True):
            item, extent = inner[name]
            if item is None or as_int(size) != extent:
                return False
            whole = as_int(item.dom.extent)
            plain = index is item.var and whole == extent
            if not plain and not (isinstance(index, FloorMod) and index is item.var % extent):
                return False
        outer = self.columns.indices[: len(self.columns.indices) - len(self.order)]
        for name in self.order:
            item, extent = inner[name]
            assert item is not None
            using = [index for index in outer if item.var in free_vars((index,))]
            if any(
                not (isinstance(i, FloorDiv) and i is item.var // extent) for i in using
            ) or len(using) > 1:  # fmt: skip
                return False
        return not self.columns.buffer.strides


def candidates(
    found: Contraction, intrinsics: Iterable[TensorIntrin]
) -> tuple[TensorCandidate, ...]:
    """The intrinsics that could do the contraction."""
    made = (_candidate(found, intrin) for intrin in intrinsics)
    return tuple(item for item in made if item is not None)


def _candidate(found: Contraction, intrin: TensorIntrin) -> TensorCandidate | None:
    parts = _product(intrin)
    if parts is None:
        return None
    store, one, other = parts
    output = found.output.buffer
    last = found.output.indices[-1] if found.output.indices else None
    if store.buffer.dtype is not output.dtype or not store.indices:
        return None
    lane = store.indices[-1]
    if not isinstance(lane, Var):
        return None
    # The instruction's lanes are neighbours in the result.
    columns, rows = (one, other) if lane in free_vars(one.indices) else (other, one)
    if lane in free_vars(rows.indices):
        return None
    spatial = (*found.rows, *found.columns)
    column = next((item for item in spatial if item.var is last), None)
    if column is None:
        return None
    mine, theirs, across = found.right, found.left, found.rows
    if column in found.rows:
        mine, theirs, across = found.left, found.right, found.columns
    ours, wanted = ([x.buffer.dtype for x in pair] for pair in ((mine, theirs), (columns, rows)))
    if ours != wanted:
        return None
    sizes = {item.var: as_int(item.dom.extent) or 0 for item in intrin.block.iter_vars}
    vector = _variables(columns)
    row_vars = [v for v in _variables(rows) if v in free_vars(store.indices)]
    sums = [v for v in _variables(rows) if v not in row_vars]
    if len(row_vars) > 1 or len(sums) > 1 or set(vector) - {lane, *sums}:
        return None
    if set(sizes) - {lane, *row_vars, *sums} or set(sums) - set(vector):
        return None
    row = _last(found, across)
    if row_vars and row is None:
        return None
    reduce = None
    if sums:
        reduce = next((item for item in found.reduce if _side_by_side(theirs, item.var)), None)
        if reduce is None:
            return None
    order = tuple("columns" if v is lane else "reduce" for v in vector)
    return TensorCandidate(
        intrin,
        found,
        column,
        row,
        reduce,
        sizes[lane],
        sizes[row_vars[0]] if row_vars else 1,
        sizes[sums[0]] if sums else 1,
        mine,
        theirs,
        order,
    )


def _product(intrin: TensorIntrin) -> tuple[BufferStore, BufferLoad, BufferLoad] | None:
    """C[…] = C[…] + A[…] * B[…] of a description whose indices are variables or constants."""
    body = intrin.block.body
    while isinstance(body, SeqStmt) and len(body.stmts) == 1:
        body = body.stmts[0]
    if not isinstance(body, BufferStore) or not isinstance(body.value, Add):
        return None
    accumulator = BufferLoad(body.buffer, body.indices)
    a, b = body.value.a, body.value.b
    product = b if a is accumulator else a if b is accumulator else None
    if not isinstance(product, Mul):
        return None
    loads = [_load(product.a), _load(product.b)]
    if loads[0] is None or loads[1] is None:
        return None
    return body, loads[0], loads[1]


def _load(value: Expr) -> BufferLoad | None:
    while isinstance(value, Cast):
        value = value.value
    plain = isinstance(value, BufferLoad) and all(
        isinstance(index, Var) or as_int(index) == 0 for index in value.indices
    )
    return value if plain and isinstance(value, BufferLoad) else None


def _variables(load: BufferLoad) -> list[Var]:
    return [index for index in load.indices if isinstance(index, Var)]


def _last(found: Contraction, items: tuple[IterVar, ...]) -> IterVar | None:
    """The one of `items` that comes last in the result."""
    order = [index for index in found.output.indices if isinstance(index, Var)]
    placed = [item for item in items if item.var in order]
    return max(placed, key=lambda item: order.index(item.var), default=None)


def _axes_of(load: BufferLoad, item: IterVar) -> list[int]:
    return [n for n, index in enumerate(load.indices) if item.var in free_vars((index,))]


def _side_by_side(load: BufferLoad, var: Var) -> bool:
    """Whether neighbouring values of `var` read neighbouring elements."""
    if not load.indices or _axes_count(load, var) != 1 or load.buffer.strides:
        return False
    last = load.indices[-1]
    return difference(substitute(last, {var: var + 1}), last) == 1


def _axes_count(load: BufferLoad, var: Var) -> int:
    return sum(var in free_vars((index,)) for index in load.indices)
