"""Every name of T that published scripts use parses, prints and parses back to the same program."""

# A snippet a line reads best, however long.
# ruff: noqa: E501

import textwrap

import pytest

from transect.ir.structural import structural_mismatch
from transect.script import parse, script
from transect.tir.function import PrimFunc
from transect.tir.verify import verify_func

HEAD = """
@T.prim_func(private=True)
def main(A: T.Buffer((16, 16), "float32"), B: T.Buffer((16,), "float16"), C: T.Buffer((16,), "int32"),
         p: T.handle, n: T.int64, m: T.int32, f: T.float32):
"""

STATEMENTS = {
    "block": 'with T.block("b"):\n    vi = T.axis.spatial(16, n)\n    C[vi] = 1',
    "sblock": 'with T.sblock("b"):\n    vi = T.axis.spatial(16, n)\n    C[vi] = 1',
    "Buffer": 'q = T.allocate([16], "float32")\nQ = T.Buffer((16,), data=q)\nQ[0] = 1.0',
    "grid": "for i, j in T.grid(16, n):\n    A[i, j] = 0.0",
    "axis.remap": 'for i, k in T.grid(16, 16):\n    with T.block("b"):\n        vi, vk = T.axis.remap("SR", [i, k])\n        A[vi, vk] = 1.0',
    "reads": 'with T.block("b"):\n    T.reads(A[0:4, 1], C[0])\n    T.writes(B[0:n])\n    T.evaluate(0)',
    "writes": 'with T.block("b"):\n    T.reads()\n    T.writes([B[0], A[n:n + 4, 0:16]])\n    T.evaluate(0)',
    "func_attr": 'T.func_attr({"tir.noalias": True, "n": 3, "s": "x", "l": [1, 2.5], "d": {"k": None}})',
    "handle": 'q: T.handle("float32", "shared") = T.reinterpret("handle", T.uint64(0))\nT.evaluate(q)',
    "match_buffer": 'P = T.match_buffer(p, (16, "k"), "float32", strides=("s", 1), elem_offset="o", align=128, offset_factor=8)\nP[0, 1] = 2.0',
    "alloc_buffer": 'D = T.alloc_buffer((16, n), "float16", scope="shared.dyn", axis_separators=[1])\nD[0, 0] = 1.0',
    "init": 'for k in range(16):\n    with T.block("b"):\n        vk = T.axis.reduce(16, k)\n        with T.init():\n            C[0] = 0\n        C[0] = C[0] + 1',
    "serial": 'for i in T.serial(2, n, annotations={"pragma": 1}):\n    C[i] = 0',
    "axis.spatial": 'with T.block("b"):\n    vi = T.axis.spatial((2, n), 3)\n    C[vi] = 1',
    "axis.reduce": 'with T.block("b"):\n    vi = T.axis.reduce(n, 3)\n    C[vi] = 1',
    "axis.scan": 'with T.block("b"):\n    vi = T.axis.scan(n, 3)\n    C[vi] = 1',
    "axis.opaque": 'with T.block("b"):\n    vi = T.axis.opaque(n, 3)\n    C[vi] = 1',
    "axis.S": 'with T.block("b"):\n    vi = T.axis.S(16, n)\n    C[vi] = 1',
    "axis.R": 'with T.block("b"):\n    vi = T.axis.R(16, n)\n    C[vi] = 1',
    "evaluate": "T.evaluate(n + 1)",
    "thread_binding": 'for i in T.thread_binding(16, thread="threadIdx.x"):\n    C[i] = 0',
    "block_attr": 'with T.block("b"):\n    T.block_attr({"a": 1, "b": [T.int32(2), "x"]})\n    C[0] = 0',
    "where": 'for i in range(n):\n    with T.block("b"):\n        vi = T.axis.spatial(16, i)\n        T.where(i < 16 and n > 2)\n        C[vi] = 0',
    "decl_buffer": 'q = T.allocate([16], "float32")\nQ = T.decl_buffer((4, 4), "float32", data=q, strides=(4, 1))\nQ[0, 0] = 1.0',
    "vectorized": "for i in T.vectorized(4):\n    C[i] = 0",
    "parallel": "for i in T.parallel(4):\n    C[i] = 0",
    "unroll": "for i in T.unroll(4):\n    C[i] = 0",
    "launch_thread": 'with T.launch_thread("blockIdx.x", 4) as bx:\n    C[bx] = 0',
    "env_thread": 'tx = T.env_thread("threadIdx.x")\nwith T.launch_thread(tx, 16):\n    C[tx] = 0',
    "attr": 'with T.attr(A.data, "volatile", 1):\n    C[0] = 0',
    "allocate": 'q = T.allocate([n, 4], "float16x4", "local", annotations={"alignment": 16})\nT.evaluate(q)',
    "allocate_const": 'q = T.allocate_const([1, 2, 3], "int32", [3])\nT.evaluate(q)',
    "target": 'T.func_attr({"target": T.target({"kind": "cuda", "arch": "sm_90a", "host": "llvm"})})',
    "index_map": 'with T.block("b"):\n    T.block_attr({"m": T.index_map(lambda i, j: (j, i // 4, i % 4))})\n    C[0] = 0',
    "comm_reducer": 'with T.attr(T.comm_reducer(lambda x, y: T.max(x, y), [T.min_value("float32")]), "reduce_scope", T.reinterpret("handle", T.uint64(0))):\n    C[0] = 0',
    "ret": "T.ret(m)",
    "tvm_thread_allreduce": 'T.tvm_thread_allreduce(T.uint32(1), f, T.bool(True), A[0, 0], m, dtype="handle")',
    "assume": "T.assume(n > 3)",
    "LetStmt": "with T.LetStmt(n + 1) as k:\n    C[k] = 0",
    "let": "k: T.let[T.int64] = n + 1\nC[k] = 0",
    "bind": "k = T.bind(n + 1)\nC[k] = 0",
    "meta_var": "k = T.meta_var(n + 1)\nC[k] = 0",
    "Assert": 'T.Assert(n > 1, "n", kind="TypeError")',
    "tvm_storage_sync": 'T.tvm_storage_sync("shared")',
    "tvm_storage_sync of older scripts": 'T.evaluate(T.tvm_storage_sync("shared", dtype=""))',
    "buffer_store": "T.buffer_store(C, 3, [n])",
    "alloc_shared": 'D = T.alloc_shared((4,), "float32")\nD[0] = 0.0',
    "alloc_local": 'D = T.alloc_local((4,), "float32")\nD[0] = 0.0',
    "symbolic": 'k = T.symbolic("k")\nP = T.match_buffer(p, (k,), "int8")\nP[0] = 1',
    "sblock_alloc_buffer": 'D = T.sblock_alloc_buffer((16,), "float16")\nD[0] = 1.0',
    "sblock_attr": 'with T.sblock("b"):\n    T.sblock_attr({"a": 1})\n    C[0] = 0',
    "scope": 'with T.scope():\n    q = T.allocate([16], "float32")\n    T.evaluate(q)\nC[0] = 1',
}

EXPRESSIONS = {
    "int8": "T.int8(3)",
    "int16": "T.int16(3)",
    "int32": "T.int32(3) + m",
    "int64": "T.int64(3) + n",
    "uint8": "T.uint8(3)",
    "uint16": "T.uint16(3)",
    "uint32": "T.uint32(3)",
    "uint64": "T.uint64(18446744073709551615)",
    "float16": "T.float16(0.1)",
    "bfloat16": "T.bfloat16(0.1)",
    "float32": 'T.float32("inf") - T.float32("nan")',
    "float64": "T.float64(0.1) * T.float64(-0.0)",
    "float8_e4m3fn": "T.float8_e4m3fn(2)",
    "float32x4": "T.float32x4(2)",
    "bool": "T.bool(True)",
    "boolean": "T.boolean(False)",
    "max": "T.max(n, 3)",
    "min": "T.min(3, n)",
    "Cast": 'T.Cast("float32", n)',
    "cast": 'T.cast(n, "float32")',
    "if_then_else": "T.if_then_else(n < 3, f, 0.0)",
    "Select": "T.Select(n < 3, 1.0, f)",
    "exp": "T.exp(f)",
    "exp_nonpositive": "T.exp_nonpositive(f)",
    "exp2": "T.exp2(f)",
    "log": "T.log(f)",
    "log2": "T.log2(f)",
    "reinterpret": 'T.reinterpret("int32", f)',
    "shift_right": "T.shift_right(m, 3)",
    "shift_left": "T.shift_left(m, T.int32(3))",
    "bitwise_and": "T.bitwise_and(m, 7)",
    "bitwise_or": "m | 7",
    "bitwise_xor": "T.bitwise_xor(m, 7)",
    "bitwise_not": "~m",
    "call_extern": 'T.call_extern("float32", "fma", f, f, 1.0)',
    "call_pure_extern": 'T.call_pure_extern("floor", f, dtype="float32")',
    "call_packed": 'T.call_packed("f", p, 1, "s")',
    "call_llvm_pure_intrin": 'T.call_llvm_pure_intrin("float32", "llvm.fma.f32", f, f, f)',
    "min_value": 'T.min_value("float32") + f',
    "max_value": 'T.max_value("int8")',
    "sqrt": "T.sqrt(f)",
    "rsqrt": "T.rsqrt(f)",
    "sin": "T.sin(f)",
    "cos": "T.cos(f)",
    "tanh": "T.tanh(f)",
    "fabs": "T.fabs(f)",
    "abs": "T.abs(m)",
    "pow": "T.pow(f, 2.0)",
    "clz": "T.clz(m)",
    "isnan": "T.isnan(f)",
    "isnullptr": "T.isnullptr(p)",
    "Ramp": "T.Ramp(n, 2, 4)",
    "ramp": "T.ramp(m, T.int32(2), 4)",
    "Broadcast": "T.Broadcast(f, 4)",
    "broadcast": "T.broadcast(T.float16(1), 4)",
    "Shuffle": "T.Shuffle([T.Broadcast(f, 2)], [1, 0])",
    "floordiv": "T.floordiv(n, 3)",
    "floormod": "T.floormod(n, 3)",
    "truncdiv": "T.truncdiv(n, 3)",
    "truncmod": "T.truncmod(n, 3)",
    "ceildiv": "T.ceildiv(n, 3)",
    "Div": "T.Div(f, 3.0)",
    "Mul": "T.Mul(2, 3)",
    "Add": "T.Add(T.int32(2), 3)",
    "LT": "T.LT(2, 3)",
    "Not": "T.Not(T.bool(True))",
    "And": "T.And(T.bool(True), n < 3)",
    "FloatImm": 'T.FloatImm("float16", 2)',
    "IntImm": 'T.IntImm("int8", 2)',
    "BufferLoad": "T.BufferLoad(A, [n, 0])",
    "type_annotation": 'T.type_annotation("float32")',
    "tvm_access_ptr": 'T.tvm_access_ptr(T.type_annotation("float32"), A.data, 0, 16, 1)',
    "vscale": "T.vscale() * 4",
    "floor": "T.floor(f)",
    "ceil": "T.ceil(f)",
    "round": "T.round(f)",
    "sigmoid": "T.sigmoid(f)",
    "erf": "T.erf(f)",
    "likely": "T.likely(n < 3)",
    "address_of": "T.address_of(A[1, n])",
    "undef": 'T.undef("float32")',
    "q_multiply_shift": "T.q_multiply_shift(m, 3, 4, 5)",
    "q_multiply_shift_per_axis": "T.q_multiply_shift_per_axis(m, m, m, 31, 0, T.bool(True), T.bool(False))",
    "tvm_warp_activemask": "T.tvm_warp_activemask()",
    "tvm_warp_shuffle": "T.tvm_warp_shuffle(T.uint32(1), f, 0, 32, 32)",
    "tvm_warp_shuffle_down": "T.tvm_warp_shuffle_down(T.uint32(1), f, 0, 32, 32)",
    "tvm_struct_get": 'T.tvm_struct_get(p, 0, 1, "handle")',
    "tvm_struct_set": "T.tvm_struct_set(p, 0, 1, n)",
    "tvm_stack_alloca": 'T.tvm_stack_alloca("arg_value", 4)',
    "get_active_lane_mask": 'T.get_active_lane_mask("boolx4", n, 4)',
    "ptx_mma": 'T.ptx_mma("float32", "m16n8k8", "row", "col", "fp16", "fp16", "fp32", A.data, 0, B.data, 0, C.data, 0, T.bool(False))',
    "ptx_ldmatrix": 'T.ptx_ldmatrix("float16", T.bool(False), 4, ".b16", A.data, 0, B.data, n)',
    "ptx_cp_async": 'T.ptx_cp_async("float16", A.data, 0, B.data, 0, 16)',
    "ptx_commit_group": "T.ptx_commit_group()",
    "ptx_wait_group": "T.ptx_wait_group(0)",
    "tvm_fill_fragment": "T.tvm_fill_fragment(A.data, 16, 16, 16, 0, 0.0)",
    "tvm_load_matrix_sync": 'T.tvm_load_matrix_sync(A.data, 16, 16, 16, 0, A.data, 16, "row_major")',
    "tvm_mma_sync": "T.tvm_mma_sync(A.data, 0, A.data, 0, A.data, 0, A.data, 0)",
    "tvm_store_matrix_sync": 'T.tvm_store_matrix_sync(A.data, 16, 16, 16, 0, A.data, 16, "row_major")',
    "anylist_getitem": "T.anylist_getitem(p, 0)",
    "anylist_setitem_call_packed": 'T.anylist_setitem_call_packed(p, 0, "f", n)',
    "start_profile_intrinsic": "T.start_profile_intrinsic(3)",
    "f32": "T.f32(3) + f",
    "i8": "T.i8(3)",
    "Let": "T.Let(n + 1, where={n: m})",
    "call_intrin": 'T.call_intrin("float32", "tir.exp", f)',
}

WITHOUT_OWN_FORM = {
    # Printed under another name, or as an operator, a constant or a declaration.
    "sblock": "T.block", "Buffer": "T.decl_buffer", "axis.S": "T.axis.spatial", "axis.R": "T.axis.reduce",
    "tvm_storage_sync of older scripts": "T.tvm_storage_sync(",     "sblock_alloc_buffer": "T.alloc_buffer", "sblock_attr": "T.block_attr", "f32": "3.0 + f", "i8": "T.int8(3)",
    "Let": 'T.Cast("int64", m) + 1', "launch_thread": "T.thread_binding", "env_thread": "T.thread_binding", "LetStmt": "k: T.int64 =",
    "let": "k: T.int64 =", "bind": "k: T.int64 =", "meta_var": "C[n + 1]", "buffer_store": "C[n] =",
    "alloc_shared": 'scope="shared"', "alloc_local": 'scope="local"', "symbolic": "P: T.Buffer",
    "int64": "3 + n", "bool": "True", "boolean": "False", "cast": "T.Cast", "bitwise_or": "T.bitwise_or", "int32": "3 + m",
    "float32": '"nan"', "float32x4": "T.Broadcast(T.float32(2.0), 4)", "min_value": "-3.4028234663852886e+38 + f",
    "max_value": "127", "ramp": "T.Ramp", "broadcast": "T.Broadcast", "floordiv": "n // 3", "floormod": "n % 3",
    "ceildiv": "(n + 2) // 3", "Div": "f / 3.0", "FloatImm": "T.float16(2.0)",
    "IntImm": "T.int8(2)", "BufferLoad": "A[n, 0]", "call_intrin": "T.exp(f)","match_buffer": "P: T.Buffer",
}  # fmt: skip


def _round_trip(body: str) -> str:
    source = HEAD + textwrap.indent(body, "    ") + "\n"
    first = parse(source)
    assert isinstance(first, PrimFunc)
    verify_func(first)
    text = script(first)
    again = parse(text)
    assert structural_mismatch(first, again) is None, text
    assert script(again) == text
    return text


@pytest.mark.parametrize("name", STATEMENTS)
def test_statement(name: str) -> None:
    text = _round_trip(STATEMENTS[name])
    assert WITHOUT_OWN_FORM.get(name, f"T.{name}(") in text


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expression(name: str) -> None:
    text = _round_trip(f"T.evaluate({EXPRESSIONS[name]})")
    assert WITHOUT_OWN_FORM.get(name, f"T.{name}(") in text
