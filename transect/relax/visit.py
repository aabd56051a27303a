"""Walking and rewriting graph programs: values, bindings, blocks, branches, nested functions.

What a particular pass looks for lives in `relax.transform`; matching patterns in `pattern`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from transect.ir import expr as ir_expr
from transect.ir.expr import Expr
from transect.ir.function import IRModule
from transect.ir.node import Node, replace
from transect.ir.traverse import free_vars as term_vars
from transect.ir.types import Type
from transect.relax import expr as rx
from transect.relax.emit import Bindings, Names, retype
from transect.relax.inference import function_type
from transect.relax.shapes import (
    plain_vars,
    substitute_expr,
    substitute_type,
    type_vars,
)
from transect.support.span import Spans

# --- walking --------------------------------------------------------------------------------


def operands(value: rx.Value) -> tuple[rx.Value, ...]:
    """The values that `value` is made of directly; those of branches and bodies are not."""
    if isinstance(value, rx.Call):
        return value.args if isinstance(value.op, rx.Op) else (value.op, *value.args)
    if isinstance(value, rx.Tuple):
        return value.items
    if isinstance(value, rx.TupleGetItem):
        return (value.tuple_value,)
    if isinstance(value, rx.If):
        return (value.condition,)
    if isinstance(value, rx.SeqExpr):
        return (value.body,)
    return ()


def walk(root: Node) -> Iterator[Node]:
    """Every value, binding and block in `root`, itself first, in program order.

    Bound variables and parameters are visited where they are bound, and again at each use.
    """
    stack: list[Node] = [root]
    while stack:
        item = stack.pop()
        yield item
        stack.extend(reversed(_parts(item)))


def _parts(item: Node) -> tuple[Node, ...]:
    if isinstance(item, rx.VarBinding):
        return (item.value, item.var)
    if isinstance(item, rx.MatchCast):
        return (item.value, item.var)
    if isinstance(item, rx.BindingBlock):
        return item.bindings
    if isinstance(item, rx.Function):
        return (*item.params, item.body)
    if isinstance(item, rx.SeqExpr):
        return (*item.blocks, item.body)
    if isinstance(item, rx.If):
        return (item.condition, item.then_branch, item.else_branch)
    return operands(item) if isinstance(item, rx.Value) else ()


def bindings(root: Node) -> Iterator[rx.Binding]:
    """All bindings in `root`, those of branches and nested functions included."""
    for item in walk(root):
        if isinstance(item, rx.VarBinding | rx.MatchCast):
            yield item


def direct_bindings(seq: rx.SeqExpr) -> Iterator[rx.Binding]:
    """The bindings of `seq` itself, in order, without those of branches and nested functions."""
    for block in seq.blocks:
        yield from block.bindings


def bound_vars(root: Node) -> list[rx.Var]:
    """The variables that `root` binds: parameters and bindings, at any depth."""
    found: list[rx.Var] = []
    for item in walk(root):
        if isinstance(item, rx.Function):
            found.extend(item.params)
        elif isinstance(item, rx.VarBinding | rx.MatchCast):
            found.append(item.var)
    return found


def free_vars(root: Node) -> list[rx.Var]:
    """The graph variables used in `root` but bound outside it, in order of first appearance."""
    bound = set(bound_vars(root))
    used = (item for item in walk(root) if isinstance(item, rx.Var))
    return list(dict.fromkeys(var for var in used if var not in bound))


def use_counts(root: Node) -> dict[rx.Var, int]:
    """How often each variable is used in `root`, not counting the place that binds it."""
    counts: dict[rx.Var, int] = {}
    stack: list[Node] = [root]
    while stack:
        item = stack.pop()
        if isinstance(item, rx.Var):
            counts[item] = counts.get(item, 0) + 1
        elif isinstance(item, rx.VarBinding | rx.MatchCast):
            stack.append(item.value)
        elif isinstance(item, rx.Function):
            stack.append(item.body)
        else:
            stack.extend(_parts(item))
    return counts


def called_functions(root: Node) -> list[str]:
    """The names of the module's functions that `root` refers to, in order of first appearance."""
    names = (item.name for item in walk(root) if isinstance(item, rx.GlobalFunc))
    return list(dict.fromkeys(names))


def own_types(item: Node) -> Iterator[Type]:
    """The types written at `item` itself: of a bound variable, a cast, a call, a function."""
    if isinstance(item, rx.Var | rx.MatchCast):
        yield item.type
    elif isinstance(item, rx.Call):
        yield from item.type_args
    elif isinstance(item, rx.Function):
        yield item.ret_type
    elif isinstance(item, rx.ShapeExpr | rx.PrimValue):
        yield item.type


def defined_symbols(root: Node) -> list[ir_expr.Var]:
    """The symbolic variables bound in `root`: plain in a parameter's or a match_cast's type."""
    found: list[ir_expr.Var] = []
    for item in walk(root):
        if isinstance(item, rx.Function):
            found.extend(plain_vars(param.type for param in item.params))
        elif isinstance(item, rx.MatchCast):
            found.extend(plain_vars((item.type,)))
    return list(dict.fromkeys(found))


def used_symbols(root: Node) -> list[ir_expr.Var]:
    """The symbolic variables that occur in `root`, in order of first appearance."""
    found: dict[ir_expr.Var, None] = {}
    for item in walk(root):
        if isinstance(item, rx.ShapeExpr):
            found.update(dict.fromkeys(term_vars(item.values)))
        elif isinstance(item, rx.PrimValue):
            found.update(dict.fromkeys(term_vars((item.value,))))
        else:
            for kind in own_types(item):
                found.update(dict.fromkeys(type_vars(kind)))
    return list(found)


def free_symbols(root: Node) -> list[ir_expr.Var]:
    """The symbolic variables used in `root` but bound outside it."""
    bound = set(defined_symbols(root))
    return [var for var in used_symbols(root) if var not in bound]


# --- rewriting ------------------------------------------------------------------------------


class Rewriter:
    """Rebuilds a graph function. Override the hooks of what changes; the rest stays as it is.

    variables: what stands for a variable of the original. symbols: likewise for symbolic
    variables, in every type and shape. A hook may emit bindings (`emit`) before the one under way.
    A rewritten value keeps the span of what it replaces; what is emitted without a span of its own
    gets that of the binding under way, `origin`.
    """

    def __init__(
        self,
        variables: Mapping[rx.Var, rx.Value] | None = None,
        symbols: Mapping[ir_expr.Var, Expr] | None = None,
    ) -> None:
        self.variables: dict[rx.Var, rx.Value] = dict(variables or {})
        self.symbols: dict[ir_expr.Var, Expr] = dict(symbols or {})
        self.out = Bindings(Names())
        self.origin: Spans = ()
        self._types: dict[Type, Type] = {}

    # --- hooks --------------------------------------------------------------------------

    def rewrite_call(self, call: rx.Call) -> rx.Value:
        """What stands for a call whose operands are rewritten and whose type is derived anew."""
        return call

    def rewrite_binding(self, binding: rx.Binding) -> None:
        """Emit what stands for a binding of the original."""
        if isinstance(binding, rx.MatchCast):
            self.rewrite_match_cast(binding)
        elif isinstance(binding.value, rx.Function) and binding.var in free_vars(binding.value):
            # It calls itself: its variable is in scope before its body.
            var = self.renew(binding.var, self.type(binding.var.type))
            self.out.add(replace(binding, var=var, value=self.rewrite(binding.value)))
        else:
            self.bind(binding, self.rewrite(binding.value))

    def rewrite_match_cast(self, binding: rx.MatchCast) -> None:
        """Emit what stands for a match_cast."""
        value = self.out.leaf(self.rewrite(binding.value))
        kind = self.type(binding.type)
        var = self.renew(binding.var, kind)
        self.out.add(replace(binding, value=value, type=kind, var=var))

    def rewrite_block(self, block: rx.BindingBlock) -> None:
        """Emit what stands for a block of bindings."""
        self.out.begin(dataflow=block.dataflow, span=block.span)
        before = len(self.out.blocks)
        outer = self.origin
        for binding in block.bindings:
            self.origin = binding.span or binding.value.span or outer
            self.rewrite_binding(binding)
        self.origin = outer
        if len(self.out.blocks) == before and self.out.in_dataflow == block.dataflow:
            new = self.out.take_open()
            if len(new) == len(block.bindings) and all(map(_same, new, block.bindings)):
                self.out.blocks.append(block)
            elif new:
                self.out.blocks.append(rx.BindingBlock(new, block.dataflow, block.span))
        self.out.close()

    # --- tools for hooks ----------------------------------------------------------------

    def emit(self, value: rx.Value, hint: str = "lv", span: Spans = ()) -> rx.Var:
        """Bind a new value before the binding under way."""
        return self.out.bind(value, hint, span=span or value.span or self.origin)

    def bind(self, binding: rx.VarBinding, value: rx.Value) -> None:
        """Emit `binding` with another value; the variable is renewed if its type changes."""
        normal = self.out.normalize(value)
        if normal is binding.value:
            var = self.renew(binding.var, self.type(binding.var.type))
        else:
            span = binding.value.span or self.origin
            # A variable is who it is: with another span it would be another one.
            if not normal.span and span and not isinstance(normal, rx.Var):
                normal = replace(normal, span=span)
            kept = normal.type is binding.value.type
            var = self.renew(binding.var, self.type(binding.var.type) if kept else normal.type)
        self.out.add(replace(binding, var=var, value=normal))

    def renew(self, var: rx.Var, kind: Type) -> rx.Var:
        """The variable that stands for `var` with type `kind`: itself if that is its type."""
        if kind is var.type and var not in self.variables:
            return var
        new = replace(var, type=kind)
        if new is var:
            new = rx.Var(var.name, kind, var.dataflow, var.span)
        self.variables[var] = new
        return new

    def type(self, kind: Type) -> Type:
        """A type of the original with the symbolic variables replaced."""
        if not self.symbols:
            return kind
        found = self._types.get(kind)
        if found is None:
            found = self._types[kind] = substitute_type(kind, self.symbols)
        return found

    def bind_symbols(self, values: Mapping[ir_expr.Var, Expr]) -> None:
        """Replace further symbolic variables from here on."""
        self.symbols.update(values)
        self._types.clear()

    # --- values -------------------------------------------------------------------------

    def rewrite(self, value: rx.Value) -> rx.Value:
        """What stands for a value of the original."""
        if isinstance(value, rx.Var):
            return self.variables.get(value, value)
        if isinstance(value, rx.Call):
            return self._call(value)
        if isinstance(value, rx.Tuple):
            return self._tuple(value)
        if isinstance(value, rx.TupleGetItem):
            return self._item(value)
        if isinstance(value, rx.ShapeExpr):
            return self._shape(value)
        if isinstance(value, rx.PrimValue):
            return self._prim(value)
        if isinstance(value, rx.If):
            return self._if(value)
        if isinstance(value, rx.SeqExpr):
            return self.rewrite_seq(value)
        if isinstance(value, rx.Function):
            return self.rewrite_function(value)
        return value

    def _call(self, call: rx.Call) -> rx.Value:
        callee = call.op if isinstance(call.op, rx.Op) else self.rewrite(call.op)
        args = self._values(call.args)
        type_args = self._kinds(call.type_args)
        new = replace(call, op=callee, args=args, type_args=type_args)
        if new is not call:
            types_changed = type_args is not call.type_args or any(
                a.type is not b.type for a, b in zip(operands(new), operands(call), strict=True)
            )
            if types_changed:
                new = retype(new)
            elif self.symbols:
                new = replace(new, type=self.type(new.type))
        elif self.symbols:
            new = replace(new, type=self.type(new.type))
        result = self.rewrite_call(new)
        if result is not new and not result.span and not isinstance(result, rx.Var):
            result = replace(result, span=call.span)
        return result

    def _tuple(self, value: rx.Tuple) -> rx.Value:
        items = self._values(value.items)
        return value if items is value.items else retype(replace(value, items=items))

    def _item(self, value: rx.TupleGetItem) -> rx.Value:
        source = self.rewrite(value.tuple_value)
        if source is value.tuple_value:
            return value if not self.symbols else replace(value, type=self.type(value.type))
        return retype(replace(value, tuple_value=source))

    def _shape(self, value: rx.ShapeExpr) -> rx.Value:
        if not self.symbols:
            return value
        values = tuple(substitute_expr(dim, self.symbols) for dim in value.values)
        if all(a is b for a, b in zip(values, value.values, strict=True)):
            return value
        return retype(rx.ShapeExpr(values, self.type(value.type), value.span))

    def _prim(self, value: rx.PrimValue) -> rx.Value:
        new = substitute_expr(value.value, self.symbols)
        return (
            value if new is value.value else replace(value, value=new, type=self.type(value.type))
        )

    def _if(self, value: rx.If) -> rx.Value:
        condition = self.out.leaf(self.rewrite(value.condition))
        new = replace(
            value,
            condition=condition,
            then_branch=self.rewrite_seq(value.then_branch),
            else_branch=self.rewrite_seq(value.else_branch),
        )
        return value if new is value else retype(new)

    def _values(self, values: tuple[rx.Value, ...]) -> tuple[rx.Value, ...]:
        new = tuple(map(self.rewrite, values))
        return values if all(map(_same, new, values)) else new

    def _kinds(self, kinds: tuple[Type, ...]) -> tuple[Type, ...]:
        new = tuple(map(self.type, kinds))
        return kinds if all(map(_same, new, kinds)) else new

    def rewrite_seq(self, seq: rx.SeqExpr, params: Iterable[rx.Var] = ()) -> rx.SeqExpr:
        """What stands for a body or a branch: a sequence with a scope of its own."""
        outer = self.out
        self.out = Bindings(
            outer.names, outer.symbols.union(plain_vars(param.type for param in params))
        )
        try:
            for block in seq.blocks:
                self.rewrite_block(block)
            new = self.out.finish(self.rewrite(seq.body), seq.span)
        finally:
            self.out = outer
        same_blocks = len(new.blocks) == len(seq.blocks) and all(map(_same, new.blocks, seq.blocks))
        return seq if same_blocks and new.body is seq.body else new

    def rewrite_function(self, function: rx.Function) -> rx.Function:
        """What stands for a function, at the top of the module or nested."""
        params = tuple(self.renew(param, self.type(param.type)) for param in function.params)
        body = self.rewrite_seq(function.body, params)
        ret_type = self.type(function.ret_type)
        if all(map(_same, params, function.params)):
            params = function.params
            if body is function.body and ret_type is function.ret_type:
                return function
        if body.type is not function.body.type:
            ret_type = body.type
        kind = function_type(params, ret_type, pure=function.pure)
        return replace(function, params=params, body=body, ret_type=ret_type, type=kind)

    def run(self, function: rx.Function) -> rx.Function:
        """Rewrite a function of the module; new names avoid those it has."""
        self.out = Bindings(Names(var.name for var in bound_vars(function)))
        return self.rewrite_function(function)


def _same(a: object, b: object) -> bool:
    return a is b


class _Copy(Rewriter):
    """Gives every bound variable, symbolic ones included, a new identity."""

    def __init__(self, symbols: Mapping[ir_expr.Var, Expr]) -> None:
        super().__init__(symbols=symbols)
        self.known = set(symbols)

    def renew(self, var: rx.Var, kind: Type) -> rx.Var:
        new = rx.Var(var.name, kind, var.dataflow, var.span)
        self.variables[var] = new
        return new

    def refresh(self, kinds: Iterable[Type]) -> None:
        fresh = [var for var in plain_vars(kinds) if var not in self.known]
        self.known.update(fresh)
        self.bind_symbols({var: ir_expr.Var(var.name, var.dtype) for var in fresh})

    def rewrite_match_cast(self, binding: rx.MatchCast) -> None:
        self.refresh((binding.type,))
        super().rewrite_match_cast(binding)

    def rewrite_function(self, function: rx.Function) -> rx.Function:
        self.refresh(param.type for param in function.params)
        return super().rewrite_function(function)


def copy_with_fresh_vars(
    function: rx.Function, symbols: Mapping[ir_expr.Var, Expr] | None = None
) -> rx.Function:
    """A copy that shares no bound variable with `function`, graph or symbolic.

    symbols: symbolic variables to replace by given expressions instead of fresh variables.
    """
    return _Copy(symbols or {}).run(function)


def map_graph_functions(
    module: IRModule, change: Callable[[str, rx.Function], rx.Function]
) -> IRModule:
    """`module` with `change(name, function)` in place of each graph function."""
    return module.map_functions(
        lambda name, function: (
            change(name, function) if isinstance(function, rx.Function) else function
        )
    )


def graph_functions(module: IRModule) -> Iterator[tuple[str, rx.Function]]:
    """The graph functions of a module by name."""
    for name, function in module.functions.items():
        if isinstance(function, rx.Function):
            yield name, function
