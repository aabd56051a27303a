"""Element by element: arithmetic, comparisons, functions.

Operands that are all known element by element never come here (`known`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.values import constant_operand


def unary(name: str) -> tuple[Converter, ...]:
    """An operator that is one graph operator of one tensor."""
    return (Converter(lambda node: node.emit(name, node.value(0))),)


def binary(name: str) -> tuple[Converter, ...]:
    """An operator that is one graph operator of two tensors."""
    return (Converter(lambda node: node.emit(name, node.value(0), node.value(1))),)


def variadic(name: str) -> tuple[Converter, ...]:
    """An operator of any number of tensors, folded from the left by a binary graph operator."""

    def convert(node: Node) -> Result:
        values = [node.value(i) for i in range(len(node.operands))]
        return reduce(lambda a, b: node.emit(name, a, b), values)

    return (Converter(convert),)


def modulo(node: Node) -> Result:
    """The remainder with the divisor's sign, or with `fmod` the dividend's."""
    truncated = node.attribute("fmod", 0) == 1
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


def where(node: Node) -> Result:
    """The second operand where the first is true, else the third."""
    return node.emit("where", *(node.value(i) for i in range(3)))


def identity(node: Node) -> Result:
    """The operand itself."""
    return node.operand(0)


def gelu(node: Node) -> Result:
    """x * Phi(x), exactly or by tanh."""
    approximate = node.attribute("approximate", "none") == "tanh"
    return node.emit("nn.gelu_tanh" if approximate else "nn.gelu", node.value(0))


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
    **{name: binary(operator) for name, operator in _BINARY.items()},
    "Max": variadic("maximum"),
    "Min": variadic("minimum"),
    "Sum": variadic("add"),
    "Div": binary("divide"),
    "Mod": one(modulo),
    "Neg": unary("negative"),
    "Clip": one(clip),
    "Constant": one(make_constant),
    "Gelu": one(gelu),
    "HardSigmoid": one(hard_sigmoid),
    "Identity": one(identity),
    "PRelu": one(prelu),
    "Pow": one(power),
    "Reciprocal": one(reciprocal),
    "Where": one(where),
}
"""Converters of element-wise operators."""
