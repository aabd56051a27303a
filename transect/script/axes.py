"""The names of T that are objects: `T.Buffer`, `T.axis`, `T.serial` and its siblings; ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from transect.arith import Analyzer
from transect.ir.dtype import DType, as_dtype
from transect.ir.expr import Add, Expr, ExprLike, IntImm, Range, promote
from transect.script import directives as d
from transect.support.errors import InputTypeError
from transect.tir.stmt import ForKind


def make_range(start: ExprLike, stop: ExprLike) -> Range:
    """[start, stop). From `a` to `a + b` the extent is `b` exactly; others are simplified."""
    low, high = promote(start, stop)
    if isinstance(low, IntImm) and low.value == 0:
        return Range(low, high)
    if isinstance(high, Add) and high.a is low:
        return Range(low, high.b)
    if isinstance(high, Add) and high.b is low:
        return Range(low, high.a)
    extent = high - low
    return Range(low, extent if isinstance(extent, IntImm) else Analyzer().simplify(extent))


def scalar_dtype(value: Any) -> DType:
    """The dtype that an argument spells: "float32", T.float32, a DType, a numpy dtype."""
    return value.dtype if isinstance(value, d.ScalarName) else as_dtype(value)


def as_items(value: Any) -> tuple[Any, ...]:
    """A shape, strides or indices as a tuple; one item stands for itself."""
    return tuple(value) if is_items(value) else (value,)


def is_items(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether a value is a Python list or tuple."""
    return isinstance(value, list | tuple)


@dataclass(frozen=True)
class BufferName:
    """`T.Buffer((n, d), "float32")` and `T.Buffer[(n, d), "float32"]`: the type of a buffer."""

    def __call__(
        self,
        shape: Any,
        dtype: Any = "float32",
        data: Any = None,
        strides: Any = None,
        elem_offset: Any = None,
        scope: str = "global",
        align: int = 64,
        offset_factor: int = 1,
        buffer_type: str = "",
        axis_separators: Sequence[int] | None = None,
        layout: str | None = None,
    ) -> d.BufferSpec:
        """A buffer's description. align: bytes; -1 and 0 mean the default, as in TVM."""
        if buffer_type not in ("", "auto"):
            raise InputTypeError(f"no such buffer_type: {buffer_type!r}")
        return d.BufferSpec(
            as_items(shape),
            scalar_dtype(dtype),
            data,
            () if strides is None else as_items(strides),
            elem_offset,
            scope,
            align if align > 0 else 64,
            max(offset_factor, 1),
            tuple(axis_separators or ()),
            layout,
        )

    def __getitem__(self, arguments: Any) -> d.BufferSpec:
        if isinstance(arguments, tuple) and len(arguments) == 2 and not _is_dim(arguments[1]):  # pyright: ignore[reportUnknownArgumentType]
            return self(arguments[0], arguments[1])
        return self(arguments)


def _is_dim(value: Any) -> bool:
    if isinstance(value, Expr | int):
        return True
    try:
        scalar_dtype(value)
    except (InputTypeError, TypeError):
        return True
    return False


@dataclass(frozen=True)
class LoopName:
    """`T.serial(stop)`, `T.serial(start, stop)`, with annotations, and its siblings."""

    kind: ForKind

    def __call__(
        self,
        start: Any,
        stop: Any = None,
        *,
        annotations: Mapping[str, Any] | None = None,
        dtype: Any = None,
    ) -> d.Loops:
        """One loop."""
        bounds = (0, start) if stop is None else (start, stop)
        return d.Loops(
            self.kind,
            (bounds,),
            None,
            annotations or {},
            None if dtype is None else scalar_dtype(dtype),
        )


class AxisNames:
    """`T.axis`: the iteration variables of a block."""

    def spatial(self, domain: Any, value: Any = None, dtype: Any = None) -> d.Axis:
        """An axis whose instances are independent. domain: its extent, or (start, stop)."""
        return d.Axis("spatial", domain, value, None if dtype is None else scalar_dtype(dtype))

    def reduce(self, domain: Any, value: Any = None, dtype: Any = None) -> d.Axis:
        """An axis over which instances accumulate."""
        return d.Axis("reduce", domain, value, None if dtype is None else scalar_dtype(dtype))

    def scan(self, domain: Any, value: Any = None, dtype: Any = None) -> d.Axis:
        """An axis whose instances run in order."""
        return d.Axis("scan", domain, value, None if dtype is None else scalar_dtype(dtype))

    def opaque(self, domain: Any, value: Any = None, dtype: Any = None) -> d.Axis:
        """An axis of which nothing is known."""
        return d.Axis("opaque", domain, value, None if dtype is None else scalar_dtype(dtype))

    S = spatial
    R = reduce

    def remap(self, kinds: str, values: Any, dtype: Any = None) -> d.AxisRemap:
        """Axes over the whole range of loops: `vi, vk = T.axis.remap("SR", [i, k])`."""
        del dtype
        return d.AxisRemap(kinds, as_items(values))
