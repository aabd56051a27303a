"""Attention in graphs: which calls may become one program, and the program that they become."""

from __future__ import annotations

import numpy as np
import pytest

from tests.relax.programs import graph, operators, tensor
from transect.ir.expr import Var
from transect.ir.function import IRModule
from transect.plan import Plan, Planner
from transect.relax.expr import constant
from transect.relax.interpret import interpret
from transect.relax.op.binary import Add, Multiply
from transect.relax.op.linear_algebra import Matmul
from transect.relax.op.manipulate import PermuteDims
from transect.relax.op.nn_activation import Softmax
from transect.relax.transform.legalize_ops import LegalizeOps
from transect.relax.transform.plan_graph import PlanGraph
from transect.relax.transform.row_chains import row_chain_edges
from transect.relax.verify import verify_module
from transect.transform import Context

S = Var("s")
PLAN = PlanGraph(lambda func, target: (), lambda func, target: ())


def attention(n=S, *, heads_inside=False, axis=-1, also_scores=False) -> IRModule:
    shape = (1, n, 3, 8) if heads_inside else (1, 3, n, 8)

    def body(b, q, k, v, mask):
        if heads_inside:
            q = b.emit(PermuteDims((0, 2, 1, 3))(q))
            v = b.emit(PermuteDims((0, 2, 1, 3))(v))
        keys = b.emit(PermuteDims((0, 2, 3, 1) if heads_inside else (0, 1, 3, 2))(k))
        s = b.emit(Matmul()(q, keys))
        s = b.emit(Multiply()(s, constant(np.asarray(0.5, np.float32))))
        s = b.emit(Add()(s, mask))
        p = b.emit(Softmax(axis)(s))
        o = b.emit(Matmul()(p, v))
        if heads_inside:
            o = b.emit(PermuteDims((0, 2, 1, 3))(o))
        if also_scores:
            o = b.emit(Matmul()(s, o))
        return b.emit_output(o)

    params = [(name, tensor(*shape)) for name in "qkv"] + [("mask", tensor(1, 1, n, n))]
    return LegalizeOps()(graph(params, body))


def arrays(n: int, *, heads_inside: bool) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (1, n, 3, 8) if heads_inside else (1, 3, n, 8)
    given = [rng.standard_normal(shape).astype(np.float32) for _ in range(3)]
    return [*given, np.where(rng.random((1, 1, n, n)) < 0.3, -1e9, 0.0).astype(np.float32)]


def programs(module: IRModule) -> list[str]:
    return [name for name in operators(module) if name != "Var"]


def rows(module: IRModule) -> list[tuple[str, str]]:
    edges = row_chain_edges(module["main"], module)
    return [(edge.producer.name, edge.consumer.name) for edge in edges if edge.rows]


@pytest.mark.parametrize("length", [S, 6])
@pytest.mark.parametrize("heads_inside", [False, True])
def test_attention_becomes_one_program(length, heads_inside: bool) -> None:
    before = attention(length, heads_inside=heads_inside)
    after = PLAN(before, Context())
    verify_module(after)
    (name,) = programs(after)
    assert name.startswith("fused_")
    assert name.count("permute_dims") == (4 if heads_inside else 1)
    given = arrays(6, heads_inside=heads_inside)
    expected, result = (np.asarray(interpret(m, "main", *given)) for m in (before, after))
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_the_plan_may_leave_the_products_apart() -> None:
    before = attention()
    context = Context()
    PLAN(before, context)
    (chain,) = (e for e in row_chain_edges(before["main"], before) if e.rows)
    decided = context.planner.plan
    label = f"fusion:matmul {chain.producer.name} -> matmul_1 {chain.consumer.name}"
    keys = [item.site for item in decided.decisions if item.label == label]
    assert len(keys) == 1
    fixed = Plan({keys[0]: "no"})
    after = PLAN(before, Context(planner=Planner(plan=fixed)))
    assert len(programs(after)) > 2


def test_a_chain_is_found_from_its_loops() -> None:
    assert len(rows(attention())) == 1
    assert rows(attention(axis=-2)) == [], "columns of scores, not rows"
    assert rows(attention(also_scores=True)) == [], "all of the scores are needed elsewhere"


def test_one_query_and_many_keys_stay_apart() -> None:
    """Packing the keys would take longer than the products."""
    m = 512

    def body(b, q, k, v):
        keys = b.emit(PermuteDims((0, 1, 3, 2))(k))
        p = b.emit(Softmax(-1)(b.emit(Matmul()(q, keys))))
        return b.emit_output(Matmul()(p, v))

    shapes = [("q", tensor(1, 3, 1, 64)), ("k", tensor(1, 3, m, 64)), ("v", tensor(1, 3, m, 64))]
    before = LegalizeOps()(graph(shapes, body))
    assert len(rows(before)) == 1
    assert len(programs(PLAN(before, Context()))) > 1
