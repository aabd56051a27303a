"""Running one operator: its loops, or what it decomposes into, over static or symbolic shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime

from transect.ir.dtype import as_dtype
from transect.ir.expr import Expr, IntImm, Var, as_expr
from transect.ir.types import (
    VOID_TYPE,
    PrimType,
    ShapeType,
    TensorType,
    TupleType,
    Type,
    tensor_type,
)
from transect.relax import expr as rx
from transect.relax.legalize import has_decomposition, legalize
from transect.relax.op import find_operator
from transect.relax.runtime_values import evaluate
from transect.tir.interpret import interpret
from transect.tir.verify import verify_func


def dims(*sizes: int | Expr) -> tuple[Expr, ...]:
    """Dimensions as expressions."""
    return tuple(as_expr(size) for size in sizes)


def tensor(*sizes: int | Expr, dtype: str = "float32") -> TensorType:
    """A tensor type."""
    return tensor_type(dims(*sizes), as_dtype(dtype))


def shape(*values: int | Expr) -> ShapeType:
    """A shape's type."""
    return ShapeType(dims(*values), len(values))


def scalar(value: Any, dtype: str | None = None) -> PrimType:
    """A scalar's type."""
    expr = as_expr(value, None if dtype is None else as_dtype(dtype))
    return PrimType(expr.dtype, expr)


class Machine:
    """Runs operators with the extents in `symbolic` replaced by variables, one for each."""

    def __init__(self, symbolic: Sequence[int] = ()) -> None:
        self.variables = {size: Var(f"n{size}") for size in symbolic}
        self.symbols = {var: size for size, var in self.variables.items()}
        self.values: dict[rx.Var, Any] = {}

    def type_of(self, operand: Any) -> Type:
        """The type of an operand: array, number, tuple of integers (a shape) or of arrays."""
        if operand is None:
            return VOID_TYPE
        if isinstance(operand, np.ndarray):
            sizes = (self.variables.get(size, IntImm(size)) for size in operand.shape)
            return tensor_type(tuple(sizes), as_dtype(operand.dtype))
        if isinstance(operand, tuple):
            if all(isinstance(item, int | Expr) for item in operand):
                return shape(*operand)
            return TupleType(tuple(self.type_of(item) for item in operand))
        return scalar(operand)

    def run(self, op: rx.Op, types: Sequence[Type], values: Sequence[Any]) -> Any:
        """The arrays that the operator gives, checked against the inferred type."""
        inferred = op.infer(*types)
        found = legalize(op, types)
        if found is None:
            assert has_decomposition(op), op.name
            operands = [rx.Var(f"x{k}", kind) for k, kind in enumerate(types)]
            self.values.update(zip(operands, values, strict=True))
            given = [None if v is None else o for o, v in zip(operands, values, strict=True)]
            result = self.value(op.decompose(self.emit, *given))
        else:
            verify_func(found.function)
            outputs = [self.allocate(item) for item in flat(found.out_type)]
            scalars = [evaluate(item, self.symbols) for item in found.tir_vars]
            interpret(found.function, *flat_arrays(values), *outputs, *scalars)
            result = tuple(outputs) if isinstance(found.out_type, TupleType) else outputs[0]
        self.check(inferred, result)
        return result

    def emit(self, value: rx.Value) -> rx.Var:
        """A variable bound to a value."""
        var = rx.Var("lv", value.type)
        self.values[var] = self.value(value)
        return var

    def value(self, value: rx.Value) -> Any:
        """What a graph value is."""
        if isinstance(value, rx.Var):
            return self.values[value]
        if isinstance(value, rx.Constant):
            return value.data
        if isinstance(value, rx.Call):
            assert isinstance(value.op, rx.Op)
            operands = [self.value(item) for item in value.args]
            return self.run(value.op, [item.type for item in value.args], operands)
        if isinstance(value, rx.Tuple):
            return tuple(self.value(item) for item in value.items)
        assert isinstance(value, rx.ShapeExpr | rx.PrimValue)
        return value

    def allocate(self, kind: TensorType) -> np.ndarray:
        """An output, filled with something no operator gives by chance."""
        assert kind.shape is not None
        assert kind.dtype is not None
        sizes = tuple(int(evaluate(size, self.symbols)) for size in kind.shape)
        return np.full(sizes, 77, kind.dtype.numpy)

    def check(self, kind: Type, result: Any) -> None:
        """The result has the inferred dtype and shape."""
        results = result if isinstance(result, tuple) else (result,)
        for item, array in zip(flat(kind), results, strict=True):
            assert item.dtype is as_dtype(array.dtype)
            assert item.shape is not None
            assert tuple(evaluate(size, self.symbols) for size in item.shape) == array.shape


def flat(kind: Type) -> list[TensorType]:
    """The tensors of a result."""
    if isinstance(kind, TupleType):
        return [item for part in kind.items for item in flat(part)]
    assert isinstance(kind, TensorType)
    return [kind]


def flat_arrays(values: Any) -> list[np.ndarray]:
    """The arrays among operands."""
    found: list[np.ndarray] = []
    for value in values:
        if isinstance(value, np.ndarray):
            found.append(value)
        elif isinstance(value, tuple):
            found += flat_arrays(value)
    return found


def run(name: str, *operands: Any, symbolic: Sequence[int] = (), **fields: Any) -> Any:
    """The result of operator `name` on operands: arrays, numbers, tuples of integers (shapes),
    tuples of arrays, None. symbolic: extents that become variables."""
    machine = Machine(symbolic)
    op = find_operator(name)(**fields)
    return machine.run(op, [machine.type_of(item) for item in operands], operands)


def check(
    expected: Any,
    name: str,
    *operands: Any,
    symbolic: Sequence[int] = (),
    tolerance: float = 1e-5,
    **fields: Any,
) -> None:
    """The operator gives `expected`, over static shapes and with `symbolic` extents variable."""
    for extents in ((), symbolic) if symbolic else ((),):
        result = run(name, *operands, symbolic=extents, **fields)
        same(result, expected, tolerance)


def same(result: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """The arrays agree in dtype, shape and values; NaN equals NaN."""
    if isinstance(expected, tuple | list):
        assert len(result) == len(expected)
        for a, b in zip(result, expected, strict=True):
            same(a, b, tolerance)
        return
    expected = np.asarray(expected)
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    if expected.dtype.kind in "biu":
        np.testing.assert_array_equal(result, expected)
    else:
        np.testing.assert_allclose(
            result.astype(np.float64), expected.astype(np.float64), tolerance, tolerance
        )


def onnx_oracle(op: str, *inputs: np.ndarray | None, outputs: int = 1, **attributes: Any) -> Any:
    """What ONNX Runtime computes for one node."""
    names = ["" if item is None else f"x{k}" for k, item in enumerate(inputs)]
    results = [f"y{k}" for k in range(outputs)]
    node = onnx.helper.make_node(op, names, results, **attributes)
    values = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(item.dtype), item.shape
        )
        for name, item in zip(names, inputs, strict=True)
        if item is not None
    ]
    made = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in results]
    graph = onnx.helper.make_graph([node], "one", values, made)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {n: x for n, x in zip(names, inputs, strict=True) if x is not None}
    found = session.run(None, feed)
    return found[0] if outputs == 1 else tuple(found)


def floats(*sizes: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    """Random normal numbers."""
    return np.random.default_rng(seed).standard_normal(sizes).astype(dtype)


def integers(
    *sizes: int, low: int = -9, high: int = 10, seed: int = 0, dtype: str = "int32"
) -> np.ndarray:
    """Random integers of [low, high)."""
    return np.random.default_rng(seed).integers(low, high, sizes).astype(dtype)
