"""A model as a module: its inputs become parameters, its outputs the result of `main`."""

from __future__ import annotations

from pathlib import Path

import onnx

from transect.frontend.onnx.coverage import check_coverage, check_text
from transect.frontend.onnx.emitter import Emitter
from transect.frontend.onnx.functions import model_functions
from transect.frontend.onnx.graph import Frame, GraphWalker
from transect.frontend.onnx.lift import lifted
from transect.frontend.onnx.reader import opset_of
from transect.frontend.onnx.scope import Scope
from transect.frontend.onnx.symbols import LARGEST_DIMENSION, Symbols
from transect.frontend.onnx.values import Operand
from transect.frontend.onnx.weights import Weights
from transect.ir.dtype import DType, as_dtype
from transect.ir.expr import Expr, IntImm
from transect.ir.function import DIMS, IRModule
from transect.ir.types import tensor_type
from transect.relax.block_builder import BlockBuilder
from transect.relax.expr import Function, Var, make_tuple
from transect.support.errors import ImportModelError, InputTypeError
from transect.support.span import Layer


def import_model(model: onnx.ModelProto, name: str, folder: Path | None = None) -> IRModule:
    """The module of a checked model; `name` is what errors call it.

    folder: where its external data lies, None if it may have none. Raises ImportModelError for
    operators that are not covered, all of them at once, and for what is wrong at a node, which it
    names.
    """
    model = lifted(model, name)
    versions = {item.domain or "ai.onnx": item.version for item in model.opset_import}
    versions["ai.onnx"] = opset_of(model)
    functions = model_functions(model)
    check_coverage(model.graph, versions, functions, name)
    builder, symbols, scope = BlockBuilder(), Symbols(), Scope()
    walker = GraphWalker(Weights(name, folder), functions, builder, symbols)
    walker.store(model.graph, scope)
    stored = set(scope.names())
    params = [
        _parameter(item, name, symbols, scope)
        for item in model.graph.input
        if item.name not in stored
    ]
    with builder.function("main", params):
        walker.nodes(model.graph.node, Frame(scope, versions))
        names = [item.name for item in model.graph.output]
        outputs = [
            Emitter("output", Layer(name, item, "output"), builder, symbols, scope).output(operand)
            for item, operand in zip(names, walker.outputs(names, scope, name), strict=True)
        ]
        builder.emit_func_output(outputs[0] if len(outputs) == 1 else make_tuple(*outputs))
    bounds = {var.name: (0, LARGEST_DIMENSION) for var in symbols.dimensions.values()}
    module = builder.finish()
    main = module["main"]
    assert isinstance(main, Function)
    return module.with_function("main", main.with_attrs(**{DIMS: bounds}))


def _parameter(item: onnx.ValueInfoProto, model: str, symbols: Symbols, scope: Scope) -> Var:
    """The variable of a graph input; its dynamic dimensions become symbolic variables."""
    check_text(item.name)
    if not item.type.HasField("tensor_type"):
        raise ImportModelError(
            f"input {item.name!r} of {model} is not a tensor",
            remedy="sequences, maps and optionals cannot be model inputs",
        )
    if scope.defines(item.name):
        raise ImportModelError(
            f"{model} has two inputs called {item.name!r}",
            remedy="the model is not valid ONNX: check it with onnx.checker",
        )
    kind = item.type.tensor_type
    if not kind.HasField("shape"):
        raise ImportModelError(
            f"input {item.name!r} of {model} does not say how many dimensions it has",
            remedy="give it a shape; a dimension may be a name: onnx.helper.make_tensor_value_info",
        )
    shape = tuple(
        _dimension(item.name, index, dim, symbols, model)
        for index, dim in enumerate(kind.shape.dim)
    )
    var = Var(item.name, tensor_type(shape, _element_type(item, model)))
    scope.define(item.name, Operand(var))
    return var


def _dimension(
    name: str, index: int, dim: onnx.TensorShapeProto.Dimension, symbols: Symbols, model: str
) -> Expr:
    """A dimension of an input: a constant, or the variable of its name."""
    check_text(dim.dim_param)
    if not dim.HasField("dim_value"):
        # Some exporters write "?" for every dimension that they do not know.
        named = any(c.isalnum() for c in dim.dim_param)
        return symbols.dimension(dim.dim_param if named else f"{name}_{index}")
    if dim.dim_value < 0:
        # Some exporters write -1 for a dimension that they do not know.
        return symbols.dimension(f"{name}_{index}")
    return IntImm(dim.dim_value)


def _element_type(item: onnx.ValueInfoProto, model: str) -> DType:
    """The dtype of a graph input."""
    code = item.type.tensor_type.elem_type
    try:
        return as_dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    except (KeyError, InputTypeError) as error:
        known = onnx.TensorProto.DataType.items()
        name = next((key for key, value in known if value == code), str(code))
        raise ImportModelError(
            f"input {item.name!r} of {model} has element type {name}, which has no counterpart",
            remedy="use a numeric or bool tensor",
        ) from error
