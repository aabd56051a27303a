"""Small graph programs that the tests of this folder build on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transect.ir.dtype import FLOAT32, DType, as_dtype
from transect.ir.expr import Expr, ExprLike, as_expr
from transect.ir.function import IRModule
from transect.ir.structural import structural_mismatch
from transect.ir.types import TensorType, Type, tensor_type
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.verify import verify_module
from transect.relax.visit import bindings
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc


def tensor(*shape: ExprLike, dtype: DType | str = FLOAT32) -> TensorType:
    return tensor_type(tuple(as_expr(dim) for dim in shape), as_dtype(dtype))


def graph(
    params: Sequence[tuple[str, Type]],
    body: Callable[..., rx.Value],
    *,
    module: IRModule | None = None,
    name: str = "main",
    dataflow: bool = True,
    pure: bool = True,
    private: bool = False,
) -> IRModule:
    """A module with a function whose result is body(builder, *params)."""
    builder = BlockBuilder(module)
    made = [builder.var(label, kind) for label, kind in params]
    with builder.function(name, made, pure=pure, private=private):
        if dataflow:
            with builder.dataflow():
                result = body(builder, *made)
            builder.emit_func_output(result)
        else:
            builder.emit_func_output(body(builder, *made))
    verify_module(builder.module)
    return builder.module


def operators(module: IRModule, name: str = "main") -> list[str]:
    """The names of the operators and callees of a function, in order."""
    found = []
    for binding in bindings(module[name]):
        value = binding.value
        if not isinstance(value, rx.Call):
            found.append(type(value).__name__)
        elif isinstance(value.op, rx.Op) and value.op.name.startswith("call_"):
            found.append(getattr(value.args[0], "name", "value"))
        else:
            found.append(value.op.name)
    return found


def assert_same(actual: object, expected: object) -> None:
    mismatch = structural_mismatch(actual, expected)
    assert mismatch is None, mismatch


def double(extent: Expr | int, name: str = "double") -> PrimFunc:
    """y[i] = x[i] + x[i]."""
    builder = FunctionBuilder(name)
    x = builder.input("x", (extent,), "float32")
    return builder.finish(builder.compute((extent,), lambda i: x[i] + x[i], name="y")).with_attrs(
        global_symbol=None
    )
