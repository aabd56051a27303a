"""Activations, roundings and operations on bits: maps that are one graph operator or a few."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import binary, one, unary
from transect.ir.dtype import FLOAT32


def with_attributes(name: str, fields: Mapping[str, float]) -> tuple[Converter, ...]:
    """An operator that is graph operator `name`, whose fields are attributes of the same names;
    fields: their defaults."""

    def convert(node: Node) -> Result:
        given = {field: node.attribute(field, default) for field, default in fields.items()}
        return node.emit(name, node.value(0), **given)

    return one(convert)


def mean(node: Node) -> Result:
    """The sum of any number of tensors, divided by their number; in float32 where they are
    narrower, because the sum may be too large for them."""
    values = [node.value(i) for i in range(len(node.operands))]
    dtype = node.dtype(values[0])
    narrow = dtype.is_float and dtype.bits < 32
    if narrow:
        values = [node.emit("astype", value, dtype=FLOAT32) for value in values]
    total = reduce(lambda a, b: node.emit("add", a, b), values)
    result = node.emit("divide", total, node.scalar(len(values), total))
    return node.emit("astype", result, dtype=dtype) if narrow else result


def is_infinite(node: Node) -> Result:
    """Whether an element is one of the infinities that the attributes ask for."""
    value = node.value(0)
    positive, negative = (node.attribute(f"detect_{sign}", 1) for sign in ("positive", "negative"))
    if positive and negative:
        return node.emit("isinf", value)
    if not (positive or negative):
        return node.emit("zeros_like", value, dtype="bool")
    infinite = node.emit("isinf", value)
    side = node.emit("greater" if positive else "less", value, node.scalar(0.0, value))
    return node.emit("logical_and", infinite, side)


def shrink(node: Node) -> Result:
    """x moved toward zero by `bias` where |x| > lambd, else 0."""
    value = node.value(0)
    limit, bias = node.attribute("lambd", 0.5), node.attribute("bias", 0.0)
    dtype = node.dtype(value)
    if not dtype.is_float:
        # The limits are fractions, and of an unsigned x a negative one: float64 holds them all.
        value = node.emit("astype", value, dtype="float64")
    step = node.scalar(bias, value)
    low = node.emit("less", value, node.scalar(-limit, value))
    high = node.emit("greater", value, node.scalar(limit, value))
    inner = node.emit("where", high, node.emit("subtract", value, step), node.scalar(0.0, value))
    result = node.emit("where", low, node.emit("add", value, step), inner)
    return result if dtype.is_float else node.emit("astype", result, dtype=dtype)


def swish(node: Node) -> Result:
    """x * sigmoid(alpha * x)."""
    value = node.value(0)
    alpha = node.attribute("alpha", 1.0)
    if alpha == 1.0:
        return node.emit("nn.silu", value)
    gate = node.emit("sigmoid", node.emit("multiply", value, node.scalar(alpha, value)))
    return node.emit("multiply", value, gate)


def bit_shift(node: Node) -> Result:
    """A shift of unsigned integers to the side that an attribute names."""
    sides = {"LEFT": "left_shift", "RIGHT": "right_shift"}
    direction = node.attribute("direction", "")
    if direction not in sides:
        raise node.error(f"direction {direction!r}", "it must be LEFT or RIGHT")
    return node.emit(sides[direction], node.value(0), node.value(1))


WITH_ATTRIBUTES: dict[str, tuple[str, dict[str, float]]] = {
    "Celu": ("nn.celu", {"alpha": 1.0}),
    "Elu": ("nn.elu", {"alpha": 1.0}),
    "HardSwish": ("nn.hardswish", {}),
    "LeakyRelu": ("nn.leakyrelu", {"alpha": 0.01}),
    "Mish": ("nn.mish", {}),
    "Selu": ("nn.selu", {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}),
    "Softsign": ("nn.softsign", {}),
    "ThresholdedRelu": ("nn.thresholded_relu", {"alpha": 1.0}),
}
"""Operators that are one graph operator, whose fields are the attributes with these defaults."""
_BITWISE = {"And": "bitwise_and", "Or": "bitwise_or", "Xor": "bitwise_xor"}
_OWN: dict[str, Callable[[Node], Result]] = {
    "BitShift": bit_shift,
    "IsInf": is_infinite,
    "Mean": mean,
    "Shrink": shrink,
    "Swish": swish,
}

ACTIVATION: dict[str, tuple[Converter, ...]] = {
    **{name: with_attributes(*entry) for name, entry in WITH_ATTRIBUTES.items()},
    **{f"Bitwise{name}": binary(operator) for name, operator in _BITWISE.items()},
    **{name: one(convert) for name, convert in _OWN.items()},
    "BitwiseNot": unary("bitwise_not"),
    "Round": unary("round"),
}
"""Converters of activations and of operations on bits."""
