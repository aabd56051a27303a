"""A PrimFunc as script text: signature, attributes, root block."""

from __future__ import annotations

from transect.ir.dtype import INDEX
from transect.ir.expr import Expr, Pointer, Var, true
from transect.ir.traverse import free_vars
from transect.script.constants import ConstantStore
from transect.script.printer.names import Names, quote
from transect.script.printer.statement import Lines, StatementPrinter, fresh_variable, variable_type
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc, buffer_fields
from transect.tir.stmt import Block, BlockRealize, Stmt
from transect.tir.visit import walk_stmts

WIDTH = 100
"""Signatures longer than this go over several lines, one parameter each."""


def function_head(name: str, parameters: list[str], result: str = "") -> str:
    """`def name(parameters) -> result:`, over several lines if it is long."""
    line = f"def {name}({', '.join(parameters)}){result}:"
    if len(line) <= WIDTH - 4:
        return line
    inside = "".join(f"    {item},\n" for item in parameters)
    return f"def {name}(\n{inside}){result}:"


def print_prim_func(
    func: PrimFunc, name: str, lines: Lines, store: ConstantStore, outer: Names
) -> None:
    """Write `func` as a definition of `name`."""
    printer = StatementPrinter(Names(outer), lines, store)
    options: list[str] = []
    attrs = dict(func.attrs)
    if "global_symbol" not in attrs:
        options.append("private=True")
    elif attrs["global_symbol"] == name:
        del attrs["global_symbol"]
    has_blocks = any(isinstance(stmt, Block) for stmt in walk_stmts(func.body))
    root = _implied_root(func.body)
    if root is None and has_blocks and not _is_root(func.body):
        options.append("root=False")
    lines.add(f"@T.prim_func({', '.join(options)})" if options else "@T.prim_func")
    parameters, late = _parameters(func, printer)
    with lines.indented(function_head(name, parameters)):
        _match_buffers(late, printer)
        if attrs:
            lines.add(f"T.func_attr({printer.expr.value(attrs)})")
        if root is not None:
            for value in root.alloc_buffers:
                printer.alloc_buffer(value)
            printer.body(root.body)
        else:
            printer.body(func.body)


def _is_root(body: Stmt) -> bool:
    return (
        isinstance(body, BlockRealize)
        and not body.iter_values
        and body.predicate is true()
        and body.block.name == "root"
    )


def _implied_root(body: Stmt) -> Block | None:
    """The root block if the parser would add the same one to its contents."""
    if not (isinstance(body, BlockRealize) and not body.iter_values and body.predicate is true()):
        return None
    block = body.block
    declared = (
        *block.iter_vars,
        *block.reads,
        *block.writes,
        *block.match_buffers,
        *block.annotations,
    )
    if declared or block.init is not None or _is_root(block.body):
        return None
    inside = any(isinstance(stmt, Block) for stmt in walk_stmts(block.body))
    return block if block.alloc_buffers or inside else None


def _parameters(
    func: PrimFunc, printer: StatementPrinter
) -> tuple[list[str], list[tuple[Var, Buffer]]]:
    """The parameters, and the handles whose buffer has to be matched in the body."""
    names = printer.names
    texts: dict[Var, str] = {}
    late: list[tuple[Var, Buffer]] = []
    for var in func.params:
        if var not in func.buffer_map:
            texts[var] = f"{names.define(var, var.name)}: {variable_type(var)}"
    for var in func.params:
        value = func.buffer_map.get(var)
        if value is None:
            continue
        if not _fits_signature(var, value, printer):
            texts[var] = f"{names.define(var, var.name)}: {variable_type(var)}"
            late.append((var, value))
            continue
        for dim in free_vars(buffer_fields(value)):
            names.define(dim, dim.name)
        name = names.define(value, value.name)
        names.alias(value.data, f"{name}.data")
        described = printer.buffer_arguments(value, dims=lambda e: signature_dim(e, printer))
        texts[var] = f"{name}: T.Buffer({described})"
    return [texts[var] for var in func.params], late


def signature_dim(expr: Expr, printer: StatementPrinter) -> str:
    """A dimension where Python evaluates it: symbolic ones are strings."""
    text = printer.expr.text(expr)
    return quote(text) if free_vars((expr,)) else text


def _fits_signature(var: Var, value: Buffer, printer: StatementPrinter) -> bool:
    """Whether `A: T.Buffer(...)` says all there is to say about the parameter."""
    names = printer.names
    symbolic = [dim for dim in free_vars(buffer_fields(value)) if dim not in names]
    return (
        var.pointer is None
        and value.data.pointer is Pointer(value.dtype, value.scope)
        and value.data not in names
        and all(dim.dtype is INDEX for dim in symbolic)
    )


def _match_buffers(late: list[tuple[Var, Buffer]], printer: StatementPrinter) -> None:
    for var, value in late:
        printer.define_data(value)
        owns = value.data not in printer.names
        name = printer.define_buffer(value)
        arguments = printer.buffer_arguments(value, data=not owns)
        if not owns and value.scope != "global":
            arguments += f', scope="{value.scope}"'
        printer.lines.add(f"{name} = T.match_buffer({printer.expr.text(var)}, {arguments})")


__all__ = ["fresh_variable", "function_head", "print_prim_func", "signature_dim"]
