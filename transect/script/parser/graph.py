"""Statements of graph functions: bindings, dataflow blocks, branches, results."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from transect.ir.expr import Expr, GlobalVar
from transect.ir.node import replace
from transect.ir.types import CallableType, ObjectType, TupleType, Type
from transect.relax import expr as rx
from transect.relax.emit import Bindings, Names
from transect.relax.inference import infer_type, is_subtype, join
from transect.relax.shapes import plain_vars
from transect.script import directives as d
from transect.script import graph_directives as g
from transect.script.axes import is_items
from transect.script.parser.diagnostics import Diagnostics, listed, suggest
from transect.script.parser.evaluate import POISON, Environment
from transect.script.parser.function import decorator_name
from transect.script.parser.graph_call import CallParser
from transect.script.parser.source import Source

_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.FloorDiv: "floor_divide",
    ast.Mod: "floor_mod",
    ast.Pow: "power",
    ast.MatMult: "matmul",
    ast.BitAnd: "bitwise_and",
    ast.BitOr: "bitwise_or",
    ast.BitXor: "bitwise_xor",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.USub: "negative",
    ast.Not: "logical_not",
    ast.Invert: "bitwise_not",
}


class GraphParser(CallParser):
    """Parses the statements of one graph function."""

    def __init__(self, source: Source, environment: Environment, diagnostics: Diagnostics) -> None:
        super().__init__(source, environment, diagnostics)
        self.bindings = Bindings(Names())
        self.attrs: dict[str, Any] = {}
        self.result: rx.Value | None = None
        self.returned: ast.AST | None = None
        self.loads: list[tuple[tuple[int, int], str]] = []
        self.outputs: set[tuple[str, tuple[int, int]]] | None = None
        self._statements: dict[type[ast.stmt], Callable[[Any], None]] = {
            ast.Expr: self._expression,
            ast.Assign: self._assign,
            ast.AnnAssign: self._annotated,
            ast.With: self._with,
            ast.If: self._branch_statement,
            ast.Return: self._return,
            ast.FunctionDef: self._function,
            ast.Assert: self._assert,
            ast.Pass: lambda node: None,
        }

    # --- evaluation -------------------------------------------------------------------------

    def call(self, function: Any, args: list[Any], keywords: dict[str, Any], node: ast.Call) -> Any:
        if isinstance(function, g.OperatorName):
            return self.operator(function.name, args, keywords, node)
        if isinstance(function, GlobalVar):
            function = self.global_func(function)
        if isinstance(function, rx.Value):
            return self._call_value(function, args, keywords, node)
        return super().call(function, args, keywords, node)

    def _call_value(
        self, callee: rx.Value, args: list[Any], keywords: dict[str, Any], node: ast.AST
    ) -> rx.Value:
        types = self.type_arguments(keywords, node)
        if keywords:
            raise self.error(
                f"a function of a graph has no argument {next(iter(keywords))!r}",
                node,
                "give its arguments by position",
            )
        if not isinstance(callee.type, CallableType | ObjectType):
            raise self.error(
                f"a value of type {callee.type!r} cannot be called",
                node,
                "functions, operators and packed functions can",
            )
        if isinstance(callee, rx.GlobalFunc) and isinstance(callee.type, ObjectType) and not types:
            raise self.error(
                f"{callee.name!r} is a tensor program",
                node,
                f"call it with R.call_tir({callee.name}, (x,), R.Tensor(...))",
            )
        operands = tuple(self.operand(item, node) for item in args)
        call = rx.Call(callee, operands, ObjectType(), types, self.source.span(node))
        return replace(call, type=infer_type(call))

    def binary(self, kind: type[ast.operator], a: Any, b: Any, node: ast.AST) -> Any:
        if (isinstance(a, rx.Value) or isinstance(b, rx.Value)) and kind in _OPERATORS:
            return self.operator(_OPERATORS[kind], [a, b], {}, node)
        return super().binary(kind, a, b, node)

    def unary(self, kind: type[ast.unaryop], value: Any, node: ast.AST) -> Any:
        if isinstance(value, rx.Value) and kind in _OPERATORS:
            return self.operator(_OPERATORS[kind], [value], {}, node)
        return super().unary(kind, value, node)

    def comparison(self, kind: type[ast.cmpop], a: Any, b: Any, node: ast.AST) -> Any:
        if (isinstance(a, rx.Value) or isinstance(b, rx.Value)) and kind in _OPERATORS:
            return self.operator(_OPERATORS[kind], [a, b], {}, node)
        return super().comparison(kind, a, b, node)

    def attribute(self, value: Any, name: str, node: ast.AST) -> Any:
        if isinstance(value, g.OperatorName):
            found = getattr(value, name, None)
            if found is None:
                otherwise = listed(dir(value)) or "drop it"
                raise self.error(
                    f"{value!r} has no {name!r}", node, suggest(name, dir(value), otherwise)
                )
            return found
        return super().attribute(value, name, node)

    def subscript(self, value: Any, index: Any, node: ast.Subscript) -> Any:
        if not isinstance(value, rx.Value):
            return super().subscript(value, index, node)
        number = getattr(index, "value", index)
        if not isinstance(number, int):
            raise self.error(
                "an item of a tuple is chosen by a number",
                node,
                "R.strided_slice takes part of a tensor",
            )
        if isinstance(value, rx.Tuple) and 0 <= number < len(value.items):
            return value.items[number]
        return replace(rx.tuple_item(value, number), span=self.source.span(node))

    # --- suites -----------------------------------------------------------------------------

    def suite(self, nodes: Sequence[ast.stmt]) -> None:
        """The statements of a suite, in order."""
        for node in nodes:
            if self.returned is not None:
                self.diagnostics.add(
                    self.error("nothing may follow the result", node, "return comes last")
                )
                return
            self.attempt(node, lambda node=node: self.statement(node))

    def statement(self, node: ast.stmt) -> None:
        """One statement."""
        handler = self._statements.get(type(node))
        if handler is None:
            raise self.error(
                f"{type(node).__name__} statements have no meaning in a graph function",
                node,
                "statements are assignments, with R.dataflow(), if and return",
            )
        handler(node)

    # --- bindings ---------------------------------------------------------------------------

    def _assign(self, node: ast.Assign) -> None:
        value = self.eval(node.value)
        for target in node.targets:
            self.assign(target, value, None, node)

    def _annotated(self, node: ast.AnnAssign) -> None:
        if node.value is None:
            raise self.error("a binding needs a value", node, "write name: type = value")
        value = self.eval(node.value)
        described = self.eval(node.annotation)
        kind = (
            None if isinstance(described, d.ScalarName) else self.type(described, node.annotation)
        )
        self.assign(node.target, value, kind, node)

    def assign(self, target: ast.expr, value: Any, kind: Type | None, node: ast.stmt) -> None:
        """`target: kind = value`."""
        if isinstance(target, ast.Name):
            self.define(target.id, self.named(target.id, value, kind, node))
            return
        if not isinstance(target, ast.Tuple | ast.List):
            raise self.error("cannot assign to this", target, "values of a graph do not change")
        if isinstance(value, rx.Value) and not isinstance(value, rx.Tuple):
            if not isinstance(value.type, TupleType):
                raise self.error(
                    f"a value of type {value.type!r} has no items",
                    node,
                    "tuples have: unpack a tuple, or take t[0]",
                )
            source = value if isinstance(value, rx.Var) else self.bind("lv", value, None, node)
            value = [rx.tuple_item(source, index) for index in range(len(value.type.items))]
        items = (
            list(value.items)
            if isinstance(value, rx.Tuple)
            else self.guarded(lambda: list(value), node)
        )
        if len(items) != len(target.elts):
            raise self.error(
                f"{len(target.elts)} names for {len(items)} values",
                target,
                "as many of the one as of the other",
            )
        for part, item in zip(target.elts, items, strict=True):
            self.assign(part, item, None, node)

    def named(self, name: str, value: Any, kind: Type | None, node: ast.stmt) -> Any:
        """What `name` stands for after `name = value`: a variable, or a value of the parser's."""
        if isinstance(value, d.FreshVar):
            return self.fresh_variable(name, value)
        if isinstance(value, g.MatchCastSpec):
            return self.match_cast(name, value, node)
        if is_items(value) and any(isinstance(item, rx.Value) for item in value):
            value = self.operand(value, node)
        if isinstance(value, GlobalVar):
            value = self.global_func(value)
        if kind is not None and not isinstance(value, rx.Value):
            value = self.operand(value, node)
        if isinstance(value, rx.Value):
            return self.bind(name, value, kind, node)
        return value

    def bind(self, name: str, value: rx.Value, kind: Type | None, node: ast.stmt) -> rx.Var:
        """Bind a value to a new variable."""
        span = self.source.span(node)
        normal = self.bindings.normalize(value)
        if kind is not None:
            normal = self.annotated(normal, kind, node)
        var = rx.Var(
            name, normal.type, self.bindings.in_dataflow and not self.is_output(name, node), span
        )
        self.bindings.add(rx.VarBinding(var, normal, span))
        return var

    def annotated(self, value: rx.Value, kind: Type, node: ast.AST) -> rx.Value:
        """`value` with its annotated type. Raises ScriptError if the annotation is wrong."""
        if value.type is kind:
            return value
        if (
            isinstance(value, rx.Call)
            and not value.type_args
            and isinstance(value.type, ObjectType)
        ):
            # What a packed function returns is what the script says, checked at run time.
            return replace(value, type_args=(kind,), type=kind)
        if not is_subtype(value.type, kind):
            place = node.annotation if isinstance(node, ast.AnnAssign) else node
            raise self.error(
                f"the value is {value.type!r}, not {kind!r}",
                place,
                "R.match_cast(value, type) checks at run time what is not known here",
            )
        if isinstance(value, rx.Var | rx.Function | rx.GlobalFunc):
            return value
        return replace(value, type=kind)

    def match_cast(self, name: str, spec: g.MatchCastSpec, node: ast.stmt) -> rx.Var:
        """`name = R.match_cast(value, type)`."""
        span = self.source.span(node)
        kind = self.type(spec.type, node)
        value = self.bindings.leaf(self.operand(spec.value, node))
        dataflow = self.bindings.in_dataflow and not self.is_output(name, node)
        var = rx.Var(name, kind, dataflow, span)
        self.bindings.add(rx.MatchCast(value, kind, var, span))
        return var

    # --- expression statements --------------------------------------------------------------

    def _expression(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return
        value = self.eval(node.value)
        if isinstance(value, d.Attributes) and value.role == "function":
            self.attrs.update(value.values)
        elif isinstance(value, g.OutputDirective):
            self._output(value, node)
        elif isinstance(value, rx.Value):
            self.bind("_", value, None, node)
        elif isinstance(value, g.MatchCastSpec):
            self.match_cast("_", value, node)
        elif value is not None:
            raise self.error(
                f"a {type(value).__name__} does nothing as a statement",
                node,
                "assign it to a name, or drop it",
            )

    def _output(self, value: g.OutputDirective, node: ast.stmt) -> None:
        if self.outputs is None:
            raise self.error("R.output stands in a dataflow block", node, "with R.dataflow():")
        for item in value.values:
            if not isinstance(item, rx.Var) or item.dataflow:
                shown = item.name if isinstance(item, rx.Var) else type(item).__name__
                raise self.error(
                    f"{shown} is no variable of this dataflow block",
                    node,
                    "R.output names what the block assigns",
                )

    def _assert(self, node: ast.Assert) -> None:
        message = "" if node.msg is None else self.eval(node.msg)
        value = self.operator("assert_op", [self.eval(node.test)], {"format": message}, node)
        self.bind("_", value, None, node)

    # --- dataflow blocks --------------------------------------------------------------------

    def _with(self, node: ast.With) -> None:
        frame = self.eval(node.items[0].context_expr)
        if len(node.items) != 1 or not isinstance(frame, g.DataflowFrame | g.BindingsFrame):
            raise self.error(
                "only R.dataflow() opens a block in a graph function",
                node,
                "write with R.dataflow():",
            )
        if self.bindings.in_dataflow:
            raise self.error("a dataflow block inside another", node, "close the first one before")
        dataflow = isinstance(frame, g.DataflowFrame)
        self.outputs = self._find_outputs(node) if dataflow else None
        self.bindings.begin(dataflow=dataflow, span=self.source.span(node))
        try:
            self.suite(node.body)
        finally:
            self.bindings.begin(dataflow=False)
            self.outputs = None
        if self.returned is not None and dataflow:
            raise self.error(
                "the result of a function stands outside of dataflow blocks",
                self.returned,
                "write return after the block, less indented",
            )

    def _find_outputs(self, node: ast.With) -> set[tuple[str, tuple[int, int]]]:
        """The assignments in a dataflow block that are visible outside: the last one to each name
        that R.output lists or that the function uses further down."""
        last: dict[str, tuple[int, int]] = {}
        wanted: set[str] = set()
        for item in ast.walk(node):
            if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store):
                place = (item.lineno, item.col_offset)
                last[item.id] = max(place, last.get(item.id, place))
            elif isinstance(item, ast.FunctionDef):
                last[item.name] = (item.lineno, item.col_offset)
            elif (
                isinstance(item, ast.Call)
                and isinstance(item.func, ast.Attribute)
                and item.func.attr == "output"
            ):
                wanted.update(arg.id for arg in item.args if isinstance(arg, ast.Name))
        end = (node.end_lineno or 0, node.end_col_offset or 0)
        wanted.update(name for place, name in self.loads if place >= end)
        return {(name, place) for name, place in last.items() if name in wanted}

    def is_output(self, name: str, node: ast.AST) -> bool:
        """Whether the assignment to `name` in this statement is an output of its dataflow block."""
        if self.outputs is None:
            return False
        if isinstance(node, ast.FunctionDef):
            return (name, (node.lineno, node.col_offset)) in self.outputs
        return any(
            (name, (item.lineno, item.col_offset)) in self.outputs
            for item in ast.walk(node)
            if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)
        )

    # --- branches and results ---------------------------------------------------------------

    def _branch_statement(self, node: ast.If) -> None:
        test = self.eval(node.test)
        if isinstance(test, Expr):
            test = self.operand(test, node.test)
        if not isinstance(test, rx.Value):
            self.suite(node.body if test else node.orelse)
            return
        if self.bindings.in_dataflow:
            raise self.error(
                "a branch inside a dataflow block", node, "close the block before the if"
            )
        if not node.orelse:
            raise self.error("a branch of a graph needs an else", node, "both sides give a value")
        condition = self.bindings.leaf(test)
        names = {_result_name(side) for side in (node.body, node.orelse)}
        if len(names) != 1:
            raise self.error(
                "both sides of a branch assign their value to one name, last",
                node,
                "end both with the same name = value",
            )
        name = names.pop()
        then_branch, then_kind = self._branch(node.body)
        else_branch, else_kind = self._branch(node.orelse)
        if then_branch is None or else_branch is None:
            if name is not None:
                self.define(name, POISON)
            return
        given = then_kind or else_kind
        kind = join(then_branch.type, else_branch.type)
        if given is not None and is_subtype(kind, given):
            kind = given
        span = self.source.span(node)
        value = rx.If(condition, then_branch, else_branch, kind, span)
        var = rx.Var(name or "gv", kind, False, span)
        self.bindings.add(rx.VarBinding(var, value, span))
        if name is None:
            self.result, self.returned = var, node
        else:
            self.define(name, var)

    def _branch(self, nodes: Sequence[ast.stmt]) -> tuple[rx.SeqExpr | None, Type | None]:
        """One side of a branch; its last statement gives the value."""
        outer, errors = self.bindings, len(self.diagnostics.errors)
        inner = Bindings(outer.names, outer.symbols)
        self.bindings = inner
        result: tuple[rx.SeqExpr | None, Type | None] = (None, None)
        try:
            with self.scope():
                self.suite(nodes[:-1])
                made = self.attempt(nodes[-1], lambda: self._branch_value(nodes[-1]))
                if made is not None and len(self.diagnostics.errors) == errors:
                    value, kind = made
                    result = inner.finish(value), kind
        finally:
            self.bindings = outer
            self.returned = None
        return result

    def _branch_value(self, node: ast.stmt) -> tuple[rx.Value, Type | None]:
        kind: Type | None = None
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            kind = self.type(self.eval(node.annotation), node.annotation)
            value = self.eval(node.value)
        elif isinstance(node, ast.If):
            self._branch_statement(node)
            name = _result_name([node])
            found = self.result if name is None else self.scopes[-1][name]
            assert isinstance(found, rx.Value)
            return found, None
        elif isinstance(node, ast.Assign | ast.Return) and node.value is not None:
            value = self.eval(node.value)
        else:
            raise self.error(
                "a branch ends in its value", node, "assign it to a name, the same on both sides"
            )
        if isinstance(value, g.MatchCastSpec):
            return self.match_cast("lv", value, node), kind
        value = self.operand(value, node)
        if rx_is_leaf(value):
            return value, kind
        return self.bind("lv", value, kind, node), kind

    def _return(self, node: ast.Return) -> None:
        if self.bindings.in_dataflow:
            raise self.error(
                "the result of a function stands outside of dataflow blocks",
                node,
                "write return after the block, less indented",
            )
        value = rx.make_tuple() if node.value is None else self.operand(self.eval(node.value), node)
        self.result, self.returned = value, node

    def _function(self, node: ast.FunctionDef) -> None:
        kinds = [decorator_name(item).split(".")[-1] for item in node.decorator_list]
        if kinds != ["function"]:
            raise self.error(
                "a function inside a graph function is one itself",
                node,
                "write @R.function above it",
            )
        made, itself = self.local_function(node)
        if itself is None:
            itself = self.bind(node.name, made, None, node)
        else:
            local = self.bindings.in_dataflow and not self.is_output(node.name, node)
            if local:
                raise self.error(
                    "a function that calls itself stands outside of dataflow blocks",
                    node,
                    "write it before the block",
                )
            self.bindings.add(rx.VarBinding(itself, made, self.source.span(node)))
        self.define(node.name, itself)

    def local_function(self, node: ast.FunctionDef) -> tuple[rx.Function, rx.Var | None]:
        """A function inside this one, which may use its variables, and the variable by which it
        calls itself, if it does."""
        raise NotImplementedError

    def parameters(self, node: ast.FunctionDef) -> tuple[list[rx.Var], Type | None]:
        """Define the parameters and give the annotated type of the result."""
        params: list[rx.Var] = []
        for item in (*node.args.posonlyargs, *node.args.args):
            kind = self.attempt(item, lambda item=item: self._parameter_type(item))
            var = rx.Var(
                item.arg, ObjectType() if kind is None else kind, False, self.source.span(item)
            )
            params.append(var)
            if kind is not None:
                self.define(item.arg, var)
        self.bindings = Bindings(
            Names(item.arg for item in node.args.args), plain_vars(p.type for p in params)
        )
        returns = node.returns
        if returns is None:
            return params, None
        return params, self.attempt(returns, lambda: self.type(self.eval(returns), returns))

    def _parameter_type(self, item: ast.arg) -> Type:
        if item.annotation is None:
            raise self.error(
                f"the parameter {item.arg!r} has no type",
                item,
                'for example R.Tensor((16,), "float32")',
            )
        return self.type(self.eval(item.annotation), item.annotation)


def rx_is_leaf(value: rx.Value) -> bool:
    """Whether a value may be the result of a branch as it is."""
    return not isinstance(
        value, rx.Call | rx.TupleGetItem | rx.If | rx.Function | rx.SeqExpr
    ) and not (isinstance(value, rx.Tuple) and not all(rx_is_leaf(item) for item in value.items))


def _result_name(nodes: Sequence[ast.stmt]) -> str | None:
    """The name that the last statement of a branch assigns; None if it returns."""
    last = nodes[-1]
    if isinstance(last, ast.Assign) and isinstance(last.targets[0], ast.Name):
        return last.targets[0].id
    if isinstance(last, ast.AnnAssign) and isinstance(last.target, ast.Name):
        return last.target.id
    if isinstance(last, ast.If):
        return _result_name(last.body)
    return None
