"""Frozen descriptions of hardware: what a compile is for and what the cost model counts with.

Named targets live in their folder of `hardware`; this room knows only this machine.
"""

from transect.target.host import host_target
from transect.target.target import Target

__all__ = ["Target", "host_target"]
