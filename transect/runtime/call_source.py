"""The fast call: a Python function written for one signature, for arguments that need nothing.

It tests each argument, works out the shapes of the destinations, allocates them and calls the
entry. What does not pass the tests goes to the slow call of `model.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transect.runtime.arrays import LARGE, empty_array
from transect.runtime.dimension import check_formula, names_in, rename
from transect.runtime.signature import Dimension, Parameter, Result, Signature


def shape_functions(signature: Signature) -> list[Callable[..., tuple[int, ...]]]:
    """For each destination output, the function of all named dimensions that gives its shape."""
    names = list(signature.dimensions())
    functions: list[Callable[..., tuple[int, ...]]] = []
    for output in signature.outputs:
        if output.kind == "destination":
            source = f"lambda {', '.join(names)}: {_shape_source(output.shape or (), names)}"
            functions.append(_evaluate(source, {}))
    return functions


@dataclass(frozen=True)
class ArrayKind:
    """A library's arrays, and when one of them can be passed on as it is.

    array: the exact class. dtype: the library's object for a dtype's name, None if it has none.
    test: source of a condition on the array `{0}`. empty: source that makes an array of shape
    `{0}` and dtype `{1}`. names: what these sources refer to.
    """

    array: type[Any]
    dtype: Callable[[str], Any]
    test: str
    empty: str
    large: str
    names: Mapping[str, Any]


def _numpy_dtype(name: str) -> Any:
    """The dtype if it is one of numpy's own, which are all that numpy exports."""
    try:
        found = np.dtype(name)
    except TypeError:
        return None
    return found if found.isbuiltin == 1 else None


# carray: contiguous, aligned and writeable. A read-only array needs another protocol.
NUMPY = ArrayKind(
    np.ndarray,
    _numpy_dtype,
    "{0}.flags.carray",
    "empty({0}, {1})",
    "large({0}, {1})",
    {"empty": np.empty, "large": empty_array},
)


def torch_kind(torch: Any) -> ArrayKind:
    """The tensors of torch."""
    return ArrayKind(
        torch.Tensor,
        lambda name: getattr(torch, name, None),
        "{0}.layout is strided and not {0}.requires_grad and not {0}.is_meta"
        " and {0}.is_contiguous() and not {0}.is_neg()",
        "empty({0}, dtype={1})",
        "empty({0}, dtype={1})",
        {"empty": torch.empty, "strided": torch.strided},
    )


def array_call(
    signature: Signature,
    kind: ArrayKind,
    entry: Callable[..., Any],
    slow: Callable[..., Any],
    present: Callable[[Any], Any],
) -> Callable[..., Any]:
    """The call of `entry` with arrays of `kind` as they are; `slow` where one does not fit.

    `slow` itself if the signature needs more than passing and allocating arrays. present: what
    the caller gets for an owned value.
    """
    destinations = [output for output in signature.outputs if output.kind == "destination"]
    owned = len(signature.outputs) - len(destinations)
    simple = all(map(_is_simple, signature.parameters))
    inputs = [kind.dtype(str(parameter.dtype)) for parameter in signature.parameters]
    made = [kind.dtype(str(output.dtype)) for output in destinations]
    if not simple or None in inputs or None in made:
        return slow
    scope: dict[str, Any] = {
        **kind.names,
        "entry": entry,
        "slow": slow,
        "present": present,
        "array": kind.array,
    }
    arguments = [f"a{i}" for i in range(len(signature.parameters))]
    dimensions = signature.dimensions()
    used = {number for number, _ in dimensions.values()}
    lines = [f"def call({', '.join(arguments)}):"]
    tests: list[str] = []
    for i, (parameter, dtype) in enumerate(zip(signature.parameters, inputs, strict=True)):
        scope[f"dtype{i}"] = dtype
        # Dtypes are compared by identity: each library keeps one object for each of its own.
        tests.append(
            f"type(a{i}) is array and a{i}.dtype is dtype{i} and {kind.test.format(f'a{i}')}"
        )
        if i in used:
            tests.append(f"len(s{i} := a{i}.shape) == {len(parameter.shape or ())}")
    if tests:
        lines += [
            f"    if not ({' and '.join(tests)}):",
            f"        return slow({', '.join(arguments)})",
        ]
    # Dimensions are renamed, so that no name from outside meets the names used here.
    renamed = {name: f"d{k}" for k, name in enumerate(dimensions)}
    needed = {name for output in destinations for name in _needed(output.shape or (), dimensions)}
    made_sources: list[str] = []
    for name, (number, axis) in dimensions.items():
        if name in needed:
            lines.append(f"    {renamed[name]} = s{number}[{axis}]")
    outputs: list[str] = []
    for k, (output, dtype) in enumerate(zip(destinations, made, strict=True)):
        scope[f"made{k}"] = dtype
        shape = _shape_source(output.shape or (), list(dimensions), renamed)
        make = kind.large if _may_be_large(output.shape or (), dtype) else kind.empty
        made_sources.append(f"        y{k} = {make.format(shape, f'made{k}')}")
        outputs.append(f"y{k}")
    if made_sources:
        # A shape that does not exist: the slow call says what is wrong.
        refused = "    except (ValueError, ZeroDivisionError, RuntimeError):"
        lines += [
            "    try:",
            *made_sources,
            refused,
            f"        return slow({', '.join(arguments)})",
        ]
    returned = "r = " if owned else ""
    lines.append(f"    {returned}entry({', '.join(arguments + outputs)})")
    made_names, owned_numbers = iter(outputs), iter(range(owned))
    values = [
        next(made_names)
        if output.kind == "destination"
        else f"present(r[{next(owned_numbers)}])"
        if owned > 1
        else "present(r)"
        for output in signature.outputs
    ]
    lines.append(f"    return {_result_source(signature.result, values)}")
    exec(compile("\n".join(lines), "<transect call>", "exec"), scope)
    return scope["call"]


def _is_simple(parameter: Parameter) -> bool:
    return (
        parameter.kind == "tensor"
        and parameter.dtype is not None
        and parameter.shape is not None
        and not parameter.mutated
    )


def _may_be_large(shape: Sequence[Dimension], dtype: Any) -> bool:
    sizes = [size for size in shape if isinstance(size, int)]
    return len(sizes) < len(shape) or math.prod(sizes) * dtype.itemsize >= LARGE


def _needed(shape: Sequence[Dimension], names: Iterable[str]) -> set[str]:
    return {
        name
        for dimension in shape
        if isinstance(dimension, str)
        for name in names_in(check_formula(dimension, names))
    }


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
