"""Verifying a mixed module: graph functions and tensor programs."""

from __future__ import annotations

from transect.ir.function import IRModule
from transect.relax.verify import verify_module as verify_graphs
from transect.tir.verify import verify_module as verify_programs


def verify_module(module: IRModule) -> None:
    """Raise VerifyError for the first rule that the module breaks."""
    verify_programs(module)
    verify_graphs(module)
