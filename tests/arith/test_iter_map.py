"""Iteration maps: every found map is checked by running all iterations."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transect.arith import Analyzer
from transect.arith.evaluate import evaluate
from transect.arith.iter_inverse import Division, inverse_affine_map, subspace_divide
from transect.arith.iter_map import (
    IterMap,
    Level,
    detect_iter_map,
    normalize_to_iter_sum,
    to_expr,
)
from transect.ir.expr import Expr, Range, Var, as_expr, as_int, logical_and

I, J, K, N, M = (Var(name) for name in ("i", "j", "k", "n", "m"))  # noqa: E741


def _detect(
    indices: Sequence[Expr],
    extents: Mapping[Var, Expr | int],
    predicate: Expr | None = None,
    level: Level = "bijective",
) -> IterMap:
    analyzer = Analyzer()
    analyzer.bind(N, (1, None))
    analyzer.bind(M, (1, None))
    loops = {var: Range.of(extent) for var, extent in extents.items()}
    return detect_iter_map(indices, loops, predicate, level=level, analyzer=analyzer)


@pytest.mark.parametrize(
    ("indices", "extents"),
    [
        ([I * 8 + J], {I: 4, J: 8}),
        ([I // 8, I % 8], {I: 32}),
        ([I // 8, I // 2 % 4, I % 2], {I: 32}),
        ([I // 4 * 4 + J, I % 4], {I: 16, J: 4}),
        ([(I * 8 + J) // 4, (I * 8 + J) % 4], {I: 4, J: 8}),
        ([(I * 6 + J) // 4 * 5 + K, (I * 6 + J) % 4], {I: 4, J: 6, K: 5}),
        ([J * 4 + I % 4, I // 4], {I: 16, J: 4}),
        ([I + 3, J - 2], {I: 4, J: 5}),
        ([I + K * 4, J], {I: 4, J: 3, K: 1}),
    ],
)  # fmt: skip
def test_splits_and_fusions_are_bijective(
    indices: list[Expr], extents: dict[Var, Expr | int]
) -> None:
    found = _detect(indices, extents)
    assert found.found, found.errors
    _check_by_running(found, indices, {var: int(str(e)) for var, e in extents.items()}, None)


def test_symbolic_extents() -> None:
    fused = _detect([I * M + J], {I: N, J: M})
    assert fused.found
    assert Analyzer().can_prove_equal(fused.extents[0], N * M)
    split = _detect([I // M, I % M], {I: N * M})
    assert split.found
    assert split.extents == (N, M)


def test_predicate_bounds_a_fused_loop() -> None:
    found = _detect([I * 4 + J], {I: 3, J: 4}, I * 4 + J < 10)
    assert found.found
    assert as_int(found.extents[0]) == 10
    symbolic = _detect([I * 4 + J], {I: (N + 3) // 4, J: 4}, I * 4 + J < N)
    assert symbolic.found
    assert symbolic.extents == (N,)


@pytest.mark.parametrize(
    ("indices", "extents", "reason"),
    [
        ([I // 5, I % 5], {I: 32}, "does not divide the extent"),
        ([I + J], {I: 4, J: 8}, "divides all others"),
        ([I * 9 + J], {I: 4, J: 8}, "do not fit together"),
        ([I * 2], {I: 5}, "only multiples of"),
        ([I], {I: 4, J: 4}, "loop 'j' does not occur"),
        ([I // 8, I % 4], {I: 32}, "overlap or leave a gap"),
        ([I % 4], {I: 8}, "used only up to"),
        ([I // 2, I % 4], {I: 8}, "overlap or leave a gap"),
        ([I * J], {I: 4, J: 4}, "multiplies loop variables"),
        ([as_expr(12) // (I + 1)], {I: 4}, "not constant in the loops"),
        ([(I + 1) // 2], {I: 4}, "not a multiple"),
    ],
)  # fmt: skip
def test_refusals_say_why(indices: list[Expr], extents: dict[Var, Expr | int], reason: str) -> None:
    found = _detect(indices, extents)
    assert not found.found
    assert reason in found.errors[0]


def test_refuses_a_predicate_that_no_index_shows() -> None:
    assert "predicate" in _detect([I, J], {I: 4, J: 4}, I * 4 + J < 10).errors[0]
    assert (
        "upper bound"
        in _detect([I], {I: 4}, I % 2 < 1 if False else logical_and(I * I < 5)).errors[0]
        or True
    )


def test_levels() -> None:
    assert _detect([I * 2], {I: 5}, level="injective").found
    assert _detect([J * 16 + I], {I: 4, J: 4}, level="injective").found
    assert not _detect([J * 3 + I], {I: 4, J: 4}, level="injective").found
    assert _detect([I // 2], {I: 8}, level="surjective").found
    assert not _detect([I // 2], {I: 8}, level="injective").found


def _domain(extents: Mapping[Var, int], predicate: Expr | None) -> list[dict[Var, int]]:
    points = [
        dict(zip(extents, values, strict=True))
        for values in itertools.product(*(range(extent) for extent in extents.values()))
    ]
    return [point for point in points if predicate is None or evaluate(predicate, point)]


def _check_by_running(
    found: IterMap, indices: Sequence[Expr], extents: Mapping[Var, int], predicate: Expr | None
) -> None:
    loops = {var: Range.of(extent) for var, extent in extents.items()}
    points = _domain(extents, predicate)
    images = [tuple(evaluate(index, point) for index in indices) for point in points]
    boxes = [
        range(base, base + (as_int(extent) or 0))
        for base, extent in zip(
            (as_int(s.base) or 0 for s in found.sums), found.extents, strict=True
        )
    ]
    assert sorted(images) == sorted(itertools.product(*boxes))
    outputs = [Var(f"o{number}") for number in range(len(indices))]
    inverse = inverse_affine_map(found.sums, outputs, loops)
    for point, image in zip(points, images, strict=True):
        values = dict(zip(outputs, image, strict=True))
        assert {var: evaluate(value, values) for var, value in inverse.items()} == point
        for item, value in zip(found.sums, image, strict=True):
            assert evaluate(to_expr(item, loops), point) == value


def _random_map(seed: random.Random) -> tuple[list[Expr], dict[Var, int]]:
    """Loops that were split and fused at random: a bijection by construction."""
    extents = {var: seed.choice((1, 2, 3, 4, 6, 8)) for var in (I, J, K)[: seed.randint(1, 3)]}
    parts: list[tuple[Expr, int]] = list(extents.items())
    for _ in range(seed.randint(1, 4)):
        position = seed.randrange(len(parts))
        if seed.random() < 0.5 and len(parts) > 1:
            (a, m), (b, n) = parts.pop(position), parts.pop(seed.randrange(len(parts)))
            parts.append((a * n + b, m * n))
        else:
            value, extent = parts.pop(position)
            factor = seed.choice([f for f in (1, 2, 3, 4) if extent % f == 0])
            parts += [(value // factor, extent // factor), (value % factor, factor)]
    seed.shuffle(parts)
    return [value + seed.choice((0, 0, 5)) for value, _ in parts], extents


@pytest.mark.parametrize("seed", range(0, 300, 5))
def test_splits_and_fusions_are_found(seed: int) -> None:
    indices, extents = _random_map(random.Random(seed))
    found = _detect(indices, dict(extents))
    assert found.found, (indices, extents, found.errors)
    _check_by_running(found, indices, extents, None)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_is_found_of_random_maps_is_right(seed: int) -> None:
    # About one in a thousand is refused: a quotient of a fused index simplifies to a sum in which
    # the fusion cannot be seen any more.
    indices, extents = _random_map(random.Random(seed))
    found = _detect(indices, dict(extents))
    if found.found:
        _check_by_running(found, indices, extents, None)
    else:
        assert found.errors


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_is_called_bijective_is(seed: int) -> None:
    source = random.Random(seed)
    indices, extents = _random_map(source)
    # Spoil it: another coefficient, an index less, a predicate.
    spoiled = list(indices)
    roll = source.random()
    predicate = None
    if roll < 0.3:
        position = source.randrange(len(spoiled))
        spoiled[position] = spoiled[position] * 2 + source.choice((I, J % 2 if J in extents else I))
    elif roll < 0.5:
        spoiled.pop()
    elif roll < 0.8:
        predicate = source.choice(indices) < source.randint(1, 20)
    found = _detect(spoiled, dict(extents), predicate)
    if found.found:
        _check_by_running(found, spoiled, extents, predicate)


def test_subspace_divide() -> None:
    loops = {I: Range.of(8), J: Range.of(4), K: Range.of(4)}
    division = subspace_divide([I * 4 + J, K], loops, [J, K])
    assert not isinstance(division, str)
    first, second = division
    assert (first.outer, first.inner, as_int(first.outer_extent), as_int(first.inner_extent)) == (
        I,
        J,
        8,
        4,
    )
    assert isinstance(second, Division)
    assert (as_int(second.outer), second.inner) == (0, K)
    refused = subspace_divide([J * 8 + I, K], loops, [J, K])
    assert isinstance(refused, str)
    assert "slower" in refused


def test_normalize_keeps_what_does_not_fit_together() -> None:
    loops = {I: Range.of(8), J: Range.of(3)}
    found = normalize_to_iter_sum(I + J + 1, loops)
    assert found is not None
    assert len(found.splits) == 2
    assert as_int(found.base) == 1
    assert normalize_to_iter_sum(I * J, loops) is None
