"""What tensor programs do, read off their loops: blocks, pattern kinds, contractions, costs.

Analysis changes nothing; the schedule and the passes act on what it finds.
"""

from transect.tir.analysis.blocks import BlockSite, block_sites
from transect.tir.analysis.contraction import Contraction, find_contraction, sole_contraction
from transect.tir.analysis.pattern import PatternKind, pattern_kind

__all__ = [
    "BlockSite",
    "Contraction",
    "PatternKind",
    "block_sites",
    "find_contraction",
    "pattern_kind",
    "sole_contraction",
]
