"""What several primitives share: rewriting accesses inside blocks, and demands on blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from transect.arith.iter_map import detect_iter_map
from transect.ir.expr import Expr, Range, Var, as_int, const, true
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, rewrite
from transect.tir.access import EXPLICIT_READ, EXPLICIT_WRITE, HIDDEN, block_regions
from transect.tir.buffer import Buffer, BufferRegion, buffer
from transect.tir.function import PrimFunc
from transect.tir.schedule.dependence import uses
from transect.tir.schedule.edit import refuse
from transect.tir.schedule.region import analyzer_for, is_transparent, predicate_is_bounds
from transect.tir.schedule.tree import Forward, Tree
from transect.tir.stmt import (
    Block,
    BlockRealize,
    BufferStore,
    For,
    IterVar,
    SeqStmt,
    Stmt,
)
from transect.tir.visit import StmtRewriter, TermT, child_stmts


class AccessRewriter(StmtRewriter):
    """Rewrites the terms inside statements and states anew what the blocks that change touch.

    buffers: stores that go elsewhere. function: applied to every term, as `ir.traverse.rewrite`
    does. simplify: applied to expressions that change. forward: what loops and blocks became.
    """

    def __init__(
        self,
        function: Callable[[Term], Term],
        buffers: Mapping[Buffer, Buffer] | None = None,
        simplify: Callable[[Expr], Expr] | None = None,
    ) -> None:
        self.function = function
        self.buffers = dict(buffers or {})
        self.simplify = simplify
        self.memo: dict[Term, Term] = {}
        self.forward: Forward = {}

    def expr(self, value: TermT) -> TermT:
        made = rewrite(value, self.function, self.memo)
        if made is value or self.simplify is None or not isinstance(made, Expr):
            return made
        return self.simplify(made)  # pyright: ignore[reportReturnType]

    def buffer(self, value: Buffer) -> Buffer:
        return self.buffers.get(value, value)

    def bound_buffer(self, buffer: Buffer) -> Buffer:
        return buffer

    def visit(self, stmt: Stmt) -> Stmt:
        made = super().visit(stmt)
        if made is not stmt and isinstance(stmt, For | Block):
            self.forward[stmt] = made
        return made

    def visit_block(self, stmt: Block) -> Stmt:
        made = super().visit_block(stmt)
        assert isinstance(made, Block)
        declared = bool(stmt.reads or stmt.writes)
        return restated(made) if made is not stmt and declared else made


def restated(block: Block) -> Block:
    """`block` with its regions as its statements now have them, where those tell all.

    What it hides stays hidden; regions that were stated by hand are not kept.
    """
    if not is_transparent(block):
        return block
    hidden, stated = block.annotations.get(HIDDEN, ()), (EXPLICIT_READ, EXPLICIT_WRITE)
    reads, writes = (
        tuple(region for region in regions if region.buffer.name not in hidden)
        for regions in block_regions(*child_stmts(block))
    )
    kept = {key: value for key, value in block.annotations.items() if key not in stated}
    return replace(block, reads=reads, writes=writes, annotations=kept)


def require_bounds_predicate(primitive: str, tree: Tree, block: Block) -> None:
    """Refuse a block whose predicate leaves out part of its domain."""
    if not predicate_is_bounds(tree, block):
        refuse(
            primitive,
            f"its predicate {tree.realize(block).predicate!r} leaves out part of its domain",
            block,
            "state the smaller domain in its iteration variables",
        )


def covers_domain(tree: Tree, block: Block) -> bool:
    """Whether its loops surely run every instance of the block's domain, and its predicate leaves
    out none, while the statements around its scope stand still."""
    realize = tree.realize(block)
    loops = {loop.var: Range(loop.min, loop.extent) for loop in tree.loops(block)}
    analyzer = analyzer_for(tree, tree.scope(block), inclusive=True)
    predicate = None if realize.predicate is true() else realize.predicate
    found = detect_iter_map(
        realize.iter_values, loops, predicate, level="surjective", analyzer=analyzer
    )
    used = set(free_vars(realize.iter_values))
    idle = [loop for loop in tree.loops(block) if loop.var not in used]
    if not all(analyzer.can_prove(loop.extent >= 1) for loop in idle):
        return False
    return not block.iter_vars or (
        found.found
        and all(
            analyzer.can_prove_equal(part.base, item.dom.min)
            and analyzer.can_prove_equal(extent, item.dom.extent)
            for part, extent, item in zip(found.sums, found.extents, block.iter_vars, strict=True)
        )
    )


def require_whole_domain(primitive: str, tree: Tree, block: Block) -> None:
    """Refuse a block that is not known to run over all of its domain."""
    require_bounds_predicate(primitive, tree, block)
    if not covers_domain(tree, block):
        refuse(
            primitive,
            "its loops are not known to run over all of its domain",
            block,
            f"{primitive} before loop_partition and compute_at",
        )


def require_store(primitive: str, block: Block) -> BufferStore:
    """The one store that the body of `block` is. Refuses any other block."""
    body = block.body
    if isinstance(body, BufferStore) and block.init is None and not block.alloc_buffers:
        return body
    what = "has an init" if block.init is not None else "is more than one store"
    return refuse(primitive, f"it {what}", block, "only blocks of a single store can be inlined")


def require_spatial(primitive: str, block: Block) -> None:
    """Refuse a block with iteration variables of other kinds."""
    for iter_var in block.iter_vars:
        if iter_var.kind != "spatial":
            refuse(
                primitive,
                f"iteration variable {iter_var.var.name!r} is {iter_var.kind!r}",
                block,
                "only blocks with spatial iteration variables can be moved so",
            )


def plain_axes(block: Block, indices: Iterable[Expr]) -> dict[Var, int] | None:
    """Which index is which iteration variable, if each is another one or a constant."""
    own = {iter_var.var for iter_var in block.iter_vars}
    axes: dict[Var, int] = {}
    for axis, index in enumerate(indices):
        if isinstance(index, Var) and index in own and index not in axes:
            axes[index] = axis
        elif as_int(index) is None:
            return None
    return axes


def written_boxes(block: Block) -> list[BufferRegion]:
    """What the whole domain of a block writes, where each index is a variable or a constant."""
    domain = {iter_var.var: iter_var.dom for iter_var in block.iter_vars}
    boxes: list[BufferRegion] = []
    for region in block.writes:
        ranges = [
            domain[item.min] if isinstance(item.min, Var) and item.min in domain else item
            for item in region.ranges
        ]
        boxes.append(BufferRegion(region.buffer, tuple(ranges)))
    return boxes


def scoped_buffer(like: Buffer, scope: str, suffix: str = "") -> Buffer:
    """A new compact buffer of the shape and dtype of another, in a scope."""
    name = f"{like.name}_{suffix or scope.replace('.', '_')}"
    return buffer(name, like.shape, like.dtype, scope=scope)


def copy_nest(name: str, source: Buffer, target: Buffer, box: BufferRegion) -> tuple[Stmt, Block]:
    """Loops and a block that copy a box of one buffer to the same place of another."""
    iter_vars: list[IterVar] = []
    loops: list[tuple[Var, Expr]] = []
    values: list[Expr] = []
    for axis, item in enumerate(box.ranges):
        loop = Var(f"ax{axis}", item.extent.dtype)
        var = Var(f"v{axis}", item.extent.dtype)
        iter_vars.append(IterVar(var, item, "spatial"))
        loops.append((loop, item.extent))
        values.append(loop if as_int(item.min) == 0 else item.min + loop)
    indices = tuple(iter_var.var for iter_var in iter_vars)
    points = tuple(Range(v, const(1, v.dtype)) for v in indices)
    block = Block(
        name,
        tuple(iter_vars),
        (BufferRegion(source, points),),
        (BufferRegion(target, points),),
        BufferStore(target, source[indices], indices),
    )
    return nest(loops, BlockRealize(tuple(values), true(), block)), block


def nest(loops: Iterable[tuple[Var, Expr]], body: Stmt) -> Stmt:
    """Serial loops from 0, outermost first, around `body`."""
    for var, extent in reversed(list(loops)):
        body = For(var, const(0, extent.dtype), extent, "serial", body)
    return body


def with_allocation(scope: Block, *new: Buffer, without: Iterable[Buffer] = ()) -> Block:
    """`scope` with buffers allocated, and others no longer."""
    gone = set(without)
    kept = tuple(item for item in scope.alloc_buffers if item not in gone)
    return replace(scope, alloc_buffers=(*kept, *new))


def allocating_block(tree: Tree, found: Buffer) -> Block | None:
    """The block that allocates a buffer; None for a parameter of the function."""
    return next((b for b in tree.all_blocks() if found in b.alloc_buffers), None)


def later_writer(tree: Tree, after: Stmt, buffers: Iterable[Buffer], *but: Block) -> Block | None:
    """A block that comes after a statement and writes one of `buffers`."""
    wanted = list(buffers)
    for block in tree.all_blocks():
        late = tree.order[block] > tree.order[after] and block not in but
        if late and any(uses(block, item)[1] for item in wanted):
            return block
    return None


def body_items(stmt: Stmt) -> tuple[Stmt, ...]:
    """The items of a statement that may be a sequence."""
    return stmt.stmts if isinstance(stmt, SeqStmt) else (stmt,)


def with_body(func: PrimFunc, body: Stmt) -> PrimFunc:
    """`func` with another body at the block level."""
    assert isinstance(body, BlockRealize)
    return replace(func, body=body)
