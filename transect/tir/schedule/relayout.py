"""What the layout primitives share: naming a buffer, reading a map, and nests over new axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from transect.arith import Analyzer
from transect.ir.expr import (
    Comparison,
    Expr,
    Range,
    Var,
    as_int,
    const,
    equal,
    true,
)
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, substitute, walk
from transect.support.errors import InputTypeError
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.function import PrimFunc
from transect.tir.index_image import IndexImage
from transect.tir.index_map import IndexMap, index_map_of
from transect.tir.schedule.edit import Edit, edit, refuse
from transect.tir.schedule.loops import require_serial
from transect.tir.schedule.region import is_transparent
from transect.tir.schedule.rewrite import restated
from transect.tir.schedule.tree import Forward, ForwardingSubstitution, Tree, single_child
from transect.tir.stmt import Block, BlockRealize, For, IterVar, Stmt
from transect.tir.visit import TermT

BufferName = tuple[str, int] | str
"""A buffer that a block touches: ("read", n) or ("write", n), or its name."""

MapLike = IndexMap | Callable[..., object] | Sequence[int]
"""An index map, a function of the old indices that returns the new ones, or the positions of the
old indices in the new order."""


def named_buffer(primitive: str, block: Block, wanted: BufferName) -> tuple[Buffer, str, int]:
    """The buffer, "read" or "write", and its position there. Refuses what names none."""
    if isinstance(wanted, str):
        for side, regions in (("write", block.writes), ("read", block.reads)):
            for number, region in enumerate(regions):
                if region.buffer.name == wanted:
                    return region.buffer, side, number
        names = dict.fromkeys(item.buffer.name for item in (*block.reads, *block.writes))
        refuse(primitive, f"it has no buffer {wanted!r}", block, f"it has {', '.join(names)}")
    side, number = wanted
    if side not in ("read", "write"):
        refuse(primitive, f"{side!r} is neither 'read' nor 'write'", block, '("read", n)')
    regions = block.reads if side == "read" else block.writes
    if not 0 <= number < len(regions):
        refuse(primitive, f"it has no {side} {number}", block, f"it has {len(regions)}")
    return regions[number].buffer, side, number


def read_map(
    primitive: str, block: Block, value: MapLike, names: Sequence[str]
) -> tuple[IndexMap, tuple[int, ...]]:
    """The map over indices of these names, and where it separates axes. Refuses a map of another
    number of indices."""
    if isinstance(value, IndexMap):
        if len(value.inputs) == len(names):
            return value, ()
        count = len(value.inputs)
    elif callable(value):
        try:
            return index_map_of(value, len(names))
        except InputTypeError as error:
            refuse(primitive, str(error), block, f"a map of {', '.join(names)}")
    else:
        inputs = tuple(Var(name) for name in names)
        if all(0 <= position < len(inputs) for position in value):
            return IndexMap(inputs, tuple(inputs[position] for position in value)), ()
        refuse(
            primitive,
            f"{tuple(value)} are not positions of {', '.join(names)}",
            block,
            f"positions from 0 to {len(names) - 1}",
        )
    return refuse(
        primitive,
        f"the index map takes {count} indices, there are {len(names)}",
        block,
        f"a map of {', '.join(names)}",
    )


def named_for(index_map: IndexMap, names: Sequence[str]) -> IndexMap:
    """The same map over indices of other names."""
    inputs = tuple(Var(name) for name in names)
    return IndexMap(inputs, index_map.apply(inputs))


def with_parameter(func: PrimFunc, old: Buffer, new: Buffer) -> PrimFunc:
    """`func` with another buffer for a parameter, in the signature alone."""
    params = {var: new if item is old else item for var, item in func.buffer_map.items()}
    return replace(func, buffer_map=params) if old in func.buffers else func


class IndexSubstitution(ForwardingSubstitution):
    """Replaces variables; simplifies indices, regions and conditions, and no computed value."""

    def __init__(self, values: Mapping[Var, Expr], analyzer: Analyzer) -> None:
        super().__init__(values)
        self.analyzer = analyzer
        self.fresh = set(free_vars(values.values()))

    def _simple(self, expr: Expr) -> Expr:
        if not any(var in self.fresh for var in free_vars([expr])):
            return expr
        return self.analyzer.simplify(expr)

    def _replace_term(self, item: Term) -> Term:
        item = super()._replace_term(item)
        if isinstance(item, BufferLoad):
            indices = tuple(self._simple(index) for index in item.indices)
            return BufferLoad(item.buffer, indices, item.predicate)
        if isinstance(item, Range):
            return Range(self._simple(item.min), self._simple(item.extent))
        if isinstance(item, Comparison) and item.a.dtype.is_integral:
            return self._simple(item)
        return item

    def expr(self, value: TermT) -> TermT:
        made = super().expr(value)
        if isinstance(made, Expr) and made is not value and made.dtype.is_integral:
            # An index of a store, a bound of a loop: whole expressions of indices.
            return self._simple(made) if not _loads(made) else made  # pyright: ignore[reportReturnType]
        return made


def _loads(expr: Expr) -> bool:
    return any(isinstance(item, BufferLoad) for item in walk(expr))


@dataclass(frozen=True)
class OwnNest:
    """A block alone in a nest of serial loops, one for each iteration variable.

    loops: by iteration variable; None for one of a single value. top: the outermost statement.
    """

    loops: tuple[For | None, ...]
    top: Stmt


def own_nest(primitive: str, tree: Tree, block: Block) -> OwnNest:
    """The loops that are a block's iteration variables. Refuses if it has no such nest."""
    realize = tree.realize(block)
    if realize.predicate is not true():
        refuse(
            primitive,
            f"it has the predicate {realize.predicate!r}",
            block,
            f"{primitive} before splitting by what does not divide",
        )
    around = tree.loops(block)
    analyzer = Analyzer()
    found: list[For | None] = []
    for item, value in zip(block.iter_vars, realize.iter_values, strict=True):
        loop = next((each for each in around if each.var is value), None)
        if loop is None and as_int(item.dom.extent) == 1 and as_int(value) is not None:
            found.append(None)
            continue
        if (
            loop is None
            or loop in found
            or as_int(loop.min) != 0
            or as_int(item.dom.min) != 0
            or not analyzer.can_prove(equal(loop.extent, item.dom.extent))
        ):
            refuse(
                primitive,
                f"iteration variable {item.var.name!r} does not have a loop of its own",
                block,
                f"{primitive} before splitting and fusing",
            )
        require_serial(primitive, loop)
        found.append(loop)
    own = [loop for loop in found if loop is not None]
    if not own:
        return OwnNest(tuple(found), realize)
    top = min(own, key=tree.order.__getitem__)
    inner: Stmt = top
    for _ in own:
        if not isinstance(inner, For) or inner not in own:
            refuse(
                primitive,
                "other loops or blocks stand between its loops",
                block,
                f"{primitive} before moving blocks together",
            )
        inner = single_child(inner)
    if inner is not realize:
        refuse(
            primitive,
            "other loops or blocks stand inside its loops",
            block,
            f"{primitive} before moving blocks together",
        )
    return OwnNest(tuple(found), top)


@dataclass(frozen=True)
class NewNest:
    """A block over other iteration variables, in loops of its own. forward: of the old parts."""

    stmt: Stmt
    block: Block
    forward: Forward


def over_new_axes(
    block: Block,
    old: OwnNest,
    image: IndexImage,
    kinds: Sequence[str],
    analyzer: Analyzer,
    rebuild: Callable[[Block, Expr], Block],
    *,
    predicate: bool,
) -> NewNest:
    """`block` over the axes of `image`, of these kinds, in new loops.

    rebuild: what else changes, given the block in the new variables and the condition that they
    are inside. predicate: whether the block runs inside only.
    """
    span = block.span
    kept = {value: n for n, value in enumerate(image.inverse.outputs) if isinstance(value, Var)}
    iter_vars: list[IterVar] = []
    loops: list[Var] = []
    sources: list[For | None] = []
    for var, extent, kind in zip(image.inverse.inputs, image.shape, kinds, strict=True):
        source = kept.get(var)
        loop = None if source is None else old.loops[source]
        name = f"v_{var.name}" if source is None else block.iter_vars[source].var.name
        domain = Range(const(0, extent.dtype), extent)
        fresh = Var(name, extent.dtype)
        iter_vars.append(IterVar(fresh, domain, kind))  # pyright: ignore[reportArgumentType]
        loops.append(Var(var.name if loop is None else loop.var.name, extent.dtype))
        sources.append(loop)
        analyzer.bind(fresh, domain)
        analyzer.bind(loops[-1], domain)
    fresh_vars = [item.var for item in iter_vars]
    values = {
        item.var: place.astype(item.var.dtype)
        for item, place in zip(block.iter_vars, image.inverse.apply(fresh_vars), strict=True)
    }
    visitor = IndexSubstitution(values, analyzer)
    moved = visitor.visit(block)
    assert isinstance(moved, Block)
    names: dict[Var, Expr] = dict(zip(image.inverse.inputs, fresh_vars, strict=True))
    made = rebuild(replace(moved, iter_vars=tuple(iter_vars)), substitute(image.inside, names))
    if is_transparent(made):
        made = restated(made)
    at_loops: dict[Var, Expr] = dict(zip(image.inverse.inputs, loops, strict=True))
    condition = substitute(image.inside, at_loops) if predicate else true()
    stmt: Stmt = BlockRealize(tuple(loops), condition, made, span=span)
    forward: Forward = {**visitor.forward, block: made}
    forward |= dict.fromkeys(loop for loop in old.loops if loop is not None)
    for loop, extent, source in reversed(list(zip(loops, image.shape, sources, strict=True))):
        zero = const(0, extent.dtype)
        origin = block.span if source is None else source.span
        stmt = For(loop, zero, extent, "serial", stmt, span=origin)
        if source is not None:
            forward[source] = stmt
    return NewNest(stmt, made, forward)


def replace_nest(func: PrimFunc, old: OwnNest, new: NewNest) -> Edit:
    """The edit that puts a new nest in the place of an old one."""
    return edit(func, {old.top: new.stmt}, new.forward)


def box_of(
    region: BufferRegion, index_map: IndexMap, like: Buffer, analyzer: Analyzer
) -> BufferRegion:
    """The box of `like` that holds what the map makes of a region."""
    places = tuple(item.min for item in region.ranges)
    if all(as_int(item.extent) == 1 for item in region.ranges):
        return BufferRegion(
            like,
            tuple(
                Range(analyzer.simplify(item), const(1, item.dtype))
                for item in index_map.apply(places)
            ),
        )
    over = {Var(f"a{n}", item.min.dtype): item for n, item in enumerate(region.ranges)}
    ranges: list[Range] = []
    for item, size in zip(index_map.apply(list(over)), like.shape, strict=True):
        ends = analyzer.symbolic_bounds(item, over)
        ranges.append(
            Range.of(size)
            if ends is None
            else Range(ends[0], analyzer.simplify(ends[1] - ends[0] + 1))
        )
    return BufferRegion(like, tuple(ranges))
