"""Walking and rewriting statements, and the terms inside them.

Statements nest as deep as the program's loops, so visiting them recurses; terms inside are walked
iteratively by `ir.traverse`. What a rewrite leaves as it was stays the same object, spans included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from transect.ir.expr import Expr, Range, Var
from transect.ir.node import Node, replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, rewrite, walk
from transect.support.span import Spans, merge_spans
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.stmt import (
    Allocate,
    AllocateConst,
    AssertStmt,
    AttrStmt,
    Bind,
    Block,
    BlockRealize,
    BufferStore,
    DeclBuffer,
    Evaluate,
    For,
    IfThenElse,
    IterVar,
    MatchBufferRegion,
    SeqStmt,
    Stmt,
    While,
)

ItemT = TypeVar("ItemT")
StmtT = TypeVar("StmtT", bound=Stmt)
TermT = TypeVar("TermT", bound=Term)

# --- reading --------------------------------------------------------------------------------


def _block_children(stmt: Block) -> tuple[Stmt, ...]:
    return (stmt.body,) if stmt.init is None else (stmt.init, stmt.body)


def _if_children(stmt: IfThenElse) -> tuple[Stmt, ...]:
    return (stmt.then_case,) if stmt.else_case is None else (stmt.then_case, stmt.else_case)


_CHILDREN: dict[type[Stmt], Callable[[Any], tuple[Stmt, ...]]] = {
    AttrStmt: lambda stmt: (stmt.body,),
    SeqStmt: lambda stmt: stmt.stmts,
    IfThenElse: _if_children,
    For: lambda stmt: (stmt.body,),
    While: lambda stmt: (stmt.body,),
    Block: _block_children,
    BlockRealize: lambda stmt: (stmt.block,),
}


def _region_terms(block: Block) -> tuple[Term, ...]:
    matched = tuple(match.source for match in block.match_buffers)
    domains = tuple(iter_var.dom for iter_var in block.iter_vars)
    return (*domains, *block.reads, *block.writes, *matched)


_TERMS: dict[type[Stmt], Callable[[Any], tuple[Any, ...]]] = {
    Evaluate: lambda stmt: (stmt.value,),
    BufferStore: lambda stmt: (*stmt.indices, stmt.value, stmt.predicate),
    Bind: lambda stmt: (stmt.value,),
    Allocate: lambda stmt: stmt.extents,
    AssertStmt: lambda stmt: (stmt.condition, *stmt.message),
    AttrStmt: lambda stmt: (stmt.node, stmt.value),
    IfThenElse: lambda stmt: (stmt.condition,),
    For: lambda stmt: (stmt.min, stmt.extent),
    While: lambda stmt: (stmt.condition,),
    Block: _region_terms,
    BlockRealize: lambda stmt: (*stmt.iter_values, stmt.predicate),
}


def child_stmts(stmt: Stmt) -> tuple[Stmt, ...]:
    """The statements directly inside `stmt`, in order of execution."""
    children = _CHILDREN.get(type(stmt))
    return () if children is None else children(stmt)


def own_terms(stmt: Stmt) -> tuple[Term, ...]:
    """The terms that `stmt` itself holds: those of the statements inside it are not among them.

    A block gives its domains and regions as well; the fields of buffers are left out.
    """
    terms = _TERMS.get(type(stmt))
    return () if terms is None else tuple(item for item in terms(stmt) if isinstance(item, Term))


def walk_stmts(root: Stmt) -> Iterator[Stmt]:
    """`root` and every statement inside it, parents before children, in order of execution."""
    stack = [root]
    while stack:
        stmt = stack.pop()
        yield stmt
        stack.extend(reversed(child_stmts(stmt)))


def walk_terms(root: Stmt) -> Iterator[Term]:
    """Every term inside `root` with its subterms; one that occurs in several statements repeats."""
    for stmt in walk_stmts(root):
        yield from walk(*own_terms(stmt))


def used_buffers(root: Stmt) -> list[Buffer]:
    """The distinct buffers that `root` loads from, stores to or declares, in order."""
    found: dict[Buffer, None] = {}
    for stmt in walk_stmts(root):
        for term in walk(*own_terms(stmt)):
            if isinstance(term, BufferLoad | BufferRegion):
                found[term.buffer] = None
        for buffer in (
            *bound_buffers(stmt),
            *((stmt.buffer,) if isinstance(stmt, BufferStore) else ()),
        ):
            found[buffer] = None
    return list(found)


def bound_vars(stmt: Stmt) -> tuple[Var, ...]:
    """The variables that `stmt` itself defines, without those in the fields of its buffers."""
    if isinstance(stmt, Bind | Allocate | AllocateConst | For):
        return (stmt.var,)
    if isinstance(stmt, Block):
        return tuple(iter_var.var for iter_var in stmt.iter_vars)
    return ()


def driving_vars(realize: BlockRealize, kind: str) -> set[Var]:
    """The variables around a block that its iteration variables of a kind follow."""
    pairs = zip(realize.block.iter_vars, realize.iter_values, strict=True)
    return set(free_vars(value for item, value in pairs if item.kind == kind))


def bound_buffers(stmt: Stmt) -> tuple[Buffer, ...]:
    """The buffers that `stmt` itself defines."""
    if isinstance(stmt, DeclBuffer):
        return (stmt.buffer,)
    if isinstance(stmt, Block):
        return (*stmt.alloc_buffers, *(match.buffer for match in stmt.match_buffers))
    return ()


# --- rewriting ------------------------------------------------------------------------------


def map_items(function: Callable[[ItemT], ItemT], items: tuple[ItemT, ...]) -> tuple[ItemT, ...]:
    """`tuple(map(function, items))`, but `items` itself if nothing changed."""
    mapped = tuple(map(function, items))
    return items if all(a is b for a, b in zip(mapped, items, strict=True)) else mapped


class StmtRewriter:
    """Rebuilds a statement; override the methods of the kinds that change.

    A method takes a statement and returns its replacement; the defaults rebuild from the rewritten
    parts. `expr`, `buffer` (uses), `bound_var` and `bound_buffer` (definitions) are applied to all
    terms, buffers and binders inside, regions and annotations that hold terms included. `visit`
    gives the result the spans of the source where it has none.
    """

    _methods: ClassVar[dict[type[Stmt], str]] = {
        Evaluate: "visit_evaluate",
        BufferStore: "visit_store",
        Bind: "visit_bind",
        Allocate: "visit_allocate",
        AllocateConst: "visit_allocate_const",
        DeclBuffer: "visit_decl_buffer",
        AssertStmt: "visit_assert",
        AttrStmt: "visit_attr",
        SeqStmt: "visit_seq",
        IfThenElse: "visit_if",
        For: "visit_for",
        While: "visit_while",
        Block: "visit_block",
        BlockRealize: "visit_block_realize",
    }
    _table: ClassVar[dict[type[Stmt], Callable[[Any, Any], Stmt]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._table = {kind: getattr(cls, name) for kind, name in cls._methods.items()}

    def visit(self, stmt: Stmt) -> Stmt:
        """The replacement of `stmt`."""
        new = self._table[type(stmt)](self, stmt)
        if new is not stmt and stmt.span and not new.span:
            return replace(new, span=stmt.span)
        return new

    # What the terms, buffers and binders become.

    def expr(self, value: TermT) -> TermT:
        """The replacement of a term (an expression, range or region)."""
        return value

    def buffer(self, value: Buffer) -> Buffer:
        """The replacement of a buffer that is used; those inside terms are left to `expr`."""
        return value

    def bound_var(self, var: Var) -> Var:
        """The replacement of a variable where it is defined."""
        return var

    def bound_buffer(self, buffer: Buffer) -> Buffer:
        """The replacement of a buffer where it is defined."""
        return self.buffer(buffer)

    def annotation(self, value: Any) -> Any:
        """The replacement of an annotation's or attribute's value."""
        if isinstance(value, Buffer):
            return self.buffer(value)
        if isinstance(value, Term):
            return self.expr(value)
        if isinstance(value, tuple):
            return map_items(self.annotation, value)  # pyright: ignore[reportUnknownArgumentType]
        return value

    def annotations(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Annotations with their values replaced; the mapping itself if none changed."""
        new = {key: self.annotation(value) for key, value in values.items()}
        return values if all(new[key] is value for key, value in values.items()) else new

    # One method per kind.

    def visit_evaluate(self, stmt: Evaluate) -> Stmt:
        return replace(stmt, value=self.expr(stmt.value))

    def visit_store(self, stmt: BufferStore) -> Stmt:
        return replace(
            stmt,
            buffer=self.buffer(stmt.buffer),
            value=self.expr(stmt.value),
            indices=map_items(self.expr, stmt.indices),
            predicate=None if stmt.predicate is None else self.expr(stmt.predicate),
        )

    def visit_bind(self, stmt: Bind) -> Stmt:
        value = self.expr(stmt.value)
        return replace(stmt, var=self.bound_var(stmt.var), value=value)

    def visit_allocate(self, stmt: Allocate) -> Stmt:
        return replace(
            stmt,
            var=self.bound_var(stmt.var),
            extents=map_items(self.expr, stmt.extents),
            annotations=self.annotations(stmt.annotations),
        )

    def visit_allocate_const(self, stmt: AllocateConst) -> Stmt:
        return replace(stmt, var=self.bound_var(stmt.var))

    def visit_decl_buffer(self, stmt: DeclBuffer) -> Stmt:
        return replace(stmt, buffer=self.bound_buffer(stmt.buffer))

    def visit_assert(self, stmt: AssertStmt) -> Stmt:
        message = map_items(
            lambda part: part if isinstance(part, str) else self.expr(part), stmt.message
        )
        return replace(stmt, condition=self.expr(stmt.condition), message=message)

    def visit_attr(self, stmt: AttrStmt) -> Stmt:
        subject, value = self.annotation(stmt.node), self.annotation(stmt.value)
        body = self.visit(stmt.body)
        if subject is stmt.node and value is stmt.value and body is stmt.body:
            return stmt
        return AttrStmt(subject, stmt.key, value, body, stmt.span)

    def visit_seq(self, stmt: SeqStmt) -> Stmt:
        return replace(stmt, stmts=map_items(self.visit, stmt.stmts))

    def visit_if(self, stmt: IfThenElse) -> Stmt:
        return replace(
            stmt,
            condition=self.expr(stmt.condition),
            then_case=self.visit(stmt.then_case),
            else_case=None if stmt.else_case is None else self.visit(stmt.else_case),
        )

    def visit_for(self, stmt: For) -> Stmt:
        low, extent = self.expr(stmt.min), self.expr(stmt.extent)
        return replace(
            stmt,
            var=self.bound_var(stmt.var),
            min=low,
            extent=extent,
            body=self.visit(stmt.body),
            annotations=self.annotations(stmt.annotations),
        )

    def visit_while(self, stmt: While) -> Stmt:
        return replace(stmt, condition=self.expr(stmt.condition), body=self.visit(stmt.body))

    def iter_var(self, item: IterVar) -> IterVar:
        """The replacement of a block's iteration variable."""
        domain: Range = self.expr(item.dom)
        return replace(item, dom=domain, var=self.bound_var(item.var))

    def match_buffer(self, item: MatchBufferRegion) -> MatchBufferRegion:
        """The replacement of a matched region."""
        source: BufferRegion = self.expr(item.source)
        return replace(item, source=source, buffer=self.bound_buffer(item.buffer))

    def visit_block(self, stmt: Block) -> Stmt:
        return replace(
            stmt,
            iter_vars=map_items(self.iter_var, stmt.iter_vars),
            reads=map_items(self.expr, stmt.reads),
            writes=map_items(self.expr, stmt.writes),
            alloc_buffers=map_items(self.bound_buffer, stmt.alloc_buffers),
            match_buffers=map_items(self.match_buffer, stmt.match_buffers),
            init=None if stmt.init is None else self.visit(stmt.init),
            body=self.visit(stmt.body),
            annotations=self.annotations(stmt.annotations),
        )

    def visit_block_realize(self, stmt: BlockRealize) -> Stmt:
        values, predicate = map_items(self.expr, stmt.iter_values), self.expr(stmt.predicate)
        block = self.visit(stmt.block)
        if not isinstance(block, Block):
            return block
        return replace(stmt, iter_values=values, predicate=predicate, block=block)


StmtRewriter.__init_subclass__()


class _MapStmt(StmtRewriter):
    def __init__(self, function: Callable[[Stmt], Stmt]) -> None:
        self.function = function

    def visit(self, stmt: Stmt) -> Stmt:
        rebuilt = super().visit(stmt)
        new = self.function(rebuilt)
        return new if new is rebuilt or new.span else replace(new, span=stmt.span)


def map_stmt(root: Stmt, function: Callable[[Stmt], Stmt]) -> Stmt:
    """`root` rebuilt from the inside out, `function` applied to each statement after its parts."""
    return _MapStmt(function).visit(root)


class _MapTerms(StmtRewriter):
    def __init__(self, function: Callable[[Term], Term]) -> None:
        self.function = function
        self.memo: dict[Term, Term] = {}

    def expr(self, value: TermT) -> TermT:
        return rewrite(value, self.function, self.memo)


def map_terms(root: Stmt, function: Callable[[Term], Term]) -> Stmt:
    """`root` with every term rewritten from the leaves up. Fields of buffers stay as they are."""
    return _MapTerms(function).visit(root)


class Substitution(StmtRewriter):
    """Replaces variables and buffers, in terms, in buffers' fields and in statements.

    A buffer whose fields mention a replaced variable becomes a new one, the same at every use.
    """

    def __init__(
        self,
        values: Mapping[Var, Expr] | None = None,
        buffers: Mapping[Buffer, Buffer] | None = None,
    ) -> None:
        self.values: dict[Var, Expr] = dict(values or {})
        self.buffers: dict[Buffer, Buffer] = dict(buffers or {})
        self.memo: dict[Term, Term] = {}

    def _replace_term(self, item: Term) -> Term:
        if isinstance(item, Var):
            return self.values.get(item, item)
        if isinstance(item, BufferLoad):
            buffer = self.buffer(item.buffer)
            return (
                item if buffer is item.buffer else BufferLoad(buffer, item.indices, item.predicate)
            )
        if isinstance(item, BufferRegion):
            buffer = self.buffer(item.buffer)
            return item if buffer is item.buffer else BufferRegion(buffer, item.ranges)
        return item

    def expr(self, value: TermT) -> TermT:
        known = self.memo.get(value)
        if known is None:
            return rewrite(value, self._replace_term, self.memo)
        return known  # pyright: ignore[reportReturnType]

    def buffer(self, value: Buffer) -> Buffer:
        known = self.buffers.get(value)
        if known is None:
            data = self.values.get(value.data, value.data)
            known = replace(
                value,
                data=data if isinstance(data, Var) else value.data,
                shape=map_items(self.expr, value.shape),
                strides=map_items(self.expr, value.strides),
                elem_offset=self.expr(value.elem_offset),
            )
            self.buffers[value] = known
        return known

    def define(self, var: Var, value: Expr) -> None:
        """Replace `var` from now on. Earlier results that do not mention it stay valid."""
        self.values[var] = value
        if var in self.memo:  # As every subterm of an earlier term is.
            self.memo.clear()

    def bound_var(self, var: Var) -> Var:
        value = self.values.get(var, var)
        return value if isinstance(value, Var) else var


class _FreshCopy(Substitution):
    def bound_var(self, var: Var) -> Var:
        fresh = Var(var.name, var.dtype, var.pointer)
        self.define(var, fresh)
        return fresh

    def visit_allocate(self, stmt: Allocate) -> Stmt:
        extents = map_items(self.expr, stmt.extents)
        return replace(super().visit_allocate(stmt), extents=extents)

    def bound_buffer(self, buffer: Buffer) -> Buffer:
        data = self.values.get(buffer.data)
        # A declaration over memory that is bound elsewhere keeps its pointer.
        pointer = data if isinstance(data, Var) else buffer.data
        return self._copy(buffer, pointer)

    def _copy(self, buffer: Buffer, data: Var) -> Buffer:
        fresh = Buffer(
            buffer.name,
            data,
            buffer.dtype,
            map_items(self.expr, buffer.shape),
            map_items(self.expr, buffer.strides),
            self.expr(buffer.elem_offset),
            buffer.alignment,
            buffer.offset_factor,
            buffer.axis_separators,
            buffer.layout,
            buffer.span,
        )
        if buffer in self.buffers:
            self.memo.clear()
        self.buffers[buffer] = fresh
        return fresh

    def visit_block(self, stmt: Block) -> Stmt:
        for buffer in stmt.alloc_buffers:
            self.bound_var(buffer.data)
        for match in stmt.match_buffers:
            self.bound_var(match.buffer.data)
            for field in (*match.buffer.shape, *match.buffer.strides, match.buffer.elem_offset):
                if isinstance(field, Var) and field not in self.values:
                    self.bound_var(field)
        # Regions mention the iteration variables and buffers that the block defines.
        iter_vars = map_items(self.iter_var, stmt.iter_vars)
        allocated = map_items(self.bound_buffer, stmt.alloc_buffers)
        matched = map_items(self.match_buffer, stmt.match_buffers)
        return replace(
            stmt,
            iter_vars=iter_vars,
            alloc_buffers=allocated,
            match_buffers=matched,
            reads=map_items(self.expr, stmt.reads),
            writes=map_items(self.expr, stmt.writes),
            init=None if stmt.init is None else self.visit(stmt.init),
            body=self.visit(stmt.body),
            annotations=self.annotations(stmt.annotations),
        )


def substitute_stmt(
    stmt: Stmt,
    values: Mapping[Var, Expr] | None = None,
    buffers: Mapping[Buffer, Buffer] | None = None,
) -> Stmt:
    """`stmt` with variables and buffers replaced. Folds nothing. Binders stay as they are unless
    `values` maps them to variables. To put one statement in two places, use `fresh_copy`."""
    if not values and not buffers:
        return stmt
    return Substitution(values, buffers).visit(stmt)


def fresh_copy(
    stmt: Stmt,
    values: Mapping[Var, Expr] | None = None,
    buffers: Mapping[Buffer, Buffer] | None = None,
) -> Stmt:
    """A copy of `stmt` whose every variable and buffer defined inside is new, so that both may
    stand in one function; free ones are replaced by `values` and `buffers`."""
    return _FreshCopy(values, buffers).visit(stmt)


def with_span(stmt: StmtT, *sources: Node | Spans) -> StmtT:
    """`stmt` with the spans of `sources` joined to its own."""
    groups = [item.span if isinstance(item, Node) else item for item in sources]
    return replace(stmt, span=merge_spans(stmt.span, *groups))
