"""Evaluating the Python expressions in script: on numbers as Python does, on terms as IR.

Names come from the scopes of the function that is parsed, then from its environment: what the
Python program around the definition sees. Statements are the dialects' business.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol, cast

import numpy as np

from transect.ir.dtype import DType
from transect.ir.expr import (
    And,
    Expr,
    GlobalVar,
    IntImm,
    Or,
    Ramp,
    Range,
    Var,
    as_expr,
    equal,
    logical_not,
    make,
    not_equal,
    promote,
)
from transect.ir.function import BaseFunc
from transect.ir.traverse import free_vars, substitute
from transect.ir.types import Type
from transect.script.axes import as_items, make_range
from transect.script.directives import ConstantReference, FreshVar
from transect.script.intrinsics import call_intrinsic
from transect.script.parser.diagnostics import (
    LARGEST_NUMBER,
    LARGEST_SEQUENCE,
    PYTHON_ERRORS,
    Poisoned,
    listed,
    located,
    script_error,
    suggest,
)
from transect.script.parser.methods import BUFFER_METHODS, twin
from transect.script.parser.source import Source
from transect.support.errors import ScriptError, TransectError
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.intrinsics import INTRINSICS

POISON = object()
"""The value of a name whose definition has failed."""

_Operation = Callable[[Any, Any], Any]
_BINARY: dict[type[ast.operator], tuple[str, _Operation]] = {
    ast.Add: ("+", lambda a, b: a + b),
    ast.Sub: ("-", lambda a, b: a - b),
    ast.Mult: ("*", lambda a, b: a * b),
    ast.Div: ("/", lambda a, b: a / b),
    ast.FloorDiv: ("//", lambda a, b: a // b),
    ast.Mod: ("%", lambda a, b: a % b),
    ast.Pow: ("**", lambda a, b: a**b),
    ast.MatMult: ("@", lambda a, b: a @ b),
    ast.BitAnd: ("&", lambda a, b: a & b),
    ast.BitOr: ("|", lambda a, b: a | b),
    ast.BitXor: ("^", lambda a, b: a ^ b),
    ast.LShift: ("<<", lambda a, b: a << b),
    ast.RShift: (">>", lambda a, b: a >> b),
}
_COMPARE: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Is: ("is", operator.is_),
    ast.IsNot: ("is not", operator.is_not),
    ast.In: ("in", lambda a, b: a in b),
    ast.NotIn: ("not in", lambda a, b: a not in b),
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: lambda a: a,
    ast.Invert: operator.invert,
    ast.Not: lambda a: logical_not(a) if isinstance(a, Expr) else not a,
}


@dataclass(frozen=True)
class ModuleName:
    """`cls`, or the name of the class: the module itself, inside its functions."""


@dataclass(frozen=True)
class FormattedText:
    """An f-string with expressions of the program in it: the message of an assertion."""

    parts: tuple[str | Expr, ...]


class Module(Protocol):
    """What a function's parser asks of the module around it."""

    def function(self, name: str) -> BaseFunc | None:
        """A function of the module, parsed by now; None if there is none or it cannot be parsed."""
        ...

    def function_type(self, name: str) -> Type | None:
        """The type of a reference to a function; None if it is not known."""
        ...

    def names(self) -> Iterable[str]:
        """The names of all functions."""
        ...

    def info(self, name: str) -> Any:
        """The module's global information, such as the virtual devices."""
        ...

    def add(self, hint: str, function: BaseFunc) -> str:
        """Add a function that the text does not hold; the name it gets."""
        ...


class Environment:
    """What the Python program around a definition sees.

    values: names by scope, the innermost first. module: the module that the function is part of.
    constants: large arrays by the names that `I.constant` refers to.
    """

    def __init__(
        self,
        *values: Mapping[str, Any],
        module: Module | None = None,
        constants: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.values = values
        self.module = module
        self.constants = constants or {}

    def find(self, name: str) -> Any:
        """The value of `name`. Raises KeyError if there is none."""
        for scope in self.values:
            if name in scope:
                return scope[name]
        return vars(builtins)[name]

    def names(self) -> set[str]:
        """All names in sight, builtins left out."""
        return {name for scope in self.values for name in scope}


class Evaluator:
    """Evaluates syntax trees of expressions in the scopes of one function."""

    def __init__(self, source: Source, environment: Environment) -> None:
        self.source = source
        self.environment = environment
        self.scopes: list[dict[str, Any]] = [{}]
        self.localized: dict[Var, Var] = {}
        self._table: dict[type[ast.expr], Callable[[Any], Any]] = {
            ast.Constant: lambda node: node.value,
            ast.Name: self._name,
            ast.Attribute: self._attribute,
            ast.Subscript: self._subscript,
            ast.Call: self._call,
            ast.BinOp: self._binary,
            ast.UnaryOp: self._unary,
            ast.BoolOp: self._bool,
            ast.Compare: self._compare,
            ast.IfExp: self._if,
            ast.Tuple: lambda node: tuple(self.items(node.elts)),
            ast.List: lambda node: self.items(node.elts),
            ast.Set: lambda node: set(self.items(node.elts)),
            ast.Dict: self._dict,
            ast.JoinedStr: self._joined,
            ast.Slice: self._slice,
            ast.ListComp: lambda node: list(
                self._comprehend(node.generators, lambda: self.eval(node.elt))
            ),
            ast.GeneratorExp: lambda node: tuple(
                self._comprehend(node.generators, lambda: self.eval(node.elt))
            ),
            ast.SetComp: lambda node: set(
                self._comprehend(node.generators, lambda: self.eval(node.elt))
            ),
            ast.DictComp: lambda node: dict(
                self._comprehend(
                    node.generators, lambda: (self.eval(node.key), self.eval(node.value))
                )
            ),
            ast.Lambda: self._lambda,
        }

    # --- errors and scopes ------------------------------------------------------------------

    def error(self, message: str, node: ast.AST, remedy: str | None) -> ScriptError:
        """An error at `node`, to be raised."""
        return script_error(message, self.source, node, remedy)

    def define(self, name: str, value: Any) -> None:
        """Bind a name in the innermost scope."""
        self.scopes[-1][name] = value

    def known_names(self) -> set[str]:
        """Every name that may be used here."""
        return {name for scope in self.scopes for name in scope} | self.environment.names()

    # --- expressions ------------------------------------------------------------------------

    def eval(self, node: ast.expr) -> Any:
        """The value of an expression. Raises ScriptError at the innermost part that is wrong."""
        handler = self._table.get(type(node))
        if handler is None:
            raise self.error(
                f"{type(node).__name__} has no meaning in script",
                node,
                "script holds terms, and Python values that make terms",
            )
        try:
            return handler(node)
        except TransectError as error:
            raise located(error, self.source, node) from None

    def items(self, nodes: Sequence[ast.expr]) -> list[Any]:
        """The values of several expressions, `*sequence` spliced in."""
        values: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                values.extend(self.listed(self.eval(node.value), node))
            else:
                values.append(self.eval(node))
        return values

    def _name(self, node: ast.Name) -> Any:
        for scope in reversed(self.scopes):
            if node.id in scope:
                value = scope[node.id]
                if value is POISON:
                    raise Poisoned
                return value
        try:
            return self.localize(self.environment.find(node.id), node.id)
        except KeyError:
            raise self.error(
                f"the name {node.id!r} is not defined",
                node,
                suggest(
                    node.id,
                    self.known_names(),
                    f"define it before, or give it to the parser: parse(text, {node.id}=...)",
                ),
            ) from None

    def localize(self, value: Any, name: str = "") -> Any:
        """A captured value with variables of this function in place of those of the Python program.

        Two functions that capture one symbolic variable get one each: they are bound separately.
        """
        if isinstance(value, Var):
            if value not in self.localized:
                label = name if isinstance(value, FreshVar) and name else value.name
                known = self.scopes[0].get(label)
                if not (isinstance(known, Var) and known.dtype is value.dtype):
                    known = Var(label, value.dtype, value.pointer)
                self.localized[value] = known
            return self.localized[value]
        if isinstance(value, Expr):
            return substitute(value, {var: self.localize(var) for var in free_vars((value,))})
        if type(value) in (tuple, list):
            items: list[Any] = [self.localize(item) for item in value]
            return items if isinstance(value, list) else tuple(items)
        return value

    def _attribute(self, node: ast.Attribute) -> Any:
        value = self.eval(node.value)
        return self.attribute(value, node.attr, node)

    def attribute(self, value: Any, name: str, node: ast.AST) -> Any:
        """`value.name`."""
        if isinstance(value, Buffer) and name in BUFFER_METHODS:
            return BUFFER_METHODS[name](value)
        if isinstance(value, ModuleName):
            return self.module_function(name, node)
        try:
            return getattr(value, name)
        except AttributeError:
            if isinstance(value, ModuleType):
                shown = (
                    ast.unparse(node.value) if isinstance(node, ast.Attribute) else value.__name__
                )
                raise self.error(
                    f"{shown} has no {name!r}",
                    node,
                    suggest(name, dir(value), f"dir({shown}) lists what there is"),
                ) from None
            raise self.error(
                f"a {type(value).__name__} has no attribute {name!r}",
                node,
                suggest(name, dir(value), listed(dir(value)) or "drop it"),
            ) from None

    def module_function(self, name: str, node: ast.AST) -> GlobalVar:
        """`cls.name`."""
        module = self.environment.module
        if module is None or name not in module.names():
            known = () if module is None else module.names()
            otherwise = listed(known) or "define it in the class"
            raise self.error(
                f"the module has no function {name!r}", node, suggest(name, known, otherwise)
            )
        return GlobalVar(name)

    def _subscript(self, node: ast.Subscript) -> Any:
        value = self.eval(node.value)
        index = self.eval(node.slice)
        return self.subscript(value, index, node)

    def subscript(self, value: Any, index: Any, node: ast.Subscript) -> Any:
        """`value[index]`."""
        if isinstance(value, Buffer):
            return self.load(value, index, node)
        if isinstance(index, IntImm):
            index = index.value
        return self.guarded(lambda: value[index], node)

    def load(self, buffer: Buffer, index: Any, node: ast.AST) -> BufferLoad | BufferRegion:
        """An element of a buffer, a vector of elements (a slice with a step) or a region."""
        indices = as_tuple(index)
        if len(indices) != buffer.ndim:
            raise self.error(
                f"{buffer.name} has {buffer.ndim} dimensions, indexed with {len(indices)}",
                node,
                f"its shape is ({', '.join(map(repr, buffer.shape))})",
            )
        slices = [slice_ends(item) for item in indices]
        if any(ends is not None and ends[2] is None for ends in slices):
            ranges = tuple(
                _point(self._index(item, node))
                if ends is None
                else make_range(
                    0 if ends[0] is None else ends[0], extent if ends[1] is None else ends[1]
                )
                for item, ends, extent in zip(indices, slices, buffer.shape, strict=True)
            )
            return BufferRegion(buffer, ranges)
        return BufferLoad(buffer, self.index_terms(indices, node))

    def index_terms(self, indices: Sequence[Any], node: ast.AST) -> tuple[Expr, ...]:
        """Indices as expressions; a slice becomes the vector of its elements."""
        return tuple(self._index(item, node) for item in indices)

    def _index(self, item: Any, node: ast.AST) -> Expr:
        ends = slice_ends(item)
        if ends is not None:
            start: Any = 0 if ends[0] is None else ends[0]
            step: Any = 1 if ends[2] is None else ends[2]
            extent = make_range(start, ends[1]).extent
            stride: Any = step.value if isinstance(step, IntImm) else step
            if not isinstance(extent, IntImm) or not isinstance(stride, int) or stride < 1:
                raise self.error(
                    "a vector needs a constant number of elements",
                    node,
                    "write for example A[i:i + 4]",
                )
            base = as_expr(start)
            lanes = -(-extent.value // stride)
            return base if lanes == 1 else Ramp(base, as_expr(stride, base.dtype), lanes)
        expr = as_expr(item) if isinstance(item, Expr | int | float) else None
        if expr is None or not (expr.dtype.is_integral or expr.dtype.is_bool):
            shown = item.dtype if isinstance(item, Expr) else type(item).__name__
            raise self.error(
                f"an index must be an integer, got {shown}", node, 'cast it: T.Cast("int64", ...)'
            )
        return expr

    def as_value(self, value: Any, node: ast.AST) -> Any:
        """An operand; a region with one vector axis is loaded as a vector."""
        if isinstance(value, BufferRegion):
            indices = tuple(
                item.min
                if isinstance(item.extent, IntImm) and item.extent.value == 1
                else self._index(slice(item.min, item.min + item.extent), node)
                for item in value.ranges
            )
            return BufferLoad(value.buffer, indices)
        return value

    def _call(self, node: ast.Call) -> Any:
        function = self.eval(node.func)
        args = self.items(node.args)
        keywords: dict[str, Any] = {}
        for item in node.keywords:
            value = self.eval(item.value)
            if item.arg is None:
                keywords.update(value)
            else:
                keywords[item.arg] = value
        return self.call(function, args, keywords, node)

    def call(self, function: Any, args: list[Any], keywords: dict[str, Any], node: ast.Call) -> Any:
        """`function(*args, **keywords)`; the builtins that terms do not fit get their T twins."""
        if any(isinstance(item, Expr) for item in args):
            function = twin(function)
        if isinstance(function, ConstantReference):
            return self.constant(*args, node=node)
        if not callable(function):
            raise self.error(
                f"{ast.unparse(node.func)} cannot be called", node, f"it is {_kind(function)}"
            )
        return self.guarded(lambda: function(*args, **keywords), node)

    def constant(self, name: str, *, node: ast.AST) -> np.ndarray:
        """`I.constant(name)`: an array that is too large for the text."""
        found = self.environment.constants.get(name)
        if found is None:
            raise self.error(
                f"the constant {name!r} is not in the text",
                node,
                "give parse(text, constants=...) the mapping that script(...) filled",
            )
        return found

    def guarded(self, action: Callable[[], Any], node: ast.AST) -> Any:
        """Run Python code of the user or of a namespace; its exceptions become errors at `node`."""
        try:
            return action()
        except TransectError as error:
            raise located(error, self.source, node) from None
        except PYTHON_ERRORS as error:
            text = str(error).replace("__call__() ", "") or "no message"
            raise self.error(
                f"{type(error).__name__}: {text}",
                node,
                "this is evaluated as Python while the script is parsed",
            ) from error

    def listed(self, value: Any, node: ast.AST) -> list[Any]:
        """The items of a Python sequence. Raises ScriptError if there are too many."""

        def some() -> list[Any]:
            start: list[Any] = list(itertools.islice(iter(value), LARGEST_SEQUENCE + 1))
            return start

        items: list[Any] = self.guarded(some, node)
        if len(items) > LARGEST_SEQUENCE:
            raise self._too_large(node)
        return items

    def _too_large(self, node: ast.AST) -> ScriptError:
        return self.error(
            "this Python value is too large for a part of a program",
            node,
            "loops of a program are T.grid, T.serial and their siblings; arrays are constants",
        )

    def _binary(self, node: ast.BinOp) -> Any:
        return self.binary(type(node.op), self.eval(node.left), self.eval(node.right), node)

    def binary(self, kind: type[ast.operator], a: Any, b: Any, node: ast.AST) -> Any:
        """`a <op> b`."""
        symbol, function = _BINARY[kind]
        a, b = self.as_value(a, node), self.as_value(b, node)
        if kind is ast.Pow and (isinstance(a, Expr) or isinstance(b, Expr)):
            return call_intrinsic(INTRINSICS["pow"], (a, b))
        if _is_too_large(kind, a, b):
            raise self._too_large(node)
        try:
            return function(a, b)
        except TransectError as error:
            raise located(error, self.source, node) from None
        except PYTHON_ERRORS:
            names = f"{_kind(a)} and {_kind(b)}"
            raise self.error(
                f"{symbol} of {names}",
                node,
                "the operands are terms, or Python values that have it",
            ) from None

    def _unary(self, node: ast.UnaryOp) -> Any:
        value = self.as_value(self.eval(node.operand), node)
        return self.unary(type(node.op), value, node)

    def unary(self, kind: type[ast.unaryop], value: Any, node: ast.AST) -> Any:
        """`<op> value`."""
        return self.guarded(lambda: _UNARY[kind](value), node)

    def _bool(self, node: ast.BoolOp) -> Any:
        kind, stops = (And, False) if isinstance(node.op, ast.And) else (Or, True)
        result = self.eval(node.values[0])
        for item in node.values[1:]:
            if not isinstance(result, Expr) and bool(result) is stops:
                return result
            value = self.eval(item)
            if isinstance(result, Expr) or isinstance(value, Expr):
                left, right = promote(result, value)
                result = make(kind, left, right)
            else:
                result = value
        return result

    def _compare(self, node: ast.Compare) -> Any:
        left = self.as_value(self.eval(node.left), node)
        result: Any = None
        for op, item in zip(node.ops, node.comparators, strict=True):
            right = self.as_value(self.eval(item), node)
            value = self.comparison(type(op), left, right, node)
            if result is None:
                result = value
            elif isinstance(result, Expr) or isinstance(value, Expr):
                result = make(And, *promote(result, value))
            else:
                result = result and value
            left = right
        return result

    def comparison(self, kind: type[ast.cmpop], a: Any, b: Any, node: ast.AST) -> Any:
        """`a <comparison> b`."""
        terms = (isinstance(a, Expr) and isinstance(b, Expr | int | float)) or (
            isinstance(b, Expr) and isinstance(a, int | float)
        )
        if terms and kind is ast.Eq:
            return equal(a, b)
        if terms and kind is ast.NotEq:
            return not_equal(a, b)
        if terms and not isinstance(a, Expr):
            # Python would ask the right operand instead, and so turn the comparison around.
            a, b = promote(a, b)
        if isinstance(a, DType) or isinstance(b, DType):
            a, b = str(a), str(b)
        return self.guarded(lambda: _COMPARE[kind][1](a, b), node)

    def _if(self, node: ast.IfExp) -> Any:
        condition = self.eval(node.test)
        if not isinstance(condition, Expr):
            return self.eval(node.body if condition else node.orelse)
        a, b = self.eval(node.body), self.eval(node.orelse)
        return call_intrinsic(INTRINSICS["if_then_else"], (condition, *promote(a, b)))

    def _dict(self, node: ast.Dict) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                result.update(self.eval(value))
            else:
                result[self.eval(key)] = self.eval(value)
        return result

    def _joined(self, node: ast.JoinedStr) -> Any:
        parts: list[str | Expr] = []
        for item in node.values:
            if isinstance(item, ast.FormattedValue):
                value = self.eval(item.value)
                if isinstance(value, Expr):
                    parts.append(value)
                    continue
                layout = self.eval(item.format_spec) if item.format_spec is not None else ""
                value = repr(value) if item.conversion == ord("r") else value
                text = self.guarded(lambda value=value, layout=layout: format(value, layout), item)
            else:
                text = str(self.eval(item))
            if parts and isinstance(parts[-1], str):
                parts[-1] += text
            else:
                parts.append(text)
        if any(isinstance(part, Expr) for part in parts):
            return FormattedText(tuple(parts))
        return "".join(str(part) for part in parts)

    def _slice(self, node: ast.Slice) -> slice:
        ends = (node.lower, node.upper, node.step)
        return slice(*(None if end is None else self.eval(end) for end in ends))

    def _comprehend(
        self, generators: list[ast.comprehension], make_item: Callable[[], Any]
    ) -> list[Any]:
        if not generators:
            return [make_item()]
        first, rest = generators[0], generators[1:]
        values = self.eval(first.iter)
        results: list[Any] = []
        self.scopes.append({})
        for value in self.listed(values, first.iter):
            self.unpack(first.target, value)
            if all(self.eval(test) for test in first.ifs):
                results.extend(self._comprehend(rest, make_item))
        self.scopes.pop()
        return results

    def unpack(self, target: ast.expr, value: Any) -> None:
        """Bind the names of an assignment target to the parts of a Python value."""
        if isinstance(target, ast.Name):
            self.define(target.id, value)
            return
        if not isinstance(target, ast.Tuple | ast.List):
            raise self.error("cannot assign to this", target, "assign to a name, or to names")
        items = self.listed(value, target)
        if len(items) != len(target.elts):
            raise self.error(
                f"{len(target.elts)} names for {len(items)} values",
                target,
                "as many of the one as of the other",
            )
        for item, part in zip(target.elts, items, strict=True):
            self.unpack(item, part)

    def _lambda(self, node: ast.Lambda) -> Callable[..., Any]:
        names = [item.arg for item in node.args.args]
        scopes = list(self.scopes)

        def function(*args: Any) -> Any:
            saved = self.scopes
            self.scopes = [*scopes, dict(zip(names, args, strict=True))]
            try:
                return self.eval(node.body)
            finally:
                self.scopes = saved

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
        vars(function)["__signature__"] = signature
        return function

    def parse_expression(self, text: str, node: ast.AST) -> ast.expr:
        """The syntax tree of an expression in a string; its errors point at the string."""
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except SyntaxError:
            raise self.error(
                f"{text!r} is not an expression", node, "a string names a dimension or a type here"
            ) from None
        for item in ast.walk(tree):
            ast.copy_location(item, node)
        return tree


def slice_ends(value: Any) -> tuple[Any, Any, Any] | None:
    """(start, stop, step) of a slice, None of anything else."""
    if not isinstance(value, slice):
        return None
    ends = cast("slice[Any, Any, Any]", value)
    return ends.start, ends.stop, ends.step


def as_tuple(value: Any) -> tuple[Any, ...]:
    """What stands between brackets as a tuple."""
    if not isinstance(value, tuple):
        return (value,)
    return as_items(value)


def _point(index: Expr) -> Range:
    return Range(index, as_expr(1, index.dtype))


def _is_too_large(kind: type[ast.operator], a: Any, b: Any) -> bool:
    """Whether an operation on Python values would take all memory, or forever."""
    if isinstance(a, int) and isinstance(b, int):
        if kind is ast.Pow:
            return b > 0 and a.bit_length() * b > LARGEST_NUMBER
        if kind is ast.LShift:
            return a.bit_length() + b > LARGEST_NUMBER
        return kind is ast.Mult and a.bit_length() + b.bit_length() > LARGEST_NUMBER
    if kind is not ast.Mult:
        return False
    for items, count in ((a, b), (b, a)):
        if isinstance(items, str | bytes | list | tuple) and isinstance(count, int):
            return len(items) * count > LARGEST_SEQUENCE  # pyright: ignore[reportUnknownArgumentType]
    return False


def _kind(value: Any) -> str:
    return f"a value of {value.dtype}" if isinstance(value, Expr) else type(value).__name__
