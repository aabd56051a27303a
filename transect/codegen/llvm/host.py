"""Intrinsics of host functions: values of tvm-ffi, packed calls, tensors.

What the run-time part of each does is in `objects`. A handle is known to be a slot of an any-list
(anylist_getitem) or a DLTensor (tensor_view) by the call that made it; any other handle passed to
a packed function is an opaque pointer, and where a tensor is needed it is a DLTensor.
"""

from __future__ import annotations

from transect.codegen.llvm import objects
from transect.codegen.llvm.expression import ExpressionEmitter, Handler
from transect.codegen.llvm.types import register_type
from transect.ir.dtype import FLOAT64, INT64, as_dtype
from transect.ir.expr import Call, Expr, IntImm, Intrinsic, StringImm, Var, as_int
from transect.support.errors import UnsupportedError

ANY = "i128"
"""A TVMFFIAny as one value to copy."""


def _origin(emitter: ExpressionEmitter, expr: Expr) -> str:
    """The name of the intrinsic that made a handle, or ""."""
    made = emitter.handles.get(expr) if isinstance(expr, Var) else expr
    return made.op.name if isinstance(made, Call) and isinstance(made.op, Intrinsic) else ""


def _slot(emitter: ExpressionEmitter, items: Expr, index: Expr) -> str:
    """The address of a slot."""
    return emitter.text.define(
        f"getelementptr {ANY}, ptr {emitter.emit(items)}, i64 {emitter.index(index)}"
    )


def _name(expr: Expr, what: str) -> str:
    if not isinstance(expr, StringImm):
        raise UnsupportedError(f"{what} must be a string constant")
    return expr.value


def _array(emitter: ExpressionEmitter, values: tuple[Expr, ...]) -> str:
    """An int64 array of the values, on the stack."""
    array = emitter.text.allocate(f"[{max(1, len(values))} x i64]")
    for number, value in enumerate(values):
        place = emitter.text.define(f"getelementptr i64, ptr {array}, i64 {number}")
        emitter.text.emit(f"store i64 {emitter.index(value)}, ptr {place}")
    return array


# --- slots ---


def _any_list(emitter: ExpressionEmitter, call: Call) -> str:
    count = as_int(call.args[0])
    if count is None:
        raise UnsupportedError("any_list of a number of slots that is not constant")
    text = emitter.text
    items = text.allocate(f"[{max(1, count)} x {ANY}]", 16)
    # Cleared in the entry block: an exit taken before this statement releases the slots too.
    text.entry.append(f"  store [{max(1, count)} x {ANY}] zeroinitializer, ptr {items}")
    text.at_exit.append(
        f"  call void {text.module.helper('transect.any.release_all')}(ptr {items}, i64 {count})"
    )
    return items


def _get_item(emitter: ExpressionEmitter, call: Call) -> str:
    return _slot(emitter, call.args[0], call.args[1])


def _reset_item(emitter: ExpressionEmitter, call: Call) -> str:
    slot = _slot(emitter, call.args[0], call.args[1])
    emitter.text.emit(f"call void {emitter.text.module.helper('transect.any.release')}(ptr {slot})")
    return ""


def _retain(emitter: ExpressionEmitter, to: str, source: str) -> None:
    helper = emitter.text.module.helper("transect.any.retain")
    emitter.text.fail_unless_zero(emitter.text.define(f"call i32 {helper}(ptr {to}, ptr {source})"))


def _move(emitter: ExpressionEmitter, call: Call) -> str:
    to, i, source, j = call.args
    _retain(emitter, _slot(emitter, to, i), _slot(emitter, source, j))
    return ""


def _set(emitter: ExpressionEmitter, call: Call) -> str:
    items, index, value = call.args
    temporary = emitter.text.allocate(ANY, 16)
    _store_any(emitter, temporary, value)
    _retain(emitter, _slot(emitter, items, index), temporary)
    return ""


def _type_index(emitter: ExpressionEmitter, call: Call) -> str:
    slot = _slot(emitter, call.args[0], call.args[1])
    return emitter.text.define(f"load i32, ptr {slot}")


def _payload(emitter: ExpressionEmitter, slot: str, kind: str) -> str:
    place = emitter.text.define(f"getelementptr i8, ptr {slot}, i64 8")
    return emitter.text.define(f"load {kind}, ptr {place}")


def _get_int(emitter: ExpressionEmitter, call: Call) -> str:
    return _payload(emitter, _slot(emitter, call.args[0], call.args[1]), "i64")


def _get_float(emitter: ExpressionEmitter, call: Call) -> str:
    """An integer (or bool) in the slot is converted."""
    text = emitter.text
    slot = _slot(emitter, call.args[0], call.args[1])
    kind = text.define(f"load i32, ptr {slot}")
    is_float = text.define(f"icmp eq i32 {kind}, {objects.FLOAT}")
    integer = text.define(f"sitofp i64 {_payload(emitter, slot, 'i64')} to double")
    return text.define(
        f"select i1 {is_float}, double {_payload(emitter, slot, 'double')}, double {integer}"
    )


def _store_any(emitter: ExpressionEmitter, place: str, value: Expr) -> None:
    """Write `value` as a borrowed TVMFFIAny."""
    text, kind = emitter.text, value.dtype
    if kind.is_handle and _origin(emitter, value) == "anylist_getitem":
        copied = text.define(f"load {ANY}, ptr {emitter.emit(value)}, align 8")
        text.emit(f"store {ANY} {copied}, ptr {place}, align 8")
        return
    if kind.is_bool:
        tag, payload = objects.BOOL, f"i64 {emitter.convert(emitter.emit(value), kind, INT64)}"
    elif kind.is_integral:
        tag, payload = objects.INT, f"i64 {emitter.index(value)}"
    elif kind.is_float:
        tag, payload = (
            objects.FLOAT,
            f"double {emitter.convert(emitter.emit(value), kind, FLOAT64)}",
        )
    elif isinstance(value, StringImm):
        tag, payload = objects.RAW_STRING, f"ptr {emitter.emit(value)}"
    elif isinstance(value, IntImm) and value.value == 0:
        tag, payload = objects.NONE, "i64 0"
    elif _origin(emitter, value) == "tensor_view":
        tag, payload = objects.DLTENSOR, f"ptr {emitter.emit(value)}"
    elif kind.is_handle:
        tag, payload = objects.OPAQUE, f"ptr {emitter.emit(value)}"
    else:
        raise UnsupportedError(f"a value of {kind} as an argument of a packed call")
    text.emit(f"store i64 {tag}, ptr {place}, align 8")
    inside = text.define(f"getelementptr i8, ptr {place}, i64 8")
    text.emit(f"store {payload}, ptr {inside}, align 8")


# --- packed calls ---


def call_packed(emitter: ExpressionEmitter, callee: Expr | str, args: tuple[Expr, ...]) -> str:
    """Call a registered function (a name) or the function in a slot; gives the address of the
    result, owned by the caller. Leaves through the exit if it fails."""
    text = emitter.text
    array = text.allocate(f"[{max(1, len(args))} x {ANY}]", 16)
    result = text.allocate(ANY, 16)
    for number, arg in enumerate(args):
        place = text.define(f"getelementptr {ANY}, ptr {array}, i64 {number}") if number else array
        _store_any(emitter, place, arg)
    if isinstance(callee, StringImm):
        callee = callee.value
    if isinstance(callee, str):
        helper, target = "transect.packed.call", text.module.packed_function(callee)
    elif _origin(emitter, callee) == "anylist_getitem":
        helper, target = "transect.closure.call", emitter.emit(callee)
    else:
        raise UnsupportedError("a packed call of neither a name nor a slot of an any-list")
    status = text.define(
        f"call i32 {text.module.helper(helper)}"
        f"(ptr {target}, ptr {array}, i32 {len(args)}, ptr {result})"
    )
    text.fail_unless_zero(status)
    emitter.forget_reads()
    return result


def _call_packed(emitter: ExpressionEmitter, call: Call) -> str:
    text, kind = emitter.text, call.dtype
    result = call_packed(emitter, call.args[0], call.args[1:])
    if kind.is_handle or not kind.is_scalar:
        raise UnsupportedError(
            f"a packed call whose result is used as {kind}",
            remedy="keep it with anylist_setitem_call_packed",
        )
    value = ""
    if kind.is_float:
        value = emitter.convert(_payload(emitter, result, "double"), FLOAT64, kind)
    elif kind.is_integral or kind.is_bool:
        value = emitter.convert(_payload(emitter, result, "i64"), INT64, kind)
    text.emit(f"call void {text.module.helper('transect.any.release')}(ptr {result})")
    return value


def _call_c_packed(emitter: ExpressionEmitter, call: Call) -> str:
    """A C symbol in tvm-ffi's calling convention."""
    text = emitter.text
    name, args = _name(call.args[0], "the symbol of call_cpacked"), call.args[1:]
    array = text.allocate(f"[{max(1, len(args))} x {ANY}]", 16)
    result = text.allocate(ANY, 16)
    text.emit(f"store {ANY} 0, ptr {result}, align 8")
    for number, arg in enumerate(args):
        _store_any(emitter, text.define(f"getelementptr {ANY}, ptr {array}, i64 {number}"), arg)
    symbol = text.module.declare(name, "i32", ["ptr", "ptr", "i32", "ptr"])
    text.fail_unless_zero(
        text.define(f"call i32 {symbol}(ptr null, ptr {array}, i32 {len(args)}, ptr {result})")
    )
    text.emit(f"call void {text.module.helper('transect.any.release')}(ptr {result})")
    return ""


def _keep(emitter: ExpressionEmitter, items: Expr, index: Expr, result: str) -> str:
    """Move an owned result into a slot."""
    text = emitter.text
    slot = _slot(emitter, items, index)
    text.emit(f"call void {text.module.helper('transect.any.release')}(ptr {slot})")
    value = text.define(f"load {ANY}, ptr {result}, align 8")
    text.emit(f"store {ANY} {value}, ptr {slot}, align 8")
    return ""


def _set_item_call(emitter: ExpressionEmitter, call: Call) -> str:
    items, index, callee, *args = call.args
    # The call comes first: its arguments may be in the slot.
    result = call_packed(emitter, callee, tuple(args))
    return _keep(emitter, items, index, result)


def _through(function: str) -> Handler:
    """(list, i, *args): keep the result of a function that tvm-ffi itself registers."""

    def handle(emitter: ExpressionEmitter, call: Call) -> str:
        items, index, *args = call.args
        return _keep(emitter, items, index, call_packed(emitter, function, tuple(args)))

    return handle


def _tuple_get(emitter: ExpressionEmitter, call: Call) -> str:
    items, index, source, place, number = call.args
    item = Call(Intrinsic("anylist_getitem", "read", 2), (source, place), source.dtype)
    return _keep(emitter, items, index, call_packed(emitter, "ffi.ArrayGetItem", (item, number)))


# --- tensors ---


def _alloc_tensor(emitter: ExpressionEmitter, call: Call) -> str:
    items, index, kind, *shape = call.args
    dtype = as_dtype(_name(kind, "the dtype of alloc_tensor"))
    helper = emitter.text.module.helper("transect.tensor.alloc")
    slot = _slot(emitter, items, index)
    status = emitter.text.define(
        f"call i32 {helper}(ptr {slot}, i32 {objects.dlpack_dtype(dtype)}, i64 {dtype.bytes}, "
        f"i32 {len(shape)}, ptr {_array(emitter, tuple(shape))})"
    )
    emitter.text.fail_unless_zero(status)
    return ""


def _tensor_view(emitter: ExpressionEmitter, call: Call) -> str:
    data, kind, *shape = call.args
    text = emitter.text
    dtype = as_dtype(_name(kind, "the dtype of tensor_view"))
    tensor = text.allocate("[6 x i64]", 8)
    dims = _array(emitter, tuple(shape))
    strides = text.allocate(f"[{max(1, len(shape))} x i64]")
    stride = "1"
    for number in range(len(shape) - 1, -1, -1):
        place = text.define(f"getelementptr i64, ptr {strides}, i64 {number}")
        text.emit(f"store i64 {stride}, ptr {place}")
        if number:
            stride = text.define(f"mul i64 {stride}, {emitter.index(shape[number])}")
    fields = (
        (0, f"ptr {emitter.emit(data)}"),
        (8, "i64 1"),
        (16, f"i32 {len(shape)}"),
        (20, f"i32 {objects.dlpack_dtype(dtype)}"),
        (24, f"ptr {dims}"),
        (32, f"ptr {strides}"),
        (40, "i64 0"),
    )
    for offset, value in fields:
        place = text.define(f"getelementptr i8, ptr {tensor}, i64 {offset}")
        text.emit(f"store {value}, ptr {place}")
    return tensor


def tensor_pointer(emitter: ExpressionEmitter, expr: Expr) -> str:
    """The DLTensor that a handle stands for."""
    if _origin(emitter, expr) != "anylist_getitem":
        return emitter.emit(expr)
    for region in reversed(emitter.regions):
        if expr in region.tensors:
            return region.tensors[expr]
    slot = emitter.emit(expr)
    found = emitter.text.define(
        f"call ptr {emitter.text.module.helper('transect.tensor.of')}(ptr {slot})"
    )
    emitter.regions[-1].tensors[expr] = found
    return found


def _tensor_field(emitter: ExpressionEmitter, call: Call, offset: int, kind: str) -> str:
    tensor = tensor_pointer(emitter, call.args[0])
    place = emitter.text.define(f"getelementptr i8, ptr {tensor}, i64 {offset}")
    return emitter.text.define(f"load {kind}, ptr {place}")


def _tensor_ndim(emitter: ExpressionEmitter, call: Call) -> str:
    return _tensor_field(emitter, call, 16, "i32")


def _tensor_shape(emitter: ExpressionEmitter, call: Call) -> str:
    shape = _tensor_field(emitter, call, 24, "ptr")
    place = emitter.text.define(
        f"getelementptr i64, ptr {shape}, i64 {emitter.index(call.args[1])}"
    )
    return emitter.text.define(f"load i64, ptr {place}")


def _tensor_data(emitter: ExpressionEmitter, call: Call) -> str:
    data = _tensor_field(emitter, call, 0, "ptr")
    offset = _tensor_field(emitter, call, 40, "i64")
    return emitter.text.define(f"getelementptr i8, ptr {data}, i64 {offset}")


def _tensor_dtype_is(emitter: ExpressionEmitter, call: Call) -> str:
    expected = objects.dlpack_dtype(as_dtype(_name(call.args[1], "the dtype of tensor_dtype_is")))
    return emitter.text.define(f"icmp eq i32 {_tensor_field(emitter, call, 20, 'i32')}, {expected}")


def _tensor_is_compact(emitter: ExpressionEmitter, call: Call) -> str:
    helper = emitter.text.module.helper("transect.tensor.compact")
    return emitter.text.define(f"call i1 {helper}(ptr {tensor_pointer(emitter, call.args[0])})")


def _shape_get(emitter: ExpressionEmitter, call: Call) -> str:
    shape, index = call.args
    handle = emitter.emit(shape)
    if _origin(emitter, shape) == "anylist_getitem":
        handle = _payload(emitter, handle, "ptr")
    place = emitter.text.define(f"getelementptr i8, ptr {handle}, i64 24")
    values = emitter.text.define(f"load ptr, ptr {place}")
    item = emitter.text.define(f"getelementptr i64, ptr {values}, i64 {emitter.index(index)}")
    return emitter.text.define(f"load i64, ptr {item}")


# --- as TVM spells some of it ---

_TENSOR_FIELDS = {
    1: (0, "ptr"),
    2: (24, "ptr"),
    3: (32, "ptr"),
    4: (16, "i32"),
    5: (20, "i8"),
    6: (21, "i8"),
    7: (22, "i16"),
    8: (40, "i64"),
    9: (12, "i32"),
    10: (8, "i32"),
}
"""TVMStructFieldKind of a DLTensor -> offset and type (tvm/tir/builtin.h)."""


def _struct_get(emitter: ExpressionEmitter, call: Call) -> str:
    """(handle, index, kind): a field of the index-th DLTensor of an array."""
    base, index, kind = call.args
    field = _TENSOR_FIELDS.get(as_int(kind) or 0)
    if field is None:
        raise UnsupportedError(f"tvm_struct_get of field kind {as_int(kind)}")
    tensor = tensor_pointer(emitter, base)
    if as_int(index) != 0:
        tensor = emitter.text.define(
            f"getelementptr [48 x i8], ptr {tensor}, i64 {emitter.index(index)}"
        )
    place = emitter.text.define(f"getelementptr i8, ptr {tensor}, i64 {field[0]}")
    value = emitter.text.define(f"load {field[1]}, ptr {place}")
    target = register_type(call.dtype)
    if field[1] == target or "ptr" in (field[1], target):
        return value
    wider = int(target[1:]) > int(field[1][1:])
    return emitter.text.define(f"{'zext' if wider else 'trunc'} {field[1]} {value} to {target}")


HANDLERS: dict[str, Handler] = {
    "any_list": _any_list,
    "anylist_getitem": _get_item,
    "anylist_resetitem": _reset_item,
    "anylist_setitem_call_packed": _set_item_call,
    "anylist_move": _move,
    "anylist_set": _set,
    "anylist_type_index": _type_index,
    "anylist_get_int": _get_int,
    "anylist_get_float": _get_float,
    "alloc_tensor": _alloc_tensor,
    "make_shape": _through("ffi.Shape"),
    "make_tuple": _through("ffi.Array"),
    "tuple_get": _tuple_get,
    "tensor_view": _tensor_view,
    "tensor_ndim": _tensor_ndim,
    "tensor_shape": _tensor_shape,
    "tensor_data": _tensor_data,
    "tensor_dtype_is": _tensor_dtype_is,
    "tensor_is_compact": _tensor_is_compact,
    "shape_get": _shape_get,
    "call_packed": _call_packed,
    "call_cpacked": _call_c_packed,
    "tvm_struct_get": _struct_get,
}
"""Intrinsic name -> what emits it."""
