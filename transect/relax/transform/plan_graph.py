"""PlanGraph: which calls fuse and who implements each contraction, decided as one problem.

The problem is stated here and solved by the context's planner; DispatchLibraries and FuseTIR apply
the answers. What may fuse is found in `fusion`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from transect.ir.dtype import FLOAT32, INDEX
from transect.ir.expr import Call, Expr, cast, maximum
from transect.ir.function import IRModule
from transect.ir.sizes import product
from transect.ir.structural import structural_hash
from transect.ir.traverse import walk as walk_terms
from transect.plan import (
    Cost,
    Exclusion,
    Option,
    Plan,
    Problem,
    Site,
    SiteKey,
)
from transect.plan.cost import number
from transect.relax import expr as rx
from transect.relax.transform.dispatch_libraries import Dispatch, DispatchLibraries
from transect.relax.transform.fuse_tir import FuseTIR
from transect.relax.transform.fusion import (
    Edge,
    FusionGroup,
    Member,
    as_member,
    fusion_candidates,
    fusion_groups,
    only_moves,
)
from transect.relax.transform.row_chains import row_chain_edges
from transect.relax.visit import bindings, graph_functions
from transect.target import Target
from transect.tir.analysis import (
    Contraction,
    PatternKind,
    block_sites,
    find_contraction,
    pattern_kind,
    sole_contraction,
)
from transect.tir.function import PrimFunc
from transect.transform.base import Context, Pass

GENERATED = "generated"
"""The option of an implementation site that leaves the program to the schedule rules."""


class Offered(Protocol):
    """What a library offers for a tensor program (see `library.base.Offer`)."""

    @property
    def routine(self) -> str: ...
    @property
    def cost(self) -> Cost: ...
    @property
    def program(self) -> PrimFunc: ...


@dataclass(frozen=True)
class PlanGraph(Pass):
    """State, solve and apply the choices of each graph function: the implementation of every
    contraction (the routines of libraries, or generated code with the sites of its schedule
    nested under it), and for every pair of calls that may fuse whether they do.

    offers: what libraries offer for a program. space: the sites of a generated program's schedule.
    Requires operators legalized. Leaves call_tirs of fused programs and of library programs.
    """

    offers: Callable[[PrimFunc, Target], Sequence[Offered]]
    space: Callable[[PrimFunc, Target], tuple[Site, ...]]

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with the answers applied."""
        dispatched: dict[rx.Var, Dispatch] = {}
        groups: list[FusionGroup] = []
        for name, function in graph_functions(module):
            graph = _Graph.of(self, name, function, module, context)
            plan, fused = graph.solve(module, context)
            dispatched |= graph.dispatches(plan)
            groups.extend(fused)
        if dispatched:
            module = DispatchLibraries(dispatched)(module, context)
        return FuseTIR(tuple(groups))(module, context) if groups else module


@dataclass(frozen=True)
class _Graph:
    """One graph function: its calls, the sites about them, and what connects the sites."""

    name: str
    function: rx.Function
    edges: tuple[tuple[Edge, Site], ...]
    implementations: tuple[tuple[Member, Site, tuple[Offered, ...]], ...]
    exclusions: tuple[Exclusion, ...]

    @staticmethod
    def of(
        options: PlanGraph, name: str, function: rx.Function, module: IRModule, context: Context
    ) -> _Graph:
        found = (as_member(binding, module) for binding in bindings(function))
        members = {member.var: member for member in found if member is not None}
        candidates = [*row_chain_edges(function, module), *fusion_candidates(function, module)]
        edges = tuple((edge, _fusion_site(edge, members, context)) for edge in candidates)
        implementations: list[tuple[Member, Site, tuple[Offered, ...]]] = []
        exclusions: list[Exclusion] = []
        for member in members.values():
            if sole_contraction(member.function) is None:
                continue
            around = [
                (e, s) for e, s in edges if member.var in (e.producer, *e.through, e.consumer)
            ]
            offers = tuple(options.offers(member.function, context.target))
            site = _implementation_site(options, member, offers, around, context)
            implementations.append((member, site, offers))
            exclusions.extend(
                Exclusion(
                    ((site.key, offer.routine), (other.key, "yes")),
                    f"{offer.routine} computes the product alone",
                )
                for offer in offers
                for _, other in around
            )
        return _Graph(name, function, edges, tuple(implementations), tuple(exclusions))

    def solve(self, module: IRModule, context: Context) -> tuple[Plan, list[FusionGroup]]:
        """Answers whose fusions can all be made: one that cannot, because of another that was
        taken, is struck out and the problem solved again."""
        problem = Problem(
            (
                # What is saved between two products is more than who computes each.
                *(site for edge, site in self.edges if edge.rows),
                *(site for _, site, _ in self.implementations),
                *(site for edge, site in self.edges if not edge.rows),
            ),
            exclusions=self.exclusions,
            target=context.target,
            sizes=context.planner.sizes,
        )
        while True:
            plan = context.planner.policy.solve(problem, context.planner.known())
            taken = [(e, s) for e, s in self.edges if plan.answers[str(s.key)] == "yes"]
            groups = fusion_groups(self.name, self.function, module, [edge for edge, _ in taken])
            place = {var: group for group in groups for var in group.members}
            made = {
                site.key
                for edge, site in taken
                if edge.producer in place and place[edge.producer] is place.get(edge.consumer)
            }
            # Equal pairs share an answer: what can be made in one place may not be in another.
            failed = {site.key for _, site in taken} - made
            if not failed:
                context.planner.record(plan)
                return plan, groups
            for key in failed:
                problem = problem.without(key, "yes")

    def dispatches(self, plan: Plan) -> dict[rx.Var, Dispatch]:
        """The calls that libraries take."""
        result: dict[rx.Var, Dispatch] = {}
        for member, site, offers in self.implementations:
            answer = plan.answers[str(site.key)]
            for offer in offers:
                if offer.routine == answer:
                    result[member.var] = Dispatch(offer.routine, offer.program)
        return result


def _implementation_site(
    options: PlanGraph,
    member: Member,
    offers: Sequence[Offered],
    around: Sequence[tuple[Edge, Site]],
    context: Context,
) -> Site:
    children = options.space(member.function, context.target)
    choices = [Option(GENERATED, children=children)]
    choices += [Option(offer.routine, cost=offer.cost) for offer in offers]
    # The same product among other neighbours is another question.
    neighbours = [site.key.subject for _, site in around]
    subject = structural_hash((member.function, tuple(neighbours)))
    key = SiteKey("implementation", subject, str(context.target))
    return Site(key, tuple(choices), f"{member.name} {member.var.name}", member.function.span)


@lru_cache(maxsize=4096)
def _subject(functions: tuple[PrimFunc, ...]) -> str:
    """What a chain of programs is, whoever calls them; the programs of calls are shared."""
    return structural_hash(functions)


def _fusion_site(edge: Edge, members: dict[rx.Var, Member], context: Context) -> Site:
    chain = [members[var] for var in (edge.producer, *edge.through, edge.consumer)]
    producer, consumer = chain[0], chain[-1]
    subject = _subject(tuple(member.function for member in chain))
    key = SiteKey("fusion", subject, str(context.target))
    if edge.rows:
        yes, no = _block_of_rows(chain, context), _whole_rows(chain, context)
    else:
        yes, no = _recomputing(producer, consumer), _passing_through_memory(producer, context)
    return Site(
        key,
        (Option("yes", cost=yes), Option("no", cost=no)),
        f"{producer.name} {producer.var.name} -> {consumer.name} {consumer.var.name}",
        producer.function.span,
    )


def _passing_through_memory(producer: Member, context: Context) -> Cost:
    """Writing the result and reading it again, and a loop nest more."""
    dtype = producer.out_type.dtype or FLOAT32
    size = _elements(producer) * dtype.bytes
    level = _level(number(size, context.planner.sizes), context)
    return Cost(traffic={level: size * 2}, launches=1)


_ROWS = 32
"""Rows of the first product that a schedule of both keeps at once (see the rules of targets)."""


def _block_of_rows(chain: Sequence[Member], context: Context) -> Cost:
    """A block of rows of what is between two products is written and read where it stays, and
    what both read in vectors is copied once."""
    scores, results = chain[0], chain[-1]
    dtype = scores.out_type.dtype or FLOAT32
    found, second = _contraction_in(results.function), _contraction_in(scores.function)
    size = _elements(scores) * dtype.bytes
    rows = cast(found.rows[0].dom.extent, INDEX)
    sizes = context.planner.sizes
    block = number(size, sizes) * min(1.0, _ROWS / max(number(rows, sizes), 1.0))
    batches = number(product(cast(i.dom.extent, INDEX) for i in found.batch), sizes)
    level = _level(block / max(batches, 1.0), context)
    copied = product(cast(i.dom.extent, INDEX) for i in (*found.batch, *found.reduce)) * (
        cast(found.columns[0].dom.extent, INDEX) + cast(second.reduce[0].dom.extent, INDEX)
    )
    return Cost(operations={dtype: copied * _COPY_OPERATIONS}, traffic={level: size * 2})


def _contraction_in(function: PrimFunc) -> Contraction:
    """The first contraction of a program that has one; casts may stand around it."""
    return next(c for c in map(find_contraction, block_sites(function)) if c is not None)


_COPY_OPERATIONS = 16
"""Copying an element to another order takes about as long as this many additions in vectors."""


def _whole_rows(chain: Sequence[Member], context: Context) -> Cost:
    """Everything between two products passes through memory as a whole."""
    dtype = chain[0].out_type.dtype or FLOAT32
    size = _elements(chain[0]) * dtype.bytes
    passes = sum(pattern_kind(item.function) > PatternKind.INJECTIVE for item in chain[:-1])
    level = _level(number(size, context.planner.sizes), context)
    return Cost(traffic={level: size * 2 * passes}, launches=passes)


def _level(held: float, context: Context) -> str:
    """Where so many bytes lie beside others."""
    levels = [f"L{i + 1}" for i, room in enumerate(context.target.caches[:3]) if held < room / 2]
    return levels[0] if levels else "memory"


# A polynomial transcendental takes about as long as this many additions (measured: exp, tanh and
# erf at 0.4 ns an element on one core that adds at 0.03).
_CALL_OPERATIONS = 12


def _recomputing(producer: Member, consumer: Member) -> Cost:
    """What is computed more than once when the producer moves into the consumer's loops."""
    if pattern_kind(producer.function) > PatternKind.INJECTIVE:
        return Cost()
    if sole_contraction(consumer.function) is not None and only_moves(producer.function):
        return Cost()  # An operand is copied anyway, or read where it comes from.
    work = 0
    for site in block_sites(producer.function):
        store = site.only_store()
        for item in walk_terms(store.value) if store is not None else ():
            work += _CALL_OPERATIONS if isinstance(item, Call) else 1
    more = maximum(_domain(consumer) - _read(producer, consumer), 0)
    return Cost(operations={producer.out_type.dtype or FLOAT32: more * work})


def _read(producer: Member, consumer: Member) -> Expr:
    """The elements of the producer's result, in the terms of the consumer's program."""
    if producer.var not in consumer.inputs:
        return _domain(consumer)
    return product(consumer.function.buffers[consumer.inputs.index(producer.var)].shape)


def _elements(member: Member) -> Expr:
    return product(cast(extent, INDEX) for extent in member.out_type.shape or ())


def _domain(member: Member) -> Expr:
    """How many times the body of the last block runs."""
    sites = block_sites(member.function)
    return product(cast(item.dom.extent, INDEX) for item in sites[-1].block.iter_vars)
