"""Integer reasoning over terms: simplify, bounds, proofs, iteration maps, evaluation.

Start at `Analyzer`. Nothing here knows statements or buffers.
"""

from transect.arith.analyzer import Analyzer
from transect.arith.interval import Bounds

__all__ = ["Analyzer", "Bounds"]
