"""Which elements of a buffer a piece of program touches, as boxes over the variables around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from transect.arith import Analyzer
from transect.ir.expr import (
    Add,
    Call,
    Cast,
    Expr,
    FloorDiv,
    FloorMod,
    IntImm,
    Intrinsic,
    Max,
    Min,
    Mul,
    Range,
    Select,
    Sub,
    Var,
    as_int,
    maximum,
    minimum,
    true,
)
from transect.ir.traverse import free_vars, substitute, walk
from transect.tir.access import block_regions
from transect.tir.buffer import BufferRegion
from transect.tir.decisions import decision_vars, fresh_variables
from transect.tir.function import PrimFunc
from transect.tir.schedule.tree import Tree
from transect.tir.stmt import Block, BlockRealize, For, Stmt
from transect.tir.visit import child_stmts, own_terms, walk_stmts

Interval = tuple[Expr, Expr]
"""The smallest and the largest value of an integer expression."""

Domain = Mapping[Var, Interval]


def loop_domain(loops: Iterable[For]) -> dict[Var, Interval]:
    """The values that the variables of these loops take."""
    return {loop.var: (loop.min, loop.min + loop.extent - 1) for loop in loops}


def interval(expr: Expr, domain: Domain, analyzer: Analyzer) -> Interval | None:
    """Bounds of `expr` while the variables of `domain` vary and all others stand still.

    None if nothing is known, as for an index that is loaded from memory.
    """
    if not any(isinstance(item, Var) and item in domain for item in walk(expr)):
        return (expr, expr)
    if isinstance(expr, Var):
        low, high = domain[expr]
        return (low, high)
    if isinstance(expr, Cast):
        inner = interval(expr.value, domain, analyzer)
        return None if inner is None else (Cast(expr.to, inner[0]), Cast(expr.to, inner[1]))
    if isinstance(expr, Select):
        return _hull(
            [
                interval(expr.true_value, domain, analyzer),
                interval(expr.false_value, domain, analyzer),
            ]
        )
    if isinstance(expr, Call):
        if isinstance(expr.op, Intrinsic) and expr.op.name == "if_then_else":
            return _hull(
                [interval(expr.args[1], domain, analyzer), interval(expr.args[2], domain, analyzer)]
            )
        return None
    if isinstance(expr, Add | Sub | Mul | FloorDiv | FloorMod | Min | Max):
        left, right = interval(expr.a, domain, analyzer), interval(expr.b, domain, analyzer)
        if left is None or right is None:
            return _modulo(right, analyzer) if isinstance(expr, FloorMod) else None
        return _combine(expr, left, right, analyzer)
    return None


def _combine(expr: Expr, left: Interval, right: Interval, analyzer: Analyzer) -> Interval | None:
    if isinstance(expr, Add):
        return (left[0] + right[0], left[1] + right[1])
    if isinstance(expr, Sub):
        return (left[0] - right[1], left[1] - right[0])
    if isinstance(expr, Min):
        return (minimum(left[0], right[0]), minimum(left[1], right[1]))
    if isinstance(expr, Max):
        return (maximum(left[0], right[0]), maximum(left[1], right[1]))
    if isinstance(expr, FloorMod):
        step = as_int(right[0])
        if right[0] is right[1] and step is not None and step > 0 and _same_quotient(left, step):
            return (left[0] % step, left[1] % step)
        return _modulo(right, analyzer)
    if isinstance(expr, Mul):
        if as_int(left[0]) is not None and left[0] is left[1]:
            left, right = right, left
        direction = sign(right[0], analyzer) if right[0] is right[1] else 0
        ends = (left[0] * right[0], left[1] * right[0])
        return None if direction == 0 else ends if direction > 0 else (ends[1], ends[0])
    if isinstance(expr, FloorDiv) and right[0] is right[1] and sign(right[0], analyzer) == 1:
        return (left[0] // right[0], left[1] // right[0])
    return None


def sign(expr: Expr, analyzer: Analyzer) -> int:
    """1 or -1 if `expr` surely is not of the other sign, 0 if unknown."""
    if analyzer.can_prove(expr >= 0):
        return 1
    return -1 if analyzer.can_prove(expr <= 0) else 0


def _same_quotient(ends: Interval, step: int) -> bool:
    low, high = as_int(ends[0]), as_int(ends[1])
    return low is not None and high is not None and low // step == high // step


def _modulo(divisor: Interval | None, analyzer: Analyzer) -> Interval | None:
    if divisor is None or sign(divisor[0], analyzer) != 1:
        return None
    return (IntImm(0, divisor[1].dtype), divisor[1] - 1)


def _hull(intervals: list[Interval | None]) -> Interval | None:
    found = [item for item in intervals if item is not None]
    if len(found) != len(intervals):
        return None
    low, high = found[0]
    for item in found[1:]:
        low = low if low is item[0] else minimum(low, item[0])
        high = high if high is item[1] else maximum(high, item[1])
    return (low, high)


def relax(region: BufferRegion, domain: Domain, analyzer: Analyzer) -> BufferRegion:
    """The box that holds `region` for all values of the variables in `domain`.

    A dimension of which nothing is known becomes the whole of it.
    """
    ranges: list[Range] = []
    for item, size in zip(region.ranges, region.buffer.shape, strict=True):
        low = interval(item.min, domain, analyzer)
        high = interval(item.min + item.extent - 1, domain, analyzer)
        if low is None or high is None:
            ranges.append(Range.of(size))
            continue
        start = analyzer.simplify(low[0])
        ranges.append(Range(start, analyzer.simplify(high[1] - low[0] + 1)))
    return BufferRegion(region.buffer, tuple(ranges))


def is_leaf(block: Block) -> bool:
    """Whether no other block is inside."""
    return not any(isinstance(s, Block) for s in walk_stmts(block) if s is not block)


def is_transparent(block: Block) -> bool:
    """Whether loads and stores alone say what the block touches: no pointers, no opaque calls."""
    for stmt in walk_stmts(block):
        for term in walk(*own_terms(stmt)):
            if isinstance(term, Call) and term.effect != "pure":
                return False
            if isinstance(term, Var) and term.dtype.is_handle:
                return False
    return not block.match_buffers


def regions_of(block: Block) -> tuple[tuple[BufferRegion, ...], tuple[BufferRegion, ...]]:
    """What one instance of `block` reads and writes, one box per buffer, in order of appearance.

    From its loads and stores where they tell all, else as declared. A reduction's own output
    counts as written only.
    """
    if not is_leaf(block) or not is_transparent(block):
        return block.reads, block.writes
    return block_regions(*child_stmts(block))


def instance_values(realize: BlockRealize) -> dict[Var, Expr]:
    """The iteration variables of a block with the values they take where it runs."""
    return {
        item.var: value
        for item, value in zip(realize.block.iter_vars, realize.iter_values, strict=True)
    }


def at_loops(region: BufferRegion, realize: BlockRealize) -> BufferRegion:
    """A region in terms of a block's iteration variables, in terms of the loops around it."""
    return substitute(region, instance_values(realize))


def analyzer_for(tree: Tree, stmt: Stmt, *, inclusive: bool = False) -> Analyzer:
    """What is known where `stmt` stands: the loops and iteration variables around it, that sizes
    are not negative and decisions positive."""
    analyzer = Analyzer()
    assume_sizes(analyzer, tree.func)
    around = [*([stmt] if inclusive else []), *tree.ancestors(stmt)]
    for item in reversed(around):
        if isinstance(item, For):
            analyzer.bind(item.var, Range(item.min, item.extent))
        elif isinstance(item, Block):
            for iter_var in item.iter_vars:
                analyzer.bind(iter_var.var, iter_var.dom)
    return analyzer


def assume_sizes(analyzer: Analyzer, func: PrimFunc) -> None:
    """Tell `analyzer` that the symbolic sizes of `func` are not negative and decisions positive."""
    blocks = [item for item in walk_stmts(func.body) if isinstance(item, Block)]
    buffers = [*func.buffers, *(value for block in blocks for value in block.alloc_buffers)]
    for var in free_vars([dim for value in buffers for dim in value.shape]):
        analyzer.bind(var, (0, int(var.dtype.max_value)))
    assume_positive(analyzer, decision_vars(func))


def assume_options(analyzer: Analyzer, func: PrimFunc, options: Iterable[object]) -> None:
    """Tell `analyzer` that the decision variables among a primitive's options are positive."""
    assume_positive(analyzer, fresh_variables(func, options))


def assume_positive(analyzer: Analyzer, variables: Iterable[Var]) -> None:
    """Tell `analyzer` that variables are positive."""
    for var in variables:
        analyzer.bind(var, (1, int(var.dtype.max_value)))


def predicate_is_bounds(tree: Tree, block: Block) -> bool:
    """Whether the block's predicate leaves out nothing but instances outside its domain."""
    realize = tree.realize(block)
    if realize.predicate is true():
        return True
    analyzer = analyzer_for(tree, realize)
    inside = true()
    for iter_var, value in zip(block.iter_vars, realize.iter_values, strict=True):
        inside = inside & (value < iter_var.dom.min + iter_var.dom.extent)
    with analyzer.constraint(inside):
        return analyzer.can_prove(realize.predicate)
