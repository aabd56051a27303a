"""Where a TensorIntrin's description fits a block: variables, buffers, offsets and strides.

Matching is structural, up to names, the order of loops, and operands that may change sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations

from transect.arith import Analyzer
from transect.ir.expr import Add, Expr, Mul, Range, Var, as_expr, as_int, cast
from transect.ir.term import Term
from transect.ir.traverse import free_vars, substitute
from transect.tir.affine import affine
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.stmt import Block, BlockRealize, BufferStore, IfThenElse, SeqStmt, Stmt
from transect.tir.tensor_intrin import TensorIntrin

ORDINARY = ("global", "local")
"""Scopes of memory that processors address alike: a description in "global" fits both."""


class NoMatch(Exception):
    """Why a description does not fit, and what would."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True)
class TensorMatch:
    """How a description fits a block.

    variables: for each iteration variable of the description that of the block. regions: for each
    parameter of the description the part of a buffer that it is.
    """

    variables: Mapping[Var, Var]
    regions: tuple[BufferRegion, ...]


@dataclass
class _State:
    """What is known so far. starts: of each buffer of the description where it begins."""

    variables: dict[Var, Expr]
    inner: frozenset[Var]
    analyzer: Analyzer
    buffers: dict[Buffer, Buffer] = field(default_factory=dict[Buffer, Buffer])
    starts: dict[Buffer, tuple[Expr, ...]] = field(default_factory=dict[Buffer, tuple[Expr, ...]])

    def snapshot(self) -> tuple[dict[Buffer, Buffer], dict[Buffer, tuple[Expr, ...]]]:
        return dict(self.buffers), dict(self.starts)

    def restore(self, saved: tuple[dict[Buffer, Buffer], dict[Buffer, tuple[Expr, ...]]]) -> None:
        self.buffers, self.starts = dict(saved[0]), dict(saved[1])


def match_block(intrin: TensorIntrin, realize: BlockRealize, analyzer: Analyzer) -> TensorMatch:
    """How the description of `intrin` fits a block whose whole domain is one instance of it.

    analyzer: knows what is around the block. Raises NoMatch, for the assignment of variables that
    came closest.
    """
    block, wanted = realize.block, intrin.block
    if block.init is not None:
        raise NoMatch(
            f"block {block.name!r} still has its init",
            "blockize around all its loops, or sch.decompose_reduction first",
        )
    if block.alloc_buffers or block.match_buffers:
        raise NoMatch(
            f"block {block.name!r} has buffers of its own",
            "tensorize blocks that work on buffers from outside",
        )
    analyzer = analyzer.fork()
    for item in block.iter_vars:
        analyzer.bind(item.var, item.dom)
    fixed, ours = _variables(block)
    fixed_theirs, theirs = _variables(wanted)
    _require_domains(ours, theirs)
    failure: NoMatch | None = None
    for chosen in _assignments(theirs, ours):
        values = {**fixed_theirs, **chosen}
        state = _State(values, frozenset(chosen.values()), analyzer)
        try:
            _stmt(state, wanted.body, block.body, fixed)
            regions = tuple(_region(state, item, intrin) for item in intrin.description.buffers)
        except NoMatch as error:
            failure = failure or error
            continue
        return TensorMatch(chosen, regions)
    assert failure is not None
    raise failure


def _variables(block: Block) -> tuple[dict[Var, Expr], list[tuple[Var, str, int | None]]]:
    """The variables of one value, and the others with kind and extent."""
    fixed: dict[Var, Expr] = {}
    others: list[tuple[Var, str, int | None]] = []
    for item in block.iter_vars:
        size = as_int(item.dom.extent)
        if size == 1:
            fixed[item.var] = item.dom.min
        elif as_int(item.dom.min) != 0:
            raise NoMatch(
                f"{item.var.name!r} of block {block.name!r} begins at {item.dom.min!r}",
                "blockize, which lets what is inside begin at 0",
            )
        else:
            others.append((item.var, item.kind, size))
    return fixed, others


def _require_domains(
    ours: Sequence[tuple[Var, str, int | None]], theirs: Sequence[tuple[Var, str, int | None]]
) -> None:
    def key(item: tuple[Var, str, int | None]) -> tuple[str, str]:
        return item[1], str(item[2])

    if sorted(map(key, ours)) == sorted(map(key, theirs)):
        return

    def text(items: Sequence[tuple[Var, str, int | None]]) -> str:
        return ", ".join(
            f"{var.name} ({kind}, {'symbolic' if size is None else size})"
            for var, kind, size in items
        )

    raise NoMatch(
        f"the loops inside run over {text(ours) or 'nothing'}; "
        f"the description runs over {text(theirs) or 'nothing'}",
        "split and reorder, so that exactly loops of these extents are inside",
    )


def _assignments(
    theirs: Sequence[tuple[Var, str, int | None]], ours: Sequence[tuple[Var, str, int | None]]
) -> Iterator[dict[Var, Var]]:
    """Ways to give each variable of the description one of the block, of its kind and extent."""
    for order in permutations(ours):
        if all(a[1:] == b[1:] for a, b in zip(theirs, order, strict=True)):
            yield {a[0]: b[0] for a, b in zip(theirs, order, strict=True)}


def _stmt(state: _State, theirs: Stmt, ours: Stmt, fixed: Mapping[Var, Expr]) -> None:
    theirs, ours = _single(theirs), _single(ours)
    if type(theirs) is not type(ours):
        raise NoMatch(
            f"the body is {_name(ours)}, the description's {_name(theirs)}",
            "the computation of the block must be the description's",
        )
    if isinstance(theirs, BufferStore) and isinstance(ours, BufferStore):
        _access(state, theirs.buffer, theirs.indices, ours.buffer,
                tuple(substitute(index, fixed) for index in ours.indices))  # fmt: skip
        _expr(state, theirs.value, substitute(ours.value, fixed))
    elif isinstance(theirs, SeqStmt) and isinstance(ours, SeqStmt):
        if len(theirs.stmts) != len(ours.stmts):
            raise NoMatch(
                f"{len(ours.stmts)} statements, the description has {len(theirs.stmts)}",
                "the computation of the block must be the description's",
            )
        for a, b in zip(theirs.stmts, ours.stmts, strict=True):
            _stmt(state, a, b, fixed)
    elif isinstance(theirs, IfThenElse) and isinstance(ours, IfThenElse):
        _expr(state, theirs.condition, substitute(ours.condition, fixed))
        _stmt(state, theirs.then_case, ours.then_case, fixed)
        if theirs.else_case is not None and ours.else_case is not None:
            _stmt(state, theirs.else_case, ours.else_case, fixed)
        elif theirs.else_case is not ours.else_case:
            raise NoMatch("only one of the two has an else", "write both alike")
    else:
        raise NoMatch(
            f"the description holds {_name(theirs)}", "describe it by stores, also under conditions"
        )


def _single(stmt: Stmt) -> Stmt:
    while isinstance(stmt, SeqStmt) and len(stmt.stmts) == 1:
        stmt = stmt.stmts[0]
    return stmt


def _name(stmt: Stmt) -> str:
    return {"BufferStore": "a store", "SeqStmt": "several statements"}.get(
        type(stmt).__name__, f"a statement of the kind {type(stmt).__name__}"
    )


def _expr(state: _State, theirs: Term, ours: Term) -> None:
    """Require `ours` to be `theirs` with other names."""
    if isinstance(theirs, BufferLoad) and isinstance(ours, BufferLoad):
        _access(state, theirs.buffer, theirs.indices, ours.buffer, ours.indices)
        return
    if isinstance(theirs, Var):
        mapped = state.variables.get(theirs, theirs)
        if mapped is not ours:
            raise NoMatch(
                f"it uses {ours!r} where the description has {theirs.name!r}",
                "the computation of the block must be the description's",
            )
        return
    if type(theirs) is not type(ours) or (
        isinstance(theirs, Expr) and isinstance(ours, Expr) and theirs.dtype is not ours.dtype
    ):
        raise NoMatch(
            f"it computes {ours!r} ({_dtype(ours)}) where the description has "
            f"{theirs!r} ({_dtype(theirs)})",
            "compute in the dtypes of the description, or choose the intrinsic for these",
        )
    if isinstance(theirs, Add | Mul) and isinstance(ours, Add | Mul):
        saved = state.snapshot()
        try:
            _expr(state, theirs.a, ours.a)
            _expr(state, theirs.b, ours.b)
        except NoMatch as error:
            state.restore(saved)
            try:
                _expr(state, theirs.a, ours.b)
                _expr(state, theirs.b, ours.a)
            except NoMatch:
                raise error from None
        return
    a, b = theirs.children(), ours.children()
    if len(a) != len(b) or _plain(theirs) != _plain(ours):
        raise NoMatch(
            f"it computes {ours!r} where the description has {theirs!r}",
            "the computation of the block must be the description's",
        )
    for one, other in zip(a, b, strict=True):
        _expr(state, one, other)


def _dtype(term: Term) -> str:
    return str(term.dtype) if isinstance(term, Expr) else type(term).__name__


def _plain(term: Term) -> tuple[object, ...]:
    """The fields of a term that are no terms."""
    kind = type(term)
    return tuple(getattr(term, name) for name in kind.fields if name not in kind.term_fields)


def _access(
    state: _State,
    theirs: Buffer,
    wanted: tuple[Expr, ...],
    ours: Buffer,
    indices: tuple[Expr, ...],
) -> None:
    """Require an access to be the description's, moved by a constant offset in each dimension."""
    known = state.buffers.get(theirs)
    if known is not None and known is not ours:
        raise NoMatch(
            f"it uses {ours.name!r} where {theirs.name!r} of the description is {known.name!r}",
            "the operands must be used as in the description",
        )
    if known is None and ours in state.buffers.values():
        raise NoMatch(
            f"{ours.name!r} stands for two parameters of the description",
            "read one of them through sch.cache_read",
        )
    if ours.dtype is not theirs.dtype:
        raise NoMatch(
            f"{ours.name!r} holds {ours.dtype}, {theirs.name!r} of the description {theirs.dtype}",
            f"make it {theirs.dtype}, or choose the intrinsic for {ours.dtype}",
        )
    if ours.scope != theirs.scope and not {ours.scope, theirs.scope} <= set(ORDINARY):
        raise NoMatch(
            f"{ours.name!r} is in {ours.scope!r}, {theirs.name!r} of the description in "
            f"{theirs.scope!r}",
            f"sch.cache_read or sch.cache_write with the scope {theirs.scope!r}, or sch.set_scope",
        )
    if ours.ndim < theirs.ndim:
        raise NoMatch(
            f"{ours.name!r} has {ours.ndim} dimensions, {theirs.name!r} of the description "
            f"{theirs.ndim}",
            "sch.transform_layout gives it more dimensions",
        )
    leading = ours.ndim - theirs.ndim
    starts: list[Expr] = []
    for axis, index in enumerate(indices):
        relative = None if axis < leading else wanted[axis - leading]
        starts.append(_start(state, theirs, ours, axis, index, relative))
    before = state.starts.setdefault(theirs, tuple(starts))
    for axis, (a, b) in enumerate(zip(before, starts, strict=True)):
        if a is not b and not state.analyzer.can_prove_equal(a, b):
            raise NoMatch(
                f"dimension {axis} of {ours.name!r} is accessed from {a!r} and from {b!r}",
                "all accesses to a parameter of the description have the same offset",
            )
    state.buffers[theirs] = ours


def _start(
    state: _State, theirs: Buffer, ours: Buffer, axis: int, index: Expr, relative: Expr | None
) -> Expr:
    """`index` less what the description asks for; the same for all inner iterations."""
    kind = index.dtype
    if relative is None:
        difference = index
    else:
        values = {old: cast(new, old.dtype) for old, new in state.variables.items()}
        difference = index - cast(substitute(relative, values), kind)
    form = affine(difference)
    if not set(free_vars(list(form.terms))) & state.inner:
        return form.to_expr(kind)
    simple = state.analyzer.simplify(difference)
    if not set(free_vars([simple])) & state.inner:
        return simple
    name = f"{ours.name}[{', '.join('…' if n != axis else repr(index) for n in range(ours.ndim))}]"
    if relative is None:
        raise NoMatch(
            f"{name}: dimension {axis} changes inside, but {theirs.name!r} of the description has "
            f"only {theirs.ndim} dimensions, the last ones",
            "sch.transform_layout so that the dimensions that change inside are the last",
        )
    raise NoMatch(
        f"{name}: the description accesses {theirs.name!r} at {relative!r} there, which is not "
        "the same up to an offset",
        "lay the operand out as the description has it (sch.transform_layout), or reorder loops",
    )


def strides_of(buffer: Buffer) -> tuple[Expr, ...]:
    """In elements, given or compact."""
    if buffer.strides:
        return buffer.strides
    found: list[Expr] = []
    running: Expr | None = None
    for extent in reversed(buffer.shape):
        found.append(as_expr(1, extent.dtype) if running is None else running)
        running = extent if running is None else running * extent
    return tuple(reversed(found))


def _region(state: _State, theirs: Buffer, intrin: TensorIntrin) -> BufferRegion:
    ours = state.buffers.get(theirs)
    if ours is None:
        raise NoMatch(
            f"the description of {intrin.name} does not use its parameter {theirs.name!r}",
            "leave it out of the intrinsic",
        )
    starts = state.starts[theirs]
    leading = ours.ndim - theirs.ndim
    ranges = [Range(start, as_expr(1, start.dtype)) for start in starts[:leading]]
    own = strides_of(ours)[leading:]
    for axis, (stride, wanted, extent) in enumerate(
        zip(own, strides_of(theirs), theirs.shape, strict=True)
    ):
        start = starts[leading + axis]
        ranges.append(Range(start, cast(extent, start.dtype)))
        free = isinstance(wanted, Var) or as_int(extent) == 1
        if not free and not state.analyzer.can_prove_equal(stride, cast(wanted, stride.dtype)):
            raise NoMatch(
                f"neighbours in dimension {leading + axis} of {ours.name!r} are "
                f"{state.analyzer.simplify(stride)!r} elements apart, in {theirs.name!r} of the "
                f"description {wanted!r}",
                "lay it out so that they are (sch.transform_layout, or a packed copy), or describe "
                "the intrinsic with a variable stride",
            )
    return BufferRegion(ours, tuple(ranges))
