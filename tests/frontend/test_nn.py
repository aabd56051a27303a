"""Operators on windows, images and signals, compiled, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import transect
from tests.frontend.cases_nn import NN_FAMILIES
from tests.frontend.onnx_models import Graph, expected
from tests.frontend.test_operators import joined, values

SIZES = {"n": 2, "m": 3, "k": 6, "h": 6, "w": 8}
OTHER_SIZES = [{"n": 1, "m": 5, "k": 2, "h": 9, "w": 7}, {"n": 3, "m": 2, "k": 9, "h": 5, "w": 13}]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("family", NN_FAMILIES)
def test_family(family: str, dynamic: bool) -> None:
    opset, cases = NN_FAMILIES[family]
    found = list(cases())
    proto, owners = joined(found, dynamic, opset, SIZES)
    model = transect.compile(proto, cache=False)
    for sizes in [SIZES, *(OTHER_SIZES if dynamic else [])]:
        inputs = values(found, sizes)
        results = model(**inputs)
        results = results if isinstance(results, tuple) else (results,)
        wanted = expected(proto, inputs)
        for owner, ours, theirs in zip(owners, results, wanted, strict=True):
            assert ours.dtype == theirs.dtype, owner
            assert ours.shape == theirs.shape, owner
            np.testing.assert_allclose(ours, theirs, rtol=5e-4, atol=5e-5, err_msg=owner)


def drawn(kind: str, *inputs: np.ndarray, **attributes: Any) -> np.ndarray:
    """What one random node gives."""
    g = Graph(17)
    names = [g.input(f"x{i}", item.shape, item.dtype) for i, item in enumerate(inputs)]
    g.output(g.op(kind, *names, **attributes))
    return np.asarray(transect.compile(g.model(), cache=False)(*inputs))


def test_random_numbers_have_their_distribution() -> None:
    uniform = drawn("RandomUniform", shape=[400, 100], low=-2.0, high=3.0, seed=1.0)
    assert uniform.min() >= -2
    assert uniform.max() <= 3
    # Four standard errors of the mean and of the variance of 40,000 numbers.
    assert abs(uniform.mean() - 0.5) < 0.03
    assert abs(uniform.var() - 25 / 12) < 0.04
    normal = drawn("RandomNormal", shape=[400, 100], mean=1.0, scale=2.0, seed=1.0)
    assert abs(normal.mean() - 1) < 0.04
    assert abs(normal.var() - 4) < 0.12
    like = drawn("RandomNormalLike", np.zeros((3, 5), np.float64))
    assert like.shape == (3, 5)
    assert like.dtype == np.float64
    coins = drawn("Bernoulli", np.full(40000, 0.3, np.float32))
    assert abs(coins.mean() - 0.3) < 0.01
    odds = np.log(np.array([[0.2, 0.3, 0.5]], np.float32))
    classes = drawn("Multinomial", odds, sample_size=40000)
    found = np.bincount(classes[0]) / classes.size
    np.testing.assert_allclose(found, [0.2, 0.3, 0.5], atol=0.01)


def test_random_numbers_repeat_with_the_seed_and_differ_without() -> None:
    first, again, other = (
        drawn("RandomUniformLike", np.zeros(64, np.float32), seed=seed) for seed in (1.0, 1.0, 2.0)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)


def test_dropout_grows_what_it_keeps() -> None:
    g = Graph(17)
    x = g.input("x", ["n"])
    kept, mask = g.op("Dropout", x, g.constant(np.float32(0.25)), g.constant(True), outputs=2)
    g.output(kept, mask)
    values_kept, seen = transect.compile(g.model(), cache=False)(np.ones(40000, np.float32))
    np.testing.assert_allclose(values_kept, np.where(seen, 1 / 0.75, 0), rtol=1e-6)
    assert abs(np.asarray(seen).mean() - 0.75) < 0.01


@pytest.mark.parametrize(
    "equation", ["bhqd,bhkd->bhqk", "bqhd,bkhd->bhqk", "...ij,...jk->...ik", "abc,cd->abd"]
)
def test_common_einsums_are_matrix_products(equation: str) -> None:
    g = Graph(17)
    left, right = equation.split("->")[0].split(",")
    sizes = {"d": 8, "c": 8}
    names: list[str] = []
    for name, term in (("x", left), ("y", right)):
        letters = term.replace("...", "st")
        names.append(g.input(name, [sizes.get(letter, letter) for letter in letters]))
    g.output(g.op("Einsum", *names, equation=equation))
    text = repr(transect.compile(g.model(), cache=False).stages["input"])
    assert "R.matmul" in text
    assert "R.einsum" not in text
