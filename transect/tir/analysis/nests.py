"""The statements of a program with all that decides how often they run: loops and conditions.

Iteration variables of blocks are written as terms of the loops around them, inits stand where
lowering puts them, and loops that were fused are taken apart again, so that indices are linear.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from transect.arith import Analyzer
from transect.ir.condition import conjuncts
from transect.ir.expr import (
    Expr,
    FloorDiv,
    FloorMod,
    Range,
    Var,
    as_int,
    equal,
    logical_not,
)
from transect.ir.sizes import ceildiv
from transect.ir.term import Term
from transect.ir.traverse import free_vars, substitute, walk
from transect.tir.analysis.linear import divided_variables, multiply, same
from transect.tir.decisions import decision_vars
from transect.tir.function import PrimFunc
from transect.tir.stmt import (
    AttrStmt,
    Block,
    BlockRealize,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    SeqStmt,
    Stmt,
    While,
)
from transect.tir.visit import map_terms, own_terms

Role = Literal["store", "init"]


@dataclass(frozen=True)
class Level:
    """A loop: its variable counts from 0 to below `extent`.

    loop: as it stands in the program. given: how many of the nest's conditions are tested around
    it.
    """

    var: Var
    extent: Expr
    loop: For
    given: int

    @property
    def kind(self) -> str:
        return self.loop.kind


@dataclass(frozen=True)
class Nest:
    """A store (or a call) and what is around it.

    levels: the loops from the outermost, fused ones taken apart; written: as they stand.
    conditions: of loop variables, all of which must hold. values: of the blocks' iteration
    variables, in terms of loop variables. domains: their extents. block: the innermost block
    around. role: whether it is the block's init. exact: whether conditions and extents are all
    that decides how often it runs.
    """

    stmt: Stmt
    levels: tuple[Level, ...]
    written: tuple[Level, ...]
    conditions: tuple[Expr, ...]
    values: dict[Var, Expr]
    domains: dict[Var, Expr]
    block: Block | None
    role: Role = "store"
    exact: bool = True


def nests(func: PrimFunc) -> tuple[Nest, ...]:
    """The stores and calls of `func` in program order, inits as lowering will place them."""
    collector = _Collector()
    start = Nest(func.body, (), (), (), {}, {}, None)
    collector.visit(func.body, start)
    analyzer = Analyzer()
    for var in decision_vars(func):
        analyzer.bind(var, (1, None))
    found = [_without_quotients(nest, analyzer) for nest in collector.found]
    return tuple(_in_parts(nest, analyzer) for nest in found)


class _Collector:
    def __init__(self) -> None:
        self.found: list[Nest] = []

    def visit(self, stmt: Stmt, here: Nest) -> None:
        if isinstance(stmt, SeqStmt):
            for item in stmt.stmts:
                self.visit(item, here)
        elif isinstance(stmt, For):
            self.visit(stmt.body, _inside(stmt, here))
        elif isinstance(stmt, BlockRealize):
            self.realize(stmt, here)
        elif isinstance(stmt, IfThenElse):
            condition = substitute(stmt.condition, here.values)
            self.visit(stmt.then_case, _under(here, condition))
            if stmt.else_case is not None:
                self.visit(stmt.else_case, _under(here, logical_not(condition)))
        elif isinstance(stmt, AttrStmt):
            self.visit(stmt.body, here)
        elif isinstance(stmt, While):
            self.visit(stmt.body, replace(here, exact=False))
        elif isinstance(stmt, BufferStore | Evaluate):
            self.found.append(replace(here, stmt=stmt))

    def realize(self, stmt: BlockRealize, here: Nest) -> None:
        block = stmt.block
        own = {
            item.var: substitute(value, here.values)
            for item, value in zip(block.iter_vars, stmt.iter_values, strict=True)
        }
        domains = {item.var: substitute(item.dom.extent, here.values) for item in block.iter_vars}
        inside = replace(
            _under(here, substitute(stmt.predicate, here.values)),
            values={**here.values, **own},
            domains={**here.domains, **domains},
            block=block,
        )
        if block.init is not None:
            self.visit(block.init, _init(block, own, inside))
        self.visit(block.body, inside)


def _inside(stmt: For, here: Nest) -> Nest:
    low = substitute(stmt.min, here.values)
    extent = substitute(stmt.extent, here.values)
    level = Level(stmt.var, extent, stmt, len(here.conditions))
    values = here.values
    if as_int(low) != 0:
        values = {**values, stmt.var: low + stmt.var}
    around = {item.var for item in here.levels}
    varies = any(var in around for var in free_vars([low, extent]))
    return replace(
        here,
        levels=(*here.levels, level),
        values=values,
        exact=here.exact and not varies,
    )


def _under(here: Nest, condition: Expr) -> Nest:
    return replace(here, conditions=(*here.conditions, *conjuncts(condition)))


def _init(block: Block, own: dict[Var, Expr], here: Nest) -> Nest:
    """Where an init runs: once for each spatial instance, in the spatial loops alone if they are
    not those of the reduction."""
    spatial = {
        var
        for item in block.iter_vars
        if item.kind != "reduce"
        for var in free_vars([own[item.var]])
    }
    reduced = {
        var
        for item in block.iter_vars
        if item.kind == "reduce"
        for var in free_vars([own[item.var]])
    }
    loops = {item.var for item in here.levels}
    kept = tuple(c for c in here.conditions if not reduced & set(free_vars([c])))
    gone = [c for c in here.conditions if c not in kept]
    apart = not (spatial & reduced & loops) and not any(
        (loops - reduced) & set(free_vars([c])) for c in gone
    )
    if apart:
        levels = tuple(item for item in here.levels if item.var not in reduced)
        values = {var: v for var, v in here.values.items() if not reduced & set(free_vars([v]))}
        return replace(here, levels=levels, conditions=kept, values=values, role="init")
    starts = tuple(
        equal(own[item.var], item.dom.min) for item in block.iter_vars if item.kind == "reduce"
    )
    return replace(here, conditions=(*here.conditions, *starts), role="init", exact=False)


def _without_quotients(nest: Nest, analyzer: Analyzer) -> Nest:
    """The nest with loops that were fused as the loops they were made from."""
    nest = replace(nest, written=nest.levels)
    exact = nest.exact
    for _ in range(8):
        variables = [item.var for item in nest.levels]
        divided = divided_variables((*nest.values.values(), *nest.conditions), variables)
        if not divided:
            break
        for var, divisor in divided.items():
            nest = _taken_apart(nest, var, divisor, analyzer)
    else:
        exact = False
    return replace(nest, exact=exact and nest.exact)


def _in_parts(nest: Nest, analyzer: Analyzer) -> Nest:
    """The nest with quotients and remainders in its statement as the loops that they are.

    A column j = panel * width + lane of panels is j // width = panel, j % width = lane.
    """
    if not any(isinstance(item, FloorDiv | FloorMod) for item in walk(*own_terms(nest.stmt))):
        return nest
    for level in nest.levels:
        analyzer.bind(level.var, Range.of(level.extent))

    def plain(item: Term) -> Term:
        if not isinstance(item, FloorDiv | FloorMod):
            return item
        made = analyzer.simplify(substitute(item, nest.values))
        return item if any(isinstance(t, FloorDiv | FloorMod) for t in walk(made)) else made

    return replace(nest, stmt=map_terms(nest.stmt, plain))


def _taken_apart(nest: Nest, var: Var, divisor: Expr, analyzer: Analyzer) -> Nest:
    place = next(n for n, item in enumerate(nest.levels) if item.var is var)
    level = nest.levels[place]
    quotient, rest = Var(f"{var.name}_0", var.dtype), Var(f"{var.name}_1", var.dtype)
    count = analyzer.simplify(ceildiv(level.extent, divisor))
    if same(multiply(count, divisor), level.extent):
        condition: tuple[Expr, ...] = ()
    else:
        whole = analyzer.simplify(level.extent // divisor)
        if same(multiply(whole, divisor), level.extent):
            count, condition = whole, ()
        else:
            condition = (quotient * divisor + rest < level.extent,)
    analyzer.bind(quotient, Range.of(count))
    analyzer.bind(rest, Range.of(divisor))
    swap: dict[Var, Expr] = {var: quotient * divisor + rest}

    def rewritten(expr: Expr) -> Expr:
        made = substitute(expr, swap)
        return expr if made is expr else analyzer.simplify(made)

    outer = Level(quotient, count, level.loop, level.given)
    inner = Level(rest, divisor, level.loop, level.given)
    return replace(
        nest,
        levels=(*nest.levels[:place], outer, inner, *nest.levels[place + 1 :]),
        values={name: rewritten(value) for name, value in nest.values.items()},
        conditions=(*condition, *(rewritten(item) for item in nest.conditions)),
    )
