"""Bindings under construction: values brought into A-normal form, variables named and typed.

The block builder and the rewriters write their results through this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

from transect.ir.expr import Var as Symbol
from transect.ir.node import replace
from transect.ir.types import Type
from transect.relax import expr as rx
from transect.relax.inference import infer_type
from transect.relax.shapes import erase, plain_vars
from transect.support.errors import TransectError
from transect.support.span import Spans

ValueT = TypeVar("ValueT", bound=rx.Value)

_NUMBERED = re.compile(r"_\d+$")
_LEAVES = (
    rx.Var,
    rx.Constant,
    rx.ShapeExpr,
    rx.PrimValue,
    rx.StringValue,
    rx.DataTypeValue,
    rx.GlobalFunc,
    rx.ExternFunc,
)


def is_leaf(value: rx.Value) -> bool:
    """Whether a value may stand as an argument: a variable, a constant, a name, a tuple of such."""
    if isinstance(value, rx.Tuple):
        return all(is_leaf(item) for item in value.items)
    return isinstance(value, _LEAVES)


def is_normal(value: rx.Value) -> bool:
    """Whether a value may be bound as it is: its operands are leaves."""
    if isinstance(value, rx.Call):
        callee = value.op
        return (isinstance(callee, rx.Op) or is_leaf(callee)) and all(map(is_leaf, value.args))
    if isinstance(value, rx.Tuple):
        return is_leaf(value)
    if isinstance(value, rx.TupleGetItem):
        return is_leaf(value.tuple_value)
    if isinstance(value, rx.If):
        return is_leaf(value.condition)
    return not isinstance(value, rx.SeqExpr)


class Names:
    """Names for new variables, none given twice."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    def fresh(self, hint: str) -> str:
        """`hint`, or `hint_1`, `hint_2`, … if that is taken."""
        if hint not in self._taken:
            self._taken.add(hint)
            return hint
        base = _NUMBERED.sub("", hint)
        number = self._next.get(base, 0) + 1
        while f"{base}_{number}" in self._taken:
            number += 1
        self._next[base] = number
        self._taken.add(f"{base}_{number}")
        return f"{base}_{number}"


class Bindings:
    """A sequence of binding blocks that grows at its end.

    Bindings go to the open block; `begin` opens one of the other kind where needed.
    symbols: the symbolic variables in scope; `local` holds those that a match_cast here defines.
    """

    def __init__(self, names: Names, symbols: Iterable[Symbol] = ()) -> None:
        self.names = names
        self.symbols = set(symbols)
        self.local: list[Symbol] = []
        self.blocks: list[rx.BindingBlock] = []
        self._open: list[rx.Binding] = []
        self._dataflow = False
        self._span: Spans = ()

    @property
    def in_dataflow(self) -> bool:
        """Whether the open block is a dataflow block."""
        return self._dataflow

    def begin(self, *, dataflow: bool, span: Spans = ()) -> None:
        """Close the open block and open another."""
        self.close()
        self._dataflow = dataflow
        self._span = span

    def close(self) -> None:
        """Close the open block; an empty one leaves no trace, and an ordinary one after another
        joins it. The next one is an ordinary block."""
        last = self.blocks[-1] if self.blocks else None
        if self._open and last is not None and not last.dataflow and not self._dataflow:
            self.blocks[-1] = replace(last, bindings=(*last.bindings, *self._open))
        elif self._open:
            self.blocks.append(rx.BindingBlock(tuple(self._open), self._dataflow, self._span))
        self._open = []
        self._dataflow = False
        self._span = ()

    def add(self, binding: rx.Binding) -> None:
        """Append a binding that is in A-normal form already."""
        if isinstance(binding, rx.MatchCast):
            new = [var for var in plain_vars((binding.type,)) if var not in self.symbols]
            self.symbols.update(new)
            self.local += new
        self._open.append(binding)

    def scoped(self, kind: Type) -> Type:
        """`kind` as it is known outside, where the variables defined here mean nothing."""
        return erase(kind, self.local)

    def take_open(self) -> tuple[rx.Binding, ...]:
        """The bindings of the open block, which becomes empty."""
        taken = tuple(self._open)
        self._open = []
        return taken

    def new_var(self, hint: str, kind: Type, *, output: bool = False, span: Spans = ()) -> rx.Var:
        """A variable for the open block; in a dataflow block it is local unless `output`."""
        return rx.Var(self.names.fresh(hint), kind, self._dataflow and not output, span)

    def bind(
        self, value: rx.Value, hint: str = "lv", *, output: bool = False, span: Spans = ()
    ) -> rx.Var:
        """Bind `value`, after what it is made of, to a new variable of its type."""
        normal = self.normalize(value)
        place = span or normal.span
        var = self.new_var(hint, normal.type, output=output, span=place)
        self.add(rx.VarBinding(var, normal, place))
        return var

    def match_cast(
        self,
        value: rx.Value,
        kind: Type,
        hint: str = "lv",
        *,
        output: bool = False,
        span: Spans = (),
        what: str = "",
    ) -> rx.Var:
        """Check `value` to be of type `kind` at run time, binding the new variables in it."""
        var = self.new_var(hint, kind, output=output, span=span)
        self.add(rx.MatchCast(self.leaf(value), kind, var, span, what))
        return var

    def leaf(self, value: rx.Value) -> rx.Value:
        """`value` as an operand: itself if it is a leaf, else a new variable bound to it."""
        if isinstance(value, rx.Tuple):
            return self._tuple(value)
        return value if isinstance(value, _LEAVES) else self.bind(value)

    def normalize(self, value: rx.Value) -> rx.Value:
        """`value` with leaves as operands, everything else bound before it; types re-inferred
        where an operand changed or was never given one."""
        if isinstance(value, rx.Call):
            return self._call(value)
        if isinstance(value, rx.Tuple):
            return self._tuple(value)
        if isinstance(value, rx.TupleGetItem):
            source = self.leaf(value.tuple_value)
            if source is value.tuple_value:
                return value
            return rx.TupleGetItem(source, value.index, value.type, value.span)
        if isinstance(value, rx.If):
            condition = self.leaf(value.condition)
            if condition is value.condition:
                return value
            return rx.If(condition, value.then_branch, value.else_branch, value.type, value.span)
        if isinstance(value, rx.SeqExpr):
            return self.splice(value)
        return value

    def _call(self, call: rx.Call) -> rx.Value:
        callee = call.op if isinstance(call.op, rx.Op) else self.leaf(call.op)
        args = tuple(self.leaf(arg) for arg in call.args)
        same_args = all(a is b for a, b in zip(args, call.args, strict=True))
        if callee is call.op and same_args:
            return call
        return rx.Call(callee, args, call.type, call.type_args, call.span)

    def _tuple(self, value: rx.Tuple) -> rx.Tuple:
        items = tuple(self.leaf(item) for item in value.items)
        if all(a is b for a, b in zip(items, value.items, strict=True)):
            return value
        return rx.Tuple(items, value.type, value.span)

    def splice(self, value: rx.SeqExpr) -> rx.Value:
        """Append the bindings of `value` and give its result. In a dataflow block they join it."""
        for block in value.blocks:
            if self._dataflow or not block.dataflow:
                for binding in block.bindings:
                    self.add(binding)
            else:
                outer_span = self._span
                self.begin(dataflow=True, span=block.span)
                for binding in block.bindings:
                    self.add(binding)
                self.begin(dataflow=False, span=outer_span)
        return self.normalize(value.body)

    def finish(self, body: rx.Value, span: Spans = ()) -> rx.SeqExpr:
        """The blocks and the result, which becomes a leaf."""
        result = self.leaf(body)
        self.close()
        return rx.SeqExpr(tuple(self.blocks), result, self.scoped(result.type), span)


def retype(value: ValueT, span: Spans = ()) -> ValueT:
    """`value` with its type derived anew from its operands. Raises InferenceError at `span`."""
    try:
        kind = infer_type(value)
    except TransectError as error:
        raise error.at(value.span or span) from None
    return replace(value, type=kind)
