"""Pass, Pipeline and Context: how a module is transformed step by step.

A pass is a frozen dataclass whose fields are its options. What it may ask of the outside comes
in the Context that is handed to it, never from ambient state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from transect.ir.function import IRModule
from transect.plan import Planner
from transect.support import flags
from transect.support.errors import VerifyError
from transect.target import Target, host_target


def dump_to(
    folder: Path | None, text: Callable[[IRModule], str] = repr
) -> Callable[[int, str, IRModule], None] | None:
    """A function that writes modules, as `text` puts them, to `NN_pass.py` files in `folder`; None
    for None."""
    if folder is None:
        return None

    def write(number: int, name: str, module: IRModule) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02}_{name}.py").write_text(f"{text(module)}\n", encoding="utf-8")

    return write


Array = np.ndarray[Any, np.dtype[Any]]


def _keep(array: Array, *sources: Array) -> Array:
    del sources
    return array


Bounds = Mapping[str, tuple[int, int]]
"""Inclusive ranges of symbolic dimensions by name, as the user gave them: {"batch": (1, 64)}."""


@dataclass(frozen=True)
class Context:
    """What a compile is for. A pass used alone gets `Context()`: this machine, no bounds, greedy.

    target: the machine. planner: answers every choice and remembers it.
    dims: bounds of symbolic dimensions. verify: called after every pass under TRANSECT_CHECK=1.
    dump: called with the number, the name and the result of every pass of a pipeline; by default it
    writes `NN_pass.py` to the folder of TRANSECT_DUMP, if that is set. observe: called with the
    name and the result of every pass. keep: takes an array of constants that a pass computed, and
    the arrays that it was computed from and that may be needed no more; gives an equal array, which
    may take less memory.
    """

    target: Target = field(default_factory=host_target)
    planner: Planner = field(default_factory=Planner)
    dims: Bounds = field(default_factory=dict[str, tuple[int, int]])
    verify: Callable[[IRModule], None] | None = None
    dump: Callable[[int, str, IRModule], None] | None = field(
        default_factory=lambda: dump_to(flags.dump())
    )
    observe: Callable[[str, IRModule], None] | None = None
    keep: Callable[..., Array] = _keep


class Pass(ABC):
    """A module in, a module out, both valid. Subclasses are frozen dataclasses.

    The docstring says what the pass requires and what it leaves. Mixed modules are fine: a pass
    leaves alone what it is not about.
    """

    @property
    def name(self) -> str:
        """The name shown in dumps and stages."""
        return type(self).__name__

    @abstractmethod
    def run(self, module: IRModule, context: Context) -> IRModule:
        """The transformed module; `module` itself if nothing changed."""

    def __call__(self, module: IRModule, context: Context | None = None) -> IRModule:
        """Run the pass, with a default context if none is given."""
        return self.run(module, Context() if context is None else context)


def _verify(verify: Callable[[IRModule], None], module: IRModule, step: str) -> None:
    try:
        verify(module)
    except VerifyError as error:
        error.notes = (*error.notes, f"after the pass {step}")
        raise


class Pipeline(Pass):
    """Passes in order; itself a pass."""

    def __init__(self, *passes: Pass) -> None:
        self.passes = passes

    def run(self, module: IRModule, context: Context) -> IRModule:
        """Each pass in turn, verified and dumped as the context and the flags say."""
        for number, step in enumerate(self.passes):
            module = step(module, context)
            if flags.check() and context.verify is not None:
                _verify(context.verify, module, step.name)
            if context.dump is not None:
                context.dump(number, step.name, module)
            if context.observe is not None:
                context.observe(step.name, module)
        return module
