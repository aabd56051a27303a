"""What the parsers of both dialects share: scopes, recovery after errors, symbolic dimensions."""

from __future__ import annotations

import ast
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from transect.ir.dtype import INDEX
from transect.ir.expr import Expr, IntImm, Var, as_expr
from transect.script.directives import FreshVar
from transect.script.parser.diagnostics import PYTHON_ERRORS, Diagnostics, Poisoned, located
from transect.script.parser.evaluate import POISON, Environment, Evaluator
from transect.script.parser.source import Source
from transect.support.errors import ScriptError, TransectError


class FunctionParser(Evaluator):
    """Base of the parsers of one function."""

    def __init__(self, source: Source, environment: Environment, diagnostics: Diagnostics) -> None:
        super().__init__(source, environment)
        self.diagnostics = diagnostics
        self.symbols: set[Var] = set()
        self.base = 0

    @contextmanager
    def scope(self) -> Generator[None]:
        """Names bound inside are not visible afterwards."""
        self.scopes.append({})
        try:
            yield
        finally:
            self.scopes.pop()

    def attempt(self, node: ast.AST, action: Callable[[], Any]) -> Any:
        """Run `action`; its error is kept for the report, and the names that `node` would have
        defined are marked so that their uses are not reported as well."""
        try:
            return action()
        except Poisoned:
            pass
        except ScriptError as error:
            self.diagnostics.add(error)
        except TransectError as error:
            self.diagnostics.add(located(error, self.source, node))
        except PYTHON_ERRORS as error:
            self.diagnostics.add(
                self.error(
                    f"{type(error).__name__}: {error}",
                    node,
                    "this is evaluated as Python while the script is parsed",
                )
            )
        for name in assigned_names(node):
            self.define(name, POISON)
        return None

    @staticmethod
    def poisoned() -> Poisoned:
        """What to raise where an error has been reported already."""
        return Poisoned()

    # --- symbolic dimensions ----------------------------------------------------------------

    def dimension(self, value: Any, node: ast.AST) -> Expr:
        """A dimension: a number, an expression, or a string that names variables."""
        if isinstance(value, str):
            return self.string_dimension(value, node)
        if isinstance(value, FreshVar):
            raise self.error("this variable has no name", node, "assign it first: n = T.int64()")
        if isinstance(value, bool) or not isinstance(value, int | Expr):
            shown = value.dtype if isinstance(value, Expr) else type(value).__name__
            raise self.error(
                f"a dimension must be an integer, got {shown}",
                node,
                "a number, a variable, or a name as a string",
            )
        expr = as_expr(value, INDEX)
        if not expr.dtype.is_integral:
            raise self.error(
                f"a dimension must be an integer, got {expr.dtype}",
                node,
                'T.Cast("int64", ...) makes it one',
            )
        if isinstance(expr, IntImm) and expr.value < 0:
            raise self.error(
                f"a dimension cannot be negative: {expr.value}", node, "dimensions start at 0"
            )
        return expr

    def string_dimension(self, text: str, node: ast.AST) -> Expr:
        """The expression in a string such as "n" or "n * 4", whose new names become variables."""
        tree = self.parse_expression(text, node)
        for item in ast.walk(tree):
            if isinstance(item, ast.Name):
                self.symbol(item.id)
        value = self.eval(tree)
        if isinstance(value, str):
            raise self.error(
                f"{text!r} is not a dimension",
                node,
                'a dimension is a number, or names and arithmetic: "n", "n + 1"',
            )
        return self.dimension(value, node)

    def symbol(self, name: str) -> None:
        """Make `name` a symbolic dimension of this function unless it means something already."""
        if any(name in scope for scope in self.scopes):
            return
        try:
            known = self.environment.find(name)
        except KeyError:
            known = None
        # Inside a string a name is a dimension, whatever number it is in Python: only symbolic
        # variables and namespaces (T.max) keep their meaning.
        if isinstance(known, Expr) or hasattr(known, "__name__"):
            return
        var = Var(name, INDEX)
        self.symbols.add(var)
        self.scopes[self.base][name] = var

    def fresh_variable(self, name: str, value: FreshVar) -> Var:
        """`n = T.int64()`: the dimension `n` of the signature if it has one, else a new one."""
        known = self.scopes[self.base].get(name)
        if isinstance(known, Var) and known in self.symbols and known.dtype is value.dtype:
            return known
        return Var(name, value.dtype, value.pointer)


def assigned_names(node: ast.AST) -> list[str]:
    """The names that a statement itself binds."""
    targets: Sequence[ast.expr] = ()
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    elif isinstance(node, ast.FunctionDef):
        return [node.name]
    elif isinstance(node, ast.arg):
        return [node.arg]
    elif isinstance(node, ast.If):
        return [name for item in (*node.body, *node.orelse) for name in assigned_names(item)]
    elif isinstance(node, ast.With):
        return [name for item in node.body for name in assigned_names(item)]
    return [
        item.id
        for target in targets
        if not isinstance(target, ast.Subscript)
        for item in ast.walk(target)
        if isinstance(item, ast.Name)
    ]


def check_plain_parameters(parser: FunctionParser, node: ast.FunctionDef) -> None:
    """Report parameters that Python has and script has not."""
    arguments = node.args
    odd = [
        item
        for item in (arguments.vararg, arguments.kwarg, *arguments.kwonlyargs)
        if item is not None
    ]
    names = [item.arg for item in (*arguments.posonlyargs, *arguments.args)]
    for number, item in enumerate((*arguments.posonlyargs, *arguments.args)):
        if item.arg in names[:number]:
            parser.diagnostics.add(
                parser.error(f"two parameters named {item.arg!r}", item, "rename one of them")
            )
    odd_nodes: list[ast.AST] = [*odd, *arguments.defaults]
    if odd_nodes:
        parser.diagnostics.add(
            parser.error(
                "parameters are positional and have no defaults",
                odd_nodes[0],
                "name every parameter",
            )
        )


def decorator_name(node: ast.expr) -> str:
    """`T.prim_func` of `@T.prim_func(private=True)`."""
    return ast.unparse(node.func if isinstance(node, ast.Call) else node)
