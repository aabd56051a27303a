"""Operators on values that are known element by element: what exporters compute shapes with.

Each rule takes the known operands and gives the known result, or None where it cannot: then the
operator's converter makes tensors of them, and the result is computed at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np
import onnx

from transect.frontend.onnx.data_shapes import check_condition
from transect.frontend.onnx.node import Node
from transect.frontend.onnx.values import (
    MOST_ELEMENTS,
    Array,
    Element,
    Known,
    Operand,
    Ratio,
    constant_operand,
    known_array,
    known_operand,
)
from transect.ir.dtype import BOOL, INT64, DType, as_dtype
from transect.ir.expr import (
    Expr,
    IntImm,
    as_int,
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
from transect.support.errors import InputTypeError

Rule = Callable[[Node, Sequence[Known]], Known | Sequence[Known] | None]
"""Takes the known operands; those that a node leaves out are left out at the end."""

OneResult = Callable[[Node, Sequence[Known]], Known | None]
"""A rule with one output."""

Scalar = Callable[..., Element | None]
"""Takes one element of each operand."""


def known_result(node: Node) -> list[Operand] | None:
    """The outputs of a node whose operands are all known, None if it is not computed here."""
    rule = _RULES.get(node.op_type)
    if rule is None:
        return None
    given = list(node.operands)
    while given and given[-1] is None:
        given.pop()
    known = [None if item is None else item.known for item in given]
    operands = [item for item in known if item is not None]
    if not operands or len(operands) != len(given):
        return None
    try:
        result = rule(node, operands)
    except (ValueError, IndexError):
        # Operands that do not fit: the converter says how.
        return None
    results = [result] if isinstance(result, Known) else result
    if results is None or any(item.array.size > MOST_ELEMENTS for item in results):
        return None
    if any(item.dtype.is_float and item.array.size == 0 for item in results):
        return None
    return [_operand(item) for item in results]


def _operand(known: Known) -> Operand:
    array = known.constant()
    return known_operand(known) if array is None else constant_operand(array)


# --- element by element -----------------------------------------------------------------------


def _elementwise(rule: Scalar, dtype: DType | None = None, *, of: int = 0) -> OneResult:
    """A rule of one element of each operand, broadcast.

    dtype: of the result; by default that of operand `of`.
    """

    def apply(node: Node, operands: Sequence[Known]) -> Known | None:
        arrays = np.broadcast_arrays(*(item.array for item in operands))
        kind = dtype or operands[of].dtype
        values: list[Element] = []
        for row in zip(*(array.reshape(-1) for array in arrays), strict=True):
            value = rule(*row)
            if value is None:
                return None
            values.append(_simple(node, value, kind))
        return known_array(values, arrays[0].shape, kind)

    return apply


def _simple(node: Node, value: Element, dtype: DType) -> Element:
    """A result in its simplest form, a constant wrapped to the range of its dtype."""
    if isinstance(value, Ratio):
        top, bottom = node.simplify(value.top), node.simplify(value.bottom)
        return Ratio(top, bottom, value.exact)
    simple = node.simplify(cast(value, INT64))
    if not isinstance(simple, IntImm) or dtype is INT64:
        return simple
    wrapped = const(simple.value, dtype)
    return IntImm(int(wrapped.value)) if isinstance(wrapped, IntImm) else simple


def _arithmetic(integer: Scalar, ratio: Scalar | None = None) -> Scalar:
    """`integer` of integers, `ratio` of floats that are exact."""

    def apply(*items: Element) -> Element | None:
        if not any(isinstance(item, Ratio) for item in items):
            return integer(*items)
        exact = all(isinstance(item, Ratio) and item.exact for item in items)
        return None if ratio is None or not exact else ratio(*items)

    return apply


def _sum(a: Ratio, b: Ratio) -> Ratio:
    if a.bottom is b.bottom:
        return Ratio(a.top + b.top, a.bottom)
    return Ratio(a.top * b.bottom + b.top * a.bottom, a.bottom * b.bottom)


def _difference(a: Ratio, b: Ratio) -> Ratio:
    return _sum(a, Ratio(0 - b.top, b.bottom))


def _product(a: Ratio, b: Ratio) -> Ratio:
    return Ratio(a.top * b.top, a.bottom * b.bottom)


def _ratio_quotient(a: Ratio, b: Ratio) -> Ratio | None:
    top, bottom = a.top * b.bottom, a.bottom * b.top
    number = as_int(b.top)
    if number is not None and number <= 0:
        return None
    # Division by a power of two is exact; any other rounds.
    exact = number is not None and number & (number - 1) == 0
    return Ratio(top, bottom, exact)


def _quotient(a: Expr, b: Expr) -> Expr | None:
    return None if as_int(b) == 0 else truncdiv(a, b)


def _remainder(node: Node, operands: Sequence[Known]) -> Known | None:
    truncated = node.attribute("fmod", 0) == 1

    def rule(a: Expr, b: Expr) -> Expr | None:
        if as_int(b) == 0:
            return None
        return truncmod(a, b) if truncated else a % b

    return _elementwise(_arithmetic(rule))(node, operands)


def _division(rule: Rule) -> Rule:
    """`rule`, and a check when the model runs that no integer is divided by zero."""

    def apply(node: Node, operands: Sequence[Known]) -> Known | Sequence[Known] | None:
        result = rule(node, operands)
        if result is not None and not operands[1].dtype.is_float:
            for divisor in operands[1].array.reshape(-1):
                check_condition(node, not_equal(divisor, IntImm(0)), "divisor_is_not_zero")
        return result

    return apply


def _absolute(a: Expr) -> Expr:
    return maximum(a, 0 - a)


def _sign(a: Expr) -> Expr:
    return select(a > 0, IntImm(1), select(a < 0, IntImm(-1), IntImm(0)))


def _power(a: Expr, b: Expr) -> Expr | None:
    exponent = as_int(b)
    if exponent is None or not 0 <= exponent <= 4:
        return None
    return reduce(lambda x, y: x * y, [a] * exponent, IntImm(1))


def _nonzero(a: Expr) -> Expr:
    return not_equal(a, 0)


def _not(a: Expr) -> Expr:
    return equal(a, 0)


def _and(a: Expr, b: Expr) -> Expr:
    return _nonzero(a) & _nonzero(b)


def _or(a: Expr, b: Expr) -> Expr:
    return _nonzero(a) | _nonzero(b)


def _xor(a: Expr, b: Expr) -> Expr:
    return not_equal(_nonzero(a), _nonzero(b))


def _add(a: Expr, b: Expr) -> Expr:
    return a + b


def _subtract(a: Expr, b: Expr) -> Expr:
    return a - b


def _multiply(a: Expr, b: Expr) -> Expr:
    return a * b


def _negate(a: Expr) -> Expr:
    return 0 - a


def _negate_ratio(a: Ratio) -> Ratio:
    return Ratio(0 - a.top, a.bottom)


def _folded(rule: Scalar) -> Scalar:
    """A rule of two as one of any number."""

    def apply(*items: Element) -> Element | None:
        result: Element | None = items[0]
        for item in items[1:]:
            result = None if result is None else rule(result, item)
        return result

    return apply


def _whole(rounded: Callable[[Expr, Expr], Expr]) -> Scalar:
    """A float rounded to an integer, which stays a float."""

    def apply(a: Element) -> Element | None:
        if not isinstance(a, Ratio):
            return None
        if as_int(a.bottom) == 1:
            return a
        return Ratio(rounded(a.top, a.bottom), IntImm(1))

    return apply


def _floor(a: Expr, b: Expr) -> Expr:
    return a // b


def _ceiling(a: Expr, b: Expr) -> Expr:
    return 0 - ((0 - a) // b)


def _cast(node: Node, operands: Sequence[Known]) -> Known | None:
    if node.op_type == "CastLike":
        target = operands[1].dtype
    else:
        try:
            code = node.attribute("to", 0)
            target = as_dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
        except (KeyError, InputTypeError):
            return None
    if target.is_float and target.bits < 32:
        return None
    if not (target.is_float or target.is_integral or target.is_bool):
        return None

    def rule(a: Element) -> Element | None:
        if target.is_float:
            return a if isinstance(a, Ratio) else Ratio(a, IntImm(1))
        if isinstance(a, Ratio):
            if target.is_bool:
                return None
            return a.top if as_int(a.bottom) == 1 else truncdiv(a.top, a.bottom)
        return _nonzero(a) if target.is_bool else a

    return _elementwise(rule, target)(node, operands[:1])


def _where(condition: Expr, a: Element, b: Element) -> Element | None:
    chosen = as_int(condition)
    if chosen is not None:
        return a if chosen else b
    if isinstance(a, Ratio) or isinstance(b, Ratio):
        return None
    return select(not_equal(condition, 0), a, b)


def _compare(rule: Callable[[Expr, Expr], Expr]) -> Rule:
    def of_ratios(a: Ratio, b: Ratio) -> Expr:
        return rule(a.top * b.bottom, b.top * a.bottom)

    return _elementwise(_arithmetic(rule, of_ratios), BOOL)


# --- moving elements --------------------------------------------------------------------------


def _moved(move: Callable[[Node, Array, list[Array]], Any]) -> Rule:
    """A rule that moves the elements of the first operand by the constants in the others."""

    def apply(node: Node, operands: Sequence[Known]) -> Known | None:
        data, *rest = operands
        numbers = [item.constant() for item in rest]
        constants = [item for item in numbers if item is not None]
        if len(constants) != len(rest):
            return None
        array = move(node, data.array, constants)
        if array is None:
            return None
        made = np.empty(np.shape(array), object)
        made[...] = array
        return Known(made, data.dtype)

    return apply


def _numbers(node: Node, given: list[Array], index: int, name: str) -> list[int] | None:
    """Integers of operand `index` + 1, an attribute in older versions."""
    if index < len(given):
        return [int(item) for item in given[index].reshape(-1)]
    found: list[int] | None = node.attribute(name, None)
    return found


def _gather(node: Node, data: Array, given: list[Array]) -> Any:
    return np.take(data, given[0].astype(np.int64), axis=node.attribute("axis", 0))


def _gather_elements(node: Node, data: Array, given: list[Array]) -> Any:
    return np.take_along_axis(data, given[0].astype(np.int64), axis=node.attribute("axis", 0))


def _gather_nd(node: Node, data: Array, given: list[Array]) -> Any:
    if node.attribute("batch_dims", 0):
        return None
    return data[tuple(np.moveaxis(given[0].astype(np.int64), -1, 0))]


def _slice(node: Node, data: Array, given: list[Array]) -> Any:
    starts = _numbers(node, given, 0, "starts") or []
    ends = _numbers(node, given, 1, "ends") or []
    axes = _numbers(node, given, 2, "axes") or list(range(len(starts)))
    steps = _numbers(node, given, 3, "steps") or [1] * len(starts)
    where = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # From the end back, Python counts what lies before the first element as none.
        size = data.shape[axis]
        begin = max(start, -size) if step < 0 else start
        where[axis] = slice(begin, None if step < 0 and end < -size else end, step)
    return data[tuple(where)]


def _reshape(node: Node, data: Array, given: list[Array]) -> Any:
    shape = [int(item) for item in given[0].reshape(-1)]
    if not node.attribute("allowzero", 0):
        shape = [data.shape[axis] if dim == 0 else dim for axis, dim in enumerate(shape)]
    return data.reshape(shape)


def _squeeze(node: Node, data: Array, given: list[Array]) -> Any:
    axes = _numbers(node, given, 0, "axes")
    return np.squeeze(data, None if axes is None else tuple(axes))


def _unsqueeze(node: Node, data: Array, given: list[Array]) -> Any:
    return np.expand_dims(data, tuple(_numbers(node, given, 0, "axes") or ()))


def _transpose(node: Node, data: Array, given: list[Array]) -> Any:
    del given
    return np.transpose(data, node.attribute("perm", None))


def _flatten(node: Node, data: Array, given: list[Array]) -> Any:
    del given
    axis = node.attribute("axis", 1)
    rows = prod(data.shape[:axis])
    return data.reshape(rows, data.size // rows if rows else 0)


def _expand(node: Node, data: Array, given: list[Array]) -> Any:
    del node
    target = np.broadcast_shapes(data.shape, tuple(int(item) for item in given[0]))
    return np.broadcast_to(data, target) if np.prod(target) <= MOST_ELEMENTS else None


def _tile(node: Node, data: Array, given: list[Array]) -> Any:
    del node
    repeats = tuple(int(item) for item in given[0])
    if data.size * np.prod(repeats, dtype=float) > MOST_ELEMENTS:
        return None
    return np.tile(data, repeats)


def _concat(node: Node, operands: Sequence[Known]) -> Known:
    arrays = [item.array for item in operands]
    return Known(np.concatenate(arrays, axis=node.attribute("axis", 1)), operands[0].dtype)


def _split(node: Node, operands: Sequence[Known]) -> Sequence[Known] | None:
    data, axis = operands[0], node.attribute("axis", 0)
    given = operands[1].constant() if len(operands) > 1 else None
    if len(operands) > 1 and given is None:
        return None
    sizes = node.attribute("split", None) if given is None else given.tolist()
    if sizes is None:
        part = -(-data.array.shape[axis] // max(node.outputs, 1))
        sizes = [part] * (node.outputs - 1)
        cuts = np.cumsum(sizes)
    else:
        cuts = np.cumsum(sizes)[:-1]
    return [Known(part, data.dtype) for part in np.split(data.array, cuts, axis)]


def _scatter_nd(node: Node, operands: Sequence[Known]) -> Known | None:
    data, indices, updates = operands
    where = indices.constant()
    if where is None or node.attribute("reduction", "none") != "none":
        return None
    result = data.array.copy()
    result[tuple(np.moveaxis(where.astype(np.int64), -1, 0))] = updates.array
    return Known(result, data.dtype)


def _scatter_elements(node: Node, operands: Sequence[Known]) -> Known | None:
    data, indices, updates = operands
    where = indices.constant()
    if where is None or node.attribute("reduction", "none") != "none":
        return None
    result = data.array.copy()
    axis = node.attribute("axis", 0)
    np.put_along_axis(result, where.astype(np.int64), updates.array, axis)
    return Known(result, data.dtype)


# --- making and joining elements --------------------------------------------------------------


def _filled(node: Node, operands: Sequence[Known]) -> Known | None:
    shape = operands[0].constant()
    fill = np.asarray(node.attribute("value", np.zeros(1, np.float32))).reshape(())
    if shape is None or np.prod(shape, dtype=float) > MOST_ELEMENTS or (shape < 0).any():
        return None
    return constant_operand(np.full(tuple(map(int, shape)), fill)).known


def _range(node: Node, operands: Sequence[Known]) -> Known | None:
    del node
    numbers = [item.constant() for item in operands]
    limits = [int(item.item()) for item in numbers if item is not None and item.dtype.kind in "iu"]
    if len(limits) != 3 or limits[2] == 0:
        return None
    values = range(*limits)
    if len(values) > MOST_ELEMENTS:
        return None
    return known_array(map(IntImm, values), (len(values),), operands[0].dtype)


def _reduced(rule: Scalar, of_none: int | None) -> Rule:
    """A reduction; `of_none` is that of no elements."""

    def apply(node: Node, operands: Sequence[Known]) -> Known | None:
        data = operands[0]
        if data.dtype.is_float:
            return None
        given = [item.constant() for item in operands[1:]]
        axes = _numbers(node, [item for item in given if item is not None], 0, "axes")
        if len([item for item in given if item is None]):
            return None
        if not axes:
            if node.attribute("noop_with_empty_axes", 0):
                return data
            axes = list(range(data.array.ndim))
        keep = node.attribute("keepdims", 1) == 1
        where = sorted(axis % data.array.ndim for axis in axes)
        kept = [axis for axis in range(data.array.ndim) if axis not in where]
        rows = np.transpose(data.array, (*kept, *where))
        outer = rows.shape[: len(kept)]
        count = int(np.prod(outer))
        if rows.size == 0 and of_none is None:
            return None
        start = [] if of_none is None else [IntImm(of_none)]
        values: list[Element] = []
        for row in rows.reshape(count, rows.size // count if count else 0):
            value = _folded(rule)(*start, *row)
            if value is None:
                return None
            values.append(_simple(node, value, data.dtype))
        shape = tuple(
            1 if axis in where else size
            for axis, size in enumerate(data.array.shape)
            if keep or axis not in where
        )
        return known_array(values, shape, data.dtype)

    return apply


_ADD = _arithmetic(_add, _sum)
_MULTIPLY = _arithmetic(_multiply, _product)

_RULES: dict[str, Rule] = {
    "Abs": _elementwise(_arithmetic(_absolute)),
    "Add": _elementwise(_ADD),
    "And": _elementwise(_and, BOOL),
    "Cast": _cast,
    "CastLike": _cast,
    "Ceil": _elementwise(_whole(_ceiling)),
    "Concat": _concat,
    "ConstantOfShape": _filled,
    "Div": _division(_elementwise(_arithmetic(_quotient, _ratio_quotient))),
    "Equal": _compare(equal),
    "Expand": _moved(_expand),
    "Flatten": _moved(_flatten),
    "Floor": _elementwise(_whole(_floor)),
    "Gather": _moved(_gather),
    "GatherElements": _moved(_gather_elements),
    "GatherND": _moved(_gather_nd),
    "Greater": _compare(lambda a, b: a > b),
    "GreaterOrEqual": _compare(lambda a, b: a >= b),
    "Less": _compare(lambda a, b: a < b),
    "LessOrEqual": _compare(lambda a, b: a <= b),
    "Max": _elementwise(_folded(_arithmetic(maximum))),
    "Min": _elementwise(_folded(_arithmetic(minimum))),
    "Mod": _division(_remainder),
    "Mul": _elementwise(_MULTIPLY),
    "Neg": _elementwise(_arithmetic(_negate, _negate_ratio)),
    "Not": _elementwise(_not, BOOL),
    "Or": _elementwise(_or, BOOL),
    "Pow": _elementwise(_arithmetic(_power)),
    "Range": _range,
    "ReduceMax": _reduced(_arithmetic(maximum), None),
    "ReduceMin": _reduced(_arithmetic(minimum), None),
    "ReduceProd": _reduced(_MULTIPLY, 1),
    "ReduceSum": _reduced(_ADD, 0),
    "Reshape": _moved(_reshape),
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Sign": _elementwise(_arithmetic(_sign)),
    "Slice": _moved(_slice),
    "Split": _split,
    "Squeeze": _moved(_squeeze),
    "Sub": _elementwise(_arithmetic(_subtract, _difference)),
    "Sum": _elementwise(_folded(_ADD)),
    "Tile": _moved(_tile),
    "Transpose": _moved(_transpose),
    "Unsqueeze": _moved(_unsqueeze),
    "Where": _elementwise(_where, of=1),
    "Xor": _elementwise(_xor, BOOL),
}
"""Operators that are known if all their operands are."""
