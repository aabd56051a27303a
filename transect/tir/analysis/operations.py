"""The names by which features count operations of terms."""

from __future__ import annotations

from transect.ir.expr import (
    Add,
    Cast,
    Div,
    FloorDiv,
    FloorMod,
    Max,
    Min,
    Mod,
    Mul,
    Select,
    Sub,
)
from transect.ir.term import Term

OPERATION_NAMES: dict[type[Term], str] = {
    Add: "add",
    Sub: "add",
    Mul: "mul",
    Div: "div",
    Mod: "div",
    FloorDiv: "div",
    FloorMod: "div",
    Min: "compare",
    Max: "compare",
    Select: "select",
    Cast: "cast",
}
"""Comparisons are "compare", intrinsics go by their own names."""
