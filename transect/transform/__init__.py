"""Passes, pipelines and the context that is handed to them."""

from transect.transform.base import Bounds, Context, Pass, Pipeline

__all__ = ["Bounds", "Context", "Pass", "Pipeline"]
