"""FunctionBuilder: the loops and blocks it writes."""

import math

import pytest

from transect.ir.dtype import FLOAT32
from transect.ir.expr import FloatImm, IntImm, Var, as_int
from transect.ir.types import tensor_type
from transect.support.errors import InputError, InputTypeError
from transect.tir import op
from transect.tir.builder import ARGMAX, Combiner, FunctionBuilder, assign, serial, store
from transect.tir.stmt import Bind, Block, BufferStore, For, Stmt, seq
from transect.tir.visit import walk_stmts


def _blocks(stmt: Stmt) -> dict[str, Block]:
    return {s.name: s for s in walk_stmts(stmt) if isinstance(s, Block)}


def test_matmul_has_remapped_axes_regions_and_init() -> None:
    n, m, d = Var("n"), Var("m"), Var("d")
    b = FunctionBuilder("mm")
    x, w = b.input("x", (n, d)), b.input("w", (d, m))
    y = b.reduce((n, m), (d,), lambda i, j, k: x[i, k] * w[k, j], name="y")
    f = b.finish(y)
    assert [p.name for p in f.params] == ["x", "w", "y"]
    assert f.buffers == (x, w, y)
    block = _blocks(f.body)["y"]
    assert [axis.kind for axis in block.iter_vars] == ["spatial", "spatial", "reduce"]
    assert [region.buffer for region in block.reads] == [x, w]
    i, j, k = (axis.var for axis in block.iter_vars)
    assert [r.min for r in block.reads[0].ranges] == [i, k]
    assert [as_int(r.extent) for r in block.reads[0].ranges] == [1, 1]
    assert [r.min for r in block.writes[0].ranges] == [i, j]
    assert isinstance(block.init, BufferStore)
    assert block.init.value is FloatImm(0.0)
    assert sum(isinstance(s, For) for s in walk_stmts(f.body)) == 3


def test_intermediate_is_allocated_in_the_root_block() -> None:
    b = FunctionBuilder()
    x = b.input("x", (4,))
    t = b.compute((4,), lambda i: x[i] + 1.0, name="t")
    f = b.finish(b.compute((4,), lambda i: op.exp(t[i]), name="y"))
    assert _blocks(f.body)["root"].alloc_buffers == (t,)


def test_zero_dimensional() -> None:
    b = FunctionBuilder()
    x = b.input("x", ())
    f = b.finish(b.compute((), lambda: x[()] * 2.0))
    assert not [s for s in walk_stmts(f.body) if isinstance(s, For)]
    assert f.buffers[1].shape == ()


def test_unbound_symbol_becomes_a_scalar_parameter() -> None:
    n, m = Var("n"), Var("m")
    b = FunctionBuilder()
    x = b.input("x", (n,))
    y = b.compute((n * m,), lambda i: x[i % n])
    assert b.finish(y).params[2:] == (m,)


def test_explicit_scalar_comes_after_the_buffers() -> None:
    b = FunctionBuilder()
    alpha = b.scalar("alpha", "float32")
    x = b.input("x", (3,))
    f = b.finish(b.compute((3,), lambda i: x[i] * alpha))
    assert f.params[-1] is alpha
    assert [p.name for p in f.params] == ["x", "compute", "alpha"]


def test_input_of_unknown_shape_is_refused() -> None:
    with pytest.raises(InputTypeError, match="is not known"):
        FunctionBuilder().input("x", tensor_type(None, FLOAT32, 2))


def test_argmax_binds_before_it_stores() -> None:
    b = FunctionBuilder()
    x = b.input("x", (3, 5))
    index, value = b.reduce_with(
        ARGMAX, (3,), (5,), lambda i, k: (k, x[i, k]), names=("index", "value")
    )
    assert str(index.dtype) == "int64"
    block = _blocks(b.finish((index, value)).body)["index"]
    kinds = [type(s) for s in walk_stmts(block.body)][1:]
    assert kinds == [Bind, Bind, BufferStore, BufferStore]


def test_own_combiner() -> None:
    logsumexp_like = Combiner("absmax", lambda _: (0.0,), lambda a, b: (op.abs(b[0]) + a[0],))
    b = FunctionBuilder()
    x = b.input("x", (3,))
    y = b.reduce((), (3,), lambda k: x[k], logsumexp_like)
    assert y.shape == ()


def test_unknown_combiner_is_refused() -> None:
    b = FunctionBuilder()
    x = b.input("x", (3,))
    with pytest.raises(InputError, match="no combiner 'mean'"):
        b.reduce((), (3,), lambda k: x[k], "mean")


def test_float_max_starts_at_minus_infinity() -> None:
    b = FunctionBuilder()
    x = b.input("x", (3,))
    f = b.finish(b.reduce((), (3,), lambda k: x[k], "max", name="m"))
    init = _blocks(f.body)["m"].init
    assert isinstance(init, BufferStore)
    assert init.value is FloatImm(-math.inf)


def test_scan_block_relaxes_its_inner_loop() -> None:
    n = Var("n")
    b = FunctionBuilder()
    x = b.input("x", (4, n))
    y = b.allocate((4, n), "float32", name="y")
    b.block(
        (4,),
        lambda i: seq(
            store(y, (i, 0), x[i, 0]),
            serial(n - 1, lambda k: store(y, (i, k + 1), y[i, k] + x[i, k + 1])),
        ),
        name="scan",
    )
    block = _blocks(b.finish(y).body)["scan"]
    (axis,) = block.iter_vars
    assert block.writes[0].ranges[0].min is axis.var
    assert block.writes[0].ranges[1].min is IntImm(0)


def test_gathered_axis_is_read_whole() -> None:
    b = FunctionBuilder()
    table, ids = b.input("table", (10, 4)), b.input("ids", (3,), "int64")
    y = b.compute((3, 4), lambda i, j: table[ids[i], j], name="y")
    block = _blocks(b.finish(y).body)["y"]
    region = next(r for r in block.reads if r.buffer is table)
    assert [as_int(r.extent) for r in region.ranges] == [10, 1]
    assert region.ranges[0].min is IntImm(0)


def test_output_that_is_an_input_is_copied() -> None:
    b = FunctionBuilder()
    x = b.input("x", (3,))
    f = b.finish((x, x))
    assert len(set(f.buffers)) == 3


def test_block_refuses_wrong_kinds() -> None:
    with pytest.raises(InputError, match="for 1 axes"):
        FunctionBuilder().block((3,), lambda i: store(None, (i,), 0), kinds="SS")


def test_assign_evaluates_once() -> None:
    b = FunctionBuilder()
    x = b.input("x", (3,))
    y = b.allocate((3,), "float32", name="y")
    b.block((3,), lambda i: assign("v", x[i], lambda v: store(y, (i,), v * v)))
    assert any(isinstance(s, Bind) for s in walk_stmts(b.finish(y).body))
