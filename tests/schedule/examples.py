"""One use of every primitive, by name: what the tests over the whole table apply.

Whoever adds a primitive adds an entry here; without one `test_table.py` fails.
"""

from collections.abc import Callable

from tests.schedule.programs import blur, chain, matmul, normalized, padded, row_sum
from transect.ir.expr import Expr, Var
from transect.ir.function import IRModule
from transect.tir import op
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.schedule import LoopRV, Schedule

Program = PrimFunc | IRModule
Example = tuple[Callable[[], Program], Callable[[Schedule], object]]
"""A program, and a schedule of it that uses the primitive."""


def gather() -> PrimFunc:
    """c[i, j] = a[i // 2, (i + j) % 6] + a[i // 2, j]."""
    builder = FunctionBuilder("gather")
    a = builder.input("a", (4, 6), "float32")
    return builder.finish(
        [builder.compute((8, 6), lambda i, j: a[i // 2, (i + j) % 6] + a[i // 2, j], name="c")]
    )


def two_functions() -> IRModule:
    """Functions "main" and "second" of the same names inside."""
    return IRModule.of(main=chain(4, 6), second=chain(8, 3))


def loop(s: Schedule, block: str, position: int = 0) -> LoopRV:
    """A loop around a block."""
    return s.get_loops(block)[position]


def symbolic() -> PrimFunc:
    """`chain` of symbolic sizes."""
    return chain(Var("n"), Var("m"))


def small() -> PrimFunc:
    """`chain` of constant sizes."""
    return chain(8, 6)


def contraction() -> PrimFunc:
    """`matmul` with a bias, of symbolic sizes."""
    return matmul(Var("n"), Var("m"), Var("d"), bias=True)


def _split(s: Schedule) -> None:
    n, m = s.size("n"), s.size("m")
    outer, _ = s.split(loop(s, "c"), [None, (m + 3) // 4 + 1])
    s.split(outer, [None, 2], preserve_unit_iters=False)
    s.split(loop(s, "b"), [None, 4], disable_predication=True)
    s.split(loop(s, "b", 2), [(m - n % 2) * 0 + 1, None])


def ring(s: Schedule) -> None:
    """`blur` in one loop, with what two iterations share in a ring."""
    s.compute_at("b", loop(s, "c"))
    s.rolling_buffer("b", 0)


def _inplace(s: Schedule) -> None:
    s.decompose_reduction("s", loop(s, "s"))
    s.cache_inplace("s", "s", "local")


def _tile(s: Schedule) -> None:
    outer = loop(s, "c")
    s.split(outer, s.sample_perfect_tile(outer, 2, 4))


def _categorical(s: Schedule) -> None:
    s.split(loop(s, "c"), [None, s.sample_categorical([2, 4, 8], [0.2, 0.3, 0.5])])


def _location(s: Schedule) -> None:
    s.compute_at("b", s.sample_compute_location("b"))
    s.reverse_compute_at("c", s.sample_compute_location("c"))


def _merge(s: Schedule) -> None:
    s.merge(loop(s, "b", 1), loop(s, "c", 1))


def _work_on(s: Schedule) -> None:
    s.unroll(loop(s, "c"))
    s.work_on("second")
    s.parallel(loop(s, "c"))
    s.unroll(s.get_loops(s.get_block("b", "main"))[1])


def _postproc(s: Schedule) -> None:
    s.split(loop(s, "c"), [None, 4])
    s.enter_postproc()
    s.unroll(loop(s, "c", 1))


def dot_product() -> PrimFunc:
    """C = A @ B of bytes, with B in tiles of 16 by 4."""
    builder = FunctionBuilder("dot_product")
    a = builder.input("A", (Var("n"), 32), "uint8")
    b = builder.input("B", (3, 8, 16, 4), "int8")

    def product(i: Var, j: Var, k: Var) -> Expr:
        left, right = a[i, k], b[j // 16, k // 4, j % 16, k % 4]
        return left.astype("int32") * right.astype("int32")

    return builder.finish([builder.reduce((a.shape[0], 48), (32,), product, name="C")])


def tensorized(s: Schedule) -> None:
    """`dot_product` by an instruction, and the tile around it as a block."""
    i, j, k = s.get_loops("C")
    j0, j1 = s.split(j, [None, 16])
    k0, k1 = s.split(k, [None, 4])
    s.reorder(i, j0, k0, j1, k1)
    s.decompose_reduction("C", k0)
    s.tensorize(j1, "x86.avx512_vnni.vpdpbusd_16")


def shared() -> PrimFunc:
    """s[i] = sum of |a[i, :] - b[i]|; c = |a - b| * 2 + s."""
    builder = FunctionBuilder("shared")
    a = builder.input("a", (Var("n"), Var("m")), "float32")
    b = builder.input("b", a.shape[:1], "float32")
    s = builder.reduce(a.shape[:1], a.shape[1:], lambda i, k: op.abs(a[i, k] - b[i]), name="s")
    return builder.finish(
        [builder.compute(a.shape, lambda i, j: op.abs(a[i, j] - b[i]) * 2.0 + s[i], name="c")]
    )


def weighted() -> PrimFunc:
    """y[i, j] = sum over k of x[i, k] / w[i] * v[k, j]."""
    builder = FunctionBuilder("weighted")
    x = builder.input("x", (Var("n"), 4), "float32")
    w = builder.input("w", x.shape[:1], "float32")
    v = builder.input("v", (4, 6), "float32")
    p = builder.compute(x.shape, lambda i, k: x[i, k] / w[i], name="p")
    y = builder.reduce((x.shape[0], 6), (4,), lambda i, j, k: p[i, k] * v[k, j], name="y")
    return builder.finish([y])


def _factor_out(s: Schedule) -> None:
    s.compute_inline("p")
    s.factor_out("y")


def _decide(s: Schedule) -> None:
    tile = s.decision("tile", [2, 4])
    s.split(loop(s, "c"), [None, tile])
    s.decide_sizes({tile: 4})


EXAMPLES: dict[str, Example] = {
    "decision": (small, _decide),
    "decide_sizes": (small, _decide),
    "get_block": (two_functions, lambda s: s.get_block("c", "second")),
    "get_loops": (small, lambda s: s.get_loops("c")),
    "get_child_blocks": (small, lambda s: s.unroll(s.get_loops(s.get_child_blocks("root")[1])[0])),
    "get_producers": (small, lambda s: s.unroll(s.get_loops(s.get_producers("c")[0])[0])),
    "get_consumers": (small, lambda s: s.unroll(s.get_loops(s.get_consumers("b")[0])[0])),
    "get_output_blocks": (small, lambda s: s.unroll(s.get_loops(s.get_output_blocks()[0])[0])),
    "work_on": (two_functions, _work_on),
    "enter_postproc": (small, _postproc),
    "sample_categorical": (small, _categorical),
    "sample_perfect_tile": (small, _tile),
    "sample_compute_location": (small, _location),
    "split": (symbolic, _split),
    "fuse": (symbolic, lambda s: s.fuse(*s.get_loops("c"), preserve_unit_iters=False)),
    "reorder": (symbolic, lambda s: s.reorder(*reversed(s.get_loops("c")))),
    "loop_partition": (
        symbolic,
        lambda s: s.loop_partition(loop(s, "c"), [s.size("n") // 4 * 4, None]),
    ),
    "add_unit_loop": (small, lambda s: s.add_unit_loop("c")),
    "merge": (small, _merge),
    "parallel": (symbolic, lambda s: s.parallel(loop(s, "c"))),
    "vectorize": (small, lambda s: s.vectorize(loop(s, "c", 1))),
    "unroll": (small, lambda s: s.unroll(loop(s, "c", 1))),
    "bind": (symbolic, lambda s: s.bind(loop(s, "c"), "blockIdx.x")),
    "annotate": (small, lambda s: s.annotate("c", "hint", {"a": [1, (2.5, "x", None)]})),
    "unannotate": (small, lambda s: (s.annotate("c", "k", 1), s.unannotate("c", "k"))),
    "set_scope": (small, lambda s: s.set_scope("b", "b", "shared")),
    "storage_align": (small, lambda s: s.storage_align("b", 0, 0, 32, 8)),
    "unsafe_set_dtype": (small, lambda s: s.unsafe_set_dtype("b", 0, "float16")),
    "annotate_buffer_access": (
        lambda: blur(6),
        lambda s: s.annotate_buffer_access("c", 0, "read", lambda vi: [(vi - 1, vi + 3)]),
    ),
    "unsafe_hide_buffer_access": (
        contraction,
        lambda s: s.unsafe_hide_buffer_access("z", "read", [1]),
    ),
    "compute_inline": (symbolic, lambda s: s.compute_inline("b")),
    "reverse_compute_inline": (symbolic, lambda s: s.reverse_compute_inline("c")),
    "cache_read": (contraction, lambda s: s.cache_read("y", "w", "shared", ["y"])),
    "reindex_cache_read": (
        contraction,
        lambda s: s.reindex_cache_read(s.get_block("y"), 1, "global", (2, 1)),
    ),
    "reindex": (contraction, lambda s: s.reindex("y", ("read", 1))),
    "reindex_cache_write": (
        contraction,
        lambda s: s.reindex_cache_write("y", "y", "local", lambda i, j, k: (j, i)),
    ),
    "blockize": (
        small,
        lambda s: (s.split(loop(s, "c", 1), [None, 3]), s.blockize(loop(s, "c", 2), False)),
    ),
    "tensorize": (dot_product, tensorized),
    "transform_layout": (
        symbolic,
        lambda s: s.transform_layout("b", "b", lambda i, j: (i // 4, j, i % 4), 0),
    ),
    "set_axis_separator": (small, lambda s: s.set_axis_separator("b", ("write", 0), [1])),
    "transform_block_layout": (
        small,
        lambda s: s.transform_block_layout("c", lambda i, j: (i // 4, j // 2, i % 4, j % 2)),
    ),
    "reorder_block_iter_var": (
        contraction,
        lambda s: s.reorder_block_iter_var("y", [2, 0, 1]),
    ),
    "pad_einsum": (contraction, lambda s: s.pad_einsum("y", [4, 8, 2])),
    "decompose_padding": (
        lambda: padded(Var("n"), Var("m")),
        lambda s: s.decompose_padding("p", loop(s, "p")),
    ),
    "cache_write": (symbolic, lambda s: s.cache_write("b", 0, "local", ["c"])),
    "cache_inplace": (lambda: row_sum(4, 6), _inplace),
    "cache_index": (gather, lambda s: s.cache_index("c", "global", 1)),
    "read_at": (symbolic, lambda s: s.read_at(loop(s, "c"), "c", 0, "shared")),
    "write_at": (symbolic, lambda s: s.write_at(loop(s, "c"), "c", 0, "local")),
    "rolling_buffer": (lambda: blur(6), ring),
    "compute_at": (symbolic, lambda s: s.compute_at("b", loop(s, "c"), True, -2)),
    "reverse_compute_at": (symbolic, lambda s: s.reverse_compute_at("c", loop(s, "b"), True, 1)),
    "decompose_reduction": (
        contraction,
        lambda s: s.decompose_reduction("y", loop(s, "y", 2)),
    ),
    "fold_reduction": (lambda: row_sum(4, 6), lambda s: s.fold_reduction("s")),
    "cache_common": (shared, lambda s: s.cache_common("s", "c")),
    "factor_out": (weighted, _factor_out),
    "pad_domain": (lambda: normalized(Var("n"), Var("m")), lambda s: s.pad_domain("t", [1, 4])),
    "rfactor": (lambda: row_sum(4, 6), lambda s: s.rfactor(loop(s, "s", 1), 1)),
}
