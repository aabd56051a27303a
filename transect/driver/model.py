"""CompiledModel with how it came about: the program at every stage, and the plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

from transect import runtime
from transect.driver.artifact import Artifact
from transect.ir.function import IRModule
from transect.plan import Plan
from transect.runtime import LoadedModule, load_function


class CompiledModel(runtime.CompiledModel):
    """A model that runs, and the program it was compiled from.

    Call it with numpy arrays or anything DLPack, positionally or by name.
    """

    def __init__(
        self,
        code: LoadedModule,
        artifact: Artifact,
        history: Callable[[], Mapping[str, IRModule]],
    ) -> None:
        super().__init__(load_function(code, artifact.signature.name), artifact.signature)
        self.plan: Plan = artifact.plan
        """What was chosen at every site, and why; saves as JSON and replays the compile."""
        self._history = history

    @cached_property
    def stages(self) -> Mapping[str, IRModule]:
        """The program after each pass, by the pass's name ("input" is what was given).

        A pass that runs several times has a number behind its name. Compiled again, to the same
        result, if the model came from the cache.
        """
        return self._history()

    @property
    def module(self) -> IRModule:
        """The program as given, as Python."""
        return self.stages["input"]

    def explain(self) -> str:
        """For every site: the options, their predicted costs, and what decided."""
        return self.plan.explain()
