"""FunctionBuilder: a PrimFunc from `compute` and `reduce` steps and hand-written blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from transect.ir.dtype import HANDLE, INDEX, DType, as_dtype
from transect.ir.expr import Expr, ExprLike, Range, Var, as_expr, cast, true
from transect.ir.term import Term
from transect.ir.traverse import walk
from transect.ir.types import TensorType
from transect.support.errors import InputError, InputTypeError
from transect.support.span import Spans
from transect.tir.access import block_regions
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.buffer import buffer as make_buffer
from transect.tir.builder.combiner import COMBINERS, Combiner
from transect.tir.function import PrimFunc, buffer_fields
from transect.tir.stmt import (
    Bind,
    Block,
    BlockRealize,
    BufferStore,
    For,
    IterKind,
    IterVar,
    Stmt,
    realize_root,
    seq,
)
from transect.tir.visit import bound_buffers, bound_vars, own_terms, used_buffers, walk_stmts

_KINDS: dict[str, IterKind] = {"S": "spatial", "R": "reduce", "N": "scan", "O": "opaque"}


class FunctionBuilder:
    """Collects the steps of a tensor program; `finish` makes the PrimFunc.

    Shapes are tuples of integers and int64 expressions, () for one element. Each step adds one
    block in its own loops; names of buffers and blocks need not be unique.
    """

    def __init__(
        self, name: str = "main", *, attrs: Mapping[str, Any] | None = None, span: Spans = ()
    ) -> None:
        self.name = name
        self.attrs: dict[str, Any] = dict(attrs or {})
        self.span = span
        self._inputs: list[Buffer] = []
        self._scalars: list[Var] = []
        self._made: list[Buffer] = []
        self._steps: list[Stmt] = []

    # --- parameters

    def input(
        self,
        name: str,
        shape: TensorType | Sequence[ExprLike],
        dtype: DType | str | None = None,
        **options: Any,
    ) -> Buffer:
        """A new buffer parameter, of a tensor type or of a shape and dtype ("float32").

        options: of `tir.buffer.buffer` (strides, scope, …). Raises InputTypeError for a tensor type
        of unknown shape or dtype.
        """
        if isinstance(shape, TensorType):
            if shape.shape is None or (shape.dtype is None and dtype is None):
                raise InputTypeError(
                    f"the shape or dtype of {name!r} is not known, so its loops cannot be written",
                    remedy="match_cast the tensor to a type with symbolic dimensions first",
                )
            dtype = dtype or shape.dtype
            shape = shape.shape
        made = make_buffer(name, tuple(shape), dtype or "float32", **options)
        self._inputs.append(made)
        return made

    def scalar(self, name: str, dtype: DType | str = INDEX) -> Var:
        """A new scalar parameter. Scalars follow the buffers in the parameter list."""
        var = Var(name, dtype)
        self._scalars.append(var)
        return var

    def allocate(
        self,
        shape: Sequence[ExprLike],
        dtype: DType | str,
        *,
        name: str = "buffer",
        scope: str = "global",
    ) -> Buffer:
        """A buffer for hand-written blocks to fill: an intermediate one, or an output."""
        made = make_buffer(name, tuple(shape), dtype, scope=scope)
        self._made.append(made)
        return made

    # --- steps

    def compute(
        self,
        shape: Sequence[ExprLike],
        function: Callable[..., ExprLike],
        *,
        name: str = "compute",
        dtype: DType | str | None = None,
    ) -> Buffer:
        """A buffer with element [i, j, …] = function(i, j, …).

        dtype: that the value is cast to; that of the value by default.
        """
        axes = _axes(shape, "spatial", "i")
        indices = tuple(axis.var for axis in axes)
        value = function(*indices)
        expr = as_expr(value) if dtype is None else _as(value, as_dtype(dtype))
        target = self.allocate(shape, expr.dtype, name=name)
        self._add(name, axes, BufferStore(target, expr, indices))
        return target

    def reduce(
        self,
        shape: Sequence[ExprLike],
        reduce_shape: Sequence[ExprLike],
        function: Callable[..., ExprLike],
        combiner: str | Combiner = "sum",
        *,
        name: str = "reduce",
        dtype: DType | str | None = None,
    ) -> Buffer:
        """A buffer whose element [i, …] joins function(i, …, k, …) for all k, … in `reduce_shape`.

        combiner: a name of `COMBINERS` ("sum", "prod", "max", "min", "any", "all"), or one of one
        value. dtype: what to accumulate in; that of the value by default. Raises InputError for an
        unknown combiner. For tuples of values: `reduce_with`.
        """
        if isinstance(combiner, str):
            if combiner not in COMBINERS:
                known = ", ".join(COMBINERS)
                raise InputError(f"no combiner {combiner!r}", notes=[f"there are: {known}"])
            combiner = COMBINERS[combiner]
        (result,) = self.reduce_with(
            combiner,
            shape,
            reduce_shape,
            lambda *indices: (function(*indices),),
            names=(name,),
            dtypes=None if dtype is None else (dtype,),
        )
        return result

    def reduce_with(
        self,
        combiner: Combiner,
        shape: Sequence[ExprLike],
        reduce_shape: Sequence[ExprLike],
        function: Callable[..., Sequence[ExprLike]],
        *,
        names: Sequence[str] = ("reduce",),
        dtypes: Sequence[DType | str] | None = None,
    ) -> tuple[Buffer, ...]:
        """`reduce` by a combiner of one's own, over tuples: function gives a tuple of values, and
        the result is one buffer per item. With ARGMAX: (index, value)."""
        spatial = _axes(shape, "spatial", "i")
        reduced = _axes(reduce_shape, "reduce", "k")
        indices = tuple(axis.var for axis in spatial)
        values = function(*indices, *(axis.var for axis in reduced))
        given = [None] * len(values) if dtypes is None else [as_dtype(item) for item in dtypes]
        exprs = [
            as_expr(value) if kind is None else _as(value, kind)
            for value, kind in zip(values, given, strict=True)
        ]
        kinds = tuple(expr.dtype for expr in exprs)
        labels = [*names, *(f"{names[0]}_{i}" for i in range(len(names), len(exprs)))]
        targets = tuple(
            self.allocate(shape, kind, name=label)
            for kind, label in zip(kinds, labels, strict=True)
        )
        starts = [
            _as(start, kind) for start, kind in zip(combiner.identity(kinds), kinds, strict=True)
        ]
        current = tuple(BufferLoad(target, indices) for target in targets)
        joined = [
            _as(item, kind)
            for item, kind in zip(combiner.combine(current, tuple(exprs)), kinds, strict=True)
        ]
        init = seq(*_stores(targets, starts, indices))
        binds: list[Stmt] = []
        if len(targets) > 1:
            # Every new value is computed before the first old one is overwritten.
            news = [Var(f"{label}_new", kind) for label, kind in zip(labels, kinds, strict=True)]
            binds = [Bind(new, value) for new, value in zip(news, joined, strict=True)]
            joined = list[Expr](news)
        body = seq(*binds, *_stores(targets, joined, indices))
        self._add(labels[0], (*spatial, *reduced), body, init)
        return targets

    def block(
        self,
        extents: Sequence[ExprLike],
        function: Callable[..., Stmt],
        *,
        kinds: str | None = None,
        init: Callable[..., Stmt] | None = None,
        name: str = "block",
    ) -> None:
        """A block over loops of these extents whose body is the statement function(i, j, …).

        kinds: a letter per axis, as in T.axis.remap: S spatial, R reduce, N scan (in order),
        O opaque; all spatial by default. init: the statement that starts a reduction. The regions
        are found from the accesses. For what `compute` and `reduce` cannot say: scans, scatters.
        """
        letters = kinds or "S" * len(extents)
        if len(letters) != len(extents) or set(letters) - set(_KINDS):
            raise InputError(
                f"kinds={letters!r} for {len(extents)} axes", remedy="one of SRNO each"
            )
        axes = tuple(
            _axis(extent, _KINDS[letter], f"i{number}")
            for number, (extent, letter) in enumerate(zip(extents, letters, strict=True))
        )
        indices = tuple(axis.var for axis in axes)
        start = None if init is None else init(*indices)
        self._add(name, axes, function(*indices), start)

    def emit(self, stmt: Stmt) -> None:
        """A statement as it is, after the steps so far: loops with blocks, or a call."""
        self._steps.append(stmt)

    def _add(
        self, name: str, axes: tuple[IterVar, ...], body: Stmt, init: Stmt | None = None
    ) -> None:
        self._steps.append(loop_nest(name, axes, body, init, self.span))

    # --- the end

    def finish(self, outputs: Buffer | Iterable[Buffer]) -> PrimFunc:
        """The PrimFunc of all steps.

        Parameters: the inputs, the outputs (destination-passing), the scalars, and the symbolic
        variables that no buffer binds, in order of appearance, as scalars. An output that is an
        input, or given twice, is copied. Buffers made in between are allocated in the root block.
        """
        wanted = (outputs,) if isinstance(outputs, Buffer) else tuple(outputs)
        results: list[Buffer] = []
        for item in wanted:
            fresh = item in self._made and item not in results
            results.append(item if fresh else self._copy(item))
        buffers = (*self._inputs, *results)
        temporaries = tuple(item for item in self._made if item not in results)
        body = realize_root(seq(*self._steps), temporaries, span=self.span)
        handles = [Var(item.name, HANDLE) for item in buffers]
        params = (*handles, *self._scalars, *self._unbound(buffers, temporaries, body))
        attrs = {"global_symbol": self.name, **self.attrs}
        return PrimFunc(params, dict(zip(handles, buffers, strict=True)), body, attrs, self.span)

    def _copy(self, source: Buffer) -> Buffer:
        return self.compute(
            source.shape, lambda *indices: source[indices], name=f"{source.name}_copy"
        )

    def _unbound(
        self, buffers: Sequence[Buffer], temporaries: Sequence[Buffer], body: Stmt
    ) -> tuple[Var, ...]:
        plain = (field for item in buffers for field in buffer_fields(item))
        known: set[Var] = {item for item in plain if isinstance(item, Var)} | set(self._scalars)
        known.update(item.data for item in (*buffers, *temporaries))
        roots: list[Term] = []
        for item in (*buffers, *temporaries):
            roots.extend(buffer_fields(item))
        for stmt in walk_stmts(body):
            known.update(bound_vars(stmt))
            known.update(item.data for item in bound_buffers(stmt))
            roots.extend(own_terms(stmt))
        roots.extend(field for item in used_buffers(body) for field in buffer_fields(item))
        return tuple(item for item in walk(*roots) if isinstance(item, Var) and item not in known)


def loop_nest(
    name: str, axes: Sequence[IterVar], body: Stmt, init: Stmt | None = None, span: Spans = ()
) -> Stmt:
    """A block in serial loops of its own, one for each of its variables.

    The regions are found from the accesses.
    """
    parts = (body,) if init is None else (init, body)
    reads, writes = block_regions(*parts)
    loops = [Var(axis.var.name.removeprefix("v_"), axis.var.dtype) for axis in axes]
    block = Block(name, tuple(axes), reads, writes, body, init, span=span)
    stmt: Stmt = BlockRealize(tuple(loops), true(), block, span=span)
    for var, axis in zip(reversed(loops), reversed(axes), strict=True):
        stmt = For(var, axis.dom.min, axis.dom.extent, "serial", stmt, span=span)
    return stmt


def _axis(extent: ExprLike, kind: IterKind, name: str) -> IterVar:
    stop = as_expr(extent, INDEX)
    return IterVar(Var(f"v_{name}", stop.dtype), Range.of(stop), kind)


def _axes(shape: Sequence[ExprLike], kind: IterKind, letter: str) -> tuple[IterVar, ...]:
    return tuple(_axis(extent, kind, f"{letter}{number}") for number, extent in enumerate(shape))


def _as(value: ExprLike, dtype: DType) -> Expr:
    return cast(as_expr(value, None if isinstance(value, Expr) else dtype), dtype)


def _stores(
    targets: Sequence[Buffer], values: Sequence[Expr], indices: tuple[Var, ...]
) -> list[Stmt]:
    return [
        BufferStore(target, value, indices) for target, value in zip(targets, values, strict=True)
    ]
