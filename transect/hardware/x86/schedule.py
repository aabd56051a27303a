"""The schedule rules of x86, in the order in which they are tried."""

from __future__ import annotations

from transect.hardware.rule import ScheduleRule
from transect.hardware.x86.amx_product import AmxProductRule
from transect.hardware.x86.attention import AttentionRule
from transect.hardware.x86.columns import ColumnReductionRule
from transect.hardware.x86.contraction import ContractionRule
from transect.hardware.x86.depthwise import DepthwiseRule
from transect.hardware.x86.elementwise import ElementwiseRule
from transect.hardware.x86.reduction import RowReductionRule
from transect.hardware.x86.tensorized import TensorizedRule
from transect.hardware.x86.vector_matrix import VectorMatrixRule
from transect.hardware.x86.winograd import WinogradRule

RULES: tuple[ScheduleRule, ...] = (
    AttentionRule(),
    AmxProductRule(),
    TensorizedRule(),
    VectorMatrixRule(),
    DepthwiseRule(),
    WinogradRule(),
    ContractionRule(),
    ColumnReductionRule(),
    RowReductionRule(),
    ElementwiseRule(),
)
