"""compile(): from a model to something callable, and the whole pipeline in order."""

from transect.driver.compile import compile
from transect.driver.model import CompiledModel
from transect.driver.pipeline import pipeline

__all__ = ["CompiledModel", "compile", "pipeline"]
