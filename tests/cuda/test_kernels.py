"""Tensor programs bound to threads compile to machine code of a GPU; none is needed for it."""

import numpy as np
import pytest

from transect.codegen.cuda import SplitHostDevice, build
from transect.codegen.cuda.build import lowering
from transect.codegen.cuda.split_host_device import KERNEL, LAUNCH
from transect.hardware import schedule_rules
from transect.hardware.cuda import SM_80, SM_90A
from transect.hardware.cuda.launch import bind_sizes
from transect.hardware.cuda.schedule import bind_flat, bind_tiled_contraction
from transect.hardware.schedule_kernels import ScheduleKernels
from transect.ir.expr import Expr, Select, call_bitwise, cast, logical_not, truncdiv, truncmod
from transect.ir.function import IRModule
from transect.ir.structural import structural_equal
from transect.script import ir as I
from transect.script import tir as T
from transect.support.errors import InputError, InputTypeError, UnsupportedError
from transect.target import Target
from transect.tir import op
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.interpret import interpret
from transect.tir.schedule import Schedule
from transect.tir.stmt import For
from transect.tir.visit import walk_stmts
from transect.transform import Context

n, m, d = T.symbolic("n", "m", "d")


@I.ir_module
class Seed:
    @T.prim_func
    def tir_mm(
        X: T.Buffer[(n, d), "float32"],
        W: T.Buffer[(d, m), "float32"],
        Y: T.Buffer[(n, m), "float32"],
    ):
        for i, j, k in T.grid(n, m, d):
            with T.block("body"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                with T.init():
                    Y[vi, vj] = 0
                # Can be mapped on to HW intrinsics.
                Y[vi, vj] += X[vi, vk] * W[vk, vj]  # fmt: skip


def bound(tiled: bool) -> PrimFunc:
    """The seed program's product with its loops bound to threads."""
    s = Schedule(Seed, "tir_mm")
    block = s.get_block("body")
    if tiled:
        bind_tiled_contraction(s, block, 16)
        return s.func
    i, j, k = s.get_loops(block)
    by, ty = s.split(i, [None, 16])
    bx, tx = s.split(j, [None, 16])
    s.reorder(by, bx, ty, tx, k)
    axes = ("blockIdx.y", "blockIdx.x", "threadIdx.y", "threadIdx.x")
    for loop, axis in zip((by, bx, ty, tx), axes, strict=True):
        s.bind(loop, axis)
    s.decompose_reduction(block, k)
    return s.func


def is_elf(code: bytes) -> bool:
    return code[:4] == b"\x7fELF"


@pytest.mark.parametrize("target", [SM_80, SM_90A], ids=str)
@pytest.mark.parametrize("tiled", [False, True], ids=["direct", "tiled"])
def test_symbolic_matmul_compiles(target: Target, tiled: bool) -> None:
    module = build(IRModule.of(tir_mm=bound(tiled)), target)
    assert is_elf(module.cubin)
    (kernel,) = module.kernels["tir_mm"]
    sizes = {v.name: v for v in kernel.args if not v.dtype.is_handle}
    assert set(sizes) == {"n", "m", "d"}
    assert kernel.threads == 256
    assert repr(kernel.grid[0]) == "(m + 15) // 16"
    assert repr(kernel.grid[1]) == "(n + 15) // 16"
    assert ("__shared__" in module.source) == tiled
    assert ("__syncthreads" in module.source) == tiled


@pytest.mark.parametrize("tiled", [False, True], ids=["direct", "tiled"])
def test_bound_programs_compute_the_same(tiled: bool) -> None:
    rng = np.random.default_rng(0)
    for sizes in ((1, 1, 1), (17, 5, 33), (16, 32, 16)):
        x = rng.integers(-4, 4, (sizes[0], sizes[2])).astype(np.float32)
        w = rng.integers(-4, 4, (sizes[2], sizes[1])).astype(np.float32)
        y = np.full((sizes[0], sizes[1]), np.nan, np.float32)
        interpret(bound(tiled), x, w, y)
        np.testing.assert_array_equal(y, x @ w)


def test_tiles_wait_before_reading_and_before_overwriting() -> None:
    source = build(IRModule.of(tir_mm=bound(True)), SM_80).source
    body = source[source.index("__global__") :]
    write, read = body.index("_shared_["), body.index("(Y_local_[")
    assert write < body.index("__syncthreads") < read < body.rindex("__syncthreads")


def test_accumulators_are_one_register_a_thread() -> None:
    assert "float Y_local_[1]" in build(IRModule.of(tir_mm=bound(True)), SM_80).source


def test_split_leaves_a_host_function_that_launches() -> None:
    module = IRModule.of(tir_mm=bound(False))
    for step in lowering():
        module = step(module, Context(target=SM_80))
    module = SplitHostDevice()(module, Context(target=SM_80))
    host, kernel = module["tir_mm"], module["tir_mm_kernel0"]
    assert LAUNCH in repr(host)
    assert kernel.attrs[KERNEL] is True
    assert isinstance(host, PrimFunc)
    assert not any(isinstance(s, For) for s in walk_stmts(host.body))
    again = SplitHostDevice()(module, Context(target=SM_80))
    assert structural_equal(again, module)


def elementwise(function, dtype: str, result: str | None = None) -> PrimFunc:
    builder = FunctionBuilder("kernel")
    a = builder.input("a", (n,), dtype)
    b = builder.input("b", (n,), dtype)
    out = builder.compute((n,), lambda i: function(a[i], b[i]), name="o", dtype=result or dtype)
    return builder.finish([out])


INTEGER = [
    lambda a, b: a + b * 3 - 1,
    lambda a, b: a // (b + 1) + a % (b + 1),
    lambda a, b: truncdiv(a, b + 1) + truncmod(a, b + 1),
    lambda a, b: Select((a < b) & (a >= 0) | logical_not(a > b), a, b),
    lambda a, b: call_bitwise("bitwise_xor", a & b, (a | b) << 1) >> 2,
    lambda a, b: ~a,
    lambda a, b: op.abs(a) + op.popcount(b) + op.clz(b),
]


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint32"])
def test_integer_expressions_compile(dtype: str) -> None:
    functions: dict[str, PrimFunc] = {}
    for number, function in enumerate(INTEGER):
        if number == 6 and dtype not in ("int32", "int64"):
            continue
        s = Schedule(elementwise(function, dtype))
        bind_flat(s, s.get_block("o"))
        functions[f"f{number}"] = s.func
    assert is_elf(build(IRModule.of(**functions), SM_80).cubin)


UNARY = (
    "exp", "exp2", "log", "log2", "log10", "log1p", "expm1", "sqrt",
    "rsqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
    "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "sigmoid", "floor",
    "ceil", "round", "nearbyint", "trunc",
)  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_float_expressions_compile(dtype: str) -> None:
    def everything(a: Expr, b: Expr) -> Expr:
        total = a / b + op.power(a, b)
        for name in UNARY:
            total = total + getattr(op, name)(a)
        limits = Select(op.isnan(a) | op.isinf(b), op.max_value(dtype), op.min_value(dtype))
        return total + limits + op.if_then_else(a < b, a, -b) + cast(cast(a, "int32"), dtype)

    s = Schedule(elementwise(everything, dtype))
    bind_flat(s, s.get_block("o"))
    module = build(IRModule.of(f=s.func), SM_80)
    assert is_elf(module.cubin)


@T.prim_func
def statements(A: T.Buffer((64,), "int32"), B: T.Buffer((64,), "int32")):
    for t in T.thread_binding(64, thread="threadIdx.x"):
        with T.block("scan"):
            v = T.axis.spatial(64, t)
            if A[v] > 3:
                B[v] = 0
            else:
                B[v] = 1
            for _k in range(4):
                B[v] = B[v] + T.int32(2)
            while B[v] < 10:
                B[v] = B[v] * 2
            assert B[v] < 1000, "too large"


def test_statement_kinds_compile() -> None:
    source = build(IRModule.of(f=statements), SM_80).source
    for part in ("else {", "while (", "for (", "__trap()"):
        assert part in source


def test_a_store_outside_of_thread_loops_runs_once() -> None:
    builder = FunctionBuilder("kernel")
    a = builder.input("a", (8,), "float32")
    b = builder.compute((8,), lambda i: a[i] * 2.0, name="b")
    c = builder.compute((8,), lambda i: b[7 - i] + 1.0, name="c")
    s = Schedule(builder.finish([c]))
    outer = s.add_unit_loop(s.get_loops(s.get_block("c"))[0])
    s.compute_at(s.get_block("b"), outer)
    s.set_scope(s.get_block("b"), 0, "shared")
    s.bind(s.get_loops(s.get_block("c"))[1], "threadIdx.x")
    s.bind(outer, "blockIdx.x")
    source = build(IRModule.of(f=s.func), SM_80).source
    guard = source.index("(threadIdx.x)) == 0ll")
    assert guard < source.index("b_[", guard) < source.index("__syncthreads")


def test_refuse_global_temporaries() -> None:
    builder = FunctionBuilder("kernel")
    a = builder.input("a", (n,), "float32")
    b = builder.compute((n,), lambda i: a[i] * 2.0, name="b")
    c = builder.compute((n,), lambda i: b[i] + b[0], name="c")
    s = Schedule(builder.finish([c]))
    bind_flat(s, s.get_block("b"))
    bind_flat(s, s.get_block("c"))
    with pytest.raises(UnsupportedError, match="'b' is allocated outside of kernels"):
        build(IRModule.of(f=s.func), SM_80)


def test_refuse_two_extents_of_one_axis() -> None:
    builder = FunctionBuilder("kernel")
    a = builder.input("a", (4, n), "float32")
    w = builder.input("w", (4, m), "float32")
    b = builder.compute((4, n), lambda i, j: a[i, j] * 2.0, name="b")
    c = builder.compute((4, m), lambda i, j: w[i, j] + 1.0, name="c")
    s = Schedule(builder.finish([b, c]))
    rows = s.merge(s.get_loops(s.get_block("b"))[0], s.get_loops(s.get_block("c"))[0])
    for name in ("b", "c"):
        s.bind(s.get_loops(s.get_block(name))[1], "threadIdx.x")
    s.bind(rows, "blockIdx.x")
    with pytest.raises(UnsupportedError, match=r"threadIdx\.x has the extents"):
        build(IRModule.of(f=s.func), SM_80)


def test_shorter_thread_loops_are_guarded() -> None:
    builder = FunctionBuilder("kernel")
    a = builder.input("a", (4, 6), "float32")
    w = builder.input("w", (4, 9), "float32")
    b = builder.compute((4, 6), lambda i, j: a[i, j] * 2.0, name="b")
    c = builder.compute((4, 9), lambda i, j: w[i, j] + 1.0, name="c")
    s = Schedule(builder.finish([b, c]))
    rows = s.merge(s.get_loops(s.get_block("b"))[0], s.get_loops(s.get_block("c"))[0])
    for name in ("b", "c"):
        s.bind(s.get_loops(s.get_block(name))[1], "threadIdx.x")
    s.bind(rows, "blockIdx.x")
    module = build(IRModule.of(f=s.func), SM_80)
    assert module.kernels["f"][0].threads == 9
    assert "< 6ll" in module.source


def test_refuse_unknown_architecture() -> None:
    target = Target(name="cuda", arch="sm_1")
    with pytest.raises(UnsupportedError, match="NVRTC refused the generated code for sm_1"):
        build(IRModule.of(f=bound(False)), target)


def test_rules_bind_what_nobody_scheduled() -> None:
    module = ScheduleKernels(schedule_rules("cuda"))(Seed, Context(target=SM_90A))
    func = module["tir_mm"]
    assert func.attrs["tir.schedule_rules"] == ("cuda.tiled",)
    assert is_elf(build(module, SM_90A).cubin)


def test_sizes_come_from_arrays_and_must_agree() -> None:
    func = bound(False)
    x, w, y = np.zeros((3, 4), "f"), np.zeros((4, 5), "f"), np.zeros((3, 5), "f")
    sizes = {var.name: size for var, size in bind_sizes(func, (x, w, y)).items()}
    assert sizes == {"n": 3, "d": 4, "m": 5}
    with pytest.raises(InputError, match="W has a dimension of 3 where d is 4"):
        bind_sizes(func, (x, np.zeros((3, 5), "f"), y))
    with pytest.raises(InputTypeError, match="X takes float32, got float64"):
        bind_sizes(func, (x.astype("d"), w, y))
    with pytest.raises(InputError, match="2 arrays for 3 buffers"):
        bind_sizes(func, (x, w))
