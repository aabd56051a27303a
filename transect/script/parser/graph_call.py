"""Calls of operators in graph functions: from Python arguments to operands and attributes.

The operators that call functions (R.call_tir and its siblings) have rules of their own here.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from transect.ir.dtype import as_dtype
from transect.ir.expr import Expr, GlobalVar, as_expr
from transect.ir.types import ObjectType, TensorType, TupleType, Type, tensor_type
from transect.relax import call as rc
from transect.relax import expr as rx
from transect.relax.block_builder import call_tir_type
from transect.relax.op import find_operator
from transect.relax.op.layout import AxisMap
from transect.script import graph_directives as g
from transect.script.axes import as_items, is_items, scalar_dtype
from transect.script.parser.diagnostics import suggest
from transect.script.parser.graph_types import TypeParser, find_device
from transect.support.errors import InferenceError, InputError
from transect.support.span import Spans
from transect.tir.function import PrimFunc
from transect.tir.index_map import IndexMap, index_map

TYPE_KEYWORDS = ("out_sinfo", "out_ty", "out_type", "sinfo_args", "ty_args", "type_args")
"""The names under which types are given to a call, now and in the past."""


class CallParser(TypeParser):
    """Turns calls of `R.<operator>` into graph calls."""

    # --- operands ---------------------------------------------------------------------------

    def operand(self, value: Any, node: ast.AST) -> rx.Value:
        """A Python value as a graph value: numbers are scalars, tuples of them shapes."""
        if isinstance(value, rx.Value):
            return value
        if value is None:
            return rx.make_tuple()
        if isinstance(value, GlobalVar):
            return self.global_func(value)
        if isinstance(value, str):
            return rx.StringValue(value, ObjectType())
        if isinstance(value, np.ndarray):
            return rx.constant(value)
        if isinstance(value, Expr | int | float | np.generic):
            return rx.prim_value(as_expr(value))  # pyright: ignore[reportArgumentType]
        if is_items(value):
            items: list[Any] = list(value)
            if items and any(isinstance(item, rx.Value) for item in items):
                return rx.make_tuple(*(self.operand(item, node) for item in items))
            if all(isinstance(item, Expr | int) for item in items):
                return rx.shape_expr(*items)
        if isinstance(value, g.MatchCastSpec):
            raise self.error(
                "R.match_cast binds a variable and stands alone", node, "y = R.match_cast(x, type)"
            )
        raise self.error(
            f"a {type(value).__name__} is no value of a graph", node, "R.const(...) makes a tensor"
        )

    def global_func(self, callee: GlobalVar) -> rx.GlobalFunc:
        """A reference to a function of the module."""
        module = self.environment.module
        kind = None if module is None else module.function_type(callee.name)
        return rc.global_func(callee.name, kind)

    def callee(self, value: Any, node: ast.AST) -> rx.Value:
        """The function that a special operator calls; a string names a packed function."""
        if isinstance(value, str):
            return rc.extern(value)
        return self.operand(value, node)

    def packed_tuple(self, value: Any, node: ast.AST) -> rx.Value:
        """The inputs of a destination-passing call: a tuple, or one value for itself."""
        if is_items(value):
            return rx.make_tuple(*(self.operand(item, node) for item in value))
        operand = self.operand(value, node)
        is_tuple = isinstance(operand.type, TupleType)
        return operand if is_tuple else rx.make_tuple(operand)

    # --- operators --------------------------------------------------------------------------

    def operator(
        self, name: str, args: list[Any], keywords: dict[str, Any], node: ast.AST
    ) -> rx.Value:
        """`R.<name>(*args, **keywords)`."""
        special = _SPECIAL.get(name)
        if special is not None:
            return special(self, name, args, dict(keywords), node)
        kind = find_operator(name)
        types = self.type_arguments(keywords, node)
        operands, fields = self.bind_arguments(name, kind, args, keywords, node)
        op = self.guarded(lambda: kind(**fields), node)
        try:
            return self.infer(
                op,
                [self.operand(item, node) for item in operands],
                operands,
                types,
                self.source.span(node),
            )
        except InferenceError as error:
            error.remedy = error.remedy or f"it is {_usage(name, kind)}"
            raise

    def infer(
        self,
        op: rx.Op,
        operands: list[rx.Value],
        given: Sequence[Any],
        types: tuple[Type, ...],
        span: Spans,
    ) -> rx.Value:
        """The call, its type inferred. A Python number takes the dtype of the first tensor where
        its own does not fit."""
        try:
            return op(*operands, type_args=types, span=span)
        except InferenceError:
            adapted = self._adapted(operands, given)
            if adapted is None:
                raise
            try:
                return op(*adapted, type_args=types, span=span)
            except InferenceError:
                pass
            raise

    def _adapted(self, operands: list[rx.Value], given: Sequence[Any]) -> list[rx.Value] | None:
        dtypes = [
            item.type.dtype
            for item in operands
            if isinstance(item.type, TensorType) and item.type.dtype
        ]
        if not dtypes or not any(isinstance(item, int | float) for item in given):
            return None
        return [
            rx.prim_value(as_expr(value, dtypes[0])) if isinstance(value, int | float) else operand
            for operand, value in zip(operands, given, strict=True)
        ]

    def bind_arguments(
        self, name: str, kind: type[rx.Op], args: list[Any], keywords: dict[str, Any], node: ast.AST
    ) -> tuple[list[Any], dict[str, Any]]:
        """Arguments as operands and attributes: positional ones fill operands, then attributes."""
        signature = operands_of(kind)
        attributes = {item.name: item for item in dataclasses.fields(kind)}
        order: tuple[str, ...] = getattr(kind, "script_order", ())
        if order:
            twice = next((key for key in order[: len(args)] if key in keywords), None)
            if len(args) > len(order) or twice is not None:
                what = f"{twice!r} twice" if twice else f"{len(args)} arguments"
                raise self.error(f"R.{name} got {what}", node, f"R.{name}({', '.join(order)})")
            keywords, args = {**dict(zip(order, args, strict=False)), **keywords}, []
        operands: list[Any] = []
        fields: dict[str, Any] = {}
        named = list(signature.names)
        free = list(attributes)
        for value in args:
            if len(operands) < len(named) or signature.variadic:
                operands.append(value)
            elif free:
                fields[free.pop(0)] = value
            else:
                raise self.error(
                    f"R.{name} takes {len(named) + len(attributes)} arguments, got {len(args)}",
                    node,
                    _usage(name, kind),
                )
        for key, value in keywords.items():
            if key in TYPE_KEYWORDS:
                continue
            if key in named and named.index(key) >= len(operands):
                operands += [_ABSENT] * (named.index(key) - len(operands)) + [value]
            elif key in named and operands[named.index(key)] is _ABSENT:
                operands[named.index(key)] = value
            elif key in attributes and key not in fields:
                fields[key] = value
            elif key in named or key in fields:
                raise self.error(f"R.{name} got {key!r} twice", node, _usage(name, kind))
            else:
                raise self.error(
                    f"R.{name} has no argument {key!r}",
                    node,
                    suggest(key, [*named, *attributes], _usage(name, kind)),
                )
        missing = [item for item in named[len(operands) :] if item in signature.required]
        missing += [
            item
            for item, value in zip(named, operands, strict=False)
            if value is _ABSENT and item in signature.required
        ]
        missing += [
            key
            for key, item in attributes.items()
            if key not in fields
            and item.default is dataclasses.MISSING
            and item.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise self.error(f"R.{name} needs {', '.join(missing)}", node, _usage(name, kind))
        operands = [None if value is _ABSENT else value for value in operands]
        while (
            operands
            and operands[-1] is None
            and len(operands) <= len(named)
            and named[len(operands) - 1] not in signature.required
        ):
            operands.pop()
        return operands, {
            key: self.attribute_value(value, attributes[key]) for key, value in fields.items()
        }

    def attribute_value(self, value: Any, field: dataclasses.Field[Any]) -> Any:
        """An attribute as the operator keeps it: constants of Python, dtypes as such."""
        kind = str(field.type)
        if "VDevice" in kind:
            return find_device(self.environment, value)
        if "AxisMap" in kind and value is not None:
            if callable(value):
                value = index_map(value, list(inspect.signature(value).parameters))
            return AxisMap.of(value) if isinstance(value, IndexMap) else value
        value = _constant(value)
        if "DType" in kind and value is not None and not is_items(value):
            return scalar_dtype(value)
        return value

    # --- calls of functions -----------------------------------------------------------------

    def type_arguments(self, keywords: dict[str, Any], node: ast.AST) -> tuple[Type, ...]:
        """The types given by keyword."""
        for key in TYPE_KEYWORDS:
            if key in keywords:
                value = keywords.pop(key)
                return tuple(self.type(item, node) for item in as_items(value))
        return ()

    def out_type(
        self, value: Any, dtype: Any, callee: rx.Value, inputs: rx.Value, node: ast.AST
    ) -> Type:
        """The type of a destination-passing call's result; a bare shape takes its dtype from the
        callee's buffer."""
        if isinstance(value, rx.ShapeExpr):
            value = value.values
        if not is_items(value):
            return self.type(value, node)
        items = list(value)
        if items and all(isinstance(item, g.TypeSpec | Type) for item in items):
            return TupleType(tuple(self.type(item, node) for item in items))
        several = bool(items) and all(
            isinstance(item, tuple | list | rx.ShapeExpr) for item in items
        )
        shapes = (
            [item.values if isinstance(item, rx.ShapeExpr) else item for item in items]
            if several
            else [items]
        )
        dtypes = (
            [scalar_dtype(item) for item in as_items(dtype)]
            if dtype is not None
            else self._out_dtypes(callee, inputs, len(shapes), node)
        )
        kinds = [
            tensor_type(tuple(self.dimension(item, node) for item in dims), kind)
            for dims, kind in zip(shapes, dtypes, strict=True)
        ]
        return TupleType(tuple(kinds)) if several else kinds[0]

    def _out_dtypes(
        self, callee: rx.Value, inputs: rx.Value, count: int, node: ast.AST
    ) -> list[Any]:
        function = self.callee_function(callee)
        if function is None:
            raise self.error(
                "the dtype of the result is not known",
                node,
                'give its type: R.Tensor((n, m), "float32")',
            )
        given = len(inputs.type.items) if isinstance(inputs.type, TupleType) else 0
        outputs = function.buffers[given:]
        if len(outputs) != count:
            raise self.error(
                f"{callee_label(callee)} has {len(function.buffers)} buffers: "
                f"{len(outputs)} outputs after {given} inputs, got {count} shapes",
                node,
                "inputs come first, then outputs, as in its parameters",
            )
        return [item.dtype for item in outputs]

    def callee_function(self, callee: rx.Value) -> PrimFunc | None:
        """The tensor program that a reference names, if it is known."""
        module = self.environment.module
        if not isinstance(callee, rx.GlobalFunc) or module is None:
            return None
        found = module.function(callee.name)
        return found if isinstance(found, PrimFunc) else None

    def call_tir(
        self, name: str, args: list[Any], keywords: dict[str, Any], node: ast.AST
    ) -> rx.Value:
        """R.call_tir(f, inputs, out_type, tir_vars=), R.call_dps(shape, f, inputs) and siblings."""
        if args and name == "call_dps" and isinstance(args[0], tuple | list | rx.ShapeExpr):
            args = [*args[1:3], args[0], *args[3:]]
        names = ["function", "args", "out"]
        values = dict(zip(names, args, strict=False))
        extra = args[3:]
        for key in TYPE_KEYWORDS:
            if key in keywords:
                values["out"] = keywords.pop(key)
        for old, new in (("func", "function"), ("gvar", "function")):
            if old in keywords:
                values[new] = keywords.pop(old)
        if "args" in keywords:
            values["args"] = keywords.pop("args")
        if "function" not in values or "args" not in values:
            raise self.error(
                f"R.{name} needs a function and its inputs",
                node,
                f"R.{name}(f, (x, y), R.Tensor(...))",
            )
        callee, inputs = (
            self.callee(values["function"], node),
            self.packed_tuple(values["args"], node),
        )
        dtype = keywords.pop("dtype", None)
        fields: dict[str, Any] = {}
        if name in ("call_tir_inplace", "call_inplace_packed"):
            indices = keywords.pop("inplace_indices", None)
            if indices is None and len(args) > 2 and not isinstance(args[2], g.TypeSpec):
                indices = args[2]
                values["out"] = extra[0] if extra else values.get("out")
                extra = extra[1:]
            fields["inplace_indices"] = tuple(as_items(indices if indices is not None else 0))
        tir_vars = keywords.pop("tir_vars", extra[0] if extra else None)
        if keywords:
            key = next(iter(keywords))
            raise self.error(
                f"R.{name} has no argument {key!r}",
                node,
                suggest(
                    key,
                    ["out_sinfo", "tir_vars", "dtype"],
                    f"R.{name}(f, (x, y), out_sinfo=R.Tensor(...), tir_vars=R.shape([...]))",
                ),
            )
        out = values.get("out")
        if out is None:
            kind = self._inferred_out(callee, inputs, tir_vars, node)
        else:
            kind = self.out_type(out, dtype, callee, inputs, node)
        operands = (
            [callee, inputs] if tir_vars is None else [callee, inputs, self.operand(tir_vars, node)]
        )
        op = find_operator("call_tir" if name == "call_dps" else name)(**fields)
        if isinstance(callee, rx.ExternFunc) and name in ("call_dps", "call_tir"):
            op = rc.CallDPSPacked()
        elif isinstance(op, rc.CallTIR | rc.CallTIRInplace):
            self._check_count(op, callee, inputs, kind, tir_vars, node)
        return op(*operands, type_args=(kind,), span=self.source.span(node))

    def _inferred_out(
        self, callee: rx.Value, inputs: rx.Value, tir_vars: Any, node: ast.AST
    ) -> Type:
        function = self.callee_function(callee)
        if function is None or not isinstance(inputs.type, TupleType):
            raise self.error(
                "the type of the result is not known",
                node,
                'give it: out_sinfo=R.Tensor((n,), "float32")',
            )
        return call_tir_type(
            function,
            inputs.type.items,
            as_items(tir_vars) if tir_vars is not None else (),
            callee_label(callee),
        )

    def _check_count(
        self, op: rx.Op, callee: rx.Value, inputs: rx.Value, out: Type, tir_vars: Any, node: ast.AST
    ) -> None:
        function = self.callee_function(callee)
        if function is None or not isinstance(inputs.type, TupleType):
            return
        outputs = len(out.items) if isinstance(out, TupleType) else 1
        if isinstance(op, rc.CallTIRInplace):
            outputs = sum(index < 0 for index in op.inplace_indices)
        given = len(inputs.type.items) + outputs
        if given != len(function.buffers):
            raise self.error(
                f"{callee_label(callee)} takes {len(function.buffers)} buffers, "
                f"got {len(inputs.type.items)} inputs "
                f"and {outputs} outputs",
                node,
                "inputs come first, then outputs, as in its parameters",
            )

    def call_packed(
        self, name: str, args: list[Any], keywords: dict[str, Any], node: ast.AST
    ) -> rx.Value:
        """R.call_packed("f", *args, sinfo_args=) and siblings."""
        types = self.type_arguments(keywords, node)
        fields = {key: keywords.pop(key) for key in ("inplace_indices",) if key in keywords}
        if fields:
            fields["inplace_indices"] = tuple(as_items(fields["inplace_indices"]))
        if not args:
            raise self.error(
                f"R.{name} needs the name of a function",
                node,
                "a string, R.ExternFunc(...) or a function of the module",
            )
        if keywords:
            raise self.error(
                f"R.{name} has no argument {next(iter(keywords))!r}",
                node,
                "sinfo_args= gives the result's type",
            )
        operands = [self.callee(args[0], node), *(self.operand(item, node) for item in args[1:])]
        op = find_operator(name)(**fields)
        return op(*operands, type_args=types, span=self.source.span(node))

    def call_with_tuple(
        self, name: str, args: list[Any], keywords: dict[str, Any], node: ast.AST
    ) -> rx.Value:
        """R.call_builtin_with_ctx("f", (args...)), R.make_closure(f, (args...)) and siblings."""
        types = self.type_arguments(keywords, node)
        if len(args) == 1 and "args" in keywords:
            args = [*args, keywords.pop("args")]
        if len(args) != 2 or keywords:
            raise self.error(
                f"R.{name} takes a function and a tuple of arguments",
                node,
                f"for example R.{name}(f, (x, y))",
            )
        operands = [self.callee(args[0], node), self.packed_tuple(args[1], node)]
        return find_operator(name)()(*operands, type_args=types, span=self.source.span(node))

    def make_tuple(
        self, name: str, args: list[Any], keywords: dict[str, Any], node: ast.AST
    ) -> rx.Value:
        """R.tuple(*items)."""
        del name, keywords
        return rx.make_tuple(*(self.operand(item, node) for item in args))

    def printed(
        self, name: str, args: list[Any], keywords: dict[str, Any], node: ast.AST
    ) -> rx.Value:
        """R.print(*values, format=) and R.assert_op(condition, *values, format=)."""
        layout = keywords.pop("format", "")
        values: list[Any] = []
        for item in args:
            values.extend(item if isinstance(item, list) else (item,))  # pyright: ignore[reportUnknownArgumentType]
        if "values" in keywords:
            values.extend(as_items(keywords.pop("values")))
        if keywords:
            raise self.error(f"R.{name} has no argument {next(iter(keywords))!r}", node, "format=")
        kind = rc.Print if name == "print" else rc.AssertOp
        text = layout.value if isinstance(layout, rx.StringValue) else layout
        return kind(text)(
            *(self.operand(item, node) for item in values), span=self.source.span(node)
        )


_ABSENT = object()
_SPECIAL: dict[str, Callable[[CallParser, str, list[Any], dict[str, Any], ast.AST], rx.Value]] = {
    **dict.fromkeys((*g.DESTINATION_CALLS, "call_dps"), CallParser.call_tir),
    **dict.fromkeys(g.PACKED_CALLS, CallParser.call_packed),
    **dict.fromkeys(g.TUPLE_CALLS, CallParser.call_with_tuple),
    "tuple": CallParser.make_tuple,
    "print": CallParser.printed,
    "assert_op": CallParser.printed,
}


@dataclasses.dataclass(frozen=True)
class Operands:
    """The operands of an operator: the parameters of its `infer`."""

    names: tuple[str, ...]
    required: frozenset[str]
    variadic: bool


@cache
def operands_of(kind: type[rx.Op]) -> Operands:
    """The operands of a class of operators."""
    parameters = list(inspect.signature(kind.infer).parameters.values())[1:]
    plain = [
        item
        for item in parameters
        if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD)
    ]
    required = frozenset(item.name for item in plain if item.default is item.empty)
    variadic = any(item.kind is item.VAR_POSITIONAL for item in parameters)
    return Operands(tuple(item.name for item in plain), required, variadic)


def _constant(value: Any) -> Any:
    if is_items(value):
        return tuple(_constant(item) for item in value)
    if isinstance(value, rx.PrimValue):
        value = value.value
    if isinstance(value, rx.StringValue | rx.DataTypeValue):
        return value.value
    if isinstance(value, Expr) and hasattr(value, "value"):
        return getattr(value, "value")  # noqa: B009
    if isinstance(value, Expr):
        raise InputError(
            f"an attribute must be a constant, got {value!r}",
            remedy="only operands may be symbolic",
        )
    return value


def _usage(name: str, kind: type[rx.Op]) -> str:
    signature = operands_of(kind)
    parts = [item if item in signature.required else f"{item}=None" for item in signature.names]
    parts += ["*values"] if signature.variadic else []
    for item in dataclasses.fields(kind):
        parts.append(
            item.name if item.default is dataclasses.MISSING else f"{item.name}={item.default!r}"
        )
    return f"R.{name}({', '.join(parts)})"


def callee_label(callee: rx.Value) -> str:
    """The name of a function in a message."""
    return callee.name if isinstance(callee, rx.GlobalFunc | rx.ExternFunc) else "the function"


__all__ = ["CallParser", "as_dtype", "callee_label", "operands_of"]
