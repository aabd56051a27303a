"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transect.frontend.onnx.data_shapes import (
    bind_size,
    check_condition,
    dims_besides,
    is_among,
    reshape_to,
)
from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.operators.index import around_axis
from transect.frontend.onnx.values import as_dimension
from transect.ir.expr import Expr, IntImm, logical_or, select
from transect.ir.sizes import product
from transect.relax.expr import Value


def reduction_axes(node: Node, rank: int) -> tuple[int, ...] | None:
    """The axes to reduce, None for no reduction at all.

    They are an operand from opset 13 (ReduceSum) or 18 (the others), an attribute before; left
    out they mean all axes, unless `noop_with_empty_axes` is set.
    """
    given = node.integers(1, "axes") if node.has(1) else node.attribute("axes", [])
    if not given:
        return None if node.attribute("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(node.axis(axis, rank) for axis in given))


def reduction(
    name: str,
    before: Callable[[Node, Value], Value] | None = None,
    after: Callable[[Node, Value], Value] | None = None,
) -> tuple[Converter, ...]:
    """An entry that reduces with graph operator `name`, with maps before and after it."""

    def convert(node: Node) -> Result:
        value = node.value(0)
        unknown = node.has(1) and not node.is_constant(1)
        places = node.elements(1, "axes").values if unknown else ()
        value = value if before is None else before(node, value)
        if places:
            value = _reduced_by_data(node, name, value, places)
        else:
            axes = reduction_axes(node, len(node.shape(value)))
            if axes is not None:
                keepdims = node.attribute("keepdims", 1) == 1
                value = node.emit(name, value, axis=axes, keepdims=keepdims)
        return value if after is None else after(node, value)

    return one(convert)


def _reduced_by_data(node: Node, name: str, value: Value, axes: Sequence[Expr]) -> Value:
    """A reduction over axes that only a run knows, which must differ: one after the other, each
    between what is before and behind it."""
    rank = len(node.shape(value))
    for axis in axes:
        folded = around_axis(node, value, axis)
        dims = [
            bind_size(node, select(here, IntImm(1), as_dimension(dim)), "reduced")
            for here, dim in zip(is_among([axis], rank), node.shape(value), strict=True)
        ]
        value = reshape_to(node, node.emit(name, folded, axis=(1,), keepdims=True), dims)
    if node.attribute("keepdims", 1) == 1:
        return value
    reduced = is_among(axes, rank)
    kept = dims_besides(node, node.shape(value), reduced, rank - len(axes))
    return reshape_to(node, value, kept)


def _square(node: Node, value: Value) -> Value:
    return node.emit("multiply", value, value)


def _map(name: str) -> Callable[[Node, Value], Value]:
    return lambda node, value: node.emit(name, value)


def arg_reduction(name: str) -> tuple[Converter, ...]:
    """An entry that gives the index of the largest or smallest element along one axis."""

    def convert(node: Node) -> Result:
        value = node.value(0)
        axis = node.axis(node.attribute("axis", 0), len(node.shape(value)))
        keepdims = node.attribute("keepdims", 1) == 1
        dims = [*map(as_dimension, node.shape(value))]
        nothing_asked = product([*dims[:axis], *dims[axis + 1 :]]) <= 0
        check_condition(node, logical_or(dims[axis] > 0, nothing_asked), "axis_has_elements")
        last = node.attribute("select_last_index", 0) == 1
        return node.emit(name, value, axis=axis, keepdims=keepdims, select_last_index=last)

    return one(convert)


REDUCE: dict[str, tuple[Converter, ...]] = {
    "ReduceSum": reduction("sum"),
    "ReduceMean": reduction("mean"),
    "ReduceMax": reduction("max"),
    "ReduceMin": reduction("min"),
    "ReduceProd": reduction("prod"),
    "ReduceL1": reduction("sum", before=_map("abs")),
    "ReduceL2": reduction("sum", before=_square, after=_map("sqrt")),
    "ReduceSumSquare": reduction("sum", before=_square),
    "ReduceLogSum": reduction("sum", after=_map("log")),
    "ArgMax": arg_reduction("argmax"),
    "ArgMin": arg_reduction("argmin"),
}
"""Converters of reductions."""
