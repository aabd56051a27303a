"""Element by element: arithmetic, comparisons, functions, casts.

Where all operands are shapes, the result is a shape as well and no tensor is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.values import Elements, Operand, aligned, constant_operand
from transect.ir.dtype import BOOL, INT64, DType
from transect.ir.expr import (
    Expr,
    IntImm,
    cast,
    const,
    equal,
    maximum,
    minimum,
    not_equal,
    select,
    truncdiv,
    truncmod,
)

ScalarRule = Callable[[Expr, Expr], Expr]
RowRule = Callable[[tuple[Expr, ...]], Expr]
"""Takes one element of each operand."""

# Python names of the symbolic twins, for values that are shapes.
_SCALAR: dict[str, ScalarRule] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": truncdiv,
    "Mod": lambda a, b: a % b,
    "Equal": equal,
    "Greater": lambda a, b: a > b,
    "GreaterOrEqual": lambda a, b: a >= b,
    "Less": lambda a, b: a < b,
    "LessOrEqual": lambda a, b: a <= b,
    "And": lambda a, b: not_equal(a, 0) & not_equal(b, 0),
    "Or": lambda a, b: not_equal(a, 0) | not_equal(b, 0),
}
_TRUTH_VALUED = frozenset(
    {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or"}
)


def on_elements(
    node: Node, rule: RowRule, count: int, dtype: DType | None = None
) -> Operand | None:
    """`rule` applied element by element if the first `count` operands are shapes, else None.

    dtype: of the result; that of the last operand by default.
    """
    known = [node.operand(i).elements for i in range(count)]
    items = [item for item in known if item is not None]
    rows = aligned(items) if len(items) == count else None
    if rows is None:
        return None
    kind = dtype or items[-1].dtype
    values: list[Expr] = []
    for row in rows:
        value = node.simplify(cast(rule(row), INT64))
        values.append(IntImm(int(const_value(value, kind))) if isinstance(value, IntImm) else value)
    return Operand(None, Elements(tuple(values), max(item.rank for item in items), kind))


def pairwise(rule: ScalarRule) -> RowRule:
    """A rule of two operands as one of any number, folded from the left."""
    return lambda row: reduce(rule, row)


def const_value(value: IntImm, dtype: DType) -> int:
    """A constant wrapped to the range of `dtype`, as the tensor operator would."""
    wrapped = const(value.value, dtype)
    return wrapped.value if isinstance(wrapped, IntImm) else value.value


def unary(name: str) -> tuple[Converter, ...]:
    """An operator that is one graph operator of one tensor."""
    return (Converter(lambda node: node.emit(name, node.value(0))),)


def binary(name: str, scalar: ScalarRule | None = None) -> tuple[Converter, ...]:
    """An operator that is one graph operator of two tensors, or `scalar` of two shapes."""

    def convert(node: Node) -> Result:
        if scalar is not None:
            dtype = BOOL if node.op_type in _TRUTH_VALUED else None
            shape = on_elements(node, pairwise(scalar), 2, dtype)
            if shape is not None:
                return shape
        return node.emit(name, node.value(0), node.value(1))

    return (Converter(convert),)


def variadic(name: str, scalar: ScalarRule | None = None) -> tuple[Converter, ...]:
    """An operator of any number of tensors, folded from the left by a binary graph operator."""

    def convert(node: Node) -> Result:
        count = len(node.operands)
        if scalar is not None:
            shape = on_elements(node, pairwise(scalar), count)
            if shape is not None:
                return shape
        values = [node.value(i) for i in range(count)]
        return reduce(lambda a, b: node.emit(name, a, b), values)

    return (Converter(convert),)


def divide(node: Node) -> Result:
    """Division; of integers it truncates toward zero."""
    shape = on_elements(node, pairwise(truncdiv), 2)
    if shape is not None:
        return shape
    a, b = node.value(0), node.value(1)
    return node.emit("divide", a, b)


def modulo(node: Node) -> Result:
    """The remainder with the divisor's sign, or with `fmod` the dividend's."""
    truncated = node.attribute("fmod", 0) == 1
    rule: ScalarRule = truncmod if truncated else _SCALAR["Mod"]
    shape = on_elements(node, pairwise(rule), 2)
    if shape is not None:
        return shape
    return node.emit("mod" if truncated else "floor_mod", node.value(0), node.value(1))


def clip(node: Node) -> Result:
    """min(max(x, low), high); the bounds were attributes before opset 11."""
    value = node.value(0)
    for index, attribute, name in ((1, "min", "maximum"), (2, "max", "minimum")):
        if node.has(index):
            value = node.emit(name, value, node.value(index))
        elif attribute in node.attributes:
            bound = float(node.attribute(attribute, 0.0))
            value = node.emit(name, value, node.scalar(bound, value))
    return value


def power(node: Node) -> Result:
    """base ** exponent, of the base's dtype whatever the exponent's is."""
    base, exponent = node.value(0), node.value(1)
    dtype, other = node.dtype(base), node.dtype(exponent)
    if dtype is other:
        return node.emit("power", base, exponent)
    if dtype.is_float:
        return node.emit("power", base, node.emit("astype", exponent, dtype=dtype))
    result = node.emit("power", node.emit("astype", base, dtype=other), exponent)
    return node.emit("astype", result, dtype=dtype)


def reciprocal(node: Node) -> Result:
    """1 / x."""
    value = node.value(0)
    return node.emit("divide", node.scalar(1.0, value), value)


def negate(node: Node) -> Result:
    """-x; of a shape, still a shape."""
    shape = on_elements(node, lambda row: 0 - row[0], 1)
    return shape if shape is not None else node.emit("negative", node.value(0))


def where(node: Node) -> Result:
    """The second operand where the first is true, else the third."""
    shape = on_elements(node, lambda row: select(not_equal(row[0], 0), row[1], row[2]), 3)
    return shape if shape is not None else node.emit("where", *(node.value(i) for i in range(3)))


def identity(node: Node) -> Result:
    """The operand itself."""
    return node.operand(0)


def gelu(node: Node) -> Result:
    """x * Phi(x), exactly or by tanh."""
    approximate = node.attribute("approximate", "none") == "tanh"
    return node.emit("nn.gelu_tanh" if approximate else "nn.gelu", node.value(0))


def leaky_relu(node: Node) -> Result:
    """x where x >= 0, else alpha * x."""
    return node.emit("nn.leakyrelu", node.value(0), alpha=node.attribute("alpha", 0.01))


def prelu(node: Node) -> Result:
    """x where x >= 0, else slope * x; the slope broadcasts to x from the last dimension on."""
    value, slope = node.value(0), node.value(1)
    negative = node.emit("less", value, node.scalar(0.0, value))
    return node.emit("where", negative, node.emit("multiply", slope, value), value)


def hard_sigmoid(node: Node) -> Result:
    """max(0, min(1, alpha * x + beta))."""
    value = node.value(0)
    slope = node.scalar(node.attribute("alpha", 0.2), value)
    offset = node.scalar(node.attribute("beta", 0.5), value)
    line = node.emit("add", node.emit("multiply", value, slope), offset)
    upper = node.emit("minimum", line, node.scalar(1.0, value))
    return node.emit("maximum", upper, node.scalar(0.0, value))


def make_constant(node: Node) -> Result:
    """A constant, in any of the forms an exporter writes it."""
    kinds = {"float": np.float32, "floats": np.float32, "int": np.int64, "ints": np.int64}
    for name, kind in {"value": None, **{f"value_{k}": v for k, v in kinds.items()}}.items():
        if name in node.attributes:
            return constant_operand(np.asarray(node.attributes[name], kind))
    raise node.error("a constant of this form is not covered", "give it as a tensor")


def one(convert: Callable[[Node], Result], since: int = 1) -> tuple[Converter, ...]:
    """An entry with one version."""
    return (Converter(convert, since),)


_UNARY = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh",
    "Atan": "atan", "Atanh": "atanh", "Ceil": "ceil", "Cos": "cos", "Cosh": "cosh", "Erf": "erf",
    "Exp": "exp", "Floor": "floor", "IsNaN": "isnan", "Log": "log", "Not": "logical_not",
    "Relu": "nn.relu", "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin", "Sinh": "sinh",
    "Softplus": "nn.softplus", "Sqrt": "sqrt", "Tan": "tan", "Tanh": "tanh",
}  # fmt: skip
_BINARY = {
    "Add": "add", "Sub": "subtract", "Mul": "multiply", "And": "logical_and",
    "Or": "logical_or", "Xor": "logical_xor", "Equal": "equal", "Greater": "greater",
    "GreaterOrEqual": "greater_equal", "Less": "less", "LessOrEqual": "less_equal",
}  # fmt: skip

ELEMENTWISE: dict[str, tuple[Converter, ...]] = {
    **{name: unary(operator) for name, operator in _UNARY.items()},
    **{name: binary(operator, _SCALAR.get(name)) for name, operator in _BINARY.items()},
    "Max": variadic("maximum", maximum),
    "Min": variadic("minimum", minimum),
    "Sum": variadic("add", _SCALAR["Add"]),
    "Div": one(divide),
    "Mod": one(modulo),
    "Neg": one(negate),
    "Clip": one(clip),
    "Constant": one(make_constant),
    "Gelu": one(gelu),
    "HardSigmoid": one(hard_sigmoid),
    "Identity": one(identity),
    "LeakyRelu": one(leaky_relu),
    "PRelu": one(prelu),
    "Pow": one(power),
    "Reciprocal": one(reciprocal),
    "Where": one(where),
}
"""Converters of element-wise operators."""
