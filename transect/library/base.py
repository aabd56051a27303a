"""Library and Routine: what may be added here, and how compiled code reaches it.

A library file says where its shared object comes from, and for each routine which tensor programs
it can stand in for, under which constraints, at which predicted cost, and the call that it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from transect.plan import Cost
from transect.runtime import SharedLibrary
from transect.support.errors import InputError
from transect.target import Target
from transect.tir.function import PrimFunc


@dataclass(frozen=True)
class Offer:
    """A routine that can stand in for a tensor program: at which cost, and the program that calls
    it. Both take the same arguments."""

    routine: str
    cost: Cost
    program: PrimFunc


class Routine(ABC):
    """One entry point of a library. Subclasses are frozen dataclasses."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As plans and reports name it: "openblas.gemm"."""

    @abstractmethod
    def offer(self, func: PrimFunc, target: Target) -> Offer | None:
        """What the routine offers for `func`, None if it does not implement it."""


class Library(ABC):
    """A library of routines that compiled code calls through the C ABI. Subclasses are frozen
    dataclasses."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As plans and reports name it."""

    @property
    @abstractmethod
    def prefix(self) -> str:
        """What the C symbols of the library start with."""

    @abstractmethod
    def find(self) -> Path | None:
        """The shared object, None if it is not installed."""

    def shared(self) -> SharedLibrary:
        """How a deployed model finds the shared object on another machine: at the same path, unless
        the library knows better."""
        return SharedLibrary("", str(self.path()))

    def prepare(self, path: Path) -> None:
        """Set up the library at `path` before the first call; nothing unless overridden."""
        del path

    @property
    @abstractmethod
    def remedy(self) -> str:
        """One line that says how to install it."""

    @abstractmethod
    def routines(self) -> tuple[Routine, ...]:
        """What the library can do."""

    def path(self) -> Path:
        """The shared object. Raises InputError with the remedy if it is not installed."""
        found = self.find()
        if found is None:
            raise InputError(f"the library {self.name} is not installed", remedy=self.remedy)
        return found
