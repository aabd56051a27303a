"""What the statements of a scheduled program cost, as terms over sizes and decision variables.

Counts are those of the code that lowering makes: a vectorized loop runs as vectors, its last one
masked; an iteration of a loop of one step is no iteration. Cost models weigh them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from transect.arith import Analyzer
from transect.ir.expr import (
    GE,
    GT,
    LE,
    LT,
    Binary,
    Call,
    Cast,
    Comparison,
    Expr,
    FloatImm,
    Intrinsic,
    Select,
    Var,
    as_int,
    equal,
    false,
    logical_and,
    select,
)
from transect.ir.term import Term
from transect.ir.traverse import free_vars, substitute, walk
from transect.tir.analysis.counting import Count, count_points
from transect.tir.analysis.footprint import Footprints, Touched, by_buffer
from transect.tir.analysis.linear import ONE, ZERO, add, linear, multiply
from transect.tir.analysis.nests import Level, Nest, nests
from transect.tir.analysis.operations import OPERATION_NAMES
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.stmt import Block, BlockRealize, BufferStore, For
from transect.tir.visit import own_terms, walk_stmts

Pattern = Literal["scalar", "contiguous", "strided"]
"""How lanes access memory: one element for all (or no lanes), neighbours, or apart."""


@dataclass(frozen=True)
class Operation:
    """Operations of one statement's run: `count` of `kind` on `dtype`; varying: one a lane."""

    kind: str
    dtype: str
    varying: bool
    count: int


@dataclass(frozen=True)
class MemoryAccess:
    """A load or store of one statement's run. depends: the loop variables that its place moves
    with."""

    buffer: Buffer
    write: bool
    pattern: Pattern
    depends: frozenset[Var]


@dataclass(frozen=True)
class NestFeatures:
    """The cost of one statement in its nest.

    instances: how often it runs, once for each lane. lanes: of a vector, 1 without. vector_runs:
    as vectors, partial ones included; scalar_runs: one lane at a time; vector_lanes: lanes that
    vectors work on. operations, accesses: of one run. touched: the footprints of its buffers.
    exact: whether the numbers are those of the lowered code, or bounds from above.
    """

    nest: Nest
    instances: Expr
    lanes: Expr
    vector_runs: Expr
    scalar_runs: Expr
    vector_lanes: Expr
    operations: tuple[Operation, ...]
    accesses: tuple[MemoryAccess, ...]
    touched: tuple[Touched, ...]
    exact: bool

    @property
    def runs(self) -> Expr:
        """How often the code of the statement runs."""
        return add(self.vector_runs, self.scalar_runs)

    @property
    def lane(self) -> Level | None:
        """The vectorized loop."""
        return next((item for item in self.nest.levels if item.kind == "vectorized"), None)


@dataclass(frozen=True)
class LoopFeatures:
    """A loop as it runs. runs: how often it starts; steps: its iterations in all, 0 for a loop of
    one step, which lowering removes. exact: whether it is so many; lowering removes iterations of
    partial tiles in which it sees that nothing runs."""

    loop: For
    runs: Expr
    steps: Expr
    exact: bool


@dataclass(frozen=True)
class ProgramFeatures:
    """The costs of a whole program. allocated: bytes of each intermediate buffer."""

    nests: tuple[NestFeatures, ...]
    loops: tuple[LoopFeatures, ...]
    allocated: Mapping[Buffer, Expr]

    @property
    def exact(self) -> bool:
        """Whether the counts of instructions are those of the lowered code."""
        return all(item.exact for item in self.nests)

    @property
    def steps_exact(self) -> bool:
        """Whether those of loop iterations are."""
        return self.exact and all(item.exact for item in self.loops)

    def counts(self) -> dict[tuple[str, ...], Expr]:
        """Totals by key: ("vector" or "scalar", operation, dtype) instructions, ("lanes", …) what
        they compute; ("load" or "store", pattern, buffer) instructions, ("elements", "load" or
        "store", buffer) what they move; ("steps", kind of loop)."""
        totals: dict[tuple[str, ...], Expr] = {}

        def count(key: tuple[str, ...], number: Expr) -> None:
            if as_int(number) != 0:
                totals[key] = add(totals.get(key, ZERO), number)

        for item in self.nests:
            for op in item.operations:
                own = (op.kind, op.dtype)
                number = ONE * op.count
                if op.varying:
                    count(("vector", *own), multiply(number, item.vector_runs))
                    count(("scalar", *own), multiply(number, item.scalar_runs))
                    count(("lanes", *own), multiply(number, item.instances))
                else:
                    count(("scalar", *own), multiply(number, item.runs))
                    count(("lanes", *own), multiply(number, item.runs))
            for access in item.accesses:
                side = "store" if access.write else "load"
                name = access.buffer.name
                if access.pattern == "scalar":
                    count((side, "scalar", name), item.runs)
                    count(("elements", side, name), item.runs)
                else:
                    count((side, access.pattern, name), item.vector_runs)
                    count((side, "scalar", name), item.scalar_runs)
                    count(("elements", side, name), item.instances)
        for loop in self.loops:
            count(("steps", loop.loop.kind), loop.steps)
        return totals


def program_features(func: PrimFunc) -> ProgramFeatures:
    """The features of a program at the block level, scheduled or not."""
    found = nests(func)
    allocated: dict[Buffer, Expr] = {}
    for stmt in walk_stmts(func.body):
        if isinstance(stmt, Block):
            for value in stmt.alloc_buffers:
                size: Expr = ONE * value.dtype.bytes
                for extent in value.shape:
                    size = multiply(size, extent)
                allocated[value] = size
    return ProgramFeatures(
        tuple(nest_features(nest) for nest in found), tuple(_loops(found)), allocated
    )


def nest_features(nest: Nest) -> NestFeatures:
    """The features of one statement in its nest."""
    extents = {item.var: item.extent for item in nest.levels}
    instances = count_points(extents, nest.conditions)
    lane_levels = [item for item in nest.levels if item.kind == "vectorized"]
    exact = nest.exact and instances.exact
    if not lane_levels:
        lanes, vector, scalar, active = ONE, ZERO, instances.value, ZERO
        lane = None
    else:
        lane = lane_levels[-1]
        lanes = lane.extent
        runs = _vector_runs(nest, lane, instances)
        exact = exact and runs.exact and len(lane_levels) == 1
        wide = _several(lanes, *_domains(nest, lane))
        vector, scalar, active = _if_vector(wide, runs, instances.value)
    operations, accesses = _contents(nest, None if lane is None else lane.var)
    footprints = Footprints(nest)
    places = by_buffer(_places(nest))
    touched = tuple(footprints.touched(value, indices) for value, indices in places.items())
    return NestFeatures(
        nest, instances.value, lanes, vector, scalar, active, operations, accesses, touched, exact
    )


@dataclass(frozen=True)
class _VectorRuns:
    vector: Expr
    scalar: Expr
    exact: bool


def _vector_runs(nest: Nest, lane: Level, instances: Count) -> _VectorRuns:
    """How often a vectorized statement runs as a vector, and one by one where no mask does."""
    outer = {item.var: item.extent for item in nest.levels if item is not lane}
    varying = [item for item in nest.conditions if lane.var in free_vars([item])]
    # Vectors of a single statement: what else there is in the loop may keep it from being one.
    direct = nest.levels[-1] is lane and (
        nest.role == "init" or isinstance(lane.loop.body, BlockRealize)
    )
    if not varying:
        count = count_points(outer, nest.conditions)
        return _VectorRuns(count.value, ZERO, direct and count.exact)
    ends = [_ends(item, lane) for item in varying]
    fixed = [item for item in nest.conditions if item not in varying]
    some = count_points(outer, [*fixed, *(weak for weak, _ in ends)])
    if len(varying) == 1:
        return _VectorRuns(some.value, ZERO, direct and some.exact)
    full = count_points(outer, [*fixed, *(strong for _, strong in ends)])
    rest = instances.value - multiply(full.value, lane.extent)
    # With numbers in place, lowering may see that one of the conditions always holds.
    return _VectorRuns(full.value, rest, exact=False)


def _ends(condition: Expr, lane: Level) -> tuple[Expr, Expr]:
    """A condition for the lane that fulfils it most easily, and for the one that does last."""
    first: dict[Var, Expr] = {lane.var: ZERO}
    last: dict[Var, Expr] = {lane.var: add(lane.extent, -ONE)}
    if not isinstance(condition, LT | LE | GT | GE):
        return condition, condition
    form = linear(condition.a - condition.b, [lane.var])
    factor = None if form is None else as_int(form.coefficients.get(lane.var, ONE))
    rises = factor is None or factor > 0
    if isinstance(condition, LT | LE) is not rises:
        first, last = last, first
    return substitute(condition, first), substitute(condition, last)


def _domains(nest: Nest, lane: Level) -> list[Expr]:
    """How many values the iteration variables that the lanes are for have."""
    return [
        nest.domains[var]
        for var, value in nest.values.items()
        if var in nest.domains and lane.var in free_vars([value])
    ]


def _several(*extents: Expr) -> Expr:
    """Whether all of some extents are above 1; where a single lane is left, it is no vector."""
    unknown = [item > 1 for item in extents if as_int(item) is None]
    if any(as_int(item) == 1 for item in extents):
        return false()
    return logical_and(*unknown)


def _if_vector(wide: Expr, runs: _VectorRuns, instances: Expr) -> tuple[Expr, Expr, Expr]:
    """Vector runs, scalar runs and active lanes."""
    vector = select(wide, runs.vector, ZERO)
    scalar = select(wide, runs.scalar, instances)
    active = instances if scalar is ZERO else ZERO if scalar is instances else instances - scalar
    return vector, scalar, active


def _contents(
    nest: Nest, lane: Var | None
) -> tuple[tuple[Operation, ...], tuple[MemoryAccess, ...]]:
    """The operations and accesses of one run of a statement."""
    terms = own_terms(nest.stmt)
    inside = _in_indices(nest.stmt)
    depends = _Depends(nest)
    counts: dict[tuple[str, str, bool], int] = {}
    accesses: list[MemoryAccess] = []
    if isinstance(nest.stmt, BufferStore):
        accesses.append(
            _access(nest, nest.stmt.buffer, nest.stmt.indices, lane, depends, write=True)
        )
    for item in walk(*terms):
        if isinstance(item, BufferLoad):
            accesses.append(_access(nest, item.buffer, item.indices, lane, depends, write=False))
            continue
        name = None if item in inside else operation_name(item)
        if name is None or not isinstance(item, Expr) or not is_data(item):
            continue
        dtype = item.a.dtype if isinstance(item, Binary) else item.dtype
        key = (name, str(dtype.element), lane is not None and lane in depends.of(item))
        counts[key] = counts.get(key, 0) + 1
    operations = tuple(Operation(*key, count) for key, count in counts.items())
    return operations, tuple(accesses)


def _in_indices(stmt: object) -> set[Term]:
    """The terms that only say where, not what."""
    found: set[Term] = set()
    if isinstance(stmt, BufferStore):
        found.update(walk(*stmt.indices))
        for item in walk(stmt.value):
            if isinstance(item, BufferLoad):
                found.update(walk(*item.indices))
    return found


def _places(nest: Nest) -> list[tuple[Buffer, tuple[Expr, ...]]]:
    found: list[tuple[Buffer, tuple[Expr, ...]]] = []
    if isinstance(nest.stmt, BufferStore):
        found.append((nest.stmt.buffer, nest.stmt.indices))
    found += [
        (item.buffer, item.indices)
        for item in walk(*own_terms(nest.stmt))
        if isinstance(item, BufferLoad)
    ]
    return found


class _Depends:
    """Which loop variables a term moves with."""

    def __init__(self, nest: Nest) -> None:
        self.known = {var: frozenset(free_vars([value])) for var, value in nest.values.items()}

    def of(self, *terms: Term) -> frozenset[Var]:
        """The loop variables, through iteration variables."""
        found: set[Var] = set()
        for var in free_vars(terms):
            found |= self.known.get(var, frozenset((var,)))
        return frozenset(found)


def _access(
    nest: Nest,
    value: Buffer,
    indices: tuple[Expr, ...],
    lane: Var | None,
    depends: _Depends,
    *,
    write: bool,
) -> MemoryAccess:
    moves = depends.of(*indices)
    pattern: Pattern = "scalar"
    if lane is not None and lane in moves:
        pattern = "contiguous" if _is_contiguous(nest, value, indices, lane, depends) else "strided"
    loops = frozenset(item.var for item in nest.levels)
    return MemoryAccess(value, write, pattern, moves & loops)


def _is_contiguous(
    nest: Nest, value: Buffer, indices: tuple[Expr, ...], lane: Var, depends: _Depends
) -> bool:
    if value.strides and as_int(value.strides[-1]) != 1:
        return False
    *outer, last = (substitute(item, nest.values) for item in indices)
    if any(lane in depends.of(item) for item in outer):
        # Quotients and remainders of a fused loop may add up to that loop again.
        place: Expr = ZERO
        for item, extent in zip((*outer, last), value.shape, strict=True):
            place = add(multiply(place, extent), item)
        last = Analyzer().simplify(place)
    form = linear(last, [lane], relaxed=True)
    return form is not None and as_int(form.coefficients.get(lane, ZERO)) == 1


def operation_name(item: Term) -> str | None:
    """The kind of operation that a term is, None for none; a choice by place alone is none."""
    if isinstance(item, Comparison):
        return "compare"
    if isinstance(item, Call) and isinstance(item.op, Intrinsic):
        name = item.op.name
        if name == "if_then_else":
            return "select" if is_data(item.args[0]) else None
        return name
    if isinstance(item, Select):
        return "select" if is_data(item.condition) else None
    return OPERATION_NAMES.get(type(item))


def is_data(item: Term) -> bool:
    """Whether a term computes with data: loads or floats, rather than with places."""
    return any(
        isinstance(part, BufferLoad | FloatImm)
        or (isinstance(part, Cast) and part.dtype.is_float)
        or (isinstance(part, Expr) and part.dtype.element.is_float)
        for part in walk(item)
    )


def _loops(found: tuple[Nest, ...]) -> list[LoopFeatures]:
    """Each loop once; the spatial loops that an init is given of its own once more."""
    seen: set[tuple[For, object]] = set()
    always = _always_run(found)
    features: list[LoopFeatures] = []
    for nest in found:
        copied = _first_copied(nest, found) if nest.role == "init" and nest.exact else None
        for place, level in enumerate(nest.written):
            owner = nest.stmt if copied is not None and place >= copied else None
            if (level.loop, owner) in seen or level.kind not in ("serial", "parallel"):
                continue
            seen.add((level.loop, owner))
            outer = {item.var: item.extent for item in nest.written[:place]}
            runs = count_points(outer, nest.conditions[: level.given])
            steps = multiply(runs.value, level.extent)
            if as_int(level.extent) == 1:
                steps = ZERO
            elif as_int(level.extent) is None:
                steps = select(equal(level.extent, ONE), ZERO, steps)
            features.append(LoopFeatures(level.loop, runs.value, steps, level.loop in always))
    return features


def _always_run(found: tuple[Nest, ...]) -> set[For]:
    """The loops in which lowering cannot see iterations that do nothing."""
    analyzer = Analyzer()
    for var in free_vars(item.extent for nest in found for item in nest.levels):
        analyzer.bind(var, (1, None))
    loops = {item.loop for nest in found for item in nest.levels}
    for nest in found:
        if nest.conditions or not all(analyzer.can_prove(i.extent >= 1) for i in nest.levels):
            loops.difference_update(item.loop for item in nest.levels)
    return loops


def _first_copied(nest: Nest, found: tuple[Nest, ...]) -> int | None:
    """From which level on an init has loops of its own: below the first reduction loop."""
    update = next(
        (item for item in found if item.block is nest.block and item.role == "store"), None
    )
    if update is None:
        return None
    own = [item.loop for item in nest.written]
    for place, level in enumerate(update.written):
        if place >= len(own) or own[place] is not level.loop:
            return place
    return None
