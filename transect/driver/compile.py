"""compile(): import, run the pipeline, generate code, load it; or take it from the cache."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from transect.codegen.llvm.compile import compile_module
from transect.driver.artifact import Artifact
from transect.driver.cache import Cache
from transect.driver.dump import dump_scripts
from transect.driver.entry import dimension_vars, entry_name, prim_func_signature
from transect.driver.identity import Identity, identify
from transect.driver.model import CompiledModel
from transect.driver.pipeline import pipeline
from transect.driver.services import check_libraries
from transect.driver.spill import Spill
from transect.driver.verify import verify_module
from transect.driver.workers import Workers, default_count
from transect.frontend import load_model_file
from transect.hardware import find_target, this_machine
from transect.hardware.instructions import with_intrinsics
from transect.ir.expr import Var
from transect.ir.function import DIMS, BaseFunc, IRModule
from transect.library import library_paths
from transect.plan import GreedyPolicy, Plan, Planner, Policy, typical_size
from transect.relax.transform.lower_to_host import SIGNATURE
from transect.relax.visit import direct_bindings, graph_functions
from transect.runtime import Signature
from transect.support import flags
from transect.support.errors import InputError, InputTypeError, UnsupportedError
from transect.support.nesting import deep_nesting
from transect.target import Target
from transect.tir.function import PrimFunc
from transect.tir.tensor_intrin import TensorIntrin
from transect.transform import Bounds, Context


def compile(
    model: Any,
    target: Target | str | None = None,
    dims: Mapping[str, int | tuple[int, int]] | None = None,
    plan: Plan | None = None,
    *,
    policy: Policy | None = None,
    libraries: Collection[str] | None = None,
    entry: str | None = None,
    cache: Path | bool = True,
    progress: Progress | None = None,
    intrinsics: Sequence[TensorIntrin] = (),
) -> CompiledModel:
    """Compile a model once, for every size of its symbolic dimensions.

    model: the path of an .onnx file, an onnx.ModelProto, an IRModule, or one function.
    target: the machine or its name ("x86-avx2"), this one by default.
    dims: inclusive bounds of symbolic dimensions ({"batch": (1, 64)}); checked at every call.
    plan: answers to some or all choices, as an expert fixes them or a former compile made them.
    policy: who answers the others, by default GreedyPolicy.
    libraries: the names of those that may be called ("openblas"), () for generated code alone; by
    default all that are installed.
    entry: the function to run, where the module leaves that open.
    cache: False to compile anew, or the folder of another cache than the user's.
    progress: called with the name of each step before it begins, the number of steps done, and how
    many there are.
    intrinsics: tensor intrinsics of your own, which the schedules may choose where they fit; those
    of installed packages (entry points "transect.tensor_intrins") are known already.

    Large weights stay in the model's file, which is mapped into memory: leave it in place, or put
    a new file there instead of writing into it, while the compiled model is in use.

    Raises InputError and ImportModelError for models that cannot be read, and what the passes
    raise for programs that mean nothing.
    """
    request = _Request(
        model,
        with_intrinsics(_target(target), intrinsics),
        _bounds(dims or {}),
        plan or Plan(),
        policy or GreedyPolicy(),
        entry,
        libraries=_libraries(libraries),
    )
    store = None if flags.dump() is not None else _cache(cache)
    identity = None if store is None else identify(model)
    if store is None or identity is None:
        stages, artifact = request.build(progress)
        return _loaded(artifact, request, lambda: stages)
    key = identity.key(request.options())
    artifact = _find(store, key, identity)
    if artifact is None:
        _, artifact = request.build(progress, keep_stages=False)
        # A file that was written to meanwhile is not what the key says.
        if identity.is_current() and store.put(key, *artifact.pack(identity.name, identity.files)):
            artifact = _find(store, key, identity) or artifact
        _trim_heap()
    request = replace(request, identity=identity)
    return _loaded(artifact, request, partial(request.history, artifact.plan))


Progress = Callable[[str, int, int], None]
"""Takes what is done next, how many steps are done, and how many there are."""


def _find(store: Cache, key: str, identity: Identity) -> Artifact | None:
    """What the cache holds, if it can be used."""
    entry = store.get(key)
    if entry is None:
        return None
    try:
        artifact = Artifact.unpack(entry, identity.files)
    except (InputError, OSError, KeyError, TypeError, ValueError):
        store.remove(key)
        return None
    return artifact if identity.is_current() else None


@dataclass(frozen=True)
class _Request:
    """What a call of `compile` asked for."""

    model: Any
    target: Target
    dims: Bounds
    plan: Plan
    policy: Policy
    entry: str | None
    libraries: tuple[str, ...] | None = None
    is_whole: bool = True
    """Whether this is a model, not the part of one that depends on constants alone."""
    identity: Identity | None = None
    """What `model` must still be, where it is read again."""

    def options(self) -> tuple[object, ...]:
        """All that the result depends on besides the model and the installed versions."""
        dims = sorted(self.dims.items())
        return (self.target, dims, self.plan, self.policy, self.entry, self.libraries)

    def imported(self) -> IRModule:
        """The program as it was given. Raises InputError if the model's files have changed since
        they were compiled."""
        if self.identity is not None and not self.identity.is_current():
            raise InputError(
                f"{self.identity.name} is not the file that was compiled any more",
                remedy="compile it again; with cache=False, the program after every pass is kept",
            )
        module = _as_module(self.model)
        return _with_bounds(module, entry_name(module, self.entry), self.dims)

    def build(
        self, progress: Progress | None = None, *, keep_stages: bool = True
    ) -> tuple[Mapping[str, IRModule], Artifact]:
        """The program after every pass, if it is kept, and the machine code."""
        steps = _Steps(progress)
        module = self.imported()
        with Workers(default_count() if _is_large(module) else 0) as workers, deep_nesting():
            return self.lower(module, workers, steps, keep_stages=keep_stages)

    def lower(
        self, module: IRModule, workers: Workers, steps: _Steps, *, keep_stages: bool
    ) -> tuple[Mapping[str, IRModule], Artifact]:
        """What `build` gives, of an imported model."""
        name = entry_name(module, self.entry)
        planner = Planner(self.policy, self.plan, self.target, _sizes(self.dims))
        history = _History(name, keep_stages)
        history.add("input", module)

        def observe(step: str, module: IRModule) -> None:
            history.add(step, module)
            steps.next()

        context = Context(
            self.target,
            planner,
            self.dims,
            verify=verify_module,
            dump=dump_scripts(flags.dump()) if self.is_whole else None,
            observe=observe,
            keep=Spill(flags.cache_dir()).keep,
        )
        verify_module(module)
        evaluate = partial(_evaluate, workers, self.libraries) if self.is_whole else None
        passes = pipeline(context, name, evaluate, self.libraries)
        steps.plan([step.name for step in passes.passes])
        lowered = passes(module, context)
        planner.check_all_used()
        compiled = compile_module(lowered, self.target, workers.translate, workers.count)
        steps.next()
        written = history.signature
        signature = Signature.from_json(written) if written else _prim_func_signature(name, module)
        artifact = Artifact.of(compiled, signature, planner.plan)
        return history.stages, artifact

    def history(self, plan: Plan) -> Mapping[str, IRModule]:
        """The program after every pass, made again with the answers of `plan`."""
        return replace(self, plan=plan).build()[0]


def _evaluate(
    workers: Workers, libraries: tuple[str, ...] | None, module: IRModule, name: str
) -> Any:
    """What the function `name`, which has no parameters, computes: the part of a model that depends
    on constants alone, compiled for this machine and run once."""
    request = _Request(
        module,
        this_machine(),
        {},
        Plan(),
        GreedyPolicy(),
        name,
        libraries=libraries,
        is_whole=False,
    )
    _, artifact = request.lower(module, workers, _Steps(None), keep_stages=False)
    return _loaded(artifact, request, dict[str, IRModule])()


_LARGE = 24
"""Bindings of a graph from which on workers pay: they take as long to start as a small model."""


def _is_large(module: IRModule) -> bool:
    functions = [function for _, function in graph_functions(module)]
    return sum(1 for f in functions for _ in direct_bindings(f.body)) >= _LARGE


class _Steps:
    """Tells the caller how far a compile is."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.names = ["Import"]
        self.done = 0
        self._tell()

    def plan(self, passes: list[str]) -> None:
        """The model is imported; these passes follow."""
        self.names += [*passes, "GenerateCode"]
        self.next()

    def next(self) -> None:
        """One step is done."""
        self.done += 1
        self._tell()

    def _tell(self) -> None:
        if self.progress is not None:
            now = self.names[self.done] if self.done < len(self.names) else "done"
            self.progress(now, self.done, len(self.names))


@dataclass
class _History:
    """What the passes made of the function `name`. keeps: whether stages are kept, which takes as
    much memory as the compile itself; the signature, as JSON, always is."""

    name: str
    keeps: bool
    stages: dict[str, IRModule] = field(default_factory=dict[str, IRModule])
    signature: str | None = None

    def add(self, step: str, module: IRModule) -> None:
        """Note the result of a pass."""
        if self.name in module and SIGNATURE in module[self.name].attrs:
            self.signature = module[self.name].attrs[SIGNATURE]
        if not self.keeps:
            return
        unique, number = step, 2
        while unique in self.stages:
            unique, number = f"{step}_{number}", number + 1
        self.stages[unique] = module


def _prim_func_signature(name: str, module: IRModule) -> Signature:
    func = module[name]
    if isinstance(func, PrimFunc):
        return prim_func_signature(name, func)
    raise InputError(f"{name} is not a function that can be called from outside")


def _as_module(model: Any) -> IRModule:
    if isinstance(model, IRModule):
        return model
    if isinstance(model, BaseFunc):
        return IRModule.of(**{model.attrs.get("global_symbol", "main"): model})
    return load_model_file(model)


def _loaded(
    artifact: Artifact, request: _Request, history: Callable[[], Mapping[str, IRModule]]
) -> CompiledModel:
    library_paths(artifact.model.imports)  # prepares them
    code = artifact.model.load()
    return CompiledModel(code, artifact, request.imported, history, request.target)


def _trim_heap() -> None:
    """Give back to the system what the passes used: glibc keeps it for itself, some 10 MB."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _target(given: Target | str | None) -> Target:
    if given is None:
        return this_machine()
    target = find_target(given) if isinstance(given, str) else given
    if not isinstance(target, Target):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputTypeError(
            f"a target is expected, got {type(given).__name__}",
            remedy='give a Target or its name ("x86-avx2"); inputs are given to the compiled model',
        )
    if target.warp:
        raise UnsupportedError(
            f"compile() makes code for processors; {target} is a GPU",
            remedy="transect.codegen.cuda.build compiles tensor programs that are bound to threads",
        )
    here = this_machine().name
    if target.name != here and {target.name, here} == {"x86", "arm"}:
        raise UnsupportedError(
            f"compile() makes code that this process runs, on {here}; {target} is another kind",
            remedy="transect.codegen.llvm.compile.assembly shows the code for other processors",
        )
    return target


def _libraries(given: Collection[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = (given,) if isinstance(given, str) else tuple(sorted(given))
    check_libraries(names)
    return names


def _cache(where: Path | bool) -> Cache | None:
    if isinstance(where, bool):
        return Cache() if where else None
    return Cache(where)


def _bounds(dims: Mapping[str, int | tuple[int, int]]) -> Bounds:
    bounds: dict[str, tuple[int, int]] = {}
    for name, given in dims.items():
        low, high = (given, given) if isinstance(given, int) else given
        if not 0 <= low <= high:
            raise InputError(
                f"dims[{name!r}] is {given!r}", remedy="give (least, most), 0 <= least <= most"
            )
        bounds[name] = (low, high)
    return bounds


def _with_bounds(module: IRModule, name: str, dims: Bounds) -> IRModule:
    """The module with the user's bounds on the entry. Other functions have dimensions of their own,
    whatever they are called."""
    if not dims:
        return module
    function = module[name]
    known = {var.name for var in dimension_vars(function)}
    unknown = [dim for dim in dims if dim not in known]
    if unknown:
        raise InputError(
            f"the model has no symbolic dimension {unknown[0]!r}",
            notes=[f"it has: {', '.join(sorted(known)) or 'none'}"],
        )
    bounds = {**function.attrs.get(DIMS, {}), **dims}
    return module.with_function(name, function.with_attrs(**{DIMS: bounds}))


def _sizes(dims: Bounds) -> Callable[[Var], int]:
    """What cost models assume of a dimension: the geometric middle of the user's bounds."""

    def size(var: Var) -> int:
        if var.name not in dims:
            return typical_size(var)
        low, high = dims[var.name]
        return max(1, round(math.sqrt(max(low, 1) * max(high, 1))))

    return size
