"""Types of graph values: from what `R.Tensor(...)` and its siblings describe."""

from __future__ import annotations

import ast
from typing import Any

from transect.ir.expr import Expr, as_expr
from transect.ir.types import (
    CallableType,
    DeviceMesh,
    DTensorType,
    ObjectType,
    PrimType,
    ShapeType,
    TensorType,
    TupleType,
    Type,
    VDevice,
    tensor_type,
)
from transect.relax.expr import ShapeExpr, Value
from transect.script import graph_directives as g
from transect.script.parser.evaluate import Environment
from transect.script.parser.function import FunctionParser


class TypeParser(FunctionParser):
    """Makes types of their descriptions; strings in them name symbolic dimensions."""

    def type(self, value: Any, node: ast.AST) -> Type:
        """The type that an annotation or an argument means. Raises ScriptError if it means none."""
        if isinstance(value, Type):
            return value
        if isinstance(value, str):
            return self.type(self.eval(self.parse_expression(value, node)), node)
        if isinstance(value, g.TensorSpec):
            return self._tensor(value, node)
        if isinstance(value, g.TensorName):
            return tensor_type(None, None)
        if isinstance(value, g.TupleSpec):
            return TupleType(tuple(self.type(item, node) for item in value.items))
        if isinstance(value, g.TupleName):
            return TupleType(())
        if isinstance(value, g.ObjectSpec | g.ObjectName):
            return ObjectType()
        if isinstance(value, g.ShapeSpec):
            values = (
                None
                if value.values is None
                else tuple(self.dimension(item, node) for item in value.values)
            )
            return ShapeType(values, value.ndim)
        if isinstance(value, g.ShapeName):
            return ShapeType(None, -1)
        if isinstance(value, g.PrimSpec):
            return self._prim(value, node)
        if isinstance(value, g.CallableSpec):
            params = (
                None
                if value.params is None
                else tuple(self.type(item, node) for item in value.params)
            )
            return CallableType(params, self.type(value.ret, node), value.pure)
        if isinstance(value, g.CallableName):
            return CallableType(None, ObjectType(), False)
        if isinstance(value, g.DTensorSpec):
            return DTensorType(
                self._tensor(value.tensor, node), self._mesh(value.mesh, node), value.placement
            )
        if value is None:
            return TupleType(())
        raise self.error(
            f"{type(value).__name__} is no type",
            node,
            'for example R.Tensor((16,), "float32"), R.Tuple(...), R.Object',
        )

    def _tensor(self, spec: g.TensorSpec, node: ast.AST) -> TensorType:
        if isinstance(spec.shape, Value):
            if not isinstance(spec.shape, ShapeExpr):
                raise self.error(
                    "the shape of a tensor type is a tuple of dimensions",
                    node,
                    'write for example R.Tensor((n, 4), "float32")',
                )
            shape: tuple[Expr, ...] | None = spec.shape.values
        else:
            shape = (
                None
                if spec.shape is None
                else tuple(self.dimension(item, node) for item in spec.shape)
            )
        if shape is not None and spec.ndim not in (-1, len(shape)):
            raise self.error(
                f"a shape of {len(shape)} dimensions with ndim={spec.ndim}",
                node,
                "drop ndim=: the shape says it",
            )
        return tensor_type(shape, spec.dtype, spec.ndim, find_device(self.environment, spec.device))

    def _prim(self, spec: g.PrimSpec, node: ast.AST) -> PrimType:
        value = spec.value
        if isinstance(value, str):
            value = self.string_dimension(value, node)
        expr = None if value is None else as_expr(value, spec.dtype)
        if expr is not None and spec.dtype is not None and expr.dtype is not spec.dtype:
            raise self.error(
                f"a value of {expr.dtype} for R.Prim of {spec.dtype}",
                node,
                "give value= the dtype of R.Prim, or drop the dtype",
            )
        dtype = expr.dtype if expr is not None else spec.dtype
        assert dtype is not None
        return PrimType(dtype, expr)

    def _mesh(self, value: Any, node: ast.AST) -> DeviceMesh:
        if isinstance(value, DeviceMesh):
            return value
        name, _, index = str(value).removesuffix("]").partition("[")
        module = self.environment.module
        known: Any = () if module is None else module.info(name) or ()
        number = int(index) if index.isdigit() else 0
        if number >= len(known) or not isinstance(known[number], DeviceMesh):
            raise self.error(
                f"the module has no mesh {value!r}",
                node,
                'I.module_global_infos({"mesh": [R.device_mesh(...)]})',
            )
        return known[number]


def find_device(environment: Environment, value: Any) -> VDevice | None:
    """The device that `vdevice=` names: "cuda:1" is the second one of that kind in the module."""
    if value is None or isinstance(value, VDevice):
        return value
    parts = str(value).split(":")
    index = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
    scope = parts[2] if len(parts) > 2 else "global"
    module = environment.module
    known: Any = () if module is None else module.info("vdevice") or ()
    alike = [item for item in known if isinstance(item, VDevice) and item.target == parts[0]]
    if index < len(alike):
        return alike[index]
    return VDevice(parts[0], index, scope)
