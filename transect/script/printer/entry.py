"""`script(obj)`: the text of a module, a function, or any part of one."""

from __future__ import annotations

from collections.abc import MutableMapping

import numpy as np

from transect.ir.function import BaseFunc, IRModule
from transect.ir.node import Node
from transect.ir.term import Term
from transect.ir.types import DeviceMesh, Type, VDevice
from transect.relax import expr as rx
from transect.script.constants import ConstantStore
from transect.script.printer.expression import ExpressionPrinter
from transect.script.printer.graph import GraphPrinter
from transect.script.printer.module import HEADER, print_definition, print_module
from transect.script.printer.names import Names, identifier
from transect.script.printer.statement import Lines, StatementPrinter
from transect.script.printer.types import print_info, print_type
from transect.tir.buffer import Buffer
from transect.tir.index_map import IndexMap
from transect.tir.reducer import CommReducer
from transect.tir.stmt import IterVar, MatchBufferRegion, Stmt


def script(
    value: object,
    *,
    constants: MutableMapping[str, np.ndarray] | None = None,
    constants_file: str | None = None,
) -> str:
    """`value` as script that `parse` reads back to a structurally equal one.

    value: an IRModule, a function, or any part of one (a part prints as what would stand in its
    function, which need not parse alone).
    constants: filled with the arrays that are too large to print, by the names under which the
    text refers to them. Give the same mapping to `parse`, or write it with `save_constants` and
    name the file, as seen from the folder of the text, in `constants_file`.
    """
    lines = Lines()
    printer = StatementPrinter(Names(), lines, ConstantStore(constants))
    if isinstance(value, IRModule | BaseFunc):
        lines.add(HEADER)
        if constants_file is not None:
            lines.add(f'\nI.constants("{constants_file}")')
        lines.add("\n")
        if isinstance(value, IRModule):
            print_module(value, printer)
        else:
            print_definition(
                value, identifier(str(value.attrs.get("global_symbol", "main"))), printer
            )
        return lines.text() + "\n"
    _part(value, printer)
    return lines.text()


def _part(value: object, printer: StatementPrinter) -> None:
    """A part of a function, in names of its own."""
    add = printer.lines.add
    graph = GraphPrinter(printer)
    if isinstance(value, Stmt):
        printer.body(value)
    elif isinstance(value, Buffer):
        add(f"{printer.expr.buffer(value)}: T.Buffer({printer.buffer_arguments(value)})")
    elif isinstance(value, IterVar):
        add(f"{printer.expr.text(value.var)}: T.axis.{value.kind}({printer.expr.slice(value.dom)})")
    elif isinstance(value, MatchBufferRegion):
        region = printer.expr.region(value.source)
        name, arguments = printer.expr.buffer(value.buffer), printer.buffer_arguments(value.buffer)
        add(f"{name} = T.match_buffer({region}, {arguments})")
    elif isinstance(value, IndexMap | CommReducer):
        add(printer.expr.value(value))
    elif isinstance(value, Type):
        add(print_type(value, printer.expr.text))
    elif isinstance(value, VDevice | DeviceMesh):
        add(print_info(value))
    elif isinstance(value, Term):
        add(ExpressionPrinter(printer.names).text(value))  # pyright: ignore[reportArgumentType]
    elif isinstance(value, rx.VarBinding | rx.MatchCast):
        graph.binding(value)
    elif isinstance(value, rx.BindingBlock):
        graph.block(value, None)
    elif isinstance(value, rx.SeqExpr):
        graph.blocks(value.blocks)
        add(f"return {graph.value(value.body)}")
    elif isinstance(value, rx.Value):
        add(graph.value(value))
    elif isinstance(value, Node):
        fields = ", ".join(f"{name}={field!r}" for name, field in value.field_items())
        add(f"{type(value).__name__}({fields})")
    else:
        add(repr(value))
