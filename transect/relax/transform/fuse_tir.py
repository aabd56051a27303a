"""FuseTIR and FuseOps: several calls of tensor programs become one call of one.

Which calls may be fused is found in `fusion`; moving the loops of the parts into each other is
scheduling (`tir.schedule`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from transect.arith import Analyzer
from transect.ir.dtype import HANDLE, INDEX
from transect.ir.expr import Expr, Var, cast, const
from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, rewrite
from transect.ir.types import TensorType, Type, tensor_type
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.call import CallTIR, call_tir
from transect.relax.emit import Names
from transect.relax.references import referenced_functions
from transect.relax.transform.fusion import (
    FusionGroup,
    Member,
    as_member,
    fusion_candidates,
    fusion_groups,
)
from transect.relax.unify import unify_prim_func
from transect.relax.visit import Rewriter, graph_functions
from transect.support.errors import InputError
from transect.support.span import Spans, merge_spans
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.buffer import buffer as make_buffer
from transect.tir.function import PrimFunc
from transect.tir.stmt import Block, BlockRealize, Stmt, realize_root, seq
from transect.tir.visit import StmtRewriter, Substitution, fresh_copy, map_stmt, walk_terms
from transect.transform.base import Context, Pass

TermT = TypeVar("TermT", bound=Term)


@dataclass(frozen=True)
class FuseTIR(Pass):
    """Make each group of calls one tensor program, whose intermediate results are buffers of its
    root block.

    Requires A-normal form and groups of calls in one dataflow block (see `fusion_groups`). Leaves
    the parts of a program one after the other; a schedule moves them into each other. Private
    programs that nobody calls any more are removed. Raises InputError for an unknown group.
    """

    groups: tuple[FusionGroup, ...]

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with each group as one call."""
        del context
        builder = BlockBuilder(module)
        replaced: set[str] = set()
        for name, function in list(graph_functions(module)):
            groups = [group for group in self.groups if group.function == name]
            if groups:
                fuser = _Fuse(module, builder, groups)
                new = fuser.run(function)
                fuser.check_complete(name)
                replaced |= fuser.replaced
                builder.module = builder.module.with_function(name, new)
        used = {
            name
            for function in builder.module.functions.values()
            for name in referenced_functions(function)
        }
        unused = [
            name
            for name in replaced
            if name not in used and "global_symbol" not in builder.module[name].attrs
        ]
        return builder.module.without(*unused) if unused else builder.module


@dataclass(frozen=True)
class FuseOps(Pass):
    """Fuse whatever may be fused: FuseTIR with every candidate, without asking the plan."""

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with all candidates fused."""
        groups: list[FusionGroup] = []
        for name, function in graph_functions(module):
            edges = fusion_candidates(function, module)
            groups.extend(fusion_groups(name, function, module, edges))
        return FuseTIR(tuple(groups))(module, context) if groups else module


class _Fuse(Rewriter):
    def __init__(
        self, module: IRModule, builder: BlockBuilder, groups: Sequence[FusionGroup]
    ) -> None:
        super().__init__()
        self.module = module
        self.builder = builder
        self.group_of = {var: group for group in groups for var in group.members}
        self.parts: dict[rx.Var, Member] = {}
        self.spans: dict[rx.Var, Spans] = {}
        self.replaced: set[str] = set()

    def check_complete(self, name: str) -> None:
        """Refuse groups with calls that the function does not have."""
        missing = [var.name for var in self.group_of if var not in self.parts]
        if missing:
            raise InputError(f"{name} has no call of a tensor program bound to {missing[0]}")

    def rewrite_binding(self, binding: rx.Binding) -> None:
        group = self.group_of.get(binding.var)
        if group is None or isinstance(binding, rx.MatchCast):
            super().rewrite_binding(binding)
            return
        value = self.rewrite(binding.value)
        part = as_member(replace(binding, value=value), self.module)
        if part is None:
            raise InputError(f"{binding.var.name} is not bound to a call that can be fused")
        self.parts[binding.var] = part
        self.spans[binding.var] = binding.span or binding.value.span
        if isinstance(value, rx.Call) and isinstance(value.op, CallTIR):
            self.replaced.add(part.name)
        if binding.var is group.members[-1]:
            members = [self.parts[var] for var in group.members]
            call = self.fused_call(members)
            self.bind(replace(binding, span=call.span), call)

    def fused_call(self, members: Sequence[Member]) -> rx.Call:
        program = fuse_members(members)
        names = "_".join(member.name.removeprefix("fused_") for member in members)
        callee = self.builder.add_function(program.function, f"fused_{names}")
        span = merge_spans(*(self.spans[member.var] for member in members))
        return call_tir(callee, program.inputs, members[-1].out_type, program.tir_vars, span)


@dataclass(frozen=True)
class FusedProgram:
    """A fused tensor program and what to call it with."""

    function: PrimFunc
    inputs: tuple[rx.Value, ...]
    tir_vars: tuple[Expr, ...]


def fuse_members(members: Sequence[Member]) -> FusedProgram:
    """One tensor program that does what the members do in order and gives the last one's result.

    Its symbolic variables are the caller's, but for dimensions that the caller computes: they are
    variables of the program's own (see `_Dims`). Those that no tensor binds become scalar
    parameters. Constants of rank 0 become part of the program.
    """
    names = Names()
    dims = _Dims(members)
    results: dict[rx.Value, Buffer] = {}
    inputs: dict[rx.Value, Buffer] = {}
    allocated: list[Buffer] = []
    bodies: list[Stmt] = []
    for member in members:
        buffers = [
            results[value] if value in results else _input(inputs, value, names, dims)
            for value in member.inputs
        ]
        last = member is members[-1]
        target = _tensor_buffer(
            names.fresh("y" if last else member.name), dims.type(member.out_type)
        )
        results[member.var] = target
        if not last:
            allocated.append(target)
        body, local = _inline(member, [*buffers, target], dims)
        bodies.append(body)
        allocated.extend(local)
    output = results[members[-1].var]
    scalars_known = {
        buffer: const(value.data.item(), buffer.dtype)
        for value, buffer in inputs.items()
        if isinstance(value, rx.Constant) and value.data.ndim == 0
    }
    inputs = {value: buffer for value, buffer in inputs.items() if buffer not in scalars_known}
    body = _EmbedScalars(scalars_known).visit(_with_distinct_names(seq(*bodies)))
    params = (*inputs.values(), output)
    handles = [Var(item.name, HANDLE) for item in params]
    bound = {dim for item in params for dim in item.shape if isinstance(dim, Var)}
    symbols = (*_symbols(members), *dims.values())
    free = tuple(var for var in symbols if var not in bound)
    used = set(_used_vars(body, [*params, *allocated]))
    scalars = tuple(var for var in free if var in used)
    span = merge_spans(*(member.function.span for member in members))
    function = PrimFunc(
        (*handles, *scalars),
        dict(zip(handles, params, strict=True)),
        realize_root(body, tuple(allocated)),
        {},
        span,
    )
    values = dims.values()
    return FusedProgram(function, tuple(inputs), tuple(values.get(var, var) for var in scalars))


class _Dims:
    """Dimensions as a program of its own sees them: one that the caller computes, such as
    (h - 1) // 2 + 1, is a variable if the program needs nothing that it is computed from.

    So the programs of repeated layers are equal, and their indices small.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        kinds = [kind for m in members for kind in (*(v.type for v in m.inputs), m.out_type)]
        dims = [cast(d, INDEX) for k in kinds if isinstance(k, TensorType) for d in k.shape or ()]
        analyzer = Analyzer()
        computed = {
            d: analyzer.simplify(d) for d in dims if not isinstance(d, Var) and free_vars((d,))
        }
        scalars = [value for member in members for value in member.tir_vars]
        needed = {d for d in dims if isinstance(d, Var)}
        needed.update(free_vars([value for value in scalars if value not in computed]))
        before = -1
        while len(needed) > before:
            before = len(needed)
            for dim, short in list(computed.items()):
                if needed.intersection(free_vars((dim, short))):
                    needed.update(free_vars((dim,)))
                    del computed[dim]
        own = {short: Var("d", INDEX) for short in computed.values()}
        self.known: dict[Expr, Var] = {dim: own[short] for dim, short in computed.items()}

    def values(self) -> dict[Var, Expr]:
        """What the variables are, in the caller's terms."""
        return {var: dim for dim, var in reversed(self.known.items())}

    def dim(self, value: Expr) -> Expr:
        """A dimension, or a scalar, of the caller."""
        return self.known.get(cast(value, INDEX), value)

    def type(self, kind: Type) -> Type:
        """A tensor's type."""
        if not isinstance(kind, TensorType) or kind.shape is None or not self.known:
            return kind
        return tensor_type(tuple(map(self.dim, kind.shape)), kind.dtype, device=kind.device)


class _NameDims(Substitution):
    """Puts variables in place of whole dimensions."""

    def __init__(self, dims: Mapping[Expr, Expr], params: Sequence[Buffer]) -> None:
        super().__init__(buffers={item: item for item in params})
        self.dims = dims

    def _replace_term(self, item: Term) -> Term:
        found = self.dims.get(item) if isinstance(item, Expr) else None
        return super()._replace_term(item) if found is None else found


def _input(inputs: dict[rx.Value, Buffer], value: rx.Value, names: Names, dims: _Dims) -> Buffer:
    if value not in inputs:
        hint = value.name if isinstance(value, rx.Var) else "c"
        assert isinstance(value.type, TensorType)
        inputs[value] = _tensor_buffer(names.fresh(hint), dims.type(value.type))
    return inputs[value]


def _tensor_buffer(name: str, kind: Type) -> Buffer:
    if not isinstance(kind, TensorType) or kind.shape is None or kind.dtype is None:
        raise InputError(f"the shape or dtype of {name} is not known")
    return make_buffer(name, tuple(cast(dim, INDEX) for dim in kind.shape), kind.dtype)


def _inline(
    member: Member, buffers: Sequence[Buffer], dims: _Dims
) -> tuple[Stmt, tuple[Buffer, ...]]:
    """The body of a member over the given buffers, and the buffers that it allocates."""
    function = member.function
    types = [dims.type(kind) for kind in (*(v.type for v in member.inputs), member.out_type)]
    scalars = tuple(map(dims.dim, member.tir_vars))
    found = unify_prim_func(function, types, scalars, member.name)
    values: dict[Var, Expr] = dict(found.values)
    named: dict[Expr, Expr] = {}
    for old, new in zip(function.buffers, buffers, strict=True):
        values[old.data] = new.data
        named |= {
            declared: given
            for declared, given in zip(old.shape, new.shape, strict=True)
            if given in dims.known.values() and not isinstance(declared, Var)
        }
    body = _NameDims(named, function.buffers).visit(function.body) if named else function.body
    copied = fresh_copy(body, values, dict(zip(function.buffers, buffers, strict=True)))
    assert isinstance(copied, BlockRealize)
    return copied.block.body, copied.block.alloc_buffers


def _symbols(members: Sequence[Member]) -> list[Var]:
    """The caller's symbolic variables that the members' types and scalars mention, in order."""
    kinds = [
        kind
        for member in members
        for kind in (*(value.type for value in member.inputs), member.out_type)
    ]
    dims = [dim for kind in kinds if isinstance(kind, TensorType) for dim in kind.shape or ()]
    dims += [value for member in members for value in member.tir_vars]
    return free_vars(dims)


def _used_vars(body: Stmt, buffers: Sequence[Buffer]) -> list[Var]:
    shapes = [dim for item in buffers for dim in item.shape]
    inside = [term for term in walk_terms(body) if isinstance(term, Var)]
    return [*free_vars(shapes), *inside]


class _EmbedScalars(StmtRewriter):
    """Puts the values of constants of one element in place of the loads from them."""

    def __init__(self, values: Mapping[Buffer, Expr]) -> None:
        self.values = values
        self.memo: dict[Term, Term] = {}

    def expr(self, value: TermT) -> TermT:
        return rewrite(value, self._replace, self.memo)

    def _replace(self, item: Term) -> Term:
        return self.values.get(item.buffer, item) if isinstance(item, BufferLoad) else item

    def visit_block(self, stmt: Block) -> Stmt:
        reads = tuple(region for region in stmt.reads if region.buffer not in self.values)
        return super().visit_block(
            stmt if len(reads) == len(stmt.reads) else replace(stmt, reads=reads)
        )


def _with_distinct_names(body: Stmt) -> Stmt:
    """Blocks get distinct names, so that a schedule can tell them apart."""
    names = Names()

    def rename(stmt: Stmt) -> Stmt:
        return replace(stmt, name=names.fresh(stmt.name)) if isinstance(stmt, Block) else stmt

    return map_stmt(body, rename)
