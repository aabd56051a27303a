"""What the statement-level names of T, R and I evaluate to: descriptions that the parser acts on.

Expressions need none: they evaluate to IR at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from transect.ir.dtype import DType, as_dtype
from transect.ir.expr import Expr, Pointer, Var, as_expr, cast, const
from transect.ir.term import Term
from transect.support.errors import InputTypeError
from transect.target import Target
from transect.tir.buffer import Buffer, BufferRegion
from transect.tir.index_map import IndexMap
from transect.tir.reducer import CommReducer
from transect.tir.stmt import ForKind, IterKind


class FreshVar(Var):
    """A variable that `T.int64()` just made; the assignment that follows gives it a name."""

    __slots__ = ()


@dataclass(frozen=True)
class ScalarName:
    """`T.float32`: a dtype, the constructor of its constants, and an annotation."""

    dtype: DType

    def __call__(self, value: Any = None) -> Expr:
        """T.float32(x): a constant or a cast; without x, a new variable. Strings: "inf", "nan"."""
        if value is None:
            return FreshVar("v", self.dtype)
        if isinstance(value, str):
            return const(float(value), self.dtype)
        if isinstance(value, Expr):
            return cast(value, self.dtype)
        if self.dtype.is_integral and isinstance(value, float) and not value.is_integer():
            raise InputTypeError(
                f"{value} is not an integer", remedy=f'T.Cast("{self.dtype}", ...) truncates'
            )
        return as_expr(value, self.dtype)

    def __repr__(self) -> str:
        return f"T.{self.dtype}"


@dataclass(frozen=True)
class HandleName:
    """`T.handle`: an opaque pointer; `T.handle("float32", "shared")`: a typed one."""

    def __call__(
        self, element: Any = None, scope: str = "global", *, storage_scope: str | None = None
    ) -> FreshVar:
        """A new pointer variable; as an annotation, the type of one."""
        if element is None:
            return FreshVar("p", "handle")
        kind = element.dtype if isinstance(element, ScalarName) else as_dtype(element)
        return FreshVar("p", "handle", Pointer(kind, storage_scope or scope))

    def __repr__(self) -> str:
        return "T.handle"


@dataclass(frozen=True)
class BufferSpec:
    """`T.Buffer(...)`: shape and strides may hold strings, which name symbolic dimensions."""

    shape: tuple[Any, ...]
    dtype: DType
    data: Var | None = None
    strides: tuple[Any, ...] = ()
    elem_offset: Any = None
    scope: str = "global"
    align: int = 64
    offset_factor: int = 1
    axis_separators: tuple[int, ...] = ()
    layout: str | None = None


@dataclass(frozen=True)
class MatchBuffer:
    """`T.match_buffer(parameter or region, ...)`."""

    source: Any
    spec: BufferSpec


@dataclass(frozen=True)
class AllocBuffer:
    """`T.alloc_buffer(...)`, in a block."""

    spec: BufferSpec


@dataclass(frozen=True)
class DeclareBuffer:
    """`T.decl_buffer(...)`; without data it allocates, too."""

    spec: BufferSpec


@dataclass(frozen=True)
class AllocateSpec:
    """`T.allocate(...)`: flat memory."""

    extents: tuple[Any, ...]
    dtype: DType
    scope: str
    annotations: Mapping[str, Any]
    var: Var | None


@dataclass(frozen=True)
class AllocateConstSpec:
    """`T.allocate_const(...)`."""

    data: Any
    dtype: DType
    extents: tuple[int, ...]
    var: Var | None


@dataclass(frozen=True)
class Loops:
    """What a `for` runs over: one loop per (start, stop)."""

    kind: ForKind
    bounds: tuple[tuple[Any, Any], ...]
    thread: str | None = None
    annotations: Mapping[str, Any] = field(default_factory=dict[str, Any])
    dtype: DType | None = None


@dataclass(frozen=True)
class BlockFrame:
    """`with T.block(name):`."""

    name: str
    no_realize: bool = False


@dataclass(frozen=True)
class InitFrame:
    """`with T.init():`."""


@dataclass(frozen=True)
class ScopeFrame:
    """`with T.scope():`: a sequence that limits the life of what it allocates."""


@dataclass(frozen=True)
class AttrFrame:
    """`with T.attr(node, key, value):`, or for the rest of the suite without `with`."""

    node: Any
    key: str
    value: Any


@dataclass(eq=False)
class EnvThread:
    """`tx = T.env_thread("threadIdx.x")`: a thread axis that `T.launch_thread` starts."""

    thread: str
    name: str = ""


@dataclass(frozen=True)
class LaunchThread:
    """`T.launch_thread(axis, extent)`, with or without `with`."""

    thread: EnvThread | str
    extent: Any


@dataclass(frozen=True)
class LetFrame:
    """`with T.LetStmt(value, var=x):`."""

    value: Any
    var: Var | None


@dataclass(frozen=True)
class AssertDirective:
    """`T.Assert(condition, message, kind=...)`, with or without `with`."""

    condition: Any
    message: tuple[Any, ...]
    kind: str


@dataclass(frozen=True)
class Axis:
    """`T.axis.spatial(domain, value)` and its siblings."""

    kind: IterKind
    domain: Any
    value: Any
    dtype: DType | None


@dataclass(frozen=True)
class AxisRemap:
    """`T.axis.remap("SR", [i, j])`."""

    kinds: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Regions:
    """`T.reads(...)` or `T.writes(...)`."""

    role: Literal["reads", "writes"]
    regions: tuple[BufferRegion, ...]


@dataclass(frozen=True)
class Where:
    """`T.where(condition)`."""

    condition: Any


@dataclass(frozen=True)
class Attributes:
    """`T.func_attr`, `T.block_attr`, `R.func_attr`, `I.module_attrs`, `I.module_global_infos`."""

    role: Literal["function", "block", "module", "global_infos"]
    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputTypeError(
                f"attributes are a dictionary, got a {type(self.values).__name__}",
                remedy='for example {"key": 1}',
            )
        for key, value in self.values.items():
            if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InputTypeError(
                    f"the attribute {key!r} has no name", remedy="keys are strings"
                )
            if self.role != "global_infos":
                _check_attribute(key, value)


def _check_attribute(key: str, value: Any) -> None:
    """Raise InputTypeError for a value that would not print as script."""
    if value is None or isinstance(value, str | bool | int | float | Term | Buffer):
        return
    if isinstance(value, Target | IndexMap | CommReducer | np.ndarray | np.generic):
        return
    if isinstance(value, Mapping):
        items: list[Any] = [*value.keys(), *value.values()]  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, tuple | list | set | frozenset):
        items = list(value)  # pyright: ignore[reportUnknownArgumentType]
    else:
        raise InputTypeError(
            f"the attribute {key!r} holds a {type(value).__name__}",
            remedy="attributes are strings, numbers, terms, targets, index maps, and lists, tuples"
            " and dictionaries of those",
        )
    for item in items:
        _check_attribute(key, item)


@dataclass(frozen=True)
class EvaluateDirective:
    """`T.evaluate(expression)`."""

    value: Any


@dataclass(frozen=True)
class StoreDirective:
    """`T.buffer_store(...)` and `A.vstore(...)`."""

    buffer: Buffer
    indices: tuple[Any, ...]
    value: Any
    predicate: Any = None


@dataclass(frozen=True)
class BindDirective:
    """`T.bind(value)`, `T.let(value)`: bind a value to a variable of the program."""

    value: Any


@dataclass(frozen=True)
class MetaVar:
    """`T.meta_var(value)`: a value of the Python program, substituted where it is used."""

    value: Any


@dataclass(frozen=True)
class LetName:
    """`x: T.let = value` and `x: T.let[T.int32] = value`, and the function `T.let(value)`."""

    kind: Any = None

    def __getitem__(self, kind: Any) -> LetName:
        return LetName(kind)

    def __call__(self, value: Any) -> BindDirective:
        """Bind a value."""
        return BindDirective(value)


@dataclass(frozen=True)
class ConstantReference:
    """`I.constant`: the parser looks the array up among those it was given."""


@dataclass(frozen=True)
class ConstantsFile:
    """`I.constants("constants.npz")`: where the arrays of the text are, beside its file."""

    path: str


@dataclass(frozen=True)
class ScriptFunction:
    """A decorated function in a class that is not parsed yet: I.ir_module does that."""

    dialect: Literal["tir", "relax", "python"]
    function: Callable[..., Any]
    options: Mapping[str, Any]
