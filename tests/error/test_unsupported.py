"""Compiling a graph with an operator that has no loops: which operator, where, and what to do."""

from __future__ import annotations

import textwrap

import pytest

from transect.driver import compile
from transect.ir.dtype import FLOAT32
from transect.ir.types import ObjectType, tensor_type
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.op.search import Unique
from transect.script import parse
from transect.support.errors import UnsupportedError
from transect.support.span import Layer

CASES = {
    "unique": "R.unique(x)",
    "ccl.allreduce": "R.ccl.allreduce(x)",
    "to_vdevice": 'R.to_vdevice(x, "cuda:0")',
}


def _refused(body: str) -> UnsupportedError:
    text = f"""
    @R.function
    def main(x: R.Tensor(("n",), "float32"), i: R.Tensor((1,), "int64"), q: R.Tensor(dtype="float32")):
        {body}
        return y
    """  # noqa: E501
    with pytest.raises(UnsupportedError) as caught:
        compile(parse(textwrap.dedent(text), file="model.py"), cache=False)
    return caught.value


@pytest.mark.parametrize("name", CASES)
def test_operator_without_loops(name: str) -> None:
    error = _refused(f"y = {CASES[name]}")
    assert error.message == (
        f"y = R.{name}(...): this operator cannot be compiled, it has no loops"
    )
    assert f"  --> model.py:4:5\n   |\n 4 |     y = {CASES[name]}\n   |     ^^^" in str(error)
    assert error.remedy is not None
    assert f'R.call_pure_packed("my.{name}", ...' in error.remedy
    assert "transect.register_function" in error.remedy


def test_operand_of_unknown_shape() -> None:
    error = _refused("y = R.exp(q)")
    assert error.message == (
        "y = R.exp(...): the type of q is not known well enough to write loops: "
        'R.Tensor(dtype="float32")'
    )
    assert error.remedy == "R.match_cast(q, R.Tensor((n, ...), dtype)) checks it at run time"


def test_function_as_a_value() -> None:
    builder = BlockBuilder()
    x = builder.var("x", tensor_type(rx.shape_expr(3).values, None))
    f = builder.var("f", ObjectType())
    with builder.function("main", (x, f), pure=False):
        builder.emit_func_output(builder.emit(rx.Call(f, (x,), ObjectType()), "y"))
    with pytest.raises(UnsupportedError, match=r"R\.invoke_closure"):
        compile(builder.finish(), cache=False)


def test_layer_of_an_imported_model_is_named() -> None:
    builder = BlockBuilder()
    x = builder.var("x", tensor_type(rx.shape_expr(3).values, FLOAT32))
    with builder.function("main", (x,)):
        layer = Layer("model.onnx", "/head/Unique", "Unique")
        builder.emit_func_output(builder.emit(Unique()(x, span=(layer,)), "y", (layer,)))
    with pytest.raises(UnsupportedError) as caught:
        compile(builder.finish(), cache=False)
    assert "  --> Unique node '/head/Unique' of model.onnx" in str(caught.value)
