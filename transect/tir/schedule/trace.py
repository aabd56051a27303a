"""Trace: the primitives that made a schedule, in order. Replays, serialises, prints as Python."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
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
from transect.ir.traverse import free_vars
from transect.support.errors import InputError
from transect.tir.index_map import IndexMap
from transect.tir.schedule.decide import Decision
from transect.tir.schedule.edit import Primitive

FORMAT = "transect.trace.2"
_BINARY: dict[str, Any] = {
    kind.__name__: kind for kind in (Add, Sub, Mul, FloorDiv, FloorMod, Min, Max)
}
_OPERATORS = {"Add": "+", "Sub": "-", "Mul": "*", "FloorDiv": "//", "FloorMod": "%"}


@dataclass(frozen=True)
class Instruction:
    """One step. inputs, outputs: names of handles.

    primitive: the edit, look or choice; None for the answer to a site that has no primitive of its
    own. site: of a choice, the text of its key; answer: the name of the option taken.
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
        return {step.site: step.answer for step in self.instructions if step.site}

    def without_postproc(self) -> Trace:
        """The steps before `enter_postproc`."""
        for number, step in enumerate(self.instructions):
            if step.primitive is not None and step.primitive.name == "enter_postproc":
                return Trace(self.instructions[:number])
        return self

    def as_python(self, schedule: str = "sch", *, remove_postproc: bool = False) -> str:
        """The steps as Python statements on a Schedule of an equal program, decisions included.

        remove_postproc: leave out what follows `enter_postproc`.
        """
        steps = (self.without_postproc() if remove_postproc else self).instructions
        lines: list[str] = []
        known: set[str] = set()
        values = 0
        for step in steps:
            if isinstance(step.primitive, Decision):
                known.add(step.primitive.var.name)
            for name in sorted({var.name for var in _sizes(step)} - known):
                known.add(name)
                lines.append(f"{_size_name(name)} = {schedule}.size({name!r})")
            result = f"v{values}" if step.primitive is not None and step.site else ""
            values += bool(result)
            lines.append(_statement(step, schedule, result))
        if any("T." in line for line in lines):
            lines.insert(0, "from transect.script import tir as T")
        return "\n".join(lines)

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
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"not a schedule trace: {error}") from error


def option_vars(primitive: Primitive) -> list[Var]:
    """The variables in the options of a primitive."""
    return list(dict.fromkeys(_sizes(Instruction(primitive, (), ()))))


# --- Python ---------------------------------------------------------------------------------


def _options(primitive: Primitive) -> dict[str, Any]:
    return {field.name: getattr(primitive, field.name) for field in fields(primitive)}  # pyright: ignore[reportArgumentType]


def _stated(primitive: Primitive) -> dict[str, Any]:
    """The options that are not the default."""
    defaults = {field.name: field.default for field in fields(primitive)}  # pyright: ignore[reportArgumentType]
    return {
        name: value
        for name, value in _options(primitive).items()
        if defaults[name] is MISSING or defaults[name] != value
    }


def _sizes(step: Instruction) -> Iterator[Var]:
    """The symbolic sizes in the options of a step."""
    stack = [] if step.primitive is None else list(_options(step.primitive).values())
    while stack:
        item = stack.pop()
        if isinstance(item, tuple | list):
            stack.extend(item)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(item, dict):
            stack.extend(item.values())  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(item, IndexMap):
            yield from (var for var in free_vars(item.outputs) if var not in item.inputs)
        elif isinstance(item, Expr):
            yield from free_vars([item])


def _size_name(name: str) -> str:
    """The Python name of a size, other than those of handles and values."""
    clean = re.sub(r"\W", "_", name)
    return f"{clean}_" if re.fullmatch(r"[blv]\d+|sch|T|\d.*", clean) else clean


def _python(value: Any, bound: Mapping[Var, str] | None = None) -> str:
    """Python for an option's value; the same expression, once evaluated. bound: named variables."""
    if isinstance(value, tuple):
        parts = [_python(item, bound) for item in value]  # pyright: ignore[reportUnknownVariableType]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(_python(item, bound) for item in value)}]"  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        pairs: dict[Any, Any] = value  # pyright: ignore[reportUnknownVariableType]
        return f"{{{', '.join(f'{k!r}: {_python(v, bound)}' for k, v in pairs.items())}}}"
    if isinstance(value, IndexMap):
        names = [var.name for var in value.inputs]
        sizes = {_size_name(v.name) for v in free_vars(value.outputs) if v not in value.inputs}
        plain = all(name.isidentifier() for name in names)
        if len(set(names)) < len(names) or sizes & set(names) or not plain:
            names = [f"i{number}_" for number in range(len(names))]
        named = dict(zip(value.inputs, names, strict=True))
        outputs = [_bare(item, _python(item, named)) for item in value.outputs]
        end = "," if len(outputs) == 1 else ""
        return f"lambda {', '.join(names)}: ({', '.join(outputs)}{end})"
    if isinstance(value, float) and value != value:
        return "float('nan')"
    if isinstance(value, float) and abs(value) == float("inf"):
        return f"float('{value}')"
    if isinstance(value, IntImm):
        return f"T.{value.dtype}({value.value})"
    if isinstance(value, Var):
        return (bound or {}).get(value) or _size_name(value.name)
    kind = type(value).__name__
    if isinstance(value, Expr) and kind in _BINARY:
        a, b = (_operand(item, bound) for item in value.children())
        return (
            f"({a} {_OPERATORS[kind]} {b})" if kind in _OPERATORS else f"T.{kind.lower()}({a}, {b})"
        )
    return repr(value)


def _bare(value: Expr, text: str) -> str:
    """`text` without the parentheses around it."""
    return text[1:-1] if type(value).__name__ in _OPERATORS else text


def _operand(value: Any, bound: Mapping[Var, str] | None) -> str:
    # Beside an index an integer literal becomes a constant of its dtype.
    plain = isinstance(value, IntImm) and str(value.dtype) == "int64"
    return str(value.value) if plain else _python(value, bound)


def _statement(step: Instruction, schedule: str, result: str) -> str:
    left = ", ".join(step.outputs) or result
    if step.primitive is None:
        return f"# {step.site}: {step.answer}"
    if isinstance(step.primitive, Decision):
        var, candidates = step.primitive.var, step.primitive.candidates
        return f"{_size_name(var.name)} = {schedule}.decision({var.name!r}, {candidates!r})"
    options = [f"{name}={_python(value)}" for name, value in _stated(step.primitive).items()]
    if step.primitive.name == "get_block":
        options[0] = options[0].removeprefix("block=")
    call = f"{schedule}.{step.primitive.name}"
    call += f"({', '.join([*step.primitive.written(step.inputs), *options])})"
    if not left:
        return call
    listed = step.primitive.name in LISTS and len(step.outputs) == 1
    return f"{left}{',' if listed else ''} = {call}"


LISTS = frozenset(
    {"split", "get_loops", "get_child_blocks", "get_producers", "get_consumers"}
    | {"get_output_blocks", "loop_partition", "cache_inplace", "cache_index"}
)
"""The primitives whose method on Schedule returns a list however many results there are."""


# --- JSON -----------------------------------------------------------------------------------


def _record(step: Instruction) -> dict[str, Any]:
    base: dict[str, Any] = {"inputs": list(step.inputs), "outputs": list(step.outputs)}
    if step.site:
        base |= {"site": step.site, "answer": step.answer}
    if step.primitive is None:
        return base
    options = {name: encode(value) for name, value in _options(step.primitive).items()}
    return {**base, "name": step.primitive.name, "options": options}


def _step(
    item: Any, primitives: Mapping[str, type[Primitive]], variables: dict[str, Var]
) -> Instruction:
    """The step of a record. variables: by name; decisions add theirs."""
    inputs, outputs = tuple(item["inputs"]), tuple(item["outputs"])
    site, answer = item.get("site", ""), item.get("answer", "")
    if "name" not in item:
        return Instruction(None, inputs, outputs, site, answer)
    if item["name"] == Decision.name:
        made = item["options"]["var"]
        variables.setdefault(made["variable"], Var(made["variable"], as_dtype(made["dtype"])))
    options = {name: decode(value, variables) for name, value in item["options"].items()}
    return Instruction(primitives[item["name"]](**options), inputs, outputs, site, answer)


def encode(value: Any) -> Any:
    """An option's value in JSON: numbers, strings, None, tuples, lists, mappings of strings,
    integer expressions and index maps."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return {"items": [encode(item) for item in value]}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return {"list": [encode(item) for item in value]}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        pairs: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        return {"mapping": [[key, encode(item)] for key, item in pairs.items()]}
    if isinstance(value, IndexMap):
        inputs = [encode(item) for item in value.inputs]
        return {"inputs": inputs, "outputs": [encode(item) for item in value.outputs]}
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
    if "list" in record:
        return [decode(item, variables) for item in record["list"]]
    if "mapping" in record:
        return {key: decode(item, variables) for key, item in record["mapping"]}
    if "inputs" in record:
        made = [Var(item["variable"], as_dtype(item["dtype"])) for item in record["inputs"]]
        inner = {**variables, **{var.name: var for var in made}}
        return IndexMap(tuple(made), tuple(decode(item, inner) for item in record["outputs"]))
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
