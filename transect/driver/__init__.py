"""compile(): from a model to something callable, and the whole pipeline in order."""

from transect.driver.cache import Cache, EntryInfo
from transect.driver.compile import Progress, compile
from transect.driver.model import CompiledModel
from transect.driver.pipeline import pipeline

__all__ = ["Cache", "CompiledModel", "EntryInfo", "Progress", "compile", "pipeline"]
