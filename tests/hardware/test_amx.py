"""AMX: every intrinsic does what it says, and products of matrices are scheduled with them."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import pytest

from tests.codegen.support import compiled, lower
from tests.relax.programs import graph, operators, tensor
from transect.codegen.llvm.compile import assembly
from transect.driver.services import schedule_space
from transect.hardware import schedule_rules, this_machine
from transect.hardware.schedule_kernels import ScheduleKernels, schedule_function
from transect.hardware.x86 import ICELAKE, SAPPHIRE_RAPIDS
from transect.hardware.x86.amx import INTRINSICS, PRODUCTS, TileProduct
from transect.hardware.x86.amx_product import AmxProductRule
from transect.ir.expr import Var, as_int
from transect.ir.function import IRModule
from transect.relax import expr as rx
from transect.relax.interpret import interpret as interpret_graph
from transect.relax.op.binary import Add
from transect.relax.op.linear_algebra import Matmul
from transect.relax.op.nn_activation import Relu
from transect.relax.transform.fold_constant import FoldConstant
from transect.relax.transform.fuse_tir import FuseOps
from transect.relax.transform.legalize_ops import LegalizeOps
from transect.relax.transform.lift_packing import LiftPacking
from transect.relax.verify import verify_module
from transect.script import parse
from transect.target import Target
from transect.tir.analysis.packing import split_packing
from transect.tir.function import PrimFunc
from transect.tir.interpret import interpret
from transect.tir.tensor_intrin import TensorIntrin
from transect.tir.verify import verify_func
from transect.transform import Context

HAS_AMX = {"amx_tile", "amx_bf16", "amx_int8"} <= this_machine().features
needs_amx = pytest.mark.skipif(not HAS_AMX, reason="this processor has no AMX")
EACH = pytest.mark.parametrize(
    "intrin", [make() for make in INTRINSICS.values()], ids=lambda item: item.name
)
KINDS = pytest.mark.parametrize("kind", PRODUCTS, ids=lambda item: item.instruction)

_PRODUCT = """
@T.prim_func
def product(A: T.Buffer({a}, LEFT), B: T.Buffer({b}, RIGHT), C: T.Buffer({c}, RESULT)):
    for {loops} in T.grid({extents}):
        with T.block("C"):
            {variables} = T.axis.remap("{kinds}", [{loops}])
            with T.init():
                C[{ci}] = T.cast(0, RESULT)
            C[{ci}] = C[{ci}] + T.cast(A[{ai}], RESULT) * T.cast(B[{bi}], RESULT)
"""
"""A batch of products, however the operands lie."""

LAYOUTS: dict[str, tuple[str, str, str]] = {
    "plain": ("i k", "k j", "i j"),
    "both transposed": ("k i", "j k", "i j"),
    "batched": ("b i k", "b k j", "b i j"),
    "shared columns": ("b i k", "j k", "b i j"),
    "rows outside": ("i b k", "b k j", "i b j"),
    "operands exchanged": ("k j", "i k", "i j"),
}
"""The axes of A, B and C."""


def product(
    kind: TileProduct, layout: str, m: int | str, n: int | str, k: int | str, batch: int = 2
) -> PrimFunc:
    """C = A times B; a name as a size makes it symbolic."""
    a, b, c = (axes.split() for axes in LAYOUTS[layout])
    sizes: dict[str, int | str] = {"b": batch, "i": m, "j": n, "k": k}
    loops = [axis for axis in sizes if axis != "b" or "b" in c]

    def shape(axes: Sequence[str]) -> str:
        return "(" + ", ".join(repr(sizes[axis]) for axis in axes) + ",)"

    def index(axes: Sequence[str]) -> str:
        return ", ".join(f"v{axis}" for axis in axes)

    text = _PRODUCT.format(
        a=shape(a), b=shape(b), c=shape(c), ai=index(a), bi=index(b), ci=index(c),
        loops=", ".join(loops), extents=", ".join(str(sizes[axis]) for axis in loops),
        variables=index(loops), kinds="S" * (len(loops) - 1) + "R",
    )  # fmt: skip
    exchanged = layout == "operands exchanged"
    left, right = (kind.right, kind.left) if exchanged else (kind.left, kind.right)
    names = {"LEFT": str(left), "RIGHT": str(right), "RESULT": str(kind.result)}
    found = parse(text, **names)
    assert isinstance(found, PrimFunc)
    return found


def operands(program: PrimFunc, layout: str, **sizes: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Random A and B, C full of garbage; and what C should be, in float64."""
    rng = np.random.default_rng(0)
    arrays: list[np.ndarray] = []
    for value in program.buffers:
        shape = [sizes.get(repr(extent), as_int(extent) or 0) for extent in value.shape]
        kind = value.dtype
        if kind.is_float:
            arrays.append(rng.standard_normal(shape).astype(kind.numpy))
        else:
            low, high = int(kind.min_value), int(kind.max_value)
            arrays.append(rng.integers(low, high, shape, kind.numpy, endpoint=True))
    a, b, c = (axes.replace(" ", "") for axes in LAYOUTS[layout])
    wide = [array.astype(np.float64) for array in arrays[:2]]
    return arrays, np.einsum(f"{a},{b}->{c}", *wide)


def close(got: np.ndarray, want: np.ndarray, kind: TileProduct) -> None:
    """Exact for integers; for floats up to what summing in float32 may cost."""
    if kind.result.is_int:
        np.testing.assert_array_equal(got, want)
    else:
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=1e-5, atol=2e-4)


def scheduled(program: PrimFunc, target: Target) -> PrimFunc:
    """As a compile for `target` would schedule it."""
    context = Context(target)
    return schedule_function(program, schedule_rules("x86"), context.planner, context)


def rules_of(program: PrimFunc) -> object:
    return program.attrs.get("tir.schedule_rules")


@EACH
@pytest.mark.parametrize("seed", range(3))
def test_each_intrinsic_interpreted(intrin: TensorIntrin, seed: int) -> None:
    rng = np.random.default_rng(seed)
    given: list[np.ndarray] = []
    for value in intrin.description.buffers:
        shape = [as_int(extent) or 0 for extent in value.shape]
        # Halves of small integers: every sum is exact, in any order.
        numbers = rng.integers(0, 17, shape) / (2 if value.dtype.is_float else 1)
        given.append(numbers.astype(value.dtype.numpy))
    expected, ours = [a.copy() for a in given], [a.copy() for a in given]
    interpret(intrin.description, *expected)
    interpret(intrin.implementation, *ours)
    for a, b in zip(expected, ours, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(given, expected, strict=True))


@pytest.mark.parametrize("kind", PRODUCTS[:2], ids=lambda item: item.instruction)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scheduled_programs_mean_the_same(kind: TileProduct, layout: str) -> None:
    before = product(kind, layout, 19, 35, 70)
    after = scheduled(before, SAPPHIRE_RAPIDS)
    assert rules_of(after) == ("x86.amx_product",)
    verify_func(after)
    arrays, want = operands(before, layout)
    interpret(after, *arrays)
    close(arrays[2], want, kind)


CASES = [
    *((kind, "plain", (127, 71, 103)) for kind in PRODUCTS),
    *((kind, layout, (37, 50, 70)) for kind in PRODUCTS[:2] for layout in LAYOUTS),
    *((kind, "plain", sizes) for kind in PRODUCTS[:2] for sizes in ((64, 64, 128), (300, 5, 2))),
]


@needs_amx
@pytest.mark.parametrize(("kind", "layout", "sizes"), CASES, ids=str)
def test_compiled(kind: TileProduct, layout: str, sizes: tuple[int, int, int]) -> None:
    before = product(kind, layout, *sizes)
    after = scheduled(before, this_machine())
    assert rules_of(after) == ("x86.amx_product",)
    arrays, want = operands(before, layout)
    compiled(after, target=this_machine())(*arrays)
    close(arrays[2], want, kind)


@needs_amx
@pytest.mark.parametrize("kind", PRODUCTS[:2], ids=lambda item: item.instruction)
@pytest.mark.parametrize("sizes", [("m", 40, 70), (40, 33, "k"), ("m", "n", "k")])
def test_symbolic_sizes(kind: TileProduct, sizes: tuple[int | str, ...]) -> None:
    before = product(kind, "plain", *sizes)
    after = scheduled(before, this_machine())
    assert rules_of(after) == ("x86.amx_product",)
    run = compiled(after, target=this_machine())
    for m, n, k in ((1, 1, 1), (16, 16, 64), (37, 50, 129), (100, 31, 32)):
        arrays, want = operands(before, "plain", m=m, n=n, k=k)
        run(*arrays)
        close(arrays[2], want, kind)


@KINDS
def test_assembly(kind: TileProduct) -> None:
    program = scheduled(product(kind, "plain", 64, 64, 128), SAPPHIRE_RAPIDS)
    text = assembly(lower(program, SAPPHIRE_RAPIDS), SAPPHIRE_RAPIDS)
    for name in ("ldtilecfg", "tilezero", "tileloadd", kind.instruction, "tilestored"):
        assert name in text
    # Four results, two tiles of each operand.
    assert text.count(kind.instruction) == 4


def test_another_machine_uses_another_rule() -> None:
    program = scheduled(product(PRODUCTS[0], "plain", 64, 64, 128), ICELAKE)
    assert rules_of(program) != ("x86.amx_product",)
    assert "tir.schedule_refusals" not in program.attrs
    assert all("amx" not in str(site.key) for site in schedule_space(program, ICELAKE))


def test_sums_of_one_are_left_to_others() -> None:
    # A dimension of one is no iteration variable of the copies any more.
    program = scheduled(product(PRODUCTS[0], "plain", 64, 64, 1), SAPPHIRE_RAPIDS)
    assert rules_of(program) != ("x86.amx_product",)


def test_few_rows_are_left_to_others() -> None:
    program = scheduled(product(PRODUCTS[0], "plain", 2, 64, 128), SAPPHIRE_RAPIDS)
    assert rules_of(program) != ("x86.amx_product",)


def test_sums_stay_loops() -> None:
    # With one tile of rows, no loop over tiles stands between the sum's and a tile's.
    program = scheduled(product(PRODUCTS[1], "plain", 16, 48, 1024), SAPPHIRE_RAPIDS)
    assert repr(program).count("T.amx_tile_dot") == 1
    text = assembly(lower(program, SAPPHIRE_RAPIDS), SAPPHIRE_RAPIDS)
    assert text.count("tdpbssd") == 3


@pytest.mark.parametrize("rows", [33, 64, 200, 1000])
def test_blocks_are_of_one_size(rows: int) -> None:
    program = scheduled(product(PRODUCTS[1], "plain", rows, 64, 64), SAPPHIRE_RAPIDS)
    text = repr(program)
    assert "T.where" not in text.split("packs_operand")[0]
    packed = next(b for b in program.body.block.alloc_buffers if b.name.startswith("A_"))  # pyright: ignore[reportAttributeAccessIssue]
    total = (as_int(packed.shape[0]) or 0) * (as_int(packed.shape[2]) or 0) * 16
    assert rows <= total < rows + 32 * (-(-rows // 256)) + 32


def test_the_rule_keeps_to_its_options() -> None:
    rule = AmxProductRule(tiles=((1, 1),), blocks=(32,))
    context = Context(SAPPHIRE_RAPIDS)
    before = product(PRODUCTS[1], "plain", 64, 64, 64)
    after = schedule_function(before, (rule,), context.planner, context)
    assert after.attrs["tir.schedule_rules"] == ("x86.amx_product",)
    arrays, want = operands(before, "plain")
    interpret(after, *arrays)
    close(arrays[2], want, PRODUCTS[1])


# --- packing -------------------------------------------------------------------------------


def test_packing_is_split_from_the_rest() -> None:
    kind = PRODUCTS[1]
    before = product(kind, "plain", 40, 33, 70)
    after = scheduled(before, SAPPHIRE_RAPIDS)
    split = split_packing(after, after.buffers[1])
    assert split is not None
    verify_func(split.packing)
    verify_func(split.rest)
    (a, b, c), want = operands(before, "plain")
    packed = np.zeros([as_int(e) or 0 for e in split.packing.buffers[1].shape], np.int8)
    interpret(split.packing, b, packed)
    interpret(split.rest, a, packed, c)
    close(c, want, kind)
    # The rows differ from block to block, so their packing stays.
    assert split_packing(after, after.buffers[0]) is None


_N = Var("n")
_RNG = np.random.default_rng(1)
_WEIGHTS = [
    (_RNG.standard_normal(shape) / 8).astype(ml_dtypes.bfloat16)
    for shape in ((70, 90), (90,), (90, 33))
]


def _network(batch: Var | int) -> IRModule:
    def body(b, x):  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]
        first, bias, second = map(rx.constant, _WEIGHTS)
        hidden = b.emit(Relu()(Add()(b.emit(Matmul()(x, first)), bias)))
        return b.emit_output(Matmul()(hidden, second))

    return graph([("x", tensor(batch, 70, dtype="bfloat16"))], body)


def test_packing_of_constants_is_lifted_and_folded() -> None:
    context = Context(SAPPHIRE_RAPIDS)
    before = FuseOps()(LegalizeOps()(_network(40), context), context)
    scheduled_module = ScheduleKernels(schedule_rules("x86"))(before, context)
    lifted = LiftPacking()(scheduled_module, context)
    verify_module(lifted)
    assert sum(name.endswith("_packing") for name in operators(lifted)) == 2
    folded = FoldConstant(limit=1 << 20)(lifted, context)
    assert not any(name.endswith("_packing") for name in operators(folded))
    x = _RNG.standard_normal((40, 70)).astype(ml_dtypes.bfloat16)
    want, got = interpret_graph(before, "main", x), interpret_graph(folded, "main", x)
    np.testing.assert_allclose(
        np.asarray(got).astype(np.float32), np.asarray(want).astype(np.float32), atol=0.02
    )


@needs_amx
@pytest.mark.parametrize("batch", [40, _N], ids=["static", "symbolic"])
def test_a_model(batch: Var | int) -> None:
    import transect

    model = transect.compile(_network(batch))
    x = _RNG.standard_normal((40, 70)).astype(ml_dtypes.bfloat16)
    first, bias, second = (w.astype(np.float32) for w in _WEIGHTS)
    hidden = (x.astype(np.float32) @ first).astype(ml_dtypes.bfloat16) + bias
    want = np.maximum(hidden.astype(ml_dtypes.bfloat16).astype(np.float32), 0) @ second
    got = np.asarray(model(x)).astype(np.float32)
    np.testing.assert_allclose(got, want, atol=0.03)
    stage = str(model.stages["FoldConstant_2"])
    assert "amx_tile_dot" in stage
    assert "_packing" not in stage.split("@T.prim_func")[0]
