"""R.emit_te and R.emit_with_ty: bindings that Python code in a script asks for.

What the loops of R.emit_te are written with is `tir.builder`.
"""

from __future__ import annotations

import ast
from typing import Any

from transect.ir.expr import GlobalVar
from transect.ir.types import TensorType, TupleType, tensor_type
from transect.relax import call as rc
from transect.relax import expr as rx
from transect.script.axes import is_items
from transect.script.parser.graph import GraphParser
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder


class EmitParser(GraphParser):
    """Parses the calls that add functions to the module, or bindings of a given type."""

    def operator(
        self, name: str, args: list[Any], keywords: dict[str, Any], node: ast.AST
    ) -> rx.Value:
        """`R.<name>(*args, **keywords)`."""
        if name == "emit_te":
            return self.emit_te(args, dict(keywords), node)
        if name in ("emit_with_ty", "emit_with_sinfo"):
            return self.emit_typed(name, args, keywords, node)
        return super().operator(name, args, keywords, node)

    def emit_typed(
        self, name: str, args: list[Any], keywords: dict[str, Any], node: ast.AST
    ) -> rx.Value:
        """`R.emit_with_ty(value, type)`: `value`, of which the type is known from elsewhere."""
        if len(args) != 2 or keywords:
            raise self.error(f"R.{name} takes a value and a type", node, f"R.{name}(value, type)")
        value, kind = self.operand(args[0], node), self.type(args[1], node)
        return self.annotated(self.bindings.normalize(value), kind, node)

    def emit_te(self, args: list[Any], keywords: dict[str, Any], node: ast.AST) -> rx.Value:
        """`R.emit_te(function, *args)`: a call_tir of the tensor program whose loops
        `function(builder, *args)` writes, tensors given as buffers."""
        module = self.environment.module
        if module is None:
            raise self.error(
                "R.emit_te adds a function to the module, and there is none around",
                node,
                "write the function in a class with @I.ir_module",
            )
        if not args or not callable(args[0]):
            raise self.error(
                "R.emit_te needs a Python function",
                node,
                "R.emit_te(f, x, y), where f(builder, x, y) gives builder.compute(...)",
            )
        function = args[0]
        hint = str(keywords.pop("primfunc_name_hint", getattr(function, "__name__", "te")))
        builder = FunctionBuilder(hint, span=self.source.span(node))
        inputs: list[rx.Value] = []

        def operand(value: Any) -> Any:
            if isinstance(value, rx.Value) and isinstance(value.type, TensorType):
                inputs.append(value)
                label = value.name if isinstance(value, rx.Var) else "c"
                return self.guarded(lambda: builder.input(label, value.type), node)  # pyright: ignore[reportArgumentType]
            if isinstance(value, rx.PrimValue):
                return value.value
            if isinstance(value, rx.ShapeExpr):
                return value.values
            return tuple(map(operand, value)) if is_items(value) else value

        operands = [operand(value) for value in args[1:]]
        made = self.guarded(lambda: function(builder, *operands, **keywords), node)
        buffers = tuple(made) if is_items(made) else (made,)
        if not buffers or not all(isinstance(item, Buffer) for item in buffers):
            raise self.error(
                f"{hint} gives {type(made).__name__}, not a buffer",
                node,
                "return what builder.compute or builder.reduce gives, or a tuple of those",
            )
        program = self.guarded(lambda: builder.finish(made), node).with_attrs(global_symbol=None)
        callee = GlobalVar(module.add(hint, program))
        kinds = tuple(tensor_type(item.shape, item.dtype) for item in buffers)
        out_type = TupleType(kinds) if is_items(made) else kinds[0]
        scalars = [param for param in program.params if param not in program.buffer_map]
        return rc.call_tir(
            self.global_func(callee), inputs, out_type, scalars, self.source.span(node)
        )
