"""Dimensions that only a run knows to fit: computed where they do, an error that says who where
not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.host.build import compiled, tensor
from transect.ir.expr import Var
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.op import find_operator
from transect.relax.transform.legalize_ops import LegalizeOps
from transect.relax.verify import verify_module
from transect.runtime import CompiledModel

N, M, K = Var("n"), Var("m"), Var("k")


def model(name, *kinds, grouped=False, **fields) -> CompiledModel:
    """An operator on tensors of these types."""
    b = BlockBuilder()
    params = [b.var(f"x{number}", kind) for number, kind in enumerate(kinds)]
    with b.function("main", params):
        operands = [rx.make_tuple(*params)] if grouped else params
        b.emit_func_output(b.emit(find_operator(name)(**fields)(*operands)))
    module = LegalizeOps()(b.finish())
    verify_module(module)
    return compiled(module)


def array(*shape: int) -> np.ndarray:
    return np.random.rand(*shape).astype(np.float32)


ADD = model("add", tensor(N, K), tensor(M, K))
WHERE = model("where", tensor(N, dtype="bool"), tensor(M), tensor(K))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([0, 1, 2, 3]), st.sampled_from([0, 1, 2, 3]), st.integers(1, 3))
def test_broadcasting_is_decided_by_the_run(n, m, k):
    a, b = array(n, k), array(m, k)
    if n == m or 1 in (n, m):
        np.testing.assert_array_equal(np.asarray(ADD(a, b)), a + b)
        return
    with pytest.raises(ValueError, match=rf"add: what broadcasts on axis -2 differ: {m} and {n}"):
        ADD(a, b)


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.sampled_from([1, 4])] * 3))
def test_three_operands_broadcast(sizes):
    c, a, b = (array(size) for size in sizes)
    np.testing.assert_array_equal(np.asarray(WHERE(c > 0.5, a, b)), np.where(c > 0.5, a, b))


REFUSED = [
    ("matmul", (tensor(3, N), tensor(M, 2)), {}, [(3, 4), (5, 2)], "matmul: the contracted"),
    (
        "concat",
        (tensor(N, 3), tensor(M, K)),
        {"grouped": True, "axis": 0},
        [(2, 3), (2, 4)],
        "axis 1",
    ),
    (
        "nn.conv2d",
        (tensor(1, N, 5, 5), tensor(2, M, 3, 3)),
        {},
        [(1, 3, 5, 5), (2, 2, 3, 3)],
        "nn.conv2d",
    ),
]


@pytest.mark.parametrize(("name", "kinds", "fields", "shapes", "message"), REFUSED)
def test_contradicting_dimensions_name_the_operator(name, kinds, fields, shapes, message):
    compiled_model = model(name, *kinds, **fields)
    with pytest.raises(ValueError, match=message) as info:
        compiled_model(*(array(*shape) for shape in shapes))
    assert "differ" in str(info.value)
