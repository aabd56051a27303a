"""OpenBLAS."""
from dataclasses import dataclass
from transect.library.base import Library
@dataclass(frozen=True)
class OpenBLAS(Library):
    name = "openblas"
    prefix = "scipy_"
    remedy = "pip install scipy-openblas32"
    def find(self): return None
    def routines(self): return ()
