"""Regions, dependences and cost features, read off blocks."""

from transect.arith import Analyzer
from transect.arith.evaluate import evaluate
from transect.ir.expr import Select, Var, const, minimum
from transect.tir import op
from transect.tir.analysis import (
    block_graph,
    block_sites,
    function_features,
    region_bytes,
    touched_regions,
)
from transect.tir.buffer import BufferLoad, buffer
from transect.tir.builder import FunctionBuilder, store
from transect.tir.function import PrimFunc


def _program() -> tuple[PrimFunc, Var, Var, Var]:
    n, m, d = Var("n"), Var("m"), Var("d")
    b = FunctionBuilder()
    x, w = b.input("x", (n, d)), b.input("w", (d, m))
    y = b.reduce((n, m), (d,), lambda i, j, k: x[i, k] * w[k, j], name="y")
    return b.finish(b.compute((n, m), lambda i, j: op.exp(y[i, j]), name="z")), n, m, d


def test_regions_grow_with_the_loops() -> None:
    func, n, m, d = _program()
    site = block_sites(func)[0]
    inner = touched_regions(site.realize, site.loops[2:])
    sizes = {n: 5, m: 7, d: 3}
    by_name = {r.buffer.name: evaluate(region_bytes(r), sizes) for r in inner.reads}
    assert by_name == {"x": 3 * 4, "w": 3 * 4}
    outer = touched_regions(site.realize, site.loops)
    by_name = {r.buffer.name: evaluate(region_bytes(r), sizes) for r in outer.reads}
    assert by_name == {"x": 5 * 3 * 4, "w": 3 * 7 * 4}
    assert [evaluate(region_bytes(r), sizes) for r in outer.writes] == [5 * 7 * 4]


def test_features_count_operations_and_bytes() -> None:
    func, n, m, d = _program()
    product, exponential = function_features(func)
    sizes = {n: 5, m: 7, d: 3}
    counts = {kind: evaluate(count, sizes) for kind, count in product.operations.items()}
    assert counts == {("add", "float32"): 105, ("mul", "float32"): 105}
    assert evaluate(exponential.total("exp"), sizes) == 35
    assert evaluate(product.accessed, sizes) == 4 * (4 * 105 + 35)
    assert product.extents == (n, m, d)


def test_block_graph_knows_producers_and_kinds() -> None:
    func, *_ = _program()
    graph = block_graph(func)
    product, exponential = graph.sites
    assert graph.producers(exponential) == (product,)
    assert graph.consumers(product) == (exponential,)
    assert graph.is_reduction(product)
    assert not graph.is_complete(product)
    assert graph.is_complete(exponential)


def test_a_block_that_shares_its_output_is_not_dominant() -> None:
    b = FunctionBuilder()
    y = b.allocate((4,), "float32", name="y")
    for start in (0, 2):
        b.block((2,), lambda i, start=start: store(y, (i + start,), 1.0), name="half")
    graph = block_graph(b.finish(y))
    assert not any(graph.is_complete(site) for site in graph.sites)
    assert [d.kind for d in graph.dependences] == ["output"]


def test_what_a_select_reads_stays_inside_its_buffer() -> None:
    # Both sides are evaluated, so the condition must not be used for an index.
    x = buffer("x", (40,), "float32")
    k = Var("k")
    cut = BufferLoad(x, (minimum(k, 39),))
    chosen = Select(k < 40, cut, const(0.0, x.dtype))
    assert Analyzer().simplify(chosen) is chosen
