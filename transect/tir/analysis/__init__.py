"""What tensor programs do, read off their loops: blocks, pattern kinds, contractions, costs.

Analysis changes nothing; the schedule and the passes act on what it finds.
"""

from transect.tir.analysis.blocks import BlockSite, block_sites
from transect.tir.analysis.contraction import Contraction, find_contraction, sole_contraction
from transect.tir.analysis.dependence import BlockGraph, Dependence, block_graph
from transect.tir.analysis.features import Features, block_features, function_features
from transect.tir.analysis.instructions import NestFeatures, ProgramFeatures, program_features
from transect.tir.analysis.pattern import PatternKind, pattern_kind
from transect.tir.analysis.regions import Regions, region_bytes, region_elements, touched_regions

__all__ = [
    "BlockGraph",
    "BlockSite",
    "Contraction",
    "Dependence",
    "Features",
    "NestFeatures",
    "PatternKind",
    "ProgramFeatures",
    "Regions",
    "block_features",
    "block_graph",
    "block_sites",
    "find_contraction",
    "function_features",
    "pattern_kind",
    "program_features",
    "region_bytes",
    "region_elements",
    "sole_contraction",
    "touched_regions",
]
