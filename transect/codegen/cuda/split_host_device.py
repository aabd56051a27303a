"""SplitHostDevice: loops bound to threads become kernels, and the host function launches them."""

from __future__ import annotations

from dataclasses import dataclass

from transect.codegen.cuda.local_memory import shrink_local_buffers
from transect.codegen.cuda.sync import insert_barriers
from transect.ir.dtype import VOID
from transect.ir.expr import Expr, StringImm, Var, as_expr, as_int, const, equal, logical_and
from transect.ir.function import BaseFunc, IRModule
from transect.ir.node import replace
from transect.ir.traverse import free_vars, substitute
from transect.support.errors import UnsupportedError
from transect.tir.function import PrimFunc
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import (
    Allocate,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    Stmt,
)
from transect.tir.visit import (
    StmtRewriter,
    TermT,
    bound_vars,
    own_terms,
    substitute_stmt,
    used_buffers,
    walk_stmts,
)
from transect.transform import Context, Pass

LAUNCH = "transect_cuda_launch"
"""The packed function that host functions call: (kernel, arguments…, grid x y z, block x y z)."""

GRID = ("blockIdx.x", "blockIdx.y", "blockIdx.z")
BLOCK = ("threadIdx.x", "threadIdx.y", "threadIdx.z")
KERNEL = "cuda.kernel"
"""The attribute of device functions."""


@dataclass(frozen=True)
class Kernel:
    """A device function and how it is launched.

    name: of the function. func: its parameters are pointers and scalars; its body is a nest of
    loops over the thread axes it uses. grid, block: extents along x, y, z in terms of the host's
    variables. args: the host's variables that the parameters take.
    """

    name: str
    func: PrimFunc
    grid: tuple[Expr, Expr, Expr]
    block: tuple[Expr, Expr, Expr]
    args: tuple[Var, ...]

    @property
    def threads(self) -> int | None:
        """Threads of a block, if that is a constant."""
        sizes = [as_int(extent) for extent in self.block]
        known = [size for size in sizes if size is not None]
        return known[0] * known[1] * known[2] if len(known) == 3 else None


@dataclass(frozen=True)
class SplitHostDevice(Pass):
    """Move every outermost loop that is bound to a thread axis to a device function.

    Requires flat functions without blocks (the lowering passes up to FlattenBuffer). Leaves device
    functions, with the attribute "cuda.kernel", named after their host function, and in their
    place calls of the packed function `LAUNCH`.
    """

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with host and device functions."""
        result = module
        for name, func in module.functions.items():
            if isinstance(func, PrimFunc) and not func.attrs.get(KERNEL):
                host, kernels = split(name, func)
                result = result.with_function(name, host)
                for kernel in kernels:
                    result = result.with_function(kernel.name, kernel.func)
        return result


def split(name: str, func: PrimFunc) -> tuple[BaseFunc, tuple[Kernel, ...]]:
    """The host part of a function and its kernels, in order."""
    splitter = _Split(name)
    body = splitter.visit(func.body)
    return replace(func, body=body), tuple(splitter.kernels)


class _Split(StmtRewriter):
    def __init__(self, name: str) -> None:
        self.name = name
        self.kernels: list[Kernel] = []

    def visit_allocate(self, stmt: Allocate) -> Stmt:
        raise UnsupportedError(
            f"{stmt.var.name!r} is allocated outside of kernels",
            span=stmt.span,
            remedy="make it a parameter, or move its producer under the loops of its consumer",
        )

    def visit_for(self, stmt: For) -> Stmt:
        if stmt.kind != "thread_binding":
            return super().visit_for(stmt)
        kernel = make_kernel(f"{self.name}_kernel{len(self.kernels)}", stmt)
        self.kernels.append(kernel)
        launch = INTRINSICS["call_packed"](
            LAUNCH, kernel.name, *kernel.args, *kernel.grid, *kernel.block, dtype=VOID
        )
        assert launch.args[0] is StringImm(LAUNCH)
        return Evaluate(launch, span=stmt.span)


def make_kernel(name: str, stmt: For) -> Kernel:
    """The kernel that runs a statement whose loops over threads it holds."""
    extents = _launch_extents(stmt)
    axes = {axis: Var(axis.replace(".", "_"), extent.dtype) for axis, extent in extents.items()}
    unify = _Unify(axes, extents)
    body = unify.visit(insert_barriers(stmt))
    body = shrink_local_buffers(body, {axes[a]: extents[a] for a in BLOCK if a in axes})
    args = _captured(body, set(axes.values()))
    for axis in reversed([axis for axis in (*GRID, *BLOCK) if axis in axes]):
        zero = const(0, extents[axis].dtype)
        body = For(axes[axis], zero, extents[axis], "thread_binding", body, thread=axis)
    args = [*args, *(v for v in free_vars(list(extents.values())) if v not in args)]
    # The kernel's own variables: nothing is shared with the host but values.
    fresh = {var: Var(var.name, var.dtype, var.pointer) for var in args}
    func = PrimFunc(
        tuple(fresh.values()),
        {},
        substitute_stmt(body, dict(fresh)),
        {KERNEL: True, "global_symbol": name},
    )
    one = as_expr(1)
    grid = tuple(extents.get(axis, one) for axis in GRID)
    block = tuple(extents.get(axis, one) for axis in BLOCK)
    return Kernel(name, func, grid, block, tuple(args))  # pyright: ignore[reportArgumentType]


def _launch_extents(stmt: Stmt) -> dict[str, Expr]:
    """The extent of each thread axis: the largest of the loops bound to it."""
    found: dict[str, Expr] = {}
    inside = {var for item in walk_stmts(stmt) for var in bound_vars(item)}
    for item in walk_stmts(stmt):
        if not isinstance(item, For) or item.kind != "thread_binding":
            continue
        axis = item.thread or ""
        if axis not in (*GRID, *BLOCK):
            continue
        if set(free_vars([item.extent])) & inside:
            raise UnsupportedError(
                f"the extent {item.extent!r} of {axis} changes inside the kernel",
                span=item.span,
                remedy="bind loops whose extents depend only on sizes",
            )
        known = found.get(axis)
        if known is None or known is item.extent:
            found[axis] = item.extent
            continue
        a, b = as_int(known), as_int(item.extent)
        if a is None or b is None:
            raise UnsupportedError(
                f"{axis} has the extents {known!r} and {item.extent!r}",
                span=item.span,
                remedy="give all loops of one axis the same extent, or constant ones",
            )
        found[axis] = item.extent if b > a else known
    return found


class _Unify(StmtRewriter):
    """One variable for each axis; statements outside of some thread loops run on one thread."""

    def __init__(self, axes: dict[str, Var], extents: dict[str, Expr]) -> None:
        self.axes = axes
        self.extents = extents
        self.values: dict[Var, Expr] = {}
        self.active: list[str] = []

    def expr(self, value: TermT) -> TermT:
        return substitute(value, self.values)

    def visit_for(self, stmt: For) -> Stmt:
        if stmt.kind != "thread_binding":
            return super().visit_for(stmt)
        axis = stmt.thread or ""
        if axis not in self.axes:
            # A virtual thread: the same thread runs all of its iterations.
            return super().visit_for(replace(stmt, kind="unrolled", thread=None))
        if axis in self.active:
            raise UnsupportedError(
                f"a loop over {axis} inside another one",
                span=stmt.span,
                remedy="bind each axis once around a statement",
            )
        var = self.axes[axis].astype(stmt.var.dtype)
        low = substitute(stmt.min, self.values)
        self.values[stmt.var] = var if as_int(low) == 0 else var + low
        self.active.append(axis)
        body = self.visit(stmt.body)
        self.active.pop()
        if stmt.extent is self.extents[axis]:
            return body
        return IfThenElse(var < stmt.extent, body, span=stmt.span)

    def visit_store(self, stmt: BufferStore) -> Stmt:
        new = super().visit_store(stmt)
        missing = [axis for axis in self.axes if axis not in self.active]
        if stmt.buffer.scope == "local" or not missing:
            return new
        first = [equal(self.axes[axis], 0) for axis in missing]
        return IfThenElse(logical_and(*first), new, span=stmt.span)


def _captured(body: Stmt, axes: set[Var]) -> list[Var]:
    """The variables of the host that the kernel uses: pointers first, in order of appearance."""
    bound = {var for item in walk_stmts(body) for var in bound_vars(item)} | axes
    pointers: dict[Var, None] = {}
    scalars: dict[Var, None] = {}
    for buffer in used_buffers(body):
        if buffer.data not in bound:
            pointers[buffer.data] = None
    for item in walk_stmts(body):
        for var in free_vars(own_terms(item)):
            if var not in bound:
                (pointers if var.dtype.is_handle else scalars)[var] = None
    return [*pointers, *scalars]
