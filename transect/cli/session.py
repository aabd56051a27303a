"""From a request to a compiled model with arguments: reading, compiling with a progress display,
inputs from files and made up.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from transect import runtime
from transect.cli.request import Request, UsageError
from transect.driver import CompiledModel, compile
from transect.ir.dtype import as_dtype
from transect.plan import Plan
from transect.runtime import Parameter, Signature, load_artifact
from transect.runtime.arrays import as_numpy
from transect.runtime.dimension import check_formula
from transect.script import parse_file
from transect.support.errors import InputError

Array = np.ndarray[Any, Any]

_OTHER_SIZE = 64
"""Of a dimension that is not the first of any input, where none is given."""


def read_model(request: Request) -> Any:
    """What `compile` takes: the program of a .py file, else the path."""
    path = Path(request.model)
    if not path.exists():
        raise InputError(f"no model at {path}")
    return parse_file(path) if path.suffix == ".py" else path


def compiled(request: Request) -> CompiledModel:
    """The model compiled, or from the cache, with a progress display on a terminal."""
    model = read_model(request)
    plan = None if request.plan is None else Plan.load(request.plan)
    with progress(Path(request.model).name, hidden=request.json) as report:
        return compile(
            model,
            request.target,
            request.bounds,
            plan,
            entry=request.entry,
            cache=request.cache,
            progress=report,
        )


def loaded(request: Request) -> runtime.CompiledModel:
    """As `compiled`; the model may also be a folder that was exported."""
    path = Path(request.model)
    return load_artifact(path) if path.is_dir() else compiled(request)


@contextmanager
def progress(title: str, *, hidden: bool = False) -> Generator[Any]:
    """A bar on standard error; gives what `compile` calls with (step, steps done, steps). Nothing
    is shown where standard error is no terminal."""
    console = Console(stderr=True)
    if hidden or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{title}: reading", total=None)

        def report(step: str, done: int, total: int) -> None:
            bar.update(task, description=f"{title}: {step}", completed=done, total=total)

        yield report


@dataclass(frozen=True)
class Inputs:
    """Arguments in order, their names, and the sizes of the dimensions that were made up or
    given."""

    names: tuple[str, ...]
    arguments: tuple[Any, ...]
    sizes: Mapping[str, int]

    def __str__(self) -> str:
        parts: list[str] = []
        for name, value in zip(self.names, self.arguments, strict=True):
            array = as_numpy(value)
            if array is not None:
                shape = "x".join(map(str, array.shape)) or "scalar"
                parts.append(f"{name}: {array.dtype} {shape}")
            else:
                parts.append(f"{name}: {value}")
        return ", ".join(parts)

    def to_json(self) -> list[dict[str, Any]]:
        """As JSON data: name, dtype, shape."""
        return [describe_array(n, a) for n, a in zip(self.names, self.arguments, strict=True)]


def make_inputs(request: Request, signature: Signature) -> Inputs:
    """The arguments that a request asks for. Raises UsageError for an input that does not exist,
    InputError for a file that cannot be read."""
    given = _given(request, signature)
    dims = signature.dimensions()
    unknown = [name for name in request.sizes if name not in dims]
    if unknown:
        raise UsageError(
            f"the model has no dimension {unknown[0]!r}",
            notes=[f"it has: {', '.join(dims) or 'none'}"],
        )
    sizes = dict(request.sizes)
    shapes: dict[str, tuple[int, ...] | None] = {}
    for parameter in signature.parameters:
        value = given.get(parameter.name)
        array = as_numpy(value)
        shape = _shape_of(value) if array is None else array.shape
        shapes[parameter.name] = shape
        for dim, size in zip(parameter.shape or (), shape or (), strict=False):
            if isinstance(dim, str) and dim in dims:
                sizes.setdefault(dim, int(size))
    first = {p.shape[0] for p in signature.parameters if p.shape}
    later = {dim for p in signature.parameters for dim in (p.shape or ())[1:]}
    for name in dims:
        sizes.setdefault(name, 1 if name in first and name not in later else _OTHER_SIZE)
    random = np.random.default_rng(request.seed)
    arguments = [
        _argument(p, given.get(p.name), shapes[p.name], sizes, random) for p in signature.parameters
    ]
    names = tuple(parameter.name for parameter in signature.parameters)
    return Inputs(names, tuple(arguments), sizes)


def _given(request: Request, signature: Signature) -> dict[str, Any]:
    """The inputs that the user said something about: arrays, or "random", "ones:2x3"."""
    names = [parameter.name for parameter in signature.parameters]
    given: dict[str, Any] = {}
    for item in request.inputs:
        name, equals, value = item.partition("=")
        if not equals:
            name, value = "", item
        if not name and value.endswith(".npz"):
            given |= dict(np.load(_existing(value), allow_pickle=False))
            continue
        if not name:
            if len(names) != 1:
                raise UsageError(
                    f"which input is {value!r}?",
                    notes=[f"the model takes: {', '.join(names)}"],
                    remedy="--input NAME=VALUE",
                )
            name = names[0]
        kind = value.partition(":")[0]
        if kind in ("random", "ones", "zeros"):
            given[name] = value
        elif value.endswith(".npy"):
            given[name] = np.load(_existing(value), allow_pickle=False)
        else:
            raise UsageError(
                f"{value!r} is no value of an input",
                remedy="a .npy file, random, ones or zeros, the last three with :SHAPE if you like",
            )
    unknown = [name for name in given if name not in names]
    if unknown:
        raise UsageError(
            f"the model has no input {unknown[0]!r}",
            notes=[f"it has: {', '.join(names) or 'none'}"],
        )
    return given


def _existing(path: str) -> Path:
    if not Path(path).is_file():
        raise InputError(f"no file {path}")
    return Path(path)


def _shape_of(value: str | None) -> tuple[int, ...] | None:
    """The shape in "ones:2x3", None without one."""
    if value is None or ":" not in value:
        return None
    text = value.partition(":")[2]
    parts = [part for part in text.replace(",", "x").split("x") if part]
    if not all(part.isdigit() for part in parts):
        raise UsageError(f"{text!r} is no shape", remedy="as in ones:1x3x224x224")
    return tuple(map(int, parts))


def _argument(
    parameter: Parameter,
    given: Any,
    shape: tuple[int, ...] | None,
    sizes: Mapping[str, int],
    random: np.random.Generator,
) -> Any:
    if as_numpy(given) is not None:
        return given
    if parameter.kind == "scalar":
        if parameter.name_of is not None:
            return sizes[parameter.name_of]
        return 1.0 if as_dtype(parameter.dtype or "int64").is_float else 1
    if parameter.kind == "shape" and parameter.shape is not None:
        return tuple(_size(dim, sizes) for dim in parameter.shape)
    if parameter.kind != "tensor" or parameter.dtype is None:
        raise InputError(
            f"no value can be made up for the input {parameter.name!r}, a {parameter.kind}",
            remedy="call the model from Python",
        )
    if shape is None:
        if parameter.shape is None:
            raise InputError(
                f"the shape of the input {parameter.name!r} is not known",
                remedy=f"--input {parameter.name}=random:SHAPE, or a file",
            )
        shape = tuple(_size(dim, sizes) for dim in parameter.shape)
    kind = "random" if given is None else str(given).partition(":")[0]
    dtype = as_dtype(parameter.dtype)
    if kind == "random":
        if dtype.is_float:
            return random.standard_normal(shape).astype(dtype.numpy)
        return random.integers(0, 2, shape).astype(dtype.numpy)
    return np.full(shape, 1 if kind == "ones" else 0).astype(dtype.numpy)


def _size(dim: int | str, sizes: Mapping[str, int]) -> int:
    """The value of a dimension: a number, a name, or a checked formula over names."""
    if isinstance(dim, int):
        return dim
    if dim in sizes:
        return sizes[dim]
    # Checked: integers, names and arithmetic alone.
    formula = check_formula(dim, sizes)
    return int(eval(formula, {"__builtins__": {}, "min": min, "max": max}, dict(sizes)))


def describe_array(name: str, value: Any) -> dict[str, Any]:
    """name, dtype and shape of an argument or result as JSON data."""
    array = np.asarray(value)
    return {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
