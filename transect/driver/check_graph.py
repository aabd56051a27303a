"""A module of transect as `check` sees it: its values by name, and the interpreter that runs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transect.arith.evaluate import evaluate
from transect.driver.entry import entry_name
from transect.ir.expr import Expr, IntImm, Var
from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.ir.traverse import free_vars
from transect.ir.types import TensorType, Type
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.interpret import Interpreter
from transect.relax.runtime_values import Match, ShapeValue, Symbols, concrete_type
from transect.relax.runtime_values import evaluate as number
from transect.relax.visit import Rewriter, direct_bindings
from transect.runtime.arrays import as_numpy, as_sequence
from transect.support.errors import InputError, TransectError
from transect.support.span import Layer, Spans
from transect.tir.analysis import block_sites
from transect.tir.function import PrimFunc

_SECONDS_PER_ITERATION = 5e-7
"""Of the interpreter, measured; where it can run a loop in numpy it is much faster."""


class TooSlow(TransectError):
    """The interpreter would take longer than it may."""


class BoundedInterpreter(Interpreter):
    """The interpreter, which gives up before it runs a program that takes it too long."""

    def __init__(self, module: IRModule, seconds: float) -> None:
        super().__init__(module)
        self.left = seconds

    def _run(self, function: PrimFunc, buffers: list[Any], scalars: Sequence[Any]) -> None:
        self.left -= _iterations(function, buffers, scalars) * _SECONDS_PER_ITERATION
        if self.left < 0:
            raise TooSlow("the interpreter would take too long")
        super()._run(function, buffers, scalars)


def _iterations(function: PrimFunc, buffers: Sequence[Any], scalars: Sequence[Any]) -> float:
    """How often the blocks of a program run on these arguments."""
    values: dict[Var, int] = {}
    for declared, array in zip(function.buffers, buffers, strict=False):
        for dim, size in zip(declared.shape, np.shape(array), strict=False):
            if isinstance(dim, Var):
                values.setdefault(dim, size)
    given = [param for param in function.params if param not in function.buffer_map]
    values.update(zip(given, map(int, scalars), strict=False))
    total = 0.0
    for site in block_sites(function):
        runs: Expr = IntImm(1)
        for item in site.block.iter_vars:
            runs = runs * item.dom.extent
        if all(var in values for var in free_vars((runs,))):
            total += float(evaluate(runs, values))
    return total


@dataclass(frozen=True)
class NamedValue:
    """A value of a model: its name, what computes it, and where that is written."""

    name: str
    node: str
    operator: str
    span: Spans = ()


class GraphModel:
    """A module: the entry's bindings of tensors are its values."""

    quantized = False

    def __init__(self, module: IRModule, entry: str | None) -> None:
        self.entry = entry_name(module, entry)
        function = module[self.entry]
        if not isinstance(function, rx.Function):
            raise InputError(
                f"{self.entry} is a tensor program, which has no values in between",
                remedy="transect.tir.interpret runs it; compare its arrays",
            )
        self.module = module
        self.function = function
        self.title = self.entry
        self._variables: dict[str, rx.Var] = {}
        self._bindings: dict[str, rx.Binding] = {}
        for binding in direct_bindings(function.body):
            if isinstance(binding.var.type, TensorType) and not isinstance(
                binding.value, rx.Constant | rx.Var
            ):
                name = _unique(binding.var.name, self._variables)
                self._variables[name] = binding.var
                self._bindings[name] = binding

    @property
    def values(self) -> tuple[NamedValue, ...]:
        """The values in order."""
        return tuple(_named(name, binding) for name, binding in self._bindings.items())

    def variant(self, names: Sequence[str]) -> IRModule:
        """The module whose entry gives these values, as a tuple if there are several."""
        wanted = [self._variables[name] for name in names]
        function = _Expose(wanted).run(self.function)
        return self.module.with_function(self.entry, function)

    def alone(
        self, name: str, inputs: Mapping[str, Any], arguments: Sequence[Any], *, wide: bool
    ) -> Any:
        """The value `name` computed by the interpreter from given values of others, in float64 if
        `wide`; None if that cannot be done."""
        binding = self._bindings[name]
        call = binding.value
        if not isinstance(call, rx.Call) or not isinstance(call.op, rx.Op) or call.type_args:
            return None
        known: dict[rx.Var, Any] = dict(zip(self.function.params, arguments, strict=True))
        known |= {var: inputs[n] for n, var in self._variables.items() if n in inputs}
        symbols: Symbols = {}
        match = Match(symbols)
        for param, argument in zip(self.function.params, arguments, strict=True):
            match.value(param.type, argument, param.name)
        operands = [_known(arg, known, symbols) for arg in call.args]
        if any(operand is None for operand in operands):
            return None
        return run_operator(call.op, operands, wide=wide)


class _Expose(Rewriter):
    """Gives `wanted` variables as the result."""

    def __init__(self, wanted: Sequence[rx.Var]) -> None:
        super().__init__()
        self.wanted = wanted
        self.top: rx.SeqExpr | None = None

    def renew(self, var: rx.Var, kind: Type) -> rx.Var:
        if var.dataflow and var in self.wanted:
            new = rx.Var(var.name, kind, False, var.span)
            self.variables[var] = new
            return new
        return super().renew(var, kind)

    def rewrite_function(self, function: rx.Function) -> rx.Function:
        if self.top is None:
            self.top = function.body
            result = self.wanted[0] if len(self.wanted) == 1 else rx.make_tuple(*self.wanted)
            function = replace(function, body=replace(function.body, body=result))
            new = super().rewrite_function(function)
            return replace(new, ret_type=new.body.type)
        return super().rewrite_function(function)


def run_operator(op: rx.Op, operands: Sequence[Any], *, wide: bool) -> Any:
    """An operator on arrays, shapes, numbers and tuples, by the interpreter; None if it fails."""
    builder = BlockBuilder()
    params: list[rx.Var] = []
    arrays: list[Any] = []

    def operand(value: Any) -> rx.Value:
        array = as_numpy(value)
        if isinstance(value, ShapeValue):
            return rx.shape_expr(*value)
        if array is not None:
            if wide and array.dtype.kind not in "biuc":
                array = array.astype(np.float64)
            params.append(rx.Var(f"x{len(params)}", concrete_type(value, array)))
            arrays.append(array)
            return params[-1]
        items = as_sequence(value)
        if items is not None:
            return rx.make_tuple(*map(operand, items))
        return rx.prim_value(value)

    try:
        call = op(*map(operand, operands))
        with builder.function("main", params):
            builder.emit_func_output(builder.emit(call))
        return Interpreter(builder.finish()).run("main", *arrays)
    except TransectError:
        return None


def _known(value: rx.Value, known: Mapping[rx.Var, Any], symbols: Symbols) -> Any:
    """The value of an operand if it is known without running anything."""
    if isinstance(value, rx.Var):
        return known.get(value)
    if isinstance(value, rx.Constant):
        return value.data
    if isinstance(value, rx.ShapeExpr):
        if any(var not in symbols for var in free_vars(value.values)):
            return None
        return ShapeValue(int(number(dim, symbols)) for dim in value.values)
    if isinstance(value, rx.Tuple):
        items = [_known(item, known, symbols) for item in value.items]
        return None if any(item is None for item in items) else tuple(items)
    return None


def _named(name: str, binding: rx.Binding) -> NamedValue:
    span = binding.span or binding.value.span
    layer = next((origin for origin in span if isinstance(origin, Layer)), None)
    value = binding.value
    op = "match_cast" if isinstance(binding, rx.MatchCast) else type(value).__name__.lower()
    if isinstance(value, rx.Call):
        callee = rx.callee_name(value) or next(
            (arg.name for arg in value.args if isinstance(arg, rx.GlobalFunc | rx.ExternFunc)), ""
        )
        op = f"R.{value.op.name}" if isinstance(value.op, rx.Op) else "call of"
        op = f"{op} {callee}".strip()
    if layer is not None:
        return NamedValue(name, layer.name, layer.operator, span)
    return NamedValue(name, name, op, span)


def _unique(name: str, taken: Mapping[str, object]) -> str:
    found, number = name, 2
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found


def flat(result: Any) -> Iterator[np.ndarray[Any, Any]]:
    """The arrays of a result, those in tuples included."""
    array = as_numpy(result)
    if array is not None:
        yield array
        return
    items = as_sequence(result)
    if items is not None:
        for item in items:
            yield from flat(item)
    elif isinstance(result, bool | int | float):
        yield np.asarray(result)


__all__ = [
    "BoundedInterpreter",
    "GraphModel",
    "NamedValue",
    "TooSlow",
    "flat",
    "run_operator",
]
