"""Signals: Fourier transforms and mel filters. Windows are functions of ONNX itself."""

from __future__ import annotations

import onnx

from transect.frontend.onnx.data_shapes import check_condition
from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.values import as_dimension
from transect.ir.dtype import as_dtype
from transect.ir.expr import EQ, Expr, IntImm, as_int, select
from transect.relax.expr import Value, shape_expr


def dft(node: Node) -> Result:
    """The discrete Fourier transform along one axis: an attribute before opset 20."""
    value = node.value(0)
    rank = len(node.shape(value))
    axis: Expr = IntImm(node.attribute("axis", 1))
    if node.opset >= 20:
        axis = as_dimension(node.elements(2, "axis").values[0]) if node.has(2) else IntImm(-2)
    inverse, onesided = node.attribute("inverse", 0) == 1, node.attribute("onesided", 0) == 1
    place = node.simplify(select(axis < 0, axis + rank, axis))
    size: Expr = IntImm(1)
    for k, extent in enumerate(node.shape(value)[:-1]):
        size = select(EQ(place, IntImm(k)), extent, size)
    length = (size - 1) * 2 if inverse and onesided else size
    if node.has(1):
        length = as_dimension(node.sizes(1, "length").values[0])
    return _transform(node, value, length, place, inverse=inverse, onesided=onesided)


def _transform(
    node: Node, value: Value, length: Expr, axis: Expr, *, inverse: bool, onesided: bool
) -> Value:
    return node.emit(
        "signal.dft",
        value,
        node.shape_of([length]),
        node.shape_of([axis]),
        inverse=inverse,
        onesided=onesided,
    )


def stft(node: Node) -> Result:
    """Fourier transforms of overlapping frames, weighted by a window."""
    value = node.value(0)
    if len(node.shape(value)) == 2:
        value = node.emit("expand_dims", value, axis=2)
    step = as_dimension(node.sizes(1, "step").values[0])
    check_condition(node, step > 0, "step_is_positive")
    if node.has(3):
        length = as_dimension(node.sizes(3, "length").values[0])
    elif node.has(2):
        length = node.shape(node.value(2))[0]
    else:
        raise node.error("neither a window nor a length is given", "the model is not valid ONNX")
    frames = node.emit("signal.frames", value, node.shape_of([length]), node.shape_of([step]))
    if node.has(2):
        window = node.emit("expand_dims", node.value(2), axis=1)
        frames = node.emit("multiply", frames, window)
    onesided = node.attribute("onesided", 1) == 1 and as_int(node.shape(value)[2]) == 1
    return _transform(node, frames, length, IntImm(2), inverse=False, onesided=onesided)


def mel_weight_matrix(node: Node) -> Result:
    """The matrix that takes a spectrum to mel bands."""
    bands, length = (
        as_dimension(node.sizes(index, what).values[0])
        for index, what in ((0, "bands"), (1, "length"))
    )
    scalars = [node.emit("reshape", node.value(index), shape_expr()) for index in (2, 3, 4)]
    code = node.attribute("output_datatype", onnx.TensorProto.FLOAT)
    dtype = as_dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    return node.emit("signal.mel_weights", node.shape_of([bands, length]), *scalars, dtype=dtype)


SIGNAL: dict[str, tuple[Converter, ...]] = {
    "DFT": one(dft),
    "MelWeightMatrix": one(mel_weight_matrix),
    "STFT": one(stft),
}
"""Converters of operators on signals."""
