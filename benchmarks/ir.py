"""Rates of the IR: construct, visit, rewrite, compare, hash and simplify 200,000 nodes.

Run alone: `python benchmarks/ir.py [--nodes N] [--json]`. A rate is nodes per second, the best of
three runs; the table is for comparing two commits on one machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import time
from collections.abc import Callable

from transect.arith import Analyzer
from transect.ir.expr import Expr, FloorDiv, FloorMod, IntImm, Range, Var, make, maximum, minimum
from transect.ir.structural import structural_equal, structural_hash
from transect.ir.term import Term
from transect.ir.traverse import rewrite, walk

_LOOPS = 4
_EXTENT = 64


def build(nodes: int, variables: list[Var]) -> list[Expr]:
    """Index expressions as tiling makes them, of about `nodes` distinct terms together."""
    source = random.Random(0)
    roots: list[Expr] = []
    made = 0
    while made < nodes:
        tile, expr = (
            source.choice((2, 4, 8, 16)),
            source.choice(variables) * source.randrange(1, 999),
        )
        for _ in range(5):
            other = source.choice(variables)
            expr = expr + make(source.choice((FloorDiv, FloorMod)), other, IntImm(tile)) * made
            made += 4
        roots.append(minimum(maximum(expr, made), expr + other))
        made += 4
    return roots


def best_of(runs: int, function: Callable[[], object]) -> float:
    """The shortest time of some runs, in seconds."""
    times: list[float] = []
    for _ in range(runs):
        gc.collect()
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(nodes: int) -> dict[str, float]:
    """Nodes per second of each operation."""
    variables = [Var(f"i{k}") for k in range(_LOOPS)]
    roots = build(nodes, variables)
    count = len(list(walk(*roots)))

    def visit() -> None:
        for _ in walk(*roots):
            pass

    def rename() -> None:
        memo: dict[Term, Term] = {}
        fresh = {var: Var(var.name) for var in variables}
        for root in roots:
            rewrite(root, lambda item: fresh.get(item, item), memo)  # pyright: ignore[reportArgumentType, reportCallIssue]

    def simplify() -> None:
        analyzer = Analyzer()
        for var in variables:
            analyzer.bind(var, Range.of(_EXTENT))
        for root in roots:
            analyzer.simplify(root)

    copies = build(nodes, [Var(var.name) for var in variables])
    table: dict[str, Callable[[], object]] = {
        "construct": lambda: build(nodes, [Var(f"i{k}") for k in range(_LOOPS)]),
        "construct, interned": lambda: build(nodes, variables),
        "visit": visit,
        "rewrite": rename,
        "compare": lambda: structural_equal(tuple(roots), tuple(copies), map_free=True),
        "hash": lambda: structural_hash(tuple(roots)),
        "simplify": simplify,
    }
    return {name: count / best_of(3, function) for name, function in table.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of a table"
    )
    options = parser.parse_args()
    rates = measure(options.nodes)
    if options.json:
        print(json.dumps({"nodes": options.nodes, "nodes_per_second": rates}))
        return
    print(f"{options.nodes:,} nodes")
    for name, rate in rates.items():
        print(f"  {name:<20} {rate:>12,.0f} nodes/s   {1e6 / rate:6.2f} us a node")


if __name__ == "__main__":
    main()
