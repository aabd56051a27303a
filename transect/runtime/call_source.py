"""The fast call: a Python function written for one signature, for arguments that need nothing.

It tests each argument, works out the shapes of the destinations, allocates them and calls the
entry. What does not pass the tests goes to the slow call of `model.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from transect.runtime.dimension import check_formula, names_in, rename
from transect.runtime.signature import Result, Signature


def shape_functions(signature: Signature) -> list[Callable[..., tuple[int, ...]]]:
    """For each destination output, the function of all named dimensions that gives its shape."""
    names = list(signature.dimensions())
    functions: list[Callable[..., tuple[int, ...]]] = []
    for output in signature.outputs:
        if output.kind == "destination":
            source = f"lambda {', '.join(names)}: {_shape_source(output.shape or (), names)}"
            functions.append(_evaluate(source, {}))
    return functions


def array_call(
    signature: Signature,
    guards: Sequence[tuple[str, Any] | None],
    empty: Callable[..., Any],
    entry: Callable[..., Any],
    slow: Callable[..., Any],
) -> Callable[..., Any]:
    """The call of `entry` with numpy arrays as they are; `slow` where the guards do not hold.

    guards: for each parameter ("tensor", dtype) if a numpy array of that dtype can be passed on
    as it is, None if the long way is always needed.
    """
    destinations = [output for output in signature.outputs if output.kind == "destination"]
    kinds = [np.dtype(output.dtype) if _builtin(output.dtype) else None for output in destinations]
    owned = len(signature.outputs) - len(destinations)
    mutating = any(parameter.mutated for parameter in signature.parameters)
    if owned or mutating or None in kinds or any(guard is None for guard in guards):
        return slow
    scope: dict[str, Any] = {"empty": empty, "entry": entry, "slow": slow, "ndarray": np.ndarray}
    arguments = [f"a{i}" for i in range(len(signature.parameters))]
    dimensions = signature.dimensions()
    used = sorted({number for number, _ in dimensions.values()})
    lines = [f"def call({', '.join(arguments)}):"]
    tests: list[str] = []
    for i, guard in enumerate(guards):
        scope[f"dtype{i}"] = guard[1] if guard is not None else None
        # Identity of dtypes: numpy keeps one object for each of its own in native byte order.
        tests.append(f"type(a{i}) is ndarray and a{i}.dtype is dtype{i} and a{i}.flags.carray")
        if i in used:
            tests.append(f"len(s{i} := a{i}.shape) == {len(signature.parameters[i].shape or ())}")
    if tests:
        lines += [
            f"    if not ({' and '.join(tests)}):",
            f"        return slow({', '.join(arguments)})",
        ]
    # Dimensions are renamed, so that no name from outside meets the names used here.
    renamed = {name: f"d{k}" for k, name in enumerate(dimensions)}
    needed = {
        name
        for output in destinations
        for dimension in output.shape or ()
        if isinstance(dimension, str)
        for name in names_in(check_formula(dimension, dimensions))
    }
    for name, (number, axis) in dimensions.items():
        if name in needed:
            lines.append(f"    {renamed[name]} = s{number}[{axis}]")
    outputs: list[str] = []
    for k, (output, kind) in enumerate(zip(destinations, kinds, strict=True)):
        scope[f"kind{k}"] = kind
        shape = _shape_source(output.shape or (), list(dimensions), renamed)
        lines.append(f"    y{k} = empty({shape}, kind{k})")
        outputs.append(f"y{k}")
    lines.append(f"    entry({', '.join(arguments + outputs)})")
    lines.append(f"    return {_result_source(signature.result, outputs)}")
    exec(compile("\n".join(lines), "<transect call>", "exec"), scope)
    return scope["call"]


def _builtin(name: str | None) -> bool:
    try:
        return name is not None and np.dtype(name).isbuiltin == 1
    except TypeError:
        return False


def _evaluate(source: str, scope: dict[str, Any]) -> Any:
    return eval(compile(source, "<transect shape>", "eval"), scope)


def _shape_source(
    shape: Sequence[int | str], names: Sequence[str], renamed: dict[str, str] | None = None
) -> str:
    """A tuple display of the dimensions. Every formula passes `check_formula` first."""
    items: list[str] = []
    for dimension in shape:
        text = str(dimension) if isinstance(dimension, int) else check_formula(dimension, names)
        items.append(text if renamed is None else rename(text, renamed))
    return f"({', '.join(items)},)" if items else "()"


def _result_source(result: Result, outputs: list[str]) -> str:
    if isinstance(result, int):
        return outputs[result]
    items = [_result_source(item, outputs) for item in result]
    return f"({', '.join(items)},)" if items else "()"
