"""Sequences and optionals whose length is known while importing: nothing is left of them to run.

Exporters write them for chunks, splits and lists of layers' results. Those whose length only the
run knows are not covered.
"""

from __future__ import annotations

import onnx

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.operators.shape import parts_of
from transect.frontend.onnx.values import Elements, Operand, as_dimension
from transect.ir.dtype import BOOL
from transect.ir.expr import IntImm, as_int
from transect.relax.expr import make_tuple


def _sequence(*items: Operand) -> Operand:
    return Operand(None, items=items)


def _items(node: Node, index: int) -> tuple[Operand, ...]:
    """The elements of the sequence that operand `index` is."""
    items = node.operand(index).items
    if items is None:
        raise node.error(f"operand {index} is not a sequence", "the model is not valid ONNX")
    return items


def _position(node: Node, index: int, count: int) -> int:
    """Operand `index` as a position among `count`; it may count from the end."""
    (position,) = node.integers(index, "position")
    if not -count <= position < count:
        raise node.error(f"position {position} of a sequence of {count}")
    return position % count


def construct(node: Node) -> Result:
    """The operands in order."""
    return _sequence(*(node.operand(index) for index in range(len(node.operands))))


def at(node: Node) -> Result:
    """One element."""
    items = _items(node, 0)
    return items[_position(node, 1, len(items))]


def insert(node: Node) -> Result:
    """One more element, the last if no position is given."""
    items = _items(node, 0)
    place = len(items)
    if node.has(2):
        (place,) = node.integers(2, "position")
        if not -len(items) <= place <= len(items):
            raise node.error(f"position {place} of a sequence of {len(items)}")
        place += len(items) if place < 0 else 0
    return _sequence(*items[:place], node.operand(1), *items[place:])


def erase(node: Node) -> Result:
    """One element less, the last if no position is given."""
    items = _items(node, 0)
    if not items:
        raise node.error("the sequence has no elements")
    place = _position(node, 1, len(items)) if node.has(1) else len(items) - 1
    return _sequence(*items[:place], *items[place + 1 :])


def length(node: Node) -> Result:
    """The number of elements."""
    return Operand(None, Elements((IntImm(len(_items(node, 0))),), 0))


def split_to_sequence(node: Node) -> Result:
    """A tensor cut along `axis`: into parts of given sizes, of one size, or of size 1."""
    value = node.value(0)
    dims = node.shape(value)
    axis = node.axis(node.attribute("axis", 0), len(dims))
    extent = as_dimension(dims[axis])
    if node.has(1) and len(node.shape(node.value(1))) == 1:
        sizes = [as_dimension(item) for item in node.sizes(1, "sizes").values]
    else:
        (part,) = node.integers(1, "size") if node.has(1) else (1,)
        whole = as_int(extent)
        if whole is None or part < 1:
            raise node.error(
                f"parts of {part} of an axis of {extent!r}",
                "the number of parts must be known while importing",
            )
        sizes = [IntImm(min(part, whole - begin)) for begin in range(0, whole, part)]
    parts = parts_of(node, value, axis, sizes)
    if not node.has(1) and not node.attribute("keepdims", 1):
        parts = [node.emit("squeeze", part, axis=axis) for part in parts]
    return _sequence(*map(Operand, parts))


def concat_from_sequence(node: Node) -> Result:
    """The elements joined along an axis of theirs, or along a new one."""
    values = [node.tensor(item) for item in _items(node, 0)]
    if not values:
        raise node.error("the sequence has no elements")
    if "axis" not in node.attributes:
        raise node.error("the attribute axis is missing", "the model is not valid ONNX")
    is_new = node.attribute("new_axis", 0) == 1
    axis = node.axis(node.attribute("axis", 0), len(node.shape(values[0])) + is_new)
    if is_new:
        values = [node.emit("expand_dims", value, axis=axis) for value in values]
    return values[0] if len(values) == 1 else node.emit("concat", make_tuple(*values), axis=axis)


def sequence_map(node: Node) -> Result:
    """A subgraph for each element of the first sequence, and of all others; tensors are passed as
    they are."""
    body: onnx.GraphProto | None = node.attribute("body", None)
    if body is None:
        raise node.error("the attribute body is missing", "the model is not valid ONNX")
    operands = [node.operand(index) for index in range(len(node.operands))]
    count = len(_items(node, 0))
    if any(item.items is not None and len(item.items) != count for item in operands):
        raise node.error("the sequences differ in length")
    rows: list[list[Operand]] = []
    for number in range(count):
        scope = node.scope.branch()
        for item, operand in zip(body.input, operands, strict=True):
            scope.define(item.name, operand if operand.items is None else operand.items[number])
        rows.append(node.run_graph(body, scope))
    columns = zip(*rows, strict=True) if rows else [()] * node.outputs
    return [_sequence(*column) for column in columns]


def optional(node: Node) -> Result:
    """The operand, or nothing."""
    return node.operand(0) if node.has(0) else Operand(None)


def has_element(node: Node) -> Result:
    """Whether there is an operand that is not an optional without a value."""
    found = node.has(0) and not node.operand(0).is_nothing
    return Operand(None, Elements((IntImm(int(found)),), 0, BOOL))


def get_element(node: Node) -> Result:
    """The operand, which must not be nothing."""
    if node.operand(0).is_nothing:
        raise node.error("the optional has no value")
    return node.operand(0)


SEQUENCE: dict[str, tuple[Converter, ...]] = {
    "ConcatFromSequence": one(concat_from_sequence),
    "Optional": one(optional),
    "OptionalGetElement": one(get_element),
    "OptionalHasElement": one(has_element),
    "SequenceAt": one(at),
    "SequenceConstruct": one(construct),
    "SequenceEmpty": one(construct),
    "SequenceErase": one(erase),
    "SequenceInsert": one(insert),
    "SequenceLength": one(length),
    "SequenceMap": one(sequence_map),
    "SplitToSequence": one(split_to_sequence),
}
"""Converters of sequences and optionals."""
