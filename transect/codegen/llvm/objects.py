"""Run-time helpers for values of tvm-ffi, as IR text: TVMFFIAny slots, functions, tensors.

Layouts are those of the stable C ABI (tvm/ffi/c_api.h, dlpack.h): a TVMFFIAny is 16 bytes, type
index first and payload at 8; an object's own fields start at 24; a DLTensor is 48 bytes.
"""

from __future__ import annotations

from transect.codegen.llvm.module import ModuleText
from transect.ir.dtype import DType
from transect.support.errors import UnsupportedError

NONE, INT, BOOL, FLOAT, OPAQUE, DLTENSOR, RAW_STRING = 0, 1, 2, 3, 4, 7, 8
"""Type indices of values that own nothing."""

FUNCTION, SHAPE, TENSOR = 68, 69, 70
FIRST_OBJECT = 64
"""Type indices from here on are reference-counted objects."""


def dlpack_dtype(dtype: DType) -> int:
    """A DLDataType as the little-endian int32 it is in memory. Raises UnsupportedError."""
    code = dtype.dlpack_code
    if code is None:
        raise UnsupportedError(f"tensors of {dtype}")
    return code | (8 if dtype.is_bool else dtype.bits) << 8 | dtype.lanes << 16


def release(module: ModuleText) -> str:
    """release(slot): drop what the slot owns and make it None."""
    module.declare("TVMFFIObjectDecRef", "i32", ["ptr"])
    return f"""define internal void @transect.any.release(ptr %slot) {{
entry:
  %type = load i32, ptr %slot
  %owned = icmp sge i32 %type, {FIRST_OBJECT}
  br i1 %owned, label %drop, label %done
drop:
  %p = getelementptr i8, ptr %slot, i64 8
  %object = load ptr, ptr %p
  store i128 0, ptr %slot, align 8
  %r = call i32 @TVMFFIObjectDecRef(ptr %object)
  ret void
done:
  store i128 0, ptr %slot, align 8
  ret void
}}"""


def release_all(module: ModuleText) -> str:
    """release_all(list, count): release every slot."""
    module.helper("transect.any.release")
    return """define internal void @transect.any.release_all(ptr %list, i64 %count) {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %body, label %done
body:
  %slot = getelementptr i128, ptr %list, i64 %i
  call void @transect.any.release(ptr %slot)
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}"""


def retain(module: ModuleText) -> str:
    """retain(to, from): `to` releases what it has and shares what `from` holds, which may be
    borrowed (a C string, a DLTensor): then it becomes an owned value. Status 0 or -1."""
    module.helper("transect.any.release")
    module.declare("TVMFFIAnyViewToOwnedAny", "i32", ["ptr", "ptr"])
    return """define internal i32 @transect.any.retain(ptr %to, ptr %from) {
entry:
  %temporary = alloca i128, align 8
  store i128 0, ptr %temporary, align 8
  %status = call i32 @TVMFFIAnyViewToOwnedAny(ptr %from, ptr %temporary)
  %ok = icmp eq i32 %status, 0
  br i1 %ok, label %move, label %failed
move:
  call void @transect.any.release(ptr %to)
  %value = load i128, ptr %temporary, align 8
  store i128 %value, ptr %to, align 8
  ret i32 0
failed:
  ret i32 -1
}"""


def packed_call(module: ModuleText) -> str:
    """call(record, arguments, count, result): call a registered function, looked up once."""
    module.declare("TVMFFIFunctionGetGlobal", "i32", ["ptr", "ptr"])
    module.declare("TVMFFIFunctionCall", "i32", ["ptr", "ptr", "i32", "ptr"])
    module.declare("TVMFFIObjectDecRef", "i32", ["ptr"])
    module.declare("TVMFFIErrorSetRaisedFromCStr", "void", ["ptr", "ptr"])
    module.declare("snprintf", "i32", ["ptr", "i64", "ptr", "..."])
    unknown = module.string("no function is registered as '%s'")
    return f"""define internal i32 @transect.packed.call(
  ptr %record, ptr %arguments, i32 %count, ptr %result) {{
entry:
  %out = alloca ptr, align 8
  %message = alloca [256 x i8], align 1
  store i128 0, ptr %result, align 8
  %known = load atomic ptr, ptr %record acquire, align 8
  %have = icmp ne ptr %known, null
  br i1 %have, label %call, label %find, !prof !0
find:
  store ptr null, ptr %out
  %bytes = getelementptr i8, ptr %record, i64 8
  %status = call i32 @TVMFFIFunctionGetGlobal(ptr %bytes, ptr %out)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %found, label %failed
failed:
  ret i32 -1
found:
  %handle = load ptr, ptr %out
  %none = icmp eq ptr %handle, null
  br i1 %none, label %unknown, label %keep
unknown:
  %name = load ptr, ptr %bytes
  %n = call i32 (ptr, i64, ptr, ...) @snprintf(ptr %message, i64 256, ptr {unknown}, ptr %name)
  call void @TVMFFIErrorSetRaisedFromCStr(ptr {module.string("ValueError")}, ptr %message)
  ret i32 -1
keep:
  %swap = cmpxchg ptr %record, ptr null, ptr %handle acq_rel acquire
  %first = extractvalue {{ptr, i1}} %swap, 1
  %other = extractvalue {{ptr, i1}} %swap, 0
  br i1 %first, label %call, label %lost
lost:
  %r = call i32 @TVMFFIObjectDecRef(ptr %handle)
  br label %call
call:
  %function = phi ptr [ %known, %entry ], [ %handle, %keep ], [ %other, %lost ]
  %rc = call i32 @TVMFFIFunctionCall(ptr %function, ptr %arguments, i32 %count, ptr %result)
  ret i32 %rc
}}"""


def error_at(module: ModuleText) -> str:
    """at(text, size): add a line to the traceback of the error that is set."""
    module.declare("TVMFFIErrorMoveFromRaised", "void", ["ptr"])
    module.declare("TVMFFIErrorSetRaised", "void", ["ptr"])
    module.declare("TVMFFIObjectDecRef", "i32", ["ptr"])
    return """define internal void @transect.error.at(ptr %text, i64 %size) cold noinline {
entry:
  %slot = alloca ptr, align 8
  %bytes = alloca {ptr, i64}, align 8
  store ptr null, ptr %slot
  call void @TVMFFIErrorMoveFromRaised(ptr %slot)
  %error = load ptr, ptr %slot
  %none = icmp eq ptr %error, null
  br i1 %none, label %done, label %append
append:
  store ptr %text, ptr %bytes
  %second = getelementptr i8, ptr %bytes, i64 8
  store i64 %size, ptr %second
  ; TVMFFIErrorCell follows the object's header: kind, message, backtrace, update_backtrace.
  %place = getelementptr i8, ptr %error, i64 72
  %update = load ptr, ptr %place
  call void %update(ptr %error, ptr %bytes, i32 1)
  call void @TVMFFIErrorSetRaised(ptr %error)
  %r = call i32 @TVMFFIObjectDecRef(ptr %error)
  br label %done
done:
  ret void
}"""


def closure_call(module: ModuleText) -> str:
    """call(slot, arguments, count, result): call the function that a slot holds."""
    module.declare("TVMFFIFunctionCall", "i32", ["ptr", "ptr", "i32", "ptr"])
    module.declare("TVMFFIErrorSetRaisedFromCStr", "void", ["ptr", "ptr"])
    message = module.string("a value that is not a function is called")
    return f"""define internal i32 @transect.closure.call(
  ptr %slot, ptr %arguments, i32 %count, ptr %result) {{
entry:
  store i128 0, ptr %result, align 8
  %type = load i32, ptr %slot
  %good = icmp eq i32 %type, {FUNCTION}
  br i1 %good, label %call, label %bad
bad:
  call void @TVMFFIErrorSetRaisedFromCStr(ptr {module.string("TypeError")}, ptr {message})
  ret i32 -1
call:
  %p = getelementptr i8, ptr %slot, i64 8
  %function = load ptr, ptr %p
  %rc = call i32 @TVMFFIFunctionCall(ptr %function, ptr %arguments, i32 %count, ptr %result)
  ret i32 %rc
}}"""


def tensor_of(module: ModuleText) -> str:
    """of(slot): the DLTensor that a slot holds; for any other value one of -1 dimensions, so that
    every check of it fails and none crashes."""
    module.globals.append(
        "@transect.no_tensor = internal constant {ptr, i32, i32, i32, i32, ptr, ptr, i64} "
        "{ptr null, i32 0, i32 0, i32 -1, i32 0, ptr @transect.no_shape, ptr null, i64 0}, align 8"
    )
    module.globals.append(
        "@transect.no_shape = internal constant [64 x i64] zeroinitializer, align 8"
    )
    return f"""define internal ptr @transect.tensor.of(ptr %slot) {{
entry:
  %type = load i32, ptr %slot
  %p = getelementptr i8, ptr %slot, i64 8
  %payload = load ptr, ptr %p
  %is.object = icmp eq i32 %type, {TENSOR}
  %inside = getelementptr i8, ptr %payload, i64 24
  %is.view = icmp eq i32 %type, {DLTENSOR}
  %filled = icmp ne ptr %payload, null
  %good.view = and i1 %is.view, %filled
  %a = select i1 %good.view, ptr %payload, ptr @transect.no_tensor
  %b = select i1 %is.object, ptr %inside, ptr %a
  ret ptr %b
}}"""


def tensor_compact(module: ModuleText) -> str:
    """compact(tensor): whether its elements lie one after another, last dimension fastest."""
    return """define internal i1 @transect.tensor.compact(ptr %tensor) {
entry:
  %pn = getelementptr i8, ptr %tensor, i64 16
  %ndim = load i32, ptr %pn
  %ps = getelementptr i8, ptr %tensor, i64 24
  %shape = load ptr, ptr %ps
  %pt = getelementptr i8, ptr %tensor, i64 32
  %strides = load ptr, ptr %pt
  %n = sext i32 %ndim to i64
  %plain = icmp eq ptr %strides, null
  br i1 %plain, label %yes, label %empty.head
empty.head:
  %e = phi i64 [ 0, %entry ], [ %e.next, %empty.next ]
  %e.more = icmp slt i64 %e, %n
  br i1 %e.more, label %empty.next, label %head
empty.next:
  %ep = getelementptr i64, ptr %shape, i64 %e
  %ed = load i64, ptr %ep
  %e.next = add i64 %e, 1
  %zero = icmp eq i64 %ed, 0
  br i1 %zero, label %yes, label %empty.head
head:
  %left = phi i64 [ %n, %empty.head ], [ %i, %advance ]
  %expected = phi i64 [ 1, %empty.head ], [ %product, %advance ]
  %more = icmp sgt i64 %left, 0
  br i1 %more, label %body, label %yes
body:
  %i = sub i64 %left, 1
  %dp = getelementptr i64, ptr %shape, i64 %i
  %dim = load i64, ptr %dp
  %sp = getelementptr i64, ptr %strides, i64 %i
  %stride = load i64, ptr %sp
  %same = icmp eq i64 %stride, %expected
  %one = icmp eq i64 %dim, 1
  %fine = or i1 %same, %one
  br i1 %fine, label %advance, label %no
advance:
  %product = mul i64 %expected, %dim
  br label %head
yes:
  ret i1 true
no:
  ret i1 false
}"""


_LARGEST = 1 << 46
"""Bytes of a tensor or workspace at most: beyond what processors address, far from overflow."""


def checked_size(module: ModuleText, count: str, message: str, then: str) -> str:
    """IR text that goes on from the block %entry: %size = %element * the product of the `count`
    integers at %dims, then on to block `then`; if one is negative or the product too large, it sets
    a ValueError and returns -1."""
    module.declare("llvm.umul.with.overflow.i64", "{i64, i1}", ["i64", "i64"])
    module.declare("TVMFFIErrorSetRaisedFromCStr", "void", ["ptr", "ptr"])
    kind, text = module.string("ValueError"), module.string(message)
    return f"""  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %size = phi i64 [ %element, %entry ], [ %product, %next ]
  %more = icmp ult i64 %i, {count}
  br i1 %more, label %next, label %sized
next:
  %place = getelementptr i64, ptr %dims, i64 %i
  %dim = load i64, ptr %place
  %both = call {{i64, i1}} @llvm.umul.with.overflow.i64(i64 %size, i64 %dim)
  %product = extractvalue {{i64, i1}} %both, 0
  %over = extractvalue {{i64, i1}} %both, 1
  %negative = icmp slt i64 %dim, 0
  %wrong = or i1 %over, %negative
  %i.next = add i64 %i, 1
  br i1 %wrong, label %bad, label %head
sized:
  %huge = icmp ugt i64 %size, {_LARGEST}
  br i1 %huge, label %bad, label %{then}
bad:
  call void @TVMFFIErrorSetRaisedFromCStr(ptr {kind}, ptr {text})
  ret i32 -1"""


def tensor_alloc(module: ModuleText) -> str:
    """status alloc(slot, dtype, element bits, ndim, dims): a new tensor, owned by the slot.

    One block holds the DLManagedTensorVersioned, shape, strides and data (64-byte aligned), so
    that its deleter is the C library's `free`: the tensor may outlive this code.
    """
    module.helper("transect.any.release")
    module.declare("aligned_alloc", "ptr", ["i64", "i64"])
    module.declare("free", "void", ["ptr"])
    module.declare("llvm.memset.p0.i64", "void", ["ptr", "i8", "i64", "i1"])
    module.declare("TVMFFITensorFromDLPackVersioned", "i32", ["ptr", "i32", "i32", "ptr"])
    module.declare("TVMFFIErrorSetRaisedFromCStr", "void", ["ptr", "ptr"])
    no_memory = module.string("out of memory for a tensor")
    return f"""define internal i32 @transect.tensor.alloc(
  ptr %slot, i32 %dtype, i64 %element, i32 %ndim, ptr %dims) {{
entry:
  %out = alloca ptr, align 8
  %n = zext i32 %ndim to i64
{checked_size(module, "%n", "a tensor's size is negative or overflows", "make")}
make:
  %dims.bytes = mul i64 %n, 16
  %head.bytes = add i64 %dims.bytes, {80 + 63}
  %header = and i64 %head.bytes, -64
  %padded = add i64 %size, 127
  %rounded = and i64 %padded, -64
  %total = add i64 %header, %rounded
  %block = call ptr @aligned_alloc(i64 64, i64 %total)
  %none = icmp eq ptr %block, null
  br i1 %none, label %failed, label %fill
failed:
  call void @TVMFFIErrorSetRaisedFromCStr(ptr {module.string("MemoryError")}, ptr {no_memory})
  ret i32 -1
fill:
  call void @llvm.memset.p0.i64(ptr %block, i8 0, i64 80, i1 false)
  store i32 1, ptr %block
  %deleter = getelementptr i8, ptr %block, i64 16
  store ptr @free, ptr %deleter
  %data.at = getelementptr i8, ptr %block, i64 32
  %data = getelementptr i8, ptr %block, i64 %header
  store ptr %data, ptr %data.at
  %device.at = getelementptr i8, ptr %block, i64 40
  store i32 1, ptr %device.at
  %ndim.at = getelementptr i8, ptr %block, i64 48
  store i32 %ndim, ptr %ndim.at
  %dtype.at = getelementptr i8, ptr %block, i64 52
  store i32 %dtype, ptr %dtype.at
  %shape = getelementptr i8, ptr %block, i64 80
  %shape.at = getelementptr i8, ptr %block, i64 56
  store ptr %shape, ptr %shape.at
  %strides = getelementptr i64, ptr %shape, i64 %n
  %strides.at = getelementptr i8, ptr %block, i64 64
  store ptr %strides, ptr %strides.at
  br label %dims.head
dims.head:
  %left = phi i64 [ %n, %fill ], [ %j, %dims.body ]
  %stride = phi i64 [ 1, %fill ], [ %stride.next, %dims.body ]
  %dims.more = icmp ugt i64 %left, 0
  br i1 %dims.more, label %dims.body, label %wrap
dims.body:
  %j = sub i64 %left, 1
  %from = getelementptr i64, ptr %dims, i64 %j
  %value = load i64, ptr %from
  %to = getelementptr i64, ptr %shape, i64 %j
  store i64 %value, ptr %to
  %stride.to = getelementptr i64, ptr %strides, i64 %j
  store i64 %stride, ptr %stride.to
  %stride.next = mul i64 %stride, %value
  br label %dims.head
wrap:
  %status = call i32 @TVMFFITensorFromDLPackVersioned(ptr %block, i32 0, i32 0, ptr %out)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %own, label %lost
lost:
  call void @free(ptr %block)
  ret i32 -1
own:
  call void @transect.any.release(ptr %slot)
  store i32 {TENSOR}, ptr %slot
  %object = load ptr, ptr %out
  %payload = getelementptr i8, ptr %slot, i64 8
  store ptr %object, ptr %payload
  ret i32 0
}}"""


HELPERS = {
    "transect.any.release": release,
    "transect.any.release_all": release_all,
    "transect.any.retain": retain,
    "transect.packed.call": packed_call,
    "transect.closure.call": closure_call,
    "transect.error.at": error_at,
    "transect.tensor.of": tensor_of,
    "transect.tensor.compact": tensor_compact,
    "transect.tensor.alloc": tensor_alloc,
}
"""Helper name -> what writes it."""
