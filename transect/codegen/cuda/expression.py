"""Scalar expressions as CUDA C++ text."""

from __future__ import annotations

import math
from collections.abc import Callable

from transect.ir.dtype import DType
from transect.ir.expr import (
    EQ,
    GE,
    GT,
    LE,
    LT,
    NE,
    Add,
    And,
    Binary,
    Call,
    Cast,
    Div,
    Expr,
    FloatImm,
    FloorDiv,
    FloorMod,
    IntImm,
    Intrinsic,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Select,
    StringImm,
    Sub,
    Var,
)
from transect.support.errors import UnsupportedError
from transect.tir.buffer import BufferLoad

_TYPES = {
    "bool": "bool",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "uint32": "unsigned int",
    "uint64": "unsigned long long",
    "float32": "float",
    "float64": "double",
    "float16": "transect_half",
    "bfloat16": "transect_bfloat",
    "handle": "void*",
}
SMALL_FLOATS = frozenset({"float16", "bfloat16"})
"""Kept in memory as they are; computed with in float32, rounded after each operation."""

_INFIX: dict[type[Expr], str] = {
    Add: "+", Sub: "-", Mul: "*", Div: "/", Mod: "%",
    EQ: "==", NE: "!=", LT: "<", LE: "<=", GT: ">", GE: ">=", And: "&&", Or: "||",
}  # fmt: skip
_FUNCTIONS: dict[type[Expr], str] = {
    FloorDiv: "transect_floordiv",
    FloorMod: "transect_floormod",
    Min: "transect_min",
    Max: "transect_max",
}
# Names in CUDA's mathematical library; float32 takes the name with "f".
_MATH = {
    name: name
    for name in (
        "exp", "exp2", "exp10", "log", "log2", "log10", "log1p", "expm1", "sqrt", "rsqrt", "sin",
        "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
        "erf", "floor", "ceil", "round", "nearbyint", "trunc", "fabs", "pow", "atan2", "copysign",
        "fmod", "hypot", "nextafter", "fma",
    )
} | {"exp_nonpositive": "exp"}  # fmt: skip
_BITS = {
    "bitwise_and": "&",
    "bitwise_or": "|",
    "bitwise_xor": "^",
    "shift_left": "<<",
    "shift_right": ">>",
}
_SYNC = {"shared": "__syncthreads()", "shared.dyn": "__syncthreads()", "warp": "__syncwarp()"}
_SHUFFLE = {
    "tvm_warp_shuffle": "__shfl_sync",
    "tvm_warp_shuffle_up": "__shfl_up_sync",
    "tvm_warp_shuffle_down": "__shfl_down_sync",
}


def c_type(dtype: DType) -> str:
    """The C++ type of a scalar. Raises UnsupportedError for vectors and other dtypes."""
    name = _TYPES.get(str(dtype))
    if name is None:
        raise UnsupportedError(
            f"the CUDA back end has no {dtype}",
            remedy="use scalars of bool, (u)int8…64, float16/32/64 or bfloat16",
        )
    return name


class ExpressionText:
    """Writes expressions. names: of variables and of buffers' pointers, filled by statements."""

    def __init__(self) -> None:
        self.names: dict[Var, str] = {}

    def __call__(self, expr: Expr) -> str:
        """The expression as C++, in parentheses where it matters."""
        if isinstance(expr, Binary):
            return self._binary(expr)
        writer = _WRITERS.get(type(expr))
        if writer is None:
            raise UnsupportedError(
                f"{type(expr).__name__} in CUDA code generation",
                remedy="leave vectors and target-specific terms to other back ends",
            )
        return writer(self, expr)

    def address(self, load: BufferLoad) -> str:
        """An lvalue for an element of a flat buffer."""
        return self.element(load.buffer.data, load.indices)

    def element(self, pointer: Var, indices: tuple[Expr, ...]) -> str:
        """The element of a flat buffer at one index."""
        if len(indices) != 1:
            raise UnsupportedError(
                "an access that is not flat",
                remedy="run FlattenBuffer; axis separators are for memory of several dimensions",
            )
        return f"{self.names[pointer]}[{self(indices[0])}]"

    def _binary(self, expr: Binary) -> str:
        a, b = self(expr.a), self(expr.b)
        if type(expr) in _FUNCTIONS:
            text = f"{_FUNCTIONS[type(expr)]}({a}, {b})"
        elif isinstance(expr, Mod) and expr.dtype.is_float:
            text = f"fmod({a}, {b})"
        else:
            text = f"({a} {_INFIX[type(expr)]} {b})"
        return self._rounded(text, expr.dtype)

    def _rounded(self, text: str, dtype: DType) -> str:
        # C++ would compute small integers as int and half floats as float.
        narrow = dtype.is_integral and dtype.bits < 32
        return f"(({c_type(dtype)})({text}))" if narrow or str(dtype) in SMALL_FLOATS else text

    def variable(self, expr: Var) -> str:
        return self.names[expr]

    def integer(self, expr: IntImm) -> str:
        if expr.dtype.is_bool:
            return "true" if expr.value else "false"
        kind, suffix = c_type(expr.dtype), _suffix(expr.dtype)
        if expr.dtype.is_int and expr.value == expr.dtype.min_value and expr.dtype.bits >= 32:
            # The literal of the smallest value would be a minus before one that is too large.
            return f"({expr.value + 1}{suffix} - 1)"
        if expr.dtype.bits < 32:
            return f"({kind})({expr.value})"
        return f"{expr.value}{suffix}" if expr.value >= 0 else f"({expr.value}{suffix})"

    def floating(self, expr: FloatImm) -> str:
        kind = c_type(expr.dtype)
        if math.isnan(expr.value):
            return f"{kind}(__int_as_float(0x7fffffff))"
        if math.isinf(expr.value):
            return f"{kind}({'-' if expr.value < 0 else ''}__int_as_float(0x7f800000))"
        literal = float(expr.value).hex() + ("" if str(expr.dtype) == "float64" else "f")
        return f"{kind}({literal})" if kind not in ("float", "double") else f"({literal})"

    def cast(self, expr: Cast) -> str:
        return f"(({c_type(expr.dtype)})({self(expr.value)}))"

    def negation(self, expr: Not) -> str:
        return f"(!{self(expr.a)})"

    def choice(self, expr: Select) -> str:
        parts = (expr.condition, expr.true_value, expr.false_value)
        condition, yes, no = map(self, parts)
        return f"({condition} ? {yes} : {no})"

    def load(self, expr: BufferLoad) -> str:
        if expr.predicate is not None:
            raise UnsupportedError("a load with lanes left out", remedy="do not vectorize for CUDA")
        return self.address(expr)

    def call(self, expr: Call) -> str:
        if not isinstance(expr.op, Intrinsic):
            raise UnsupportedError(
                f"a call of function {expr.op!r} from a kernel", remedy="inline it"
            )
        name = expr.op.name
        special = _SPECIAL.get(name)
        if special is not None:
            return special(self, expr)
        if name in _MATH:
            return self._math(name, expr)
        if name in _BITS:
            a, b = map(self, expr.args)
            return self._rounded(f"({a} {_BITS[name]} {b})", expr.dtype)
        if name in _SHUFFLE:
            mask, value, lane, width, _ = map(self, expr.args)
            return f"{_SHUFFLE[name]}({mask}, {value}, {lane}, {width})"
        raise UnsupportedError(
            f"T.{name} in a CUDA kernel",
            remedy="use arithmetic, the mathematical functions, or call_pure_extern",
        )

    def _math(self, name: str, expr: Call) -> str:
        args = ", ".join(map(self, expr.args))
        if str(expr.dtype) == "float64":
            return f"{name}({args})"
        return self._rounded(f"{name}f({args})", expr.dtype)

    def _extern(self, expr: Call) -> str:
        symbol, *args = expr.args
        assert isinstance(symbol, StringImm)
        return f"{symbol.value}({', '.join(map(self, args))})"

    def _sync(self, expr: Call) -> str:
        (where,) = expr.args
        assert isinstance(where, StringImm)
        if where.value not in _SYNC:
            raise UnsupportedError(
                f"a barrier over {where.value!r} memory",
                remedy='use "shared" or "warp", or two kernels',
            )
        return _SYNC[where.value]

    def _address_of(self, expr: Call) -> str:
        (target,) = expr.args
        assert isinstance(target, BufferLoad)
        return f"(&{self.address(target)})"

    def _sigmoid(self, expr: Call) -> str:
        x = self(expr.args[0])
        exp, one = ("exp", "1.0") if str(expr.dtype) == "float64" else ("expf", "1.0f")
        return self._rounded(f"({one} / ({one} + {exp}(-({x}))))", expr.dtype)

    def _reinterpret(self, expr: Call) -> str:
        to, given = c_type(expr.dtype), c_type(expr.args[0].dtype)
        return f"transect_bits<{to}, {given}>({self(expr.args[0])})"


def _suffix(dtype: DType) -> str:
    if dtype.bits < 32:
        return ""
    return ("u" if dtype.is_uint else "") + ("ll" if dtype.bits == 64 else "")


_WRITERS: dict[type[Expr], Callable[..., str]] = {
    Var: ExpressionText.variable,
    IntImm: ExpressionText.integer,
    FloatImm: ExpressionText.floating,
    Cast: ExpressionText.cast,
    Not: ExpressionText.negation,
    Select: ExpressionText.choice,
    BufferLoad: ExpressionText.load,
    Call: ExpressionText.call,
}


def _function(name: str) -> Callable[[ExpressionText, Call], str]:
    return lambda text, expr: f"{name}({', '.join(text(arg) for arg in expr.args)})"


def _by_width(narrow: str, wide: str) -> Callable[[ExpressionText, Call], str]:
    def write(text: ExpressionText, expr: Call) -> str:
        name = wide if expr.args[0].dtype.bits == 64 else narrow
        return f"(({c_type(expr.dtype)}){name}({text(expr.args[0])}))"

    return write


def _conditional(text: ExpressionText, expr: Call) -> str:
    condition, yes, no = map(text, expr.args)
    return f"({condition} ? {yes} : {no})"


def _first(text: ExpressionText, expr: Call) -> str:
    return text(expr.args[0])


def _absolute(text: ExpressionText, expr: Call) -> str:
    x = text(expr.args[0])
    if expr.dtype.is_float:
        return f"(({c_type(expr.dtype)})fabs({x}))"
    return f"(({c_type(expr.dtype)})({x} < 0 ? -{x} : {x}))"


def _member(name: str) -> Callable[[ExpressionText, Call], str]:
    return lambda text, expr: getattr(text, name)(expr)


def _checked(text: ExpressionText, call: Call) -> str:
    """A value behind a test that stops the kernel, as its asserts do."""
    value, condition = map(text, call.args[:2])
    return f"(({condition}) ? ({value}) : (__trap(), ({value})))"


_SPECIAL: dict[str, Callable[[ExpressionText, Call], str]] = {
    "if_then_else": _conditional,
    "checked": _checked,
    "likely": _first,
    "tvm_thread_invariant": _first,
    "bitwise_not": _function("~"),
    "abs": _absolute,
    "sigmoid": _member("_sigmoid"),
    "isnan": _function("isnan"),
    "isinf": _function("isinf"),
    "isfinite": _function("isfinite"),
    "ldexp": lambda text, expr: f"ldexp({text(expr.args[0])}, (int)({text(expr.args[1])}))",
    "popcount": _by_width("__popc", "__popcll"),
    "clz": _by_width("__clz", "__clzll"),
    "reinterpret": _member("_reinterpret"),
    "call_extern": _member("_extern"),
    "call_pure_extern": _member("_extern"),
    "tvm_storage_sync": _member("_sync"),
    "tvm_warp_activemask": _function("__activemask"),
    "address_of": _member("_address_of"),
    "isnullptr": lambda text, expr: f"({text(expr.args[0])} == nullptr)",
}
