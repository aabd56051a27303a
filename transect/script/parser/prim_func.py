"""A tensor program as a whole: parameters, attributes, the root block."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from transect.ir.dtype import HANDLE
from transect.ir.expr import Var
from transect.script import directives as d
from transect.script.parser.block import BlockState, finish_block
from transect.script.parser.diagnostics import Diagnostics
from transect.script.parser.evaluate import Environment
from transect.script.parser.function import check_plain_parameters
from transect.script.parser.source import Source
from transect.script.parser.tensor import TensorParser, as_body
from transect.tir.function import PrimFunc, symbolic_vars
from transect.tir.stmt import Block, BlockRealize, Stmt
from transect.tir.visit import walk_stmts


def parse_prim_func(
    source: Source,
    node: ast.FunctionDef,
    environment: Environment,
    options: Mapping[str, Any],
    diagnostics: Diagnostics,
) -> PrimFunc:
    """The PrimFunc that a definition means. Errors go to `diagnostics`; the result then only
    keeps the signature right."""
    parser = TensorParser(source, environment, diagnostics)
    span = source.span(node)
    parameters(parser, node)
    root = BlockState("root", is_root=True)
    parser.blocks.append(root)
    parser.scopes.append({})
    nodes = list(node.body)
    explicit = _explicit_root(nodes)
    body = as_body(parser.suite(nodes))
    if _needs_root(body, root, explicit=explicit) and options.get("root", True):
        body = finish_block(root, body, span)
    attrs = dict(parser.attrs)
    if not options.get("private", False):
        attrs.setdefault("global_symbol", node.name)
    buffer_map = {var: parser.buffer_map[var] for var in parser.params if var in parser.buffer_map}
    made = PrimFunc(parser.params, buffer_map, body, attrs, span)
    bound = {*parser.params, *symbolic_vars(made)}
    for var in parser.localized.values():
        if var not in bound and not any(var is item for item in parser.scopes[0].values()):
            diagnostics.add(
                parser.error(
                    f"no parameter binds the symbolic variable {var.name!r}",
                    node,
                    "use it as a dimension of a buffer parameter, or make it a parameter",
                )
            )
    return made


def _explicit_root(nodes: list[ast.stmt]) -> bool:
    """Whether the body ends in one `with T.block("root")` that is the root block itself."""
    last = nodes[-1]
    if not isinstance(last, ast.With):
        return False
    call = last.items[0].context_expr
    return (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in ("block", "sblock")
        and any(isinstance(item, ast.Constant) and item.value == "root" for item in call.args[:1])
    )


def _needs_root(body: Stmt, root: BlockState, *, explicit: bool) -> bool:
    if root.alloc_buffers:
        return True
    if explicit and isinstance(body, BlockRealize) and not body.iter_values:
        return False
    return any(isinstance(stmt, Block) for stmt in walk_stmts(body))


def parameters(parser: TensorParser, node: ast.FunctionDef) -> None:
    """Define the parameters, scalars first: shapes may use those that stand further right."""
    check_plain_parameters(parser, node)
    found: dict[str, Var] = {}
    specs: list[tuple[ast.arg, d.BufferSpec]] = []
    for item in (*node.args.posonlyargs, *node.args.args):
        kind = parser.attempt(item, lambda item=item: annotation(parser, item))
        if isinstance(kind, d.BufferSpec):
            specs.append((item, kind))
        found[item.arg] = _parameter(item.arg, kind)
        if kind is not None and not isinstance(kind, d.BufferSpec):
            parser.define(item.arg, found[item.arg])
    for item, spec in specs:
        made = parser.attempt(
            item,
            lambda item=item, spec=spec: parser.make_buffer(
                item.arg, spec, item.annotation or item
            ),
        )
        if made is not None:
            parser.buffer_map[found[item.arg]] = made
            parser.define(item.arg, made)
    parser.params = tuple(found.values())


def _parameter(name: str, kind: Any) -> Var:
    if isinstance(kind, d.FreshVar):
        return Var(name, kind.dtype, kind.pointer)
    return Var(name, kind.dtype if isinstance(kind, d.ScalarName) else HANDLE)


def annotation(parser: TensorParser, item: ast.arg) -> Any:
    """What a parameter is annotated with. Raises ScriptError if it is no type of a parameter."""
    if item.annotation is None:
        raise parser.error(
            f"the parameter {item.arg!r} has no type",
            item,
            'for example T.Buffer((16,), "float32"), T.int64, T.handle',
        )
    kind = parser.eval(item.annotation)
    if isinstance(kind, str):
        kind = parser.eval(parser.parse_expression(kind, item.annotation))
    if isinstance(kind, d.BufferSpec | d.HandleName | d.FreshVar | d.ScalarName):
        return kind
    raise parser.error(
        f"{ast.unparse(item.annotation)} is no type of a parameter",
        item.annotation,
        'use T.Buffer((16,), "float32"), T.int64, T.handle',
    )
