"""Trace: the primitives that made a schedule, in order. Replays, serialises, prints as Python."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from transect.ir.dtype import DType, as_dtype
from transect.ir.expr import (
    Add,
    Expr,
    FloorDiv,
    FloorMod,
    IntImm,
    Max,
    Min,
    Mul,
    Sub,
    Var,
)
from transect.ir.traverse import substitute
from transect.support.errors import InputError
from transect.tir.index_map import IndexMap
from transect.tir.schedule.edit import Primitive

FORMAT = "transect.trace.1"
_BINARY: dict[str, Any] = {
    kind.__name__: kind for kind in (Add, Sub, Mul, FloorDiv, FloorMod, Min, Max)
}


@dataclass(frozen=True)
class Instruction:
    """One step. inputs, outputs: names of handles.

    A step is an edit or a look (`primitive`), or the answer to a site (`site` is its text key and
    `options` the names it could have been; `primitive` is None, the answer is in `outputs`).
    """

    primitive: Primitive | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    site: str = ""
    answer: str = ""


@dataclass(frozen=True)
class Trace:
    """The steps of a schedule, in order."""

    instructions: tuple[Instruction, ...] = ()

    def __add__(self, step: Instruction) -> Trace:
        return Trace((*self.instructions, step))

    @property
    def answers(self) -> Mapping[str, str]:
        """The answers to the sites of the plan that the schedule asked, by site key text."""
        return {step.site: step.answer for step in self.instructions if step.primitive is None}

    def as_python(self, schedule: str = "sch") -> str:
        """The steps as Python statements on a Schedule."""
        return "\n".join(_statement(step, schedule) for step in self.instructions)

    def __str__(self) -> str:
        return self.as_python()

    def to_json(self) -> str:
        """The trace as JSON text, which `from_json` reads.

        Raises InputError if a symbolic option uses a variable that has no unique name.
        """
        record = {"format": FORMAT, "steps": [_record(step) for step in self.instructions]}
        return json.dumps(record)

    @staticmethod
    def from_json(
        text: str, primitives: Mapping[str, type[Primitive]], variables: Iterable[Var] = ()
    ) -> Trace:
        """The trace that `to_json` wrote.

        primitives: classes by name (`table.find_primitive` gives them). variables: those of the
        function it is for, which symbolic options name. Raises InputError for other text.
        """
        named = {var.name: var for var in variables}
        try:
            record: Any = json.loads(text)
            if record["format"] != FORMAT:
                raise InputError(f"a trace of format {record['format']!r}", remedy=FORMAT)
            return Trace(tuple(_step(item, primitives, named) for item in record["steps"]))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"not a schedule trace: {error}") from error


def _options(primitive: Primitive) -> dict[str, Any]:
    return {field.name: getattr(primitive, field.name) for field in fields(primitive)}  # pyright: ignore[reportArgumentType]


def _statement(step: Instruction, schedule: str) -> str:
    left = ", ".join(step.outputs)
    if step.primitive is None:
        return f"# {step.site}: {step.answer}"
    options = [f"{name}={_python(value)}" for name, value in _options(step.primitive).items()]
    if step.primitive.name == "get_block":
        options = [repr(value) for value in _options(step.primitive).values()]
    call = f"{schedule}.{step.primitive.name}({', '.join([*step.inputs, *options])})"
    if not step.outputs:
        return call
    listed = step.primitive.name in LISTS and len(step.outputs) == 1
    return f"{left}{',' if listed else ''} = {call}"


LISTS = frozenset(
    {"split", "get_loops", "get_child_blocks", "get_producers", "get_consumers"}
    | {"get_output_blocks", "loop_partition"}
)
"""The primitives whose method on Schedule returns a list however many results there are."""


def _python(value: Any) -> str:
    """An option as Python text that needs no imports: an index map as its function."""
    text = repr(value)
    if isinstance(value, IndexMap):
        return text.removeprefix("T.index_map(").removesuffix(")")
    return text


def _record(step: Instruction) -> dict[str, Any]:
    base: dict[str, Any] = {"inputs": list(step.inputs), "outputs": list(step.outputs)}
    if step.primitive is None:
        return {**base, "site": step.site, "answer": step.answer}
    options = {name: encode(value) for name, value in _options(step.primitive).items()}
    return {**base, "name": step.primitive.name, "options": options}


def _step(
    item: Any, primitives: Mapping[str, type[Primitive]], variables: Mapping[str, Var]
) -> Instruction:
    inputs, outputs = tuple(item["inputs"]), tuple(item["outputs"])
    if "site" in item:
        return Instruction(None, inputs, outputs, item["site"], item["answer"])
    options = {name: decode(value, variables) for name, value in item["options"].items()}
    return Instruction(primitives[item["name"]](**options), inputs, outputs)


def encode(value: Any) -> Any:
    """An option's value in JSON: numbers, strings, None, tuples, and integer expressions."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, IndexMap):
        # By position: the names need not differ.
        numbers: dict[Var, Expr] = {var: Var(f"#{n}") for n, var in enumerate(value.inputs)}
        outputs = [encode(substitute(item, numbers)) for item in value.outputs]
        return {"map": outputs, "names": [var.name for var in value.inputs]}
    if isinstance(value, tuple | list):
        return {"items": [encode(item) for item in value]}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, IntImm):
        return {"constant": value.value, "dtype": str(value.dtype)}
    if isinstance(value, Var):
        return {"variable": value.name, "dtype": str(value.dtype)}
    if isinstance(value, Expr) and type(value).__name__ in _BINARY:
        a, b = value.children()
        return {"operation": type(value).__name__, "a": encode(a), "b": encode(b)}
    raise InputError(
        f"a trace cannot hold {value!r}", remedy="use numbers, strings, sizes of the function"
    )


def decode(value: Any, variables: Mapping[str, Var]) -> Any:
    """What `encode` wrote, with the variables of the function it is for."""
    if not isinstance(value, dict):
        return value
    record: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
    if "items" in record:
        return tuple(decode(item, variables) for item in record["items"])
    if "map" in record:
        inputs = tuple(Var(name) for name in record["names"])
        inner = {**variables, **{f"#{n}": var for n, var in enumerate(inputs)}}
        return IndexMap(inputs, tuple(decode(item, inner) for item in record["map"]))
    if "constant" in record:
        return IntImm(record["constant"], as_dtype(record["dtype"]))
    if "variable" in record:
        var = variables.get(record["variable"])
        wanted: DType = as_dtype(record["dtype"])
        if var is None or var.dtype is not wanted:
            raise InputError(f"the function has no size {record['variable']!r} ({wanted})")
        return var
    return _BINARY[record["operation"]](
        decode(record["a"], variables), decode(record["b"], variables)
    )
