"""A module as script text: a class with its functions, attributes and global information."""

from __future__ import annotations

from transect.ir.expr import GlobalVar
from transect.ir.function import BaseFunc, IRModule
from transect.ir.term import Term
from transect.relax.expr import Function
from transect.script.printer.graph import print_function
from transect.script.printer.names import Names, identifier, quote
from transect.script.printer.prim_func import print_prim_func
from transect.script.printer.statement import StatementPrinter
from transect.script.printer.types import print_info
from transect.tir.function import PrimFunc

HEADER = "from transect.script import ir as I, relax as R, tir as T"


def print_module(module: IRModule, printer: StatementPrinter) -> None:
    """Write a module as a class."""
    lines = printer.lines
    names = Names()
    for name in module.functions:
        text = f"cls.{name}" if identifier(name) == name else f"I.GlobalVar({quote(name)})"
        names.alias(GlobalVar(name), text)
    inner = StatementPrinter(names, lines, printer.store)
    lines.add("@I.ir_module")
    with lines.indented("class Module:"):
        if module.attrs:
            lines.add(f"I.module_attrs({inner.expr.value(module.attrs)})")
        if module.global_infos:
            infos = ", ".join(
                f"{quote(key)}: [{', '.join(_info(item, inner) for item in items)}]"
                for key, items in module.global_infos.items()
            )
            lines.add(f"I.module_global_infos({{{infos}}})")
        for number, (name, function) in enumerate(module.functions.items()):
            if number or module.attrs or module.global_infos:
                lines.add("")
            print_definition(function, name, inner)


def _info(value: object, printer: StatementPrinter) -> str:
    return print_info(value) if isinstance(value, Term) else printer.expr.value(value)


def print_definition(function: BaseFunc, name: str, printer: StatementPrinter) -> None:
    """Write one function as a definition of `name`."""
    if isinstance(function, PrimFunc):
        print_prim_func(function, name, printer.lines, printer.store, printer.names)
    elif isinstance(function, Function):
        print_function(function, name, printer)
    else:
        printer.lines.add(f"# {name}: a {type(function).__name__} has no script")
