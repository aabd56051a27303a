"""Signature: what an entry of a compiled model takes and gives, as data that survives in JSON.

How a call goes about it is in `call.py`; what the compiler knows beyond this is in no file here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from transect.runtime.dimension import check_formula
from transect.support.errors import InputError

ParameterKind = Literal["tensor", "scalar", "shape", "string", "object", "tuple"]
OutputKind = Literal["destination", "owned"]
Dimension = int | str
"""One dimension: its number, a dimension's name, or a formula (see `dimension.py`)."""

Result = int | list["Result"]
"""How outputs make up the result: the number of an output, or a tuple of results."""

_VERSION = 1


@dataclass(frozen=True)
class Parameter:
    """One parameter of an entry.

    tensor: `dtype` and `shape`, either None if anything goes (`ndim` then may say the rank, -1 if
    unknown). scalar: `dtype`; `name_of` is the dimension that its value is, if any. shape: its
    values are `shape`. tuple: `items`. mutated: the program writes to this tensor.
    """

    name: str
    kind: ParameterKind
    dtype: str | None = None
    shape: tuple[Dimension, ...] | None = None
    ndim: int = -1
    mutated: bool = False
    name_of: str | None = None
    items: tuple[Parameter, ...] = ()


@dataclass(frozen=True)
class Output:
    """One output: a destination tensor that the caller allocates (`dtype`, `shape` over the
    dimensions of the parameters), or an owned value that the entry returns."""

    kind: OutputKind
    dtype: str | None = None
    shape: tuple[Dimension, ...] | None = None


@dataclass(frozen=True)
class Signature:
    """An entry: its parameters, then one destination per destination output, in order.

    The entry returns None without owned outputs, the value of a single one, else an array of them.
    result: what the caller gets, built of the outputs.
    """

    name: str
    parameters: tuple[Parameter, ...]
    outputs: tuple[Output, ...]
    result: Result

    def dimensions(self) -> dict[str, tuple[int, int | None]]:
        """Each named dimension: the parameter that gives it first, and the axis of that parameter
        (None: the value of the scalar itself)."""
        found: dict[str, tuple[int, int | None]] = {}
        for number, parameter in enumerate(self.parameters):
            if parameter.kind == "scalar" and parameter.name_of is not None:
                found.setdefault(parameter.name_of, (number, None))
            for axis, dimension in enumerate(parameter.shape or ()):
                if isinstance(dimension, str) and dimension.isidentifier():
                    found.setdefault(dimension, (number, axis))
        return found

    def to_json(self) -> str:
        """This signature as JSON text."""
        return json.dumps({"version": _VERSION, **asdict(self)}, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Signature:
        """The signature that `to_json` wrote. Raises InputError for anything else."""
        try:
            data = json.loads(text)
            if data["version"] != _VERSION:
                raise InputError(
                    f"a signature of version {data['version']}; this runtime reads {_VERSION}",
                    remedy="export the model again with this version",
                )
            signature = Signature(
                str(data["name"]),
                tuple(_parameter(item) for item in data["parameters"]),
                tuple(
                    Output(
                        _one_of(item["kind"], ("destination", "owned")),
                        item["dtype"],
                        _shape(item["shape"]),
                    )
                    for item in data["outputs"]
                ),
                data["result"],
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("not a signature of a compiled model", notes=[repr(error)]) from None
        signature.check()
        return signature

    def check(self) -> None:
        """Raise InputError if a formula or the result refers to what does not exist."""
        names = self.dimensions()
        for output in self.outputs:
            if output.kind == "destination" and (output.shape is None or output.dtype is None):
                raise InputError("a destination output needs a shape and a dtype")
            for dimension in output.shape or ():
                if isinstance(dimension, str):
                    check_formula(dimension, names)
        count = sum(1 for _ in leaves(self.result, len(self.outputs)))
        if count < len(self.outputs):
            raise InputError(f"the result uses {count} of {len(self.outputs)} outputs")

    def __str__(self) -> str:
        parameters = ", ".join(f"{p.name}: {describe(p)}" for p in self.parameters)
        outputs = [describe_output(output) for output in self.outputs]
        return f"{self.name}({parameters}) -> {_structure(self.result, outputs)}"


def describe(parameter: Parameter) -> str:
    """What a parameter takes, in one phrase: "float32 (n, 4)"."""
    if parameter.kind == "tensor":
        rank = f"of {parameter.ndim} dimensions" if parameter.ndim >= 0 else "of any shape"
        shape = rank if parameter.shape is None else _shape_text(parameter.shape)
        return f"{parameter.dtype or 'tensor'} {shape}"
    if parameter.kind == "scalar":
        return f"{parameter.dtype} scalar"
    if parameter.kind == "tuple":
        return f"({', '.join(describe(item) for item in parameter.items)})"
    if parameter.kind == "shape" and parameter.shape is not None:
        return f"shape {_shape_text(parameter.shape)}"
    return parameter.kind


def describe_output(output: Output) -> str:
    """What an output is, in one phrase."""
    shape = "" if output.shape is None else " " + _shape_text(output.shape)
    return f"{output.dtype or 'object'}{shape}"


def leaves(result: Result, count: int) -> Iterator[int]:
    """The output numbers in `result`, in order. Raises InputError for one that does not exist."""
    if isinstance(result, int):
        if not 0 <= result < count:
            raise InputError(f"the result uses output {result} of {count}")
        yield result
        return
    for item in result:
        yield from leaves(item, count)


def _structure(result: Result, outputs: list[str]) -> str:
    if isinstance(result, int):
        return outputs[result]
    return f"({', '.join(_structure(item, outputs) for item in result)})"


def _shape_text(shape: tuple[Dimension, ...]) -> str:
    inside = ", ".join(map(str, shape))
    return f"({inside},)" if len(shape) == 1 else f"({inside})"


def _one_of(value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise InputError(f"{value!r} is none of {', '.join(allowed)}")
    return value


def _shape(value: Any) -> tuple[Dimension, ...] | None:
    if value is None:
        return None
    return tuple(_dimension(item) for item in value)


def _dimension(value: Any) -> Dimension:
    if type(value) is int and value >= 0:
        return value
    if isinstance(value, str):
        return value
    raise InputError(f"{value!r} is not a dimension")


def _parameter(data: Mapping[str, Any]) -> Parameter:
    kinds = ("tensor", "scalar", "shape", "string", "object", "tuple")
    return Parameter(
        str(data["name"]),
        _one_of(data["kind"], kinds),
        data["dtype"],
        _shape(data["shape"]),
        int(data["ndim"]),
        bool(data["mutated"]),
        data["name_of"],
        tuple(_parameter(item) for item in data["items"]),
    )
