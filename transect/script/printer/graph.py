"""Graph functions as script text: values, bindings, blocks, branches."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from transect.ir.dtype import DType
from transect.ir.expr import Expr, GlobalVar
from transect.ir.traverse import free_vars
from transect.ir.types import DeviceMesh, Type, VDevice
from transect.relax import call as rc
from transect.relax import expr as rx
from transect.relax.inference import is_pure
from transect.relax.op.layout import AxisMap
from transect.relax.shapes import type_vars
from transect.relax.visit import bindings as all_bindings
from transect.script.graph_directives import DESTINATION_CALLS, PACKED_CALLS, TUPLE_CALLS
from transect.script.printer.names import Names, quote
from transect.script.printer.prim_func import function_head, signature_dim
from transect.script.printer.statement import StatementPrinter
from transect.script.printer.types import print_info, print_type


class GraphPrinter:
    """Prints one graph function, and those inside it, with the names of `base`."""

    def __init__(self, base: StatementPrinter) -> None:
        self.base = base
        self.names = base.names
        self.lines = base.lines
        self.expr = base.expr
        self._table: dict[type[Any], Callable[[Any], str]] = {
            rx.Var: self._var,
            rx.Constant: self._constant,
            rx.ShapeExpr: lambda v: f"R.shape([{self.expr.join(v.values)}])",
            rx.PrimValue: lambda v: f"R.prim_value({self.expr.text(v.value)})",
            rx.StringValue: lambda v: f"R.str({quote(v.value)})",
            rx.DataTypeValue: lambda v: f'R.dtype("{v.value}")',
            rx.Tuple: self._tuple,
            rx.TupleGetItem: lambda v: f"{self.value(v.tuple_value)}[{v.index}]",
            rx.GlobalFunc: self._global_func,
            rx.ExternFunc: lambda v: f"R.ExternFunc({quote(v.name)})",
            rx.Call: self._call,
        }

    # --- values -----------------------------------------------------------------------------

    def type(self, kind: Type) -> str:
        """A type inside a body."""
        return print_type(kind, self.expr.text)

    def value(self, value: rx.Value) -> str:
        """A value in one line; branches and functions take several and have their own methods."""
        handler = self._table.get(type(value))
        if handler is not None:
            return handler(value)
        if isinstance(value, rx.If):
            sides = self.value(value.then_branch), self.value(value.else_branch)
            return f"{sides[0]} if {self.value(value.condition)} else {sides[1]}"
        if isinstance(value, rx.SeqExpr):
            return self.value(value.body)
        return f"<{type(value).__name__}>"

    def _var(self, value: rx.Var) -> str:
        return self.names.get(value) or self.names.define(value, value.name)

    def _constant(self, value: rx.Constant) -> str:
        data, dtype = self.base.store.reference(value.data)
        if data.startswith("I."):
            return f"R.const({data})"
        shape = f", shape={value.data.shape}" if value.data.size == 0 else ""
        return f'R.const({data}, "{dtype}"{shape})'

    def _tuple(self, value: rx.Tuple) -> str:
        return f"R.tuple({self.arguments(value.items)})"

    def arguments(self, values: Sequence[rx.Value]) -> str:
        """Values separated by commas."""
        return ", ".join(map(self.value, values))

    def _global_func(self, value: rx.GlobalFunc) -> str:
        term = GlobalVar(value.name)
        return self.names.get(term) or self.expr.text(term)

    def _call(self, value: rx.Call) -> str:
        if not isinstance(value.op, rx.Op):
            parts = [self.arguments(value.args)] if value.args else []
            return f"{self.value(value.op)}({', '.join(parts + self._types(value))})"
        special = _SPECIAL.get(value.op.name)
        if special is not None:
            return special(self, value)
        parts = self._operands(value.op, value.args)
        parts += self._attributes(value.op)
        return f"R.{value.op.name}({', '.join(parts + self._types(value))})"

    def _operands(self, op: rx.Op, args: Sequence[rx.Value]) -> list[str]:
        """Operands by position, those that stand behind an attribute by name."""
        order: tuple[str, ...] = getattr(op, "script_order", ())
        if not order:
            return [self._operand(item) for item in args]
        names = list(inspect.signature(op.infer).parameters)
        return [
            self._operand(item) if order[place] == name else f"{name}={self._operand(item)}"
            for place, (name, item) in enumerate(zip(names, args, strict=False))
        ]

    def _operand(self, value: rx.Value) -> str:
        if isinstance(value, rx.Tuple) and value.items:
            return f"({self.arguments(value.items)}{',' if len(value.items) == 1 else ''})"
        return self.value(value)

    def _types(self, value: rx.Call) -> list[str]:
        if not value.type_args:
            return []
        shown = ", ".join(map(self.type, value.type_args))
        return [f"sinfo_args=({shown}{',' if len(value.type_args) == 1 else ''})"]

    def _attributes(self, op: rx.Op) -> list[str]:
        shown: list[str] = []
        for item in dataclasses.fields(op):
            value = getattr(op, item.name)
            if (
                item.default is not dataclasses.MISSING
                and value == item.default
                and type(value) is type(item.default)
            ):
                continue
            shown.append(f"{item.name}={self._attribute(value)}")
        return shown

    def _attribute(self, value: Any) -> str:
        if isinstance(value, DType):
            return f'"{value}"'
        if isinstance(value, AxisMap):
            return self.expr.value(value.index_map())
        if isinstance(value, VDevice | DeviceMesh):
            return print_info(value)
        if isinstance(value, tuple):
            items = [self._attribute(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
            return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
        return self.expr.value(value)

    def destination(self, value: rx.Call) -> str:
        """R.call_tir and its siblings."""
        callee, inputs, *rest = value.args
        assert isinstance(value.op, rx.Op)
        shown = quote(callee.name) if isinstance(callee, rx.ExternFunc) else self.value(callee)
        parts = [shown, self._inputs(inputs)]
        if isinstance(value.op, rc.CallTIRInplace | rc.CallInplacePacked):
            parts.append(f"inplace_indices={list(value.op.inplace_indices)}")
        parts.append(f"out_sinfo={', '.join(map(self.type, value.type_args))}")
        parts += [f"tir_vars={self.value(item)}" for item in rest]
        return f"R.{value.op.name}({', '.join(parts)})"

    def _inputs(self, value: rx.Value) -> str:
        if isinstance(value, rx.Tuple):
            return f"({self.arguments(value.items)}{',' if len(value.items) == 1 else ''})"
        return self.value(value)

    def packed(self, value: rx.Call) -> str:
        """R.call_packed and its siblings."""
        callee, *args = value.args
        assert isinstance(value.op, rx.Op)
        shown = quote(callee.name) if isinstance(callee, rx.ExternFunc) else self.value(callee)
        parts = [shown, *map(self.value, args)]
        if isinstance(value.op, rc.CallInplacePacked):
            parts.append(f"inplace_indices={list(value.op.inplace_indices)}")
        return f"R.{value.op.name}({', '.join(parts + self._types(value))})"

    def with_tuple(self, value: rx.Call) -> str:
        """R.make_closure and its siblings."""
        callee, args = value.args
        assert isinstance(value.op, rx.Op)
        shown = quote(callee.name) if isinstance(callee, rx.ExternFunc) else self.value(callee)
        return f"R.{value.op.name}({', '.join([shown, self._inputs(args), *self._types(value)])})"

    # --- bindings ---------------------------------------------------------------------------

    def block(self, block: rx.BindingBlock, previous: rx.BindingBlock | None) -> None:
        """A binding block. previous: the one before, from which ordinary blocks are told apart."""
        if block.dataflow:
            with self.lines.indented("with R.dataflow():"):
                for binding in block.bindings:
                    self.binding(binding)
                outputs = [self._var(item.var) for item in block.bindings if not item.var.dataflow]
                self.lines.add(f"R.output({', '.join(outputs)})")
        elif previous is not None and not previous.dataflow:
            with self.lines.indented("with R.bindings():"):
                for binding in block.bindings:
                    self.binding(binding)
        else:
            for binding in block.bindings:
                self.binding(binding)

    def binding(self, binding: rx.Binding) -> None:
        """One binding."""
        if isinstance(binding, rx.MatchCast):
            self._declare(binding.type)
            value, kind = self.value(binding.value), self.type(binding.type)
            name = self.names.define(binding.var, binding.var.name)
            shown = kind if binding.var.type is binding.type else self.type(binding.var.type)
            self.lines.add(f"{name}: {shown} = R.match_cast({value}, {kind})")
            return
        value = binding.value
        if isinstance(value, rx.If):
            self.branch(binding.var, value)
        elif isinstance(value, rx.Function):
            name = self.names.define(binding.var, binding.var.name)
            print_function(value, name, self.base, local=True)
        else:
            self._declare(binding.var.type)
            text = self.value(value)
            name = self.names.define(binding.var, binding.var.name)
            self.lines.add(f"{name}: {self.type(binding.var.type)} = {text}")

    def _declare(self, kind: Type) -> None:
        self.base.declare_free(type_vars(kind))

    def branch(self, var: rx.Var, value: rx.If) -> None:
        """`if condition:` with the value assigned to one name at the end of both sides."""
        condition = self.value(value.condition)
        name = self.names.define(var, var.name)
        self._declare(var.type)
        for head, side in ((f"if {condition}:", value.then_branch), ("else:", value.else_branch)):
            with self.lines.indented(head):
                self.blocks(side.blocks)
                self.lines.add(f"{name}: {self.type(var.type)} = {self.value(side.body)}")

    def blocks(self, blocks: Sequence[rx.BindingBlock]) -> None:
        """The blocks of a body."""
        previous: rx.BindingBlock | None = None
        for block in blocks:
            self.block(block, previous)
            previous = block


def print_function(
    func: rx.Function, name: str, outer: StatementPrinter, *, local: bool = False
) -> None:
    """Write a graph function as a definition of `name`."""
    base = StatementPrinter(Names(outer.names), outer.lines, outer.store)
    printer = GraphPrinter(base)
    attrs = dict(func.attrs)
    options: list[str] = []
    if not local:
        if "global_symbol" not in attrs:
            options.append("private=True")
        elif attrs["global_symbol"] == name:
            del attrs["global_symbol"]
    inferred = all(
        not isinstance(item, rx.VarBinding) or is_pure(item.value)
        for item in all_bindings(func.body)
    )
    if not func.pure or not inferred:
        options.append(f"pure={func.pure}")
    base.lines.add(f"@R.function({', '.join(options)})" if options else "@R.function")

    def dim(expr: Expr) -> str:
        for var in free_vars((expr,)):
            base.names.define(var, var.name)
        return signature_dim(expr, base)

    for param in func.params:
        # Dimensions get their names first: they are what the reader looks for.
        for var in type_vars(param.type):
            base.names.define(var, var.name)
    texts = [f"{base.names.define(p, p.name)}: {print_type(p.type, dim)}" for p in func.params]
    result = f" -> {print_type(func.ret_type, dim)}"
    with base.lines.indented(function_head(name, texts, result)):
        if attrs:
            base.lines.add(f"R.func_attr({base.expr.value(attrs)})")
        printer.blocks(func.body.blocks)
        base.lines.add(f"return {printer.value(func.body.body)}")


_SPECIAL: dict[str, Callable[[GraphPrinter, rx.Call], str]] = {
    # Called with types of their own, and with names of packed functions as strings.
    **dict.fromkeys(DESTINATION_CALLS, GraphPrinter.destination),
    **dict.fromkeys(PACKED_CALLS, GraphPrinter.packed),
    **dict.fromkeys(TUPLE_CALLS, GraphPrinter.with_tuple),
}
