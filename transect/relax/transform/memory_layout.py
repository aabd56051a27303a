"""Where tensors go in an arena: offsets from lifetimes and sizes, which may be symbolic.

Constant sizes are packed by offset. Symbolic sizes share regions, one after the other; a region is
as large as the largest of its tensors, a maximum where no proof says which that is. What the
tensors are is not known here.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from transect.arith import Analyzer
from transect.arith.evaluate import evaluate
from transect.ir.expr import EQ, LE, Expr, IntImm, Max, Var, as_expr
from transect.ir.traverse import free_vars

ALIGNMENT = 64
"""Bytes; the widest vector, and a cache line."""


@dataclass(eq=False)
class Tenant:
    """A tensor: its size in bytes, and the first and last moment it is needed.

    predecessor: a tensor whose place this one takes over, at the moment that is the last of the
    one and the first of the other. successor: the other way round.
    """

    size: Expr
    first: int
    last: int
    predecessor: Tenant | None = None
    successor: Tenant | None = None


@dataclass(frozen=True)
class Layout:
    """The bytes of an arena, and the offset of each tensor, in the order given."""

    size: Expr
    offsets: tuple[Expr, ...]


@dataclass(eq=False)
class _Chain:
    """Tensors that take over one another's place, as one tensor."""

    tenants: list[Tenant]
    size: Expr

    @property
    def first(self) -> int:
        return self.tenants[0].first

    @property
    def last(self) -> int:
        return self.tenants[-1].last


@dataclass(eq=False)
class _Region:
    """Bytes that tensors have one after the other. sizes: none of them provably fits another."""

    sizes: list[Expr]
    chains: list[_Chain]

    def is_free(self, chain: _Chain) -> bool:
        """Whether nobody is in the region while `chain` needs it."""
        return all(other.last < chain.first or chain.last < other.first for other in self.chains)

    def size(self, analyzer: Analyzer) -> Expr:
        """The bytes that the region needs, a multiple of the alignment."""
        return functools.reduce(Max, [aligned(size, analyzer) for size in self.sizes])


def lay_out(tenants: Sequence[Tenant], analyzer: Analyzer) -> Layout:
    """Places for tensors such that two that are needed at one moment never overlap.

    analyzer: knows the ranges of the sizes' variables. The result depends on the order of
    `tenants` only through ties.
    """
    chains = _chains(tenants, analyzer)
    fixed = [chain for chain in chains if isinstance(chain.size, IntImm)]
    offsets, total = _pack(fixed)
    regions = _share([chain for chain in chains if not isinstance(chain.size, IntImm)], analyzer)
    place: Expr = as_expr(total)
    for region in regions:
        for chain in region.chains:
            offsets.update(dict.fromkeys(chain.tenants, place))
        place = analyzer.simplify(place + region.size(analyzer))
    return Layout(place, tuple(offsets[tenant] for tenant in tenants))


def aligned(size: Expr, analyzer: Analyzer) -> Expr:
    """`size` rounded up to the alignment."""
    return analyzer.simplify((size + (ALIGNMENT - 1)) // ALIGNMENT * ALIGNMENT)


def _chains(tenants: Sequence[Tenant], analyzer: Analyzer) -> list[_Chain]:
    chains: dict[Tenant, _Chain] = {}
    for tenant in sorted(tenants, key=lambda item: item.first):
        before = tenant.predecessor
        chain = chains.get(before) if before is not None else None
        if chain is not None and analyzer.can_prove(EQ(chain.size, tenant.size)):
            chain.tenants.append(tenant)
        else:
            chain = _Chain([tenant], analyzer.simplify(tenant.size))
        chains[tenant] = chain
    return list(dict.fromkeys(chains.values()))


def _pack(chains: Sequence[_Chain]) -> tuple[dict[Tenant, Expr], int]:
    """Offsets for constant sizes: the largest first, each at the lowest place that is free.

    Source: "greedy by size" of Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net
    Inference, 2020 (arXiv:2001.03288).
    """
    placed: list[tuple[int, int, _Chain]] = []
    offsets: dict[Tenant, Expr] = {}
    total = 0
    for chain in sorted(chains, key=lambda item: (-_constant(item.size), item.first)):
        size = -(-_constant(chain.size) // ALIGNMENT) * ALIGNMENT
        start = 0
        for low, high, other in placed:
            if other.last < chain.first or chain.last < other.first:
                continue
            if start + size <= low:
                break
            start = max(start, high)
        placed.append((start, start + size, chain))
        placed.sort(key=lambda item: item[0])
        offsets.update(dict.fromkeys(chain.tenants, as_expr(start)))
        total = max(total, start + size)
    return offsets, total


def _share(chains: Sequence[_Chain], analyzer: Analyzer) -> list[_Region]:
    """Regions for symbolic sizes: the largest tensor first, each into the smallest region that is
    free, which grows if need be. What is large is seen from samples; that it fits, is proved or
    made so."""
    regions: list[_Region] = []
    known: dict[tuple[Expr, Expr], bool] = {}
    samples = _samples([chain.size for chain in chains])
    values = {c.size: [evaluate(c.size, sample) for sample in samples] for c in chains}

    def fits(small: Expr, large: Expr) -> bool:
        # Few sizes are distinct, and a proof takes long: what fails for some sizes needs none.
        pair = small, large
        if pair not in known:
            possible = all(x <= y for x, y in zip(values[small], values[large], strict=True))
            known[pair] = possible and analyzer.can_prove(LE(small, large))
        return known[pair]

    for chain in sorted(chains, key=lambda item: (-sum(values[item.size]), item.first)):
        free = [region for region in regions if region.is_free(chain)]
        if not free:
            regions.append(_Region([chain.size], [chain]))
            continue
        region = min(free, key=lambda item: sum(values[item.sizes[0]]))
        region.chains.append(chain)
        if not any(fits(chain.size, size) for size in region.sizes):
            region.sizes = [s for s in region.sizes if not fits(s, chain.size)] + [chain.size]
    return regions


def _samples(sizes: Sequence[Expr]) -> list[dict[Var, int]]:
    """A few values of the variables in some sizes."""
    variables = free_vars(sizes)
    generator = Random(0)
    ranges = ((1, 8), (64, 512), (1, 4096))
    return [{var: generator.randint(*ends) for var in variables} for ends in ranges]


def _constant(size: Expr) -> int:
    assert isinstance(size, IntImm)
    return size.value
