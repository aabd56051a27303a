"""Primitives that reshape nests: split, fuse, reorder, loop_partition, add_unit_loop, merge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from transect.arith import Analyzer
from transect.ir.expr import (
    Expr,
    Range,
    Var,
    as_expr,
    as_int,
    const,
    equal,
    logical_and,
    logical_not,
)
from transect.ir.node import replace
from transect.ir.sizes import ceildiv, product
from transect.ir.traverse import free_vars
from transect.support.span import merge_spans
from transect.tir.function import PrimFunc
from transect.tir.schedule.chain import Chain, compose
from transect.tir.schedule.dependence import (
    loose_statements,
    mentions,
    shared_memory_conflict,
)
from transect.tir.schedule.edit import Edit, Primitive, Target, edit, expect_loop, refuse
from transect.tir.schedule.region import analyzer_for, assume_options
from transect.tir.schedule.tree import (
    Forward,
    ForwardingSubstitution,
    Tree,
    duplicate,
    replace_statements,
    single_child,
)
from transect.tir.stmt import (
    AssertStmt,
    Block,
    BlockRealize,
    For,
    IfThenElse,
    SeqStmt,
    Stmt,
    seq,
)
from transect.tir.visit import driving_vars, walk_stmts

Factor = Expr | int | None

__all__ = ["AddUnitLoop", "Fuse", "LoopPartition", "Merge", "Reorder", "Split", "compose"]


def require_serial(primitive: str, loop: For) -> None:
    """Refuse a loop that is already parallel, vectorized, unrolled or bound to threads."""
    if loop.kind != "serial":
        refuse(
            primitive,
            f"it is already {loop.kind}",
            loop,
            "reshape loops first, then say how they run",
        )
    if loop.annotations:
        refuse(
            primitive,
            f"it carries annotations {sorted(loop.annotations)}, which would be lost",
            loop,
            "unannotate it first",
        )


def guarded(body: Stmt, condition: Expr, tree: Tree, loop: For, forward: Forward) -> Stmt:
    """`body` run only where `condition` holds: as a predicate of its blocks where that is all."""
    if loose_statements(tree, loop):
        return IfThenElse(condition, body)
    changes: dict[Stmt, Stmt | None] = {}
    stack = [body]
    while stack:
        item = stack.pop()
        if isinstance(item, BlockRealize):
            changes[item] = replace(item, predicate=logical_and(item.predicate, condition))
        elif isinstance(item, For):
            stack.append(item.body)
        elif isinstance(item, SeqStmt):
            stack.extend(item.stmts)
    made = replace_statements(body, changes, forward)
    assert made is not None
    return made


@dataclass(frozen=True)
class Split(Primitive):
    """One loop as a nest of loops.

    factors: extents of the new loops, outermost first; at most one may be None, which becomes
    what is left. They may be symbolic: sizes, or decision variables, which are positive numbers
    that are chosen later. Where they do not divide the extent, the blocks inside get a predicate.
    preserve_unit_iters: new loops of one iteration still stand in the values of the blocks'
    iteration variables. disable_predication: leave out the predicate; that the factors divide is
    proved, or asserted where the function starts.

        for i in range(n):                    for i_0, i_1 in T.grid((n + 7) // 8, 8):
            with T.block("B"):           ->       with T.block("B"):
                vi = T.axis.spatial(n, i)             vi = T.axis.spatial(n, i_0 * 8 + i_1)
                                                      T.where(i_0 * 8 + i_1 < n)
    """

    factors: tuple[Factor, ...]
    preserve_unit_iters: bool = True
    disable_predication: bool = False
    name: ClassVar[str] = "split"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        loop = expect_loop(self.name, targets[0])
        require_serial(self.name, loop)
        tree = Tree(func)
        analyzer = analyzer_for(tree, loop)
        assume_options(analyzer, func, self.factors)
        extents = self._extents(loop, analyzer)
        variables = [Var(f"{loop.var.name}_{n}", loop.var.dtype) for n in range(len(extents))]
        for var, extent in zip(variables, extents, strict=True):
            analyzer.bind(var, Range.of(extent))
        value: Expr = variables[0]
        for var, extent in zip(variables[1:], extents[1:], strict=True):
            value = value * extent + var
        known = analyzer
        if self.preserve_unit_iters and any(as_int(extent) == 1 for extent in extents):
            known = _knowing_no_units(tree, loop, zip(variables, extents, strict=True))
        rewritten = ForwardingSubstitution(
            {loop.var: known.simplify(loop.min + value)}, simplify=known.simplify
        )
        body = rewritten.visit(loop.body)
        forward = rewritten.forward
        # That the new loops make as many iterations tells more than their ends where a factor is a
        # decision: those are products of variables.
        divides = analyzer.can_prove_equal(product(extents), loop.extent)
        asserted: Expr | None = None
        if self.disable_predication:
            asserted = None if divides else self._divides(tree, loop, extents, analyzer)
        elif not divides and not analyzer.can_prove(value < loop.extent):
            guards: Forward = {}
            body = guarded(body, analyzer.simplify(value < loop.extent), tree, loop, guards)
            forward = compose(forward, guards)
        made: list[For] = []
        for var, extent in zip(variables[::-1], extents[::-1], strict=True):
            zero = const(0, extent.dtype)
            body = For(var, zero, extent, "serial", body, span=loop.span)
            made.append(body)
        done = edit(func, {loop: body}, {**forward, loop: None}, tuple(made[::-1]))
        return done if asserted is None else _asserting(done, asserted)

    def _divides(
        self, tree: Tree, loop: For, extents: list[Expr], analyzer: Analyzer
    ) -> Expr | None:
        """What must hold for the loops to have just the iterations of `loop`; None: it does."""
        product: Expr = const(1, loop.extent.dtype)
        for extent in extents:
            product = product * extent
        exact = analyzer.simplify(equal(product, loop.extent))
        if analyzer.can_prove(exact):
            return None
        local = {item.var for item in tree.loops(loop)}
        scope = tree.scope(loop)
        if (
            analyzer.can_prove(logical_not(exact))
            or scope is not tree.root
            or (any(var in local for var in free_vars([exact])))
        ):
            refuse(
                self.name,
                f"the factors {self.factors!r} do not divide its extent {loop.extent!r}, and "
                "nothing would stop the iterations beyond it",
                loop,
                "leave out disable_predication",
            )
        return exact

    def _extents(self, loop: For, analyzer: Analyzer) -> list[Expr]:
        dtype = loop.extent.dtype
        given = [None if f is None else as_expr(f, dtype).astype(dtype) for f in self.factors]
        if len(given) < 1 or sum(f is None for f in given) > 1:
            refuse(
                self.name,
                f"factors {self.factors!r} leave more than one extent open",
                loop,
                "give all factors but one",
            )
        total: Expr = const(1, dtype)
        for factor in given:
            if factor is None:
                continue
            # What is left is a quotient by the others, which must not be zero.
            least = 1 if None in given else 0
            if not analyzer.can_prove(factor >= least):
                refuse(
                    self.name,
                    f"the factor {factor!r} is not known to be at least {least}",
                    loop,
                    "give positive factors",
                )
            total = total * factor
        if None in given:
            left = _quotient(loop.extent, total, analyzer)
            return [left if factor is None else factor for factor in given]
        if not (analyzer.can_prove(total >= loop.extent) or self._covers(loop, given, analyzer)):
            refuse(
                self.name,
                f"factors {self.factors!r} make {analyzer.simplify(total)!r} iterations, "
                f"which may be fewer than its {loop.extent!r}",
                loop,
                "make one factor None",
            )
        return [factor for factor in given if factor is not None]

    def _covers(self, loop: For, given: Sequence[Expr | None], analyzer: Analyzer) -> bool:
        """Whether the outermost factor is what the others leave of the extent, rounded up."""
        inner = product(factor for factor in given[1:] if factor is not None)
        return (
            given[0] is not None
            and analyzer.can_prove(inner >= 1)
            and analyzer.can_prove_equal(given[0], ceildiv(loop.extent, inner))
        )


def _quotient(extent: Expr, product: Expr, analyzer: Analyzer) -> Expr:
    if analyzer.can_prove(equal(extent % product, 0)):
        return analyzer.simplify(extent // product)
    return analyzer.simplify(ceildiv(extent, product))


def _knowing_no_units(tree: Tree, loop: For, variables: Iterable[tuple[Var, Expr]]) -> Analyzer:
    """What is known at `loop`, and the ranges of new variables but those of a single value, which
    would be simplified away."""
    analyzer = analyzer_for(tree, loop)
    for var, extent in variables:
        if as_int(extent) != 1:
            analyzer.bind(var, Range.of(extent))
    return analyzer


def _asserting(done: Edit, condition: Expr) -> Edit:
    """The edit, and an assertion in front of all that the function does."""
    root = Tree(done.func).root
    text = f"a loop was split without a predicate, so this must hold: {condition!r}"
    first = AssertStmt(condition, (text,))
    made = replace(root, body=seq(first, root.body))
    again = edit(done.func, {root: made}, {root: made})
    return Edit(again.func, compose(dict(done.forward), dict(again.forward)), done.results)


@dataclass(frozen=True)
class Fuse(Primitive):
    """A nest of loops as one loop.

    preserve_unit_iters: where all loops have one iteration, the new loop still stands in the
    values of the blocks' iteration variables.

    for i, j in T.grid(n, m):                  for i_j in range(n * m):
        with T.block("B"):                ->       with T.block("B"):
            vi, vj = T.axis.remap("SS", …)             vi = T.axis.spatial(n, i_j // m)
                                                       vj = T.axis.spatial(m, i_j % m)
    """

    preserve_unit_iters: bool = True
    name: ClassVar[str] = "fuse"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        loops = [expect_loop(self.name, target) for target in targets]
        if not loops:
            raise TypeError("fuse takes at least one loop")
        tree = Tree(func)
        for outer, inner in pairwise(loops):
            require_serial(self.name, outer)
            if single_child(outer) is not inner:
                refuse(
                    self.name,
                    f"loop {inner.var.name!r} is not all of its body",
                    outer,
                    "fuse loops that follow each other, outermost first, with nothing between",
                )
            if mentions(inner.extent, outer.var) or mentions(inner.min, outer.var):
                refuse(
                    self.name,
                    f"the range of loop {inner.var.name!r} depends on it",
                    outer,
                    "fuse loops of a rectangular nest",
                )
        require_serial(self.name, loops[-1])
        analyzer = analyzer_for(tree, loops[0])
        _require_starts(self.name, loops, analyzer)
        extent: Expr = loops[0].extent
        for loop in loops[1:]:
            extent = extent * loop.extent
        name = "_".join(loop.var.name for loop in loops)
        fused = Var(name, loops[0].var.dtype)
        extent = analyzer.simplify(extent)
        if not (self.preserve_unit_iters and as_int(extent) == 1):
            analyzer.bind(fused, Range.of(extent))
        values: dict[Var, Expr] = {}
        rest: Expr = fused
        for loop in loops[:0:-1]:
            values[loop.var] = analyzer.simplify(loop.min + rest % loop.extent)
            rest = rest // loop.extent
        values[loops[0].var] = analyzer.simplify(loops[0].min + rest)
        rewritten = ForwardingSubstitution(values, simplify=analyzer.simplify)
        body = rewritten.visit(loops[-1].body)
        span = merge_spans(*(loop.span for loop in loops))
        made = For(fused, const(0, extent.dtype), extent, "serial", body, span=span)
        gone: Forward = dict.fromkeys(loops)
        return edit(func, {loops[0]: made}, {**rewritten.forward, **gone}, (made,))


def _require_starts(primitive: str, loops: Sequence[For], analyzer: Analyzer) -> None:
    """Refuse to fuse a loop of a sum that may be empty with one of its results: the init runs
    before the loops of the sum, which would then be those of the results too."""
    for stmt in walk_stmts(loops[-1].body):
        if not isinstance(stmt, BlockRealize) or stmt.block.init is None:
            continue
        followed, terms = (driving_vars(stmt, kind) for kind in ("spatial", "reduce"))
        results = [loop for loop in loops if loop.var in followed]
        for loop in loops:
            if loop.var in terms and results and not analyzer.can_prove(loop.extent >= 1):
                refuse(
                    primitive,
                    f"it may have no iteration, and block {stmt.block.name!r} starts its results "
                    f"over loop {results[0].var.name!r} before it",
                    loop,
                    "call decompose_reduction first, or fuse loops of results and of sums apart",
                )


@dataclass(frozen=True)
class Reorder(Primitive):
    """The loops of one nest in another order.

        for i, j, k in T.grid(n, m, d):   ->   for j, k, i in T.grid(m, d, n):
            ...                                    ...

    Loops of the nest that are not named keep their places.
    """

    name: ClassVar[str] = "reorder"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        wanted = [expect_loop(self.name, target) for target in targets]
        tree = Tree(func)
        if len(set(wanted)) != len(wanted) or not wanted:
            refuse(self.name, "it is named twice", wanted[0], "name each loop once")
        places = sorted(wanted, key=tree.order.__getitem__)
        nest = self._nest(tree, places)
        order = iter(wanted)
        new = [next(order) if loop in wanted else loop for loop in nest]
        self._check_ranges(new)
        self._check_blocks(tree, nest)
        self._check_sums(tree, nest, new)
        body: Stmt = nest[-1].body
        forward: Forward = {}
        for loop in new[::-1]:
            body = replace(loop, body=body)
            forward[loop] = body
        return edit(func, {nest[0]: body}, forward)

    def _nest(self, tree: Tree, places: list[For]) -> list[For]:
        nest = [places[0]]
        while nest[-1] is not places[-1]:
            inner = single_child(nest[-1])
            if not isinstance(inner, For):
                refuse(
                    self.name,
                    f"loop {places[-1].var.name!r} is not perfectly nested in it",
                    nest[-1],
                    "name loops of one nest that has nothing between its loops",
                )
            nest.append(inner)
        missing = [loop for loop in places if loop not in nest]
        if missing:
            refuse(
                self.name,
                f"it is not in one nest with loop {nest[0].var.name!r}",
                missing[0],
                "name loops around the same block",
            )
        return nest

    def _check_ranges(self, new: Sequence[For]) -> None:
        for position, loop in enumerate(new):
            used = set(free_vars([loop.min, loop.extent]))
            for later in new[position:]:
                if later.var in used:
                    refuse(
                        self.name,
                        f"its range depends on loop {later.var.name!r}, which would be inside it",
                        loop,
                        "keep it inside that loop",
                    )

    def _check_sums(self, tree: Tree, nest: Sequence[For], new: Sequence[For]) -> None:
        """Refuse another order of loops that both results and their terms depend on: the first
        term of a result, with which it starts, might come after others."""
        for block in tree.blocks(nest[-1]):
            if block.init is None:
                continue
            terms = driving_vars(tree.realize(block), "reduce")
            both = terms & driving_vars(tree.realize(block), "spatial")
            old, after = ([loop for loop in each if loop.var in terms] for each in (nest, new))
            if both and old != after:
                refuse(
                    self.name,
                    f"results and terms of block {block.name!r} both depend on it, so the first "
                    "term of a result might no longer come first",
                    next(loop for loop in nest if loop.var in both),
                    "reorder before fuse, or decompose_reduction first",
                )

    def _check_blocks(self, tree: Tree, nest: list[For]) -> None:
        inner = nest[-1]
        if loose_statements(tree, inner):
            refuse(
                self.name,
                "its body does more than run blocks",
                inner,
                "put what it does in a block, with sch.blockize",
            )
        blocks = tree.blocks(inner)
        for block in blocks:
            for iter_var in block.iter_vars:
                if iter_var.kind not in ("spatial", "reduce"):
                    refuse(
                        self.name,
                        f"iteration variable {iter_var.var.name!r} is {iter_var.kind!r}, so its "
                        "order counts",
                        block,
                        "leave its loops in order",
                    )
        if len(blocks) > 1:
            for loop in nest:
                reason = shared_memory_conflict(tree, loop)
                if reason is not None:
                    refuse(self.name, reason, loop, "split the nest, or reorder before compute_at")


@dataclass(frozen=True)
class LoopPartition(Primitive):
    """One loop as several loops over consecutive parts of its range, each with its own copy.

    factors: how many iterations each part has; at most one None, which takes what is left. What
    they leave over becomes one more part. The first part keeps the handles; the blocks of part p
    are named with "_p" at the end. preserve_unit_iters: parts of one iteration keep their variable
    in the values of the blocks' iteration variables.

        for i in range(n):        for i in range(n // 8 * 8):
            B(i)             ->       B(i)
                                  for i_1 in range(n - n // 8 * 8):
                                      B_1(n // 8 * 8 + i_1)

    A later split of the first part by 8 then needs no predicate.
    """

    factors: tuple[Factor, ...]
    preserve_unit_iters: bool = True
    name: ClassVar[str] = "loop_partition"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        loop = expect_loop(self.name, targets[0])
        require_serial(self.name, loop)
        tree = Tree(func)
        self._check_reductions(tree, loop)
        analyzer = analyzer_for(tree, loop)
        assume_options(analyzer, func, self.factors)
        forward: Forward = {}
        parts: list[For] = []
        start: Expr = const(0, loop.extent.dtype)
        for number, extent in enumerate(self._extents(loop, analyzer)):
            if number == 0:
                body, forward = _narrowed(loop.body, loop, loop.var, loop.min, extent)
                part = replace(loop, extent=extent, body=body)
            else:
                var = Var(f"{loop.var.name}_{number}", loop.var.dtype)
                analyzer.bind(var, Range.of(extent))
                offset = analyzer.simplify(loop.min + start)
                value: Expr = offset + var
                if not self.preserve_unit_iters and as_int(extent) == 1:
                    value = offset
                copy = duplicate(loop.body, {loop.var: value}, suffix=f"_{number}")
                body, _ = _narrowed(copy, loop, value, offset, extent)
                part = For(var, const(0, extent.dtype), extent, "serial", body, span=loop.span)
            parts.append(part)
            start = analyzer.simplify(start + extent)
        return edit(func, {loop: seq(*parts)}, {**forward, loop: parts[0]}, tuple(parts))

    def _check_reductions(self, tree: Tree, loop: For) -> None:
        for block in tree.blocks(loop):
            reduces = loop.var in driving_vars(tree.realize(block), "reduce")
            if block.init is not None and reduces:
                refuse(
                    self.name,
                    f"block {block.name!r} reduces over it and would be initialised in each part",
                    loop,
                    "sch.decompose_reduction first",
                )

    def _extents(self, loop: For, analyzer: Analyzer) -> list[Expr]:
        dtype = loop.extent.dtype
        given = [None if e is None else as_expr(e, dtype).astype(dtype) for e in self.factors]
        if not given or sum(extent is None for extent in given) > 1:
            refuse(
                self.name,
                f"factors {self.factors!r} leave more than one part open",
                loop,
                "give all factors but one",
            )
        total: Expr = const(0, dtype)
        for extent in given:
            if extent is not None:
                if not analyzer.can_prove(extent >= 0):
                    refuse(self.name, f"the extent {extent!r} may be negative", loop, "give sizes")
                total = total + extent
        left = analyzer.simplify(loop.extent - total)
        if not analyzer.can_prove(left >= 0):
            refuse(
                self.name,
                f"the parts may have more than its {loop.extent!r} iterations",
                loop,
                "give factors that surely fit, such as n // 8 * 8",
            )
        if None not in given and not analyzer.can_prove(equal(left, 0)):
            given.append(None)
        return [left if extent is None else extent for extent in given]


def _narrowed(
    body: Stmt, loop: For, value: Expr, start: Expr, extent: Expr
) -> tuple[Stmt, Forward]:
    """Blocks whose iteration variable is the loop itself run over a part of its domain only."""
    changes: dict[Stmt, Stmt | None] = {}
    stack = [body]
    while stack:
        item = stack.pop()
        if isinstance(item, For):
            stack.append(item.body)
        elif isinstance(item, SeqStmt):
            stack.extend(item.stmts)
        elif isinstance(item, BlockRealize):
            iter_vars = tuple(
                replace(iter_var, dom=Range(start, extent)) if bound is value else iter_var
                for iter_var, bound in zip(item.block.iter_vars, item.iter_values, strict=True)
            )
            if any(a is not b for a, b in zip(iter_vars, item.block.iter_vars, strict=True)):
                changes[item.block] = replace(item.block, iter_vars=iter_vars)
    forward: Forward = {}
    made = replace_statements(body, changes, forward)
    assert made is not None
    return made, {**forward, **changes}


@dataclass(frozen=True)
class AddUnitLoop(Primitive):
    """A loop of one iteration around a block or loop.

    B()   ->   for unit in range(1):
                   B()
    """

    name: ClassVar[str] = "add_unit_loop"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        tree = Tree(func)
        target: Stmt = targets[0]
        if target is tree.root:
            refuse(self.name, "it is all of the function", target, "choose a block inside")
        inner = tree.realize(target) if isinstance(target, Block) else target
        zero = const(0, "int64")
        made = For(Var("unit"), zero, const(1, "int64"), "serial", inner, span=target.span)
        # The target itself stays: only what is around it is new.
        return edit(func, {inner: made}, {target: target}, (made,))


@dataclass(frozen=True)
class Merge(Primitive):
    """Loops that follow each other, with equal ranges, as one.

        for i in range(n):            for i in range(n):
            A(i)                 ->       A(i)
        for j in range(n):                B(j)
            B(j)

    Loops deeper in nests are merged with those around them, from the nests' outermost loops on:

        for i, j in T.grid(n, m):     for i, j in T.grid(n, m):
            A(i, j)              ->       A(i, j)
        for i, j in T.grid(n, m):         B(i, j)
            B(i, j)

    Refuses if an iteration of one needs what a later one of another before it writes.
    """

    name: ClassVar[str] = "merge"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        loops = [expect_loop(self.name, target) for target in targets]
        if len(loops) < 2:
            refuse(self.name, "it is the only one", loops[0], "name at least two loops")
        tree = Tree(func)
        nests = [self._nest(tree, loop, loops) for loop in loops]
        if len({len(nest) for nest in nests}) != 1:
            refuse(
                self.name,
                f"it is not as deep in its nest as loop {loops[0].var.name!r}",
                next(x for x, nest in zip(loops, nests, strict=True) if len(nest) != len(nests[0])),
                "name loops of the same depth",
            )
        chain = Chain(self.name, func)
        for level in range(len(nests[0])):
            for nest in nests[1:]:
                chain.add(
                    self._pair(chain.func, chain.loop(nests[0][level]), chain.loop(nest[level]))
                )
        return chain.done(loops[0])

    def _nest(self, tree: Tree, loop: For, loops: list[For]) -> list[For]:
        """The loop with those around it up to where all the loops stand together."""
        nest = [loop]
        for item in reversed(tree.loops(loop)):
            if all(tree.is_inside(other, item) for other in loops):
                break
            nest.append(item)
        return nest[::-1]

    def _pair(self, func: PrimFunc, first: For, second: For) -> Edit:
        tree = Tree(func)
        require_serial(self.name, first)
        require_serial(self.name, second)
        parent = tree.parent[first]
        siblings = parent.stmts if isinstance(parent, SeqStmt) else ()
        if second not in siblings or siblings.index(second) != siblings.index(first) + 1:
            refuse(
                self.name,
                f"loop {first.var.name!r} does not stand right before it",
                second,
                "merge neighbours",
            )
        analyzer = analyzer_for(tree, first)
        same = analyzer.can_prove(equal(first.extent, second.extent)) and analyzer.can_prove(
            equal(first.min, second.min)
        )
        if not same:
            refuse(
                self.name,
                f"its range is not provably that of loop {first.var.name!r}",
                second,
                "merge loops of equal ranges",
            )
        rewritten = ForwardingSubstitution({second.var: first.var})
        body = seq(first.body, rewritten.visit(second.body))
        span = merge_spans(first.span, second.span)
        made = replace(first, body=body, span=span)
        forward: Forward = {**rewritten.forward, first: made, second: made}
        done = edit(func, {first: made, second: None}, forward, (made,))
        after = Tree(done.func)
        if loose_statements(after, made):
            refuse(self.name, "its body does more than run blocks", second, "use blocks")
        reason = shared_memory_conflict(after, made)
        if reason is not None:
            refuse(self.name, reason, second, "use compute_at, which recomputes what is needed")
        return done
