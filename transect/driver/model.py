"""CompiledModel with how it came about: the program at every stage, and the plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from transect import runtime
from transect.driver.artifact import Artifact
from transect.driver.profile import Profile, Profiler
from transect.ir.function import IRModule
from transect.plan import Plan
from transect.runtime import LoadedModule, load_function
from transect.target import Target, host_target


class CompiledModel(runtime.CompiledModel):
    """A model that runs, and the program it was compiled from.

    Call it with numpy arrays or anything DLPack, positionally or by name.
    """

    def __init__(
        self,
        code: LoadedModule,
        artifact: Artifact,
        source: Callable[[], IRModule],
        history: Callable[[], Mapping[str, IRModule]],
        target: Target | None = None,
    ) -> None:
        super().__init__(
            load_function(code, artifact.model.signature.name), artifact.model.signature
        )
        self.plan: Plan = artifact.plan
        """What was chosen at every site, and why; saves as JSON and replays the compile."""
        self._artifact = artifact.model
        self._source = source
        self._history = history
        self._profiler = Profiler(lambda: self.stages, self.signature.name, target or host_target())

    @cached_property
    def stages(self) -> Mapping[str, IRModule]:
        """The program after each pass, by the pass's name ("input" is what was given).

        A pass that runs several times has a number behind its name. With a cache, the passes run
        again when this is asked for first, to the same result; `cache=False` keeps what they made.
        """
        return self._history()

    @cached_property
    def module(self) -> IRModule:
        """The program as given, as Python."""
        return self._source()

    def save(self, folder: str | Path) -> None:
        """Export the model to a folder, from which `transect.runtime.load_artifact` takes it.

        It holds code for the target's processors, the weights, and what the model takes; running it
        needs `transect.runtime` and the libraries that it calls, no compiler.
        """
        self._artifact.save(Path(folder))

    def explain(self) -> str:
        """For every site: the options, their predicted costs, and what decided."""
        return self.plan.explain()

    def profile(self, *inputs: Any, runs: int = 10, measure_peak: bool = True) -> Profile:
        """Where the time of a call goes, by the model's own nodes.

        inputs: as for a call, or one mapping by name. runs: after one to warm up; times are the
        median of them. measure_peak: measure what the machine can do at best (a second, once per
        process); else the target's description says it. The first profile compiles the program
        again, with its calls timed. Raises InputError for a tensor program alone.
        """
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            arguments = self._bind((), cast(Mapping[str, Any], inputs[0]))
        else:
            arguments = self._bind(inputs, {})
        return self._profiler.run(arguments, runs, measure_peak=measure_peak)
