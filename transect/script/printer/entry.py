"""`script(obj)`: the text of a module, a function, a statement, an expression or a buffer."""

from __future__ import annotations

from collections.abc import MutableMapping

import numpy as np

from transect.ir.node import Node
from transect.ir.term import Term
from transect.script.constants import ConstantStore
from transect.script.printer.expression import ExpressionPrinter
from transect.script.printer.names import Names
from transect.script.printer.prim_func import print_prim_func
from transect.script.printer.statement import Lines, StatementPrinter
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc
from transect.tir.stmt import IterVar, Stmt


def script(value: object, *, constants: MutableMapping[str, np.ndarray] | None = None) -> str:
    """`value` as script that `parse` reads back to a structurally equal one.

    value: an IRModule, a function, or any part of one (a part prints as what would stand in its
    function, which need not parse alone). constants: filled with the arrays that are too large to
    print, by the names under which the text refers to them; give the same mapping to `parse`.
    """
    lines = Lines()
    names = Names()
    store = ConstantStore(constants)
    printer = StatementPrinter(names, lines, store)
    if isinstance(value, PrimFunc):
        lines.add("from transect.script import ir as I, tir as T\n\n")
        print_prim_func(value, str(value.attrs.get("global_symbol", "main")), lines, store, names)
    elif isinstance(value, Stmt):
        printer.body(value)
    elif isinstance(value, Buffer):
        return f"{printer.expr.buffer(value)}: T.Buffer({printer.buffer_arguments(value)})"
    elif isinstance(value, IterVar):
        return (
            f"{printer.expr.text(value.var)}: T.axis.{value.kind}({printer.expr.text(value.dom)})"
        )
    elif isinstance(value, Term):
        return ExpressionPrinter(names).text(value)  # pyright: ignore[reportArgumentType]
    elif isinstance(value, Node):
        fields = ", ".join(f"{name}={field!r}" for name, field in value.field_items())
        return f"{type(value).__name__}({fields})"
    else:
        return repr(value)
    return lines.text()
