"""How each ONNX operator becomes graph operators: one entry per operator, by family.

To add one, write its entry in the table of the file it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping

from transect.frontend.onnx.node import Converter
from transect.frontend.onnx.operators.activation import ACTIVATION
from transect.frontend.onnx.operators.attention import ATTENTION
from transect.frontend.onnx.operators.cast import CAST
from transect.frontend.onnx.operators.classic import CLASSIC
from transect.frontend.onnx.operators.control import CONTROL
from transect.frontend.onnx.operators.convolution import CONVOLUTION
from transect.frontend.onnx.operators.elementwise import ELEMENTWISE
from transect.frontend.onnx.operators.image import IMAGE
from transect.frontend.onnx.operators.index import INDEX
from transect.frontend.onnx.operators.microsoft import MICROSOFT, ONNX_DOMAIN
from transect.frontend.onnx.operators.microsoft_attention import MICROSOFT_ATTENTION
from transect.frontend.onnx.operators.microsoft_quantized import MICROSOFT_QUANTIZED
from transect.frontend.onnx.operators.nn import NN
from transect.frontend.onnx.operators.norm import NORM
from transect.frontend.onnx.operators.quantize import QUANTIZE
from transect.frontend.onnx.operators.random import RANDOM
from transect.frontend.onnx.operators.recurrent import RECURRENT
from transect.frontend.onnx.operators.reduce import REDUCE
from transect.frontend.onnx.operators.search import SEARCH
from transect.frontend.onnx.operators.sequence import SEQUENCE
from transect.frontend.onnx.operators.shape import SHAPE
from transect.frontend.onnx.operators.signal import SIGNAL
from transect.frontend.onnx.operators.training import TRAINING

CONVERTERS: Mapping[str, Mapping[str, tuple[Converter, ...]]] = {
    "ai.onnx": {
        **QUANTIZE,
        **ONNX_DOMAIN,
        **CAST,
        **ACTIVATION,
        **CONTROL,
        **ATTENTION,
        **CONVOLUTION,
        **ELEMENTWISE,
        **IMAGE,
        **INDEX,
        **NN,
        **NORM,
        **RECURRENT,
        **RANDOM,
        **REDUCE,
        **SEARCH,
        **SEQUENCE,
        **SHAPE,
        **SIGNAL,
    },
    "ai.onnx.ml": CLASSIC,
    "ai.onnx.preview.training": TRAINING,
    "com.microsoft": {**MICROSOFT, **MICROSOFT_ATTENTION, **MICROSOFT_QUANTIZED},
}
"""Converters by domain and operator, oldest first."""


def find_converter(domain: str, op_type: str, opset: int) -> Converter | None:
    """The newest converter of an operator that `opset` reaches, None if it is not covered."""
    versions = CONVERTERS.get(domain, {}).get(op_type, ())
    return max((c for c in versions if c.since <= opset), key=lambda c: c.since, default=None)
