"""Small graph programs for the tests of this folder, and their way to machine code."""

from __future__ import annotations

from typing import Any

from transect.codegen.llvm.compile import compile_module
from transect.codegen.llvm.loader import load
from transect.ir.dtype import as_dtype
from transect.ir.expr import Expr, Var, as_expr
from transect.ir.function import IRModule
from transect.ir.types import TensorType, tensor_type
from transect.relax.block_builder import BlockBuilder
from transect.relax.transform.lower_to_host import SIGNATURE, LowerToHost
from transect.relax.transform.plan_memory import PlanMemory
from transect.runtime import CompiledModel, Signature, load_model
from transect.target import host_target
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.transform import lowering
from transect.transform import Pipeline


def tensor(*shape: Expr | int, dtype: str = "float32") -> TensorType:
    """A tensor type."""
    return tensor_type(tuple(as_expr(dim) for dim in shape), as_dtype(dtype))


def elementwise(function: Any, rank: int = 1, inputs: int = 1, dtype: str = "float32") -> PrimFunc:
    """A kernel that applies `function` to elements of tensors of one shape."""
    dims = tuple(Var(f"d{axis}") for axis in range(rank))
    b = FunctionBuilder("elementwise")
    operands = [b.input(f"x{number}", dims, dtype) for number in range(inputs)]
    y = b.compute(dims, lambda *i: function(*(x[i] for x in operands)), name="y", dtype=dtype)
    return b.finish(y).with_attrs(global_symbol=None)


def matmul() -> PrimFunc:
    """x (n, d) @ w (d, m)."""
    n, d, m = Var("n"), Var("d"), Var("m")
    b = FunctionBuilder("matmul")
    x, w = b.input("x", (n, d), "float32"), b.input("w", (d, m), "float32")
    y = b.reduce((n, m), (d,), lambda i, j, k: x[i, k] * w[k, j], name="y")
    return b.finish(y).with_attrs(global_symbol=None)


def compiled(
    builder: BlockBuilder | IRModule, name: str = "main", *, plan: bool = True
) -> CompiledModel:
    """The function `name` as a model, with or without a memory plan."""
    module = builder if isinstance(builder, IRModule) else builder.finish()
    target = host_target()
    hosted = Pipeline(*([PlanMemory()] if plan else []), LowerToHost())(module)
    signature = Signature.from_json(hosted[name].attrs[SIGNATURE])
    lowered = Pipeline(*lowering(target))(hosted)
    return load_model(load(compile_module(lowered, target)), signature)
