"""OpenBLAS, from the wheel scipy-openblas32: matrix products through its C interface.

Compiled code calls it by pointer, on our threads: the library starts none of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transect.arith import Analyzer
from transect.ir.dtype import FLOAT32, FLOAT64, HANDLE, INT32, VOID
from transect.ir.expr import (
    Call,
    Cast,
    Expr,
    IntImm,
    Var,
    as_int,
    cast,
    const,
    equal,
    maximum,
    minimum,
)
from transect.ir.node import replace
from transect.ir.sizes import ceildiv, product
from transect.ir.traverse import walk
from transect.library.base import Library, Offer, Routine
from transect.plan import Cost
from transect.runtime import SharedLibrary
from transect.target import Target
from transect.tir.analysis import Contraction, sole_contraction
from transect.tir.buffer import Buffer, BufferLoad, buffer
from transect.tir.function import PrimFunc
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import (
    AssertStmt,
    Bind,
    BlockRealize,
    BufferStore,
    DeclBuffer,
    Evaluate,
    For,
    IfThenElse,
    IterVar,
    SeqStmt,
    Stmt,
    seq,
)

_PREFIX = "scipy_"
_SHARED = SharedLibrary(
    "scipy_openblas32",
    "lib/libscipy_openblas*",
    # No threads of its own: compiled code divides the work itself.
    (("scipy_openblas_set_num_threads", 1),),
)
_SYMBOLS = {FLOAT32: f"{_PREFIX}cblas_sgemm", FLOAT64: f"{_PREFIX}cblas_dgemm"}
_ROW_MAJOR, _PLAIN, _TRANSPOSED = 101, 111, 112  # the enumerations of cblas.h
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class OpenBLAS(Library):
    """The BLAS of the wheel scipy-openblas32, with 32-bit integers."""

    @property
    def name(self) -> str:
        return "openblas"

    @property
    def prefix(self) -> str:
        return _PREFIX

    @property
    def remedy(self) -> str:
        return "pip install scipy-openblas32"

    def find(self) -> Path | None:
        """The shared object inside the wheel, without importing the package."""
        return _SHARED.find()

    def shared(self) -> SharedLibrary:
        return _SHARED

    def prepare(self, path: Path) -> None:
        del path
        _SHARED.open()

    def routines(self) -> tuple[Routine, ...]:
        return (Gemm(),)


@dataclass(frozen=True)
class Gemm(Routine):
    """?gemm: C = A @ B of float32 or float64, either operand transposed, batched by a loop.

    Several neighbouring rows, columns or reduced dimensions count as one where memory allows.
    Operands and result must be compact and of one dtype. Source: BLAS level 3.
    """

    @property
    def name(self) -> str:
        return "openblas.gemm"

    def offer(self, func: PrimFunc, target: Target) -> Offer | None:
        """The product as calls, if `func` is one product and nothing else."""
        found = sole_contraction(func)
        match = _match(found) if found is not None and _runs_over_all(func, found) else None
        if match is None:
            return None
        return Offer(self.name, match.cost(), replace(func, body=match.body(target.cores)))


# A product of fewer multiply-adds is over before other threads are awake.
_WORTH_THREADS = 1 << 18
# Parts start at multiples of this many rows or columns, which whole register tiles cover.
_GRAIN = 16


@dataclass(frozen=True)
class _Product:
    """C[batch, m, n] = A'[batch, m, k] @ B'[batch, k, n], all compact."""

    left: Buffer
    right: Buffer
    output: Buffer
    batch: tuple[IterVar, ...]
    m: Expr
    n: Expr
    k: Expr
    left_transposed: bool
    right_transposed: bool

    def cost(self) -> Cost:
        """What was measured of it: about 0.85 of peak once packing is paid for; each operand is
        read, packed and read again."""
        size = self.output.dtype.bytes
        count = _extent(self.batch)
        moved = (self.m * self.k + self.k * self.n) * 3 + self.m * self.n
        return Cost(
            operations={self.output.dtype: self.m * self.n * self.k * count * 2},
            traffic={"memory": moved * count * size},
            launches=1,
            calls=cast(count, FLOAT64) * 1e-7,
            efficiency=0.85,
        )

    def body(self, threads: int) -> Stmt:
        """Checks of what 32-bit integers can hold, then the calls.

        The library itself runs on one thread: parts of the larger of m and n, or of the batch,
        are iterations of a parallel loop of ours, so that there is one pool of threads.
        """
        checks = [
            AssertStmt(extent <= _LARGEST, ("openblas.gemm: a dimension of ", extent, " elements"))
            for extent in (self.m, self.n, self.k)
            if not (isinstance(extent, IntImm) and extent.value <= _LARGEST)
        ]
        flat = (_flat(self.left), _flat(self.right), _flat(self.output))
        views = [DeclBuffer(value) for value in flat]
        count = _extent(self.batch)
        if self.batch:
            one, other = Var("b"), Var("b")
            single = For(one, IntImm(0), count, "serial", self._call(flat, one))
            apart: Stmt = For(other, IntImm(0), count, "parallel", self._call(flat, other))
        else:
            single = self._call(flat, IntImm(0))
            apart = _either(
                self.m >= self.n,
                self._in_parts(flat, threads, rows=True),
                self._in_parts(flat, threads, rows=False),
            )
        worth = self.m * self.n * self.k * count >= _WORTH_THREADS
        return seq(*checks, *views, _either(worth, apart, single) if threads > 1 else single)

    def _in_parts(self, flat: _Flat, threads: int, *, rows: bool) -> Stmt:
        """The product in `threads` parts of its rows or columns, at the same time."""
        whole = self.m if rows else self.n
        part = ceildiv(ceildiv(whole, threads), _GRAIN) * _GRAIN
        index, start, length = Var("t"), Var("start"), Var("length")
        call = self._call(
            flat, IntImm(0), **{"row" if rows else "column": start, "m" if rows else "n": length}
        )
        return For(
            index,
            IntImm(0),
            IntImm(threads),
            "parallel",
            SeqStmt(
                (
                    Bind(start, index * part),
                    Bind(length, minimum(part, whole - start)),
                    IfThenElse(length > 0, call),
                )
            ),
        )

    def _call(
        self,
        flat: _Flat,
        batch: Expr,
        *,
        row: Expr = IntImm(0),  # noqa: B008 (a constant term)
        column: Expr = IntImm(0),  # noqa: B008
        m: Expr | None = None,
        n: Expr | None = None,
    ) -> Stmt:
        """The call for a box of the result: rows from `row`, columns from `column`."""
        dtype = self.output.dtype
        left, right, output = flat
        # A leading dimension is at least 1 even where the matrix is empty.
        lda = self.m if self.left_transposed else self.k
        ldb = self.k if self.right_transposed else self.n
        starts = (
            batch * (self.m * self.k) + (row if self.left_transposed else row * lda),
            batch * (self.k * self.n) + (column * ldb if self.right_transposed else column),
            batch * (self.m * self.n) + row * self.n + column,
        )
        call = INTRINSICS["call_extern"](
            _SYMBOLS[dtype],
            const(_ROW_MAJOR, INT32),
            const(_TRANSPOSED if self.left_transposed else _PLAIN, INT32),
            const(_TRANSPOSED if self.right_transposed else _PLAIN, INT32),
            cast(self.m if m is None else m, INT32),
            cast(self.n if n is None else n, INT32),
            cast(self.k, INT32),
            const(1.0, dtype),
            _pointer(left, starts[0]),
            cast(maximum(lda, 1), INT32),
            _pointer(right, starts[1]),
            cast(maximum(ldb, 1), INT32),
            const(0.0, dtype),
            _pointer(output, starts[2]),
            cast(maximum(self.n, 1), INT32),
            dtype=VOID,
        )
        return Evaluate(call)


_Flat = tuple[Buffer, Buffer, Buffer]
"""The operands and the result as one-dimensional buffers over the same memory."""


def _flat(value: Buffer) -> Buffer:
    return buffer(f"{value.name}_flat", (product(value.shape),), value.dtype, data=value.data)


def _pointer(flat: Buffer, start: Expr) -> Expr:
    if isinstance(start, IntImm) and start.value == 0:
        return flat.data
    return Call(INTRINSICS["address_of"], (BufferLoad(flat, (start,)),), HANDLE)


def _either(condition: Expr, yes: Stmt, no: Stmt) -> Stmt:
    if isinstance(condition, IntImm):
        return yes if condition.value else no
    return IfThenElse(condition, yes, no)


def _runs_over_all(func: PrimFunc, found: Contraction) -> bool:
    """Whether `func` is nothing but loops around the contraction, one over each iteration
    variable's whole domain."""
    stmt = func.body.block.body if isinstance(func.body, BlockRealize) else func.body
    site = found.site
    for loop in site.loops:
        if stmt is not loop or loop.kind != "serial":
            return False
        stmt = loop.body
    if stmt is not site.realize or as_int(site.realize.predicate) != 1:
        return False
    loops = {loop.var: loop for loop in site.loops}
    for item, value in zip(site.block.iter_vars, site.realize.iter_values, strict=True):
        loop = loops.pop(value, None) if isinstance(value, Var) else None
        if loop is None or loop.min is not item.dom.min or loop.extent is not item.dom.extent:
            return False
    return not loops


def _covers(buffer: Buffer, access: BufferLoad | BufferStore, extents: Mapping[Var, Expr]) -> bool:
    """Whether an access by plain variables visits every element, so that rows follow on rows."""
    pairs = zip(buffer.shape, access.indices, strict=True)
    return all(
        isinstance(index, Var) and Analyzer().can_prove(equal(dim, extents[index]))
        for dim, index in pairs
    )


def _match(found: Contraction) -> _Product | None:
    """The product that a contraction is, or None if its memory is laid out otherwise."""
    if any(isinstance(item, Cast) for item in walk(found.output.value)):
        return None  # Rounding on the way.
    buffers = (found.left.buffer, found.right.buffer, found.output.buffer)
    dtype = found.output.buffer.dtype
    if not found.is_plain or dtype not in _SYMBOLS or any(b.dtype is not dtype for b in buffers):
        return None
    if any(b.strides or b.elem_offset is not IntImm(0) for b in buffers):
        return None
    batch, rows, columns, summed = (
        [item.var for item in group]
        for group in (found.batch, found.rows, found.columns, found.reduce)
    )
    order = [index for index in found.output.indices if isinstance(index, Var)]
    batch, rows, columns = (sorted(group, key=order.index) for group in (batch, rows, columns))
    if order != [*batch, *rows, *columns]:
        return None
    left, right = list(found.left.indices), list(found.right.indices)
    # The reduced dimensions must come in one order in both operands.
    summed.sort(key=lambda var: left.index(var) if var in left else -1)
    left_transposed = left != [*batch, *rows, *summed]
    right_transposed = right != [*batch, *summed, *columns]
    if left_transposed and left != [*batch, *summed, *rows]:
        return None
    if right_transposed and right != [*batch, *columns, *summed]:
        return None
    by_var = {item.var: item for item in found.site.block.iter_vars}
    items = tuple(tuple(by_var[var] for var in group) for group in (batch, rows, columns, summed))
    if any(item.dom.min is not IntImm(0) for group in items for item in group):
        return None
    extents = {item.var: item.dom.extent for group in items for item in group}
    accesses = (found.left, found.right, found.output)
    if not all(_covers(access.buffer, access, extents) for access in accesses):
        return None
    m, n, k = (_extent(group) for group in items[1:])
    left_buffer, right_buffer, output = buffers
    return _Product(
        left_buffer, right_buffer, output, items[0], m, n, k, left_transposed, right_transposed
    )


def _extent(items: Sequence[IterVar]) -> Expr:
    return product(item.dom.extent for item in items)
