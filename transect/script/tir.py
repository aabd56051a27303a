"""The names of T: what tensor programs are written with. `from transect.script import tir as T`.

Functions that compute give scalar expressions; those that are statements give directives for the
parser. Every intrinsic (T.exp, T.tvm_storage_sync, …) and every dtype (T.float32, T.int8x16) is
a name of this module, too.
"""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transect.ir import expr as ir
from transect.ir.dtype import BOOL, as_dtype
from transect.ir.expr import (
    Call,
    Expr,
    ExprLike,
    StringImm,
    as_expr,
    maximum,
    minimum,
    promote,
)
from transect.ir.expr import Var as _Var
from transect.ir.expr import cast as _cast
from transect.ir.expr import truncdiv as truncdiv
from transect.ir.expr import truncmod as truncmod
from transect.ir.sizes import ceildiv as ceildiv
from transect.ir.traverse import substitute as _substitute
from transect.script import directives as d
from transect.script.axes import AxisNames, BufferName, LoopName, as_items, make_range, scalar_dtype
from transect.script.entry import decorate
from transect.script.intrinsics import LookedUp, call_intrinsic, find_intrinsic
from transect.support.errors import InputError, InputTypeError
from transect.target import Target, host_target
from transect.tir import op
from transect.tir.buffer import Buffer as _Buffer
from transect.tir.buffer import BufferLoad as _BufferLoad
from transect.tir.buffer import BufferRegion as _BufferRegion
from transect.tir.index_map import IndexMap
from transect.tir.index_map import index_map as _index_map
from transect.tir.intrinsics import INTRINSICS
from transect.tir.reducer import CommReducer

# --- functions ------------------------------------------------------------------------------


def prim_func(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Decorator: parse a Python function as a PrimFunc.

    private: do not export it. root: whether to add the root block (True). check_well_formed is
    accepted as TVM's and has no effect: verification is a pass's.
    """
    frame = inspect.currentframe()
    caller = frame.f_back if frame is not None else None
    return decorate("tir", function, options, caller)


def func_attr(attrs: Mapping[str, Any]) -> d.Attributes:
    """Attributes of the function."""
    return d.Attributes("function", attrs)


def symbolic(*names: str, dtype: str = "int64") -> Any:
    """Symbolic dimensions: `n = T.symbolic("n")`, `n, m = T.symbolic("n", "m")`."""
    variables = tuple(d.FreshVar(name, dtype) for name in names)
    return variables[0] if len(variables) == 1 else variables


def Var(name: str, dtype: Any = "int64") -> d.FreshVar:
    """`x = T.Var("x", "int64")`: a new variable."""
    return d.FreshVar(name, scalar_dtype(dtype))


# --- types ----------------------------------------------------------------------------------

handle = d.HandleName()
Ptr = ptr = handle
Buffer = BufferName()
bool = boolean = d.ScalarName(BOOL)
let = d.LetName()
axis = AxisNames()


_dtype = scalar_dtype


# --- statements -----------------------------------------------------------------------------

serial = LoopName("serial")
parallel = LoopName("parallel")
vectorized = LoopName("vectorized")
unroll = unrolled = LoopName("unrolled")


def grid(*extents: Any) -> d.Loops:
    """Nested serial loops: `for i, j in T.grid(n, m)`. An extent may be a pair (start, stop)."""
    return d.Loops("serial", tuple(_bounds(item) for item in extents))


def _bounds(extent: Any) -> tuple[Any, Any]:
    pair = as_items(extent)
    return (pair[0], pair[1]) if len(pair) == 2 else (0, extent)


def thread_binding(
    start: Any,
    stop: Any = None,
    thread: str = "",
    annotations: Mapping[str, Any] | None = None,
    *,
    dtype: Any = None,
) -> d.Loops:
    """A loop whose iterations are the threads of an axis such as "threadIdx.x"."""
    if isinstance(stop, str):
        thread, stop = stop, None
    if not thread:
        raise InputTypeError(
            "T.thread_binding needs thread=", remedy='name the axis: thread="threadIdx.x"'
        )
    bounds = (0, start) if stop is None else (start, stop)
    return d.Loops(
        "thread_binding",
        (bounds,),
        thread,
        annotations or {},
        None if dtype is None else _dtype(dtype),
    )


def block(name: str = "", no_realize: builtins.bool = False) -> d.BlockFrame:
    """`with T.block("name"):` a unit of computation with iteration variables of its own."""
    return d.BlockFrame(name, no_realize)


sblock = block


def init() -> d.InitFrame:
    """`with T.init():` what runs before the first iteration of the reduction axes."""
    return d.InitFrame()


def scope() -> d.ScopeFrame:
    """`with T.scope():` statements of which allocations end with the suite."""
    return d.ScopeFrame()


def where(condition: Expr) -> d.Where:
    """The block runs only where `condition` holds."""
    return d.Where(condition)


def _regions(items: Sequence[Any]) -> tuple[_BufferRegion, ...]:
    if len(items) == 1:
        items = as_items(items[0])
    return tuple(_region(item) for item in items)


def _region(item: Any) -> _BufferRegion:
    if isinstance(item, _BufferRegion):
        return item
    if isinstance(item, _BufferLoad):
        return _BufferRegion.point(item)
    if isinstance(item, _Buffer):
        return item.region
    raise InputTypeError(
        f"{item!r} is not a part of a buffer", remedy="write for example A[i, 0:16]"
    )


def reads(*regions: Any) -> d.Regions:
    """What one instance of the block reads."""
    return d.Regions("reads", _regions(regions))


def writes(*regions: Any) -> d.Regions:
    """What one instance of the block writes."""
    return d.Regions("writes", _regions(regions))


def block_attr(attrs: Mapping[str, Any]) -> d.Attributes:
    """Annotations of the block."""
    return d.Attributes("block", attrs)


sblock_attr = block_attr


def alloc_buffer(
    shape: Any, dtype: Any = "float32", data: Any = None, **options: Any
) -> d.AllocBuffer:
    """A buffer that lives as long as the block (or the function) it is written in."""
    return d.AllocBuffer(Buffer(shape, dtype, data, **options))


sblock_alloc_buffer = alloc_buffer


def alloc_shared(shape: Any, dtype: Any = "float32", **options: Any) -> d.AllocBuffer:
    """A buffer in shared memory."""
    return d.AllocBuffer(Buffer(shape, dtype, scope="shared", **options))


def alloc_local(shape: Any, dtype: Any = "float32", **options: Any) -> d.AllocBuffer:
    """A buffer of one thread."""
    return d.AllocBuffer(Buffer(shape, dtype, scope="local", **options))


def match_buffer(
    source: Any, shape: Any = None, dtype: Any = None, data: Any = None, **options: Any
) -> d.MatchBuffer:
    """The buffer behind a handle parameter, or, in a block, another view of a region."""
    if isinstance(source, _BufferLoad | _BufferRegion | _Buffer):
        source = _region(source)
        dtype = source.buffer.dtype if dtype is None else dtype
        options.setdefault("scope", source.buffer.scope)
        if shape is None:
            shape = tuple(item.extent for item in source.ranges)
    return d.MatchBuffer(
        source,
        Buffer(
            () if shape is None else shape, "float32" if dtype is None else dtype, data, **options
        ),
    )


def decl_buffer(
    shape: Any, dtype: Any = "float32", data: Any = None, **options: Any
) -> d.DeclareBuffer:
    """A buffer over the memory of `data`; without `data`, over memory allocated here."""
    return d.DeclareBuffer(Buffer(shape, dtype, data, **options))


def allocate(
    extents: Any,
    dtype: Any = "float32",
    scope: str = "global",
    condition: Any = None,
    annotations: Mapping[str, Any] | None = None,
    *,
    var: _Var | None = None,
) -> d.AllocateSpec:
    """Flat memory; the name it is assigned to is the pointer."""
    if condition is not None and condition is not True and condition is not ir.true():
        raise InputError("a conditional T.allocate is not supported", remedy="put it into an if")
    items = as_items(extents)
    return d.AllocateSpec(items, _dtype(dtype), scope, annotations or {}, var)


def allocate_const(
    data: Any, dtype: Any, extents: Sequence[int], *, var: _Var | None = None
) -> d.AllocateConstSpec:
    """Read-only memory that holds `data`."""
    return d.AllocateConstSpec(data, _dtype(dtype), tuple(extents), var)


def attr(node: Any, key: str, value: Any) -> d.AttrFrame:
    """An attribute of the statements inside, or, as a statement, of those that follow."""
    return d.AttrFrame(node, key, value)


def env_thread(thread: str, dtype: Any = None) -> d.EnvThread:
    """A thread axis, to be started by T.launch_thread."""
    del dtype
    return d.EnvThread(thread)


def launch_thread(thread: d.EnvThread | str, extent: Any) -> d.LaunchThread:
    """Run the statements inside (or that follow) once for each thread of an axis."""
    return d.LaunchThread(thread, extent)


def LetStmt(value: Any, dtype: Any = None, *, var: _Var | None = None) -> d.LetFrame:
    """`with T.LetStmt(value) as x:` bind a value for the statements inside."""
    del dtype
    return d.LetFrame(value, var)


def bind(value: Any) -> d.BindDirective:
    """`x = T.bind(value)`: bind a value to a variable of the program, as `x = value` does."""
    return d.BindDirective(value)


def meta_var(value: Any) -> d.MetaVar:
    """`x = T.meta_var(value)`: a name for the expression, which is substituted for it."""
    return d.MetaVar(value)


def evaluate(value: Any) -> d.EvaluateDirective:
    """Evaluate an expression for its effect."""
    return d.EvaluateDirective(value)


def buffer_store(
    buffer: _Buffer, value: Any, indices: Sequence[Any], predicate: Any = None
) -> d.StoreDirective:
    """buffer[indices] = value."""
    return d.StoreDirective(buffer, tuple(indices), value, predicate)


def Assert(condition: Any, message: Any = "", *, kind: str = "ValueError") -> d.AssertDirective:
    """Fail with `message` (a string, or parts of one) unless `condition` holds."""
    parts = as_items(message)
    return d.AssertDirective(condition, parts, kind)


# --- expressions ----------------------------------------------------------------------------

max = maximum
min = minimum


def floordiv(a: ExprLike, b: ExprLike) -> Expr:
    """floor(a / b) of integers, or floats."""
    return as_expr(a) // b


def floormod(a: ExprLike, b: ExprLike) -> Expr:
    """a - b * floor(a / b)."""
    return as_expr(a) % b


def Cast(dtype: Any, value: ExprLike) -> Expr:
    """`value` converted to `dtype`; an expression is never folded away."""
    kind = _dtype(dtype)
    return ir.Cast(kind, value) if isinstance(value, Expr) else _cast(value, kind)


def cast(value: ExprLike, dtype: Any) -> Expr:
    """`value` converted to `dtype`; constants are converted at once."""
    return _cast(value, _dtype(dtype))


def min_value(dtype: Any) -> Expr:
    """The smallest finite value of a dtype."""
    return op.min_value(_dtype(dtype))


def max_value(dtype: Any) -> Expr:
    """The largest finite value of a dtype."""
    return op.max_value(_dtype(dtype))


def infinity(dtype: Any) -> Expr:
    """The infinity of a float dtype, the largest value of another."""
    return op.highest(_dtype(dtype))


def Select(condition: Any, true_value: ExprLike, false_value: ExprLike) -> Expr:
    """`true_value` where `condition` holds, else `false_value`; both may be evaluated."""
    return ir.Select(as_expr(condition), *promote(true_value, false_value))


def Ramp(base: ExprLike, stride: ExprLike, lanes: Any, scalable: builtins.bool = False) -> Expr:
    """The vector base, base + stride, … of `lanes` values (a number, or T.vscale() * number)."""
    count, scaled = _lanes(lanes)
    return ir.Ramp(*promote(base, stride), count, scaled or scalable)


def Broadcast(value: ExprLike, lanes: Any, scalable: builtins.bool = False) -> Expr:
    """The vector of `lanes` copies of `value`."""
    count, scaled = _lanes(lanes)
    return ir.Broadcast(as_expr(value), count, scaled or scalable)


ramp = Ramp
broadcast = Broadcast


def _lanes(lanes: Any) -> tuple[int, builtins.bool]:
    if isinstance(lanes, int):
        return lanes, False
    if isinstance(lanes, ir.IntImm):
        return lanes.value, False
    if isinstance(lanes, ir.Mul):
        known = [item.value for item in (lanes.a, lanes.b) if isinstance(item, ir.IntImm)]
        scale = [
            item
            for item in (lanes.a, lanes.b)
            if isinstance(item, Call) and repr(item.op) == "T.vscale"
        ]
        if known and scale:
            return known[0], True
    if isinstance(lanes, Call) and repr(lanes.op) == "T.vscale":
        return 1, True
    raise InputTypeError(
        "the number of lanes must be a constant", remedy="an int, or T.vscale() * int"
    )


def Shuffle(vectors: Sequence[Expr], indices: Sequence[ExprLike]) -> Expr:
    """The lanes `indices` of the concatenation of `vectors`."""
    return ir.Shuffle(tuple(vectors), tuple(as_expr(index) for index in indices))


def Not(value: Expr) -> Expr:
    """The opposite of a condition, not folded."""
    return ir.Not(as_expr(value))


def _constructor(kind: type[ir.Binary]) -> Callable[[ExprLike, ExprLike], Expr]:
    def build(a: ExprLike, b: ExprLike) -> Expr:
        return kind(*promote(a, b))  # pyright: ignore[reportCallIssue]

    build.__name__ = build.__qualname__ = kind.__name__
    build.__doc__ = f"The node {kind.__name__}(a, b), not folded."
    return build


Add = _constructor(ir.Add)
Sub = _constructor(ir.Sub)
Mul = _constructor(ir.Mul)
Div = _constructor(ir.Div)
Mod = _constructor(ir.Mod)
FloorDiv = _constructor(ir.FloorDiv)
FloorMod = _constructor(ir.FloorMod)
Min = _constructor(ir.Min)
Max = _constructor(ir.Max)
EQ = _constructor(ir.EQ)
NE = _constructor(ir.NE)
LT = _constructor(ir.LT)
LE = _constructor(ir.LE)
GT = _constructor(ir.GT)
GE = _constructor(ir.GE)
And = _constructor(ir.And)
Or = _constructor(ir.Or)


def IntImm(dtype: Any, value: int) -> Expr:
    """An integer constant."""
    return as_expr(value, _dtype(dtype))


def Let(body: ExprLike, where: Mapping[_Var, ExprLike]) -> Expr:
    """`T.Let(body, where={x: value})`: `body` with values in place of variables."""
    values = {var: _cast(as_expr(value, var.dtype), var.dtype) for var, value in where.items()}
    return _substitute(as_expr(body), values)


def FloatImm(dtype: Any, value: float) -> Expr:
    """A floating-point constant."""
    return as_expr(float(value), _dtype(dtype))


def BufferLoad(buffer: _Buffer, indices: Sequence[ExprLike], predicate: Expr | None = None) -> Expr:
    """The element of `buffer` at `indices`."""
    return _BufferLoad(buffer, tuple(as_expr(index) for index in indices), predicate)


def Range(start: ExprLike, stop: ExprLike | None = None) -> ir.Range:
    """The interval [start, stop), or [0, start)."""
    return make_range(0, start) if stop is None else make_range(start, stop)


def address_of(value: Any) -> Expr:
    """A pointer to an element: T.address_of(A[i]); of a buffer, to its first."""
    if isinstance(value, _Buffer):
        value = value[tuple(0 for _ in value.shape)]
    return call_intrinsic(INTRINSICS["address_of"], (value,))


def call_intrin(dtype: Any, name: str, *args: Any) -> Expr:
    """The call of the intrinsic `name` with any arguments."""
    found = find_intrinsic(name.removeprefix("tir."))
    if found is None:
        raise InputError(f"no intrinsic {name!r}")
    return Call(
        found,
        tuple(StringImm(a) if isinstance(a, str) else as_expr(a) for a in args),
        _dtype(dtype),
    )


def comm_reducer(combiner: Callable[..., Any], identity: Sequence[Any]) -> CommReducer:
    """A commutative reduction: T.comm_reducer(lambda x, y: x + y, [T.float32(0)])."""
    start = tuple(as_expr(item) for item in identity)
    names = list(inspect.signature(combiner).parameters)
    if len(names) != 2 * len(start):
        raise InputTypeError(
            f"a combiner of {len(names)} parameters with {len(start)} identities",
            remedy="two parameters for each identity",
        )
    variables = [_Var(name, start[i % len(start)].dtype) for i, name in enumerate(names)]
    result = combiner(*variables)
    items = as_items(result)
    left, right = variables[: len(start)], variables[len(start) :]
    return CommReducer(tuple(left), tuple(right), tuple(as_expr(item) for item in items), start)


def index_map(function: Callable[..., Any], *, index_dtype: Any = None) -> IndexMap:
    """A layout: T.index_map(lambda i, j: (j, i))."""
    del index_dtype
    return _index_map(function, list(inspect.signature(function).parameters))


def target(description: Any, host: Any = None) -> Target:
    """A target from a dictionary of its fields; "host" or "llvm" is this machine."""
    if isinstance(description, str):
        if description.split(" ", maxsplit=1)[0] in ("host", "llvm", "c"):
            return host_target()
        return Target(description.split(" ", maxsplit=1)[0], "generic", host=host)
    fields = dict(description)
    kind = fields.pop("kind", fields.get("name"))
    known = {key: value for key, value in fields.items() if key in Target.__dataclass_fields__}
    extra = {key: value for key, value in fields.items() if key not in Target.__dataclass_fields__}
    if extra:
        known["extra"] = {**known.get("extra", {}), **extra}
    if isinstance(known.get("host"), dict | str):
        known["host"] = target(known["host"])
    if host is not None:
        known["host"] = host
    known["name"] = kind
    known.setdefault("arch", "generic")
    return Target(**known)


def llvm_lookup_intrinsic_id(name: str) -> LookedUp:
    """The function of LLVM of this name, for T.call_llvm_intrin and T.call_llvm_pure_intrin."""
    return LookedUp(name)


_SHORT_DTYPES = {
    **{f"{letter}{bits}": f"{kind}{bits}"
       for letter, kind in (("i", "int"), ("u", "uint"), ("f", "float"))
       for bits in (8, 16, 32, 64)},
    "bf16": "bfloat16",
}  # fmt: skip
"""Spellings such as T.f32."""


def __getattr__(name: str) -> Any:
    found = find_intrinsic(name)
    if found is not None:

        def build(*args: Any, dtype: Any = None) -> Expr:
            return call_intrinsic(found, args, _dtype(dtype) if dtype else None)

        build.__name__ = build.__qualname__ = name
        return build
    try:
        return d.ScalarName(as_dtype(_SHORT_DTYPES.get(name, name)))
    except InputTypeError:
        raise AttributeError(f"T has no {name!r}") from None


def __dir__() -> list[str]:
    dtypes = (
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
        "bfloat16",
        "void",
    )
    return sorted({*globals(), *INTRINSICS, *dtypes})
