"""The intrinsics every target knows, as one table. A target's own live in its folder."""

from __future__ import annotations

from transect.ir.dtype import BOOL, HANDLE, INT32, INT64, UINT32, VOID, DType
from transect.ir.expr import BITWISE, Intrinsic


def _unary(*names: str) -> list[Intrinsic]:
    return [Intrinsic(name, arity=1) for name in names]


_MATH = _unary(
    "exp", "exp2", "exp10", "log", "log2", "log10", "log1p", "expm1", "sqrt", "rsqrt", "sin", "cos",
    "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf",
    "sigmoid", "exp_nonpositive", "floor", "ceil", "round", "nearbyint", "trunc", "fabs", "abs",
    "popcount", "clz",
)  # fmt: skip
"""round: halves away from zero; nearbyint: halves to even. abs: of integers and floats."""

_MATH_BINARY = [
    Intrinsic(name, arity=2)
    for name in ("pow", "atan2", "copysign", "fmod", "hypot", "ldexp", "nextafter")
]
_MATH_TERNARY = [Intrinsic("fma", arity=3)]

_TESTS = [Intrinsic(name, arity=1, result=None) for name in ("isnan", "isinf", "isfinite")]
"""Their result is bool with the lanes of the argument: build with tir.op."""

_CONTROL = [
    Intrinsic("if_then_else", arity=3, result=None),  # (condition, a, b): evaluates only one side
    Intrinsic("likely", arity=1),
    # (value, condition, "exception", *message): the value; fails the function if not condition.
    # Dropped where the value is not used; guard it by if_then_else, as a select evaluates it.
    Intrinsic("checked"),
    Intrinsic("assume", "write", 1, BOOL),
    Intrinsic("ret", "write", 1, VOID),
    Intrinsic("undef", arity=0, result=None),
    Intrinsic("reinterpret", arity=1, result=None),  # the bits of a value as another dtype
    Intrinsic("vscale", arity=0, result=INT32),
    Intrinsic("get_active_lane_mask", arity=2, result=None),
    Intrinsic("large_uint_imm", arity=2, result=None),
    Intrinsic("q_multiply_shift", arity=4, result=INT32),
    Intrinsic("q_multiply_shift_per_axis", arity=7, result=INT32),
]

_MEMORY = [
    Intrinsic("address_of", "read", 1, HANDLE),  # of a BufferLoad
    Intrinsic("isnullptr", "pure", 1, BOOL),
    Intrinsic("tvm_access_ptr", "read", 5, HANDLE),  # (type, data, offset, extent, rw_mask)
    Intrinsic("type_annotation", "pure", 0, None),
    Intrinsic("prefetch", "write", None, VOID),  # (load, the level of the cache: 1 by default)
]

_CALLS = [
    Intrinsic("call_extern", "write", None, None),  # ("symbol", *args): C ABI
    Intrinsic("call_pure_extern", "pure", None, None),
    Intrinsic("call_packed", "write", None, None),  # ("name", *args): a registered function
    Intrinsic("call_cpacked", "write", None, None),
    Intrinsic("call_llvm_intrin", "write", None, None),  # ("llvm.name", *args)
    Intrinsic("call_llvm_pure_intrin", "pure", None, None),
]

_HOST = [
    # Values owned by a host function: a list of TVMFFIAny slots, released at every exit.
    Intrinsic("any_list", "write", 1, HANDLE),  # (n): at function entry; all slots None
    Intrinsic("anylist_getitem", "read", 2, HANDLE),  # (list, i): a slot as an argument
    Intrinsic("anylist_resetitem", "write", 2, VOID),  # (list, i): release the slot early
    Intrinsic("anylist_setitem_call_packed", "write", None, VOID),  # (list, i, "name", *args)
    Intrinsic("anylist_move", "write", 4, VOID),  # (list, i, other, j): retain into another slot
    Intrinsic("anylist_set", "write", 3, VOID),  # (list, i, scalar or string)
    Intrinsic("anylist_type_index", "read", 2, INT32),  # the tvm-ffi type index of a slot
    Intrinsic("anylist_get_int", "read", 2, INT64),
    Intrinsic("anylist_get_float", "read", 2, DType("float", 64)),
    Intrinsic("alloc_tensor", "write", None, VOID),  # (list, i, "dtype", *shape): a new one
    Intrinsic("make_shape", "write", None, VOID),  # (list, i, *values): a new owned shape
    Intrinsic("make_tuple", "write", None, VOID),  # (list, i, *handles): an ffi.Array of slots
    Intrinsic("tuple_get", "write", 5, VOID),  # (list, i, source list, j, field)
    Intrinsic("tensor_view", "read", None, HANDLE),  # (data, "dtype", *shape): a borrowed one
    Intrinsic("tensor_ndim", "read", 1, INT32),  # of a DLTensor* or a tensor object
    Intrinsic("tensor_shape", "read", 2, INT64),  # (tensor, axis)
    Intrinsic("tensor_data", "read", 1, HANDLE),  # data pointer with byte_offset applied
    Intrinsic("tensor_dtype_is", "read", 2, BOOL),  # (tensor, "dtype")
    Intrinsic("tensor_is_compact", "read", 1, BOOL),
    Intrinsic("shape_get", "read", 2, INT64),  # (shape object, i)
    Intrinsic("memory_copy", "write", 3, VOID),  # (to, from, bytes)
    # As TVM spells the same on its stack.
    Intrinsic("tvm_struct_get", "read", 3, None),
    Intrinsic("tvm_struct_set", "write", 4, INT32),
    Intrinsic("tvm_stack_alloca", "write", 2, HANDLE),
    Intrinsic("tvm_stack_make_shape", "write", None, HANDLE),
    Intrinsic("tvm_stack_make_array", "write", 6, HANDLE),
    Intrinsic("tvm_tuple", "pure", None, HANDLE),
    Intrinsic("tvm_thread_invariant", "pure", 1, "first"),
]

_THREADS = [
    Intrinsic("tvm_storage_sync", "write", None, VOID),  # ("shared" | "warp" | "global")
    Intrinsic("tvm_thread_allreduce", "write", None, VOID),
    Intrinsic("tvm_warp_shuffle", "write", 5, None),
    Intrinsic("tvm_warp_shuffle_up", "write", 5, None),
    Intrinsic("tvm_warp_shuffle_down", "write", 5, None),
    Intrinsic("tvm_warp_activemask", "write", 0, UINT32),
    Intrinsic("start_profile_intrinsic", "write", 1, VOID),
    Intrinsic("end_profile_intrinsic", "write", 1, VOID),
]

_MATRIX = [
    Intrinsic("tvm_fill_fragment", "write", 6, VOID),
    Intrinsic("tvm_load_matrix_sync", "write", 8, VOID),
    Intrinsic("tvm_store_matrix_sync", "write", 8, VOID),
    Intrinsic("tvm_mma_sync", "write", 8, VOID),
    Intrinsic("ptx_mma", "write", None, None),
    Intrinsic("ptx_mma_sp", "write", None, None),
    Intrinsic("ptx_ldmatrix", "write", None, None),
    Intrinsic("ptx_cp_async", "write", None, None),
    Intrinsic("ptx_cp_async_bulk", "write", None, None),
    Intrinsic("ptx_commit_group", "write", 0, VOID),
    Intrinsic("ptx_wait_group", "write", 1, VOID),
    Intrinsic("ptx_cp_async_barrier", "write", 1, VOID),
    Intrinsic("ptx_init_barrier_thread_count", "write", 2, VOID),
    Intrinsic("ptx_arrive_barrier", "write", 1, VOID),
    Intrinsic("ptx_arrive_barrier_expect_tx", "write", 2, VOID),
    Intrinsic("ptx_wait_barrier", "write", 1, VOID),
    Intrinsic("create_barriers", "write", 1, VOID),
    # On tiles of 16 rows of 64 bytes; a tile is named by the address of its first element.
    Intrinsic("amx_tile_zero", "write", 1, VOID),  # (tile)
    Intrinsic("amx_tile_load", "write", 3, VOID),  # (tile, address, bytes from row to row)
    Intrinsic("amx_tile_store", "write", 3, VOID),  # (address, bytes from row to row, tile)
    Intrinsic("amx_tile_dot", "write", 3, VOID),  # (c, a, b): see tir.tiles
]

INTRINSICS: dict[str, Intrinsic] = {
    item.name: item
    for group in (
        _MATH, _MATH_BINARY, _MATH_TERNARY, _TESTS, _CONTROL, _MEMORY, _CALLS, _HOST, _THREADS,
        _MATRIX, BITWISE.values(),
    )
    for item in group
}  # fmt: skip
"""All target-independent intrinsics by script name."""

LLVM_CALLS = frozenset((INTRINSICS["call_llvm_intrin"], INTRINSICS["call_llvm_pure_intrin"]))
"""The intrinsics that call an instruction by LLVM's name for it."""
