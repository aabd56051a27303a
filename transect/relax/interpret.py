"""The graph interpreter: runs any graph function of a module with numpy, at any stage.

The reference for what compiled programs must compute, and the debugger. Tensor programs are run
by `tir.interpret`; operators by the loops that they legalize to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm_ffi

from transect.ir.function import IRModule
from transect.ir.types import VOID_TYPE, TupleType, Type
from transect.relax import call as special
from transect.relax import expr as rx
from transect.relax.legalize import flat_tensors, has_decomposition, legalize
from transect.relax.runtime_values import (
    Match,
    ShapeValue,
    Symbols,
    as_value,
    concrete_type,
    describe,
    evaluate,
)
from transect.relax.shapes import plain_vars
from transect.relax.tail_calls import last_binding
from transect.relax.visit import direct_bindings, operands
from transect.runtime.arrays import as_numpy, as_sequence
from transect.runtime.functions import get_function, to_ffi
from transect.support.errors import ExecutionError, TransectError, UnsupportedError
from transect.support.span import Spans
from transect.tir.function import PrimFunc
from transect.tir.interpret import Interpreter as ProgramInterpreter

Packed = Callable[..., Any]


@dataclass
class _Frame:
    """Variables in scope. A closure keeps the frame it was made in."""

    variables: dict[rx.Var, Any] = field(default_factory=dict[rx.Var, Any])
    symbols: Symbols = field(default_factory=Symbols)

    def child(self) -> _Frame:
        return _Frame(dict(self.variables), dict(self.symbols))


@dataclass(frozen=True)
class Closure:
    """A function as a value: of the module, or nested with the variables around it, or with its
    last parameters `captured`."""

    function: rx.Function | PrimFunc
    name: str
    frame: _Frame
    captured: tuple[Any, ...] = ()


class Interpreter:
    """Runs the functions of a module.

    packed: functions by name, called with numpy arrays, numbers, shapes and tuples; a name that
    is not there is looked up among those registered with tvm-ffi.
    """

    def __init__(self, module: IRModule, packed: Mapping[str, Packed] | None = None) -> None:
        self.module = module
        self.packed = dict(packed or {})
        self.programs = ProgramInterpreter(module, packed=self.packed)

    def run(self, name: str, *arguments: Any) -> Any:
        """The result of function `name` on arrays, numbers and tuples of those.

        Raises ExecutionError if the arguments do not fit the parameters, or a match_cast or an
        assertion in the program fails.
        """
        function = self.module[name]
        if isinstance(function, PrimFunc):
            raise ExecutionError(
                f"{name} is a tensor program", remedy="run it with transect.tir.interpret"
            )
        if not isinstance(function, rx.Function):
            raise ExecutionError(f"{name} is not a graph function")
        values = [as_value(argument) for argument in arguments]
        return self._call_function(function, values, _Frame(), name)

    # --- functions ----------------------------------------------------------------------

    def _call_function(
        self, function: rx.Function, arguments: Sequence[Any], outer: _Frame, name: str
    ) -> Any:
        if len(arguments) != len(function.params):
            raise ExecutionError(
                f"{name} takes {len(function.params)} arguments, got {len(arguments)}"
            )
        while True:
            frame = outer.child()
            # What the parameters bind belongs to this call, not to the one that made the closure.
            for param in function.params:
                for var in plain_vars((param.type,)):
                    frame.symbols.pop(var, None)
            match = Match(frame.symbols)
            for param, argument in zip(function.params, arguments, strict=True):
                match.value(param.type, argument, f"parameter {param.name} of {name}")
                frame.variables[param] = argument
            match.finish()
            result, again = self._tail(function, function.body, frame)
            if again is None:
                return _own(result)
            arguments = again

    def _tail(
        self, function: rx.Function, seq: rx.SeqExpr, frame: _Frame
    ) -> tuple[Any, list[Any] | None]:
        """The result of `function`, whose last part is `seq`; or, if that is a call of itself, the
        arguments of the call, which takes no stack that way."""
        while True:
            last = last_binding(seq)
            for binding in direct_bindings(seq):
                value = binding.value
                if binding is last and isinstance(value, rx.If):
                    seq, frame = self._branch(value, frame)
                    break
                if binding is last and self._calls(value, function):
                    return None, self._values(operands(value)[1:], frame)
                self._run_binding(binding, frame)
            else:
                return self._value(seq.body, frame), None

    def _calls(self, value: rx.Value, function: rx.Function) -> bool:
        if not isinstance(value, rx.Call) or not isinstance(value.op, rx.GlobalFunc):
            return False
        return self.module[value.op.name] is function

    def _branch(self, value: rx.If, frame: _Frame) -> tuple[rx.SeqExpr, _Frame]:
        taken = bool(self._value(value.condition, frame))
        return (value.then_branch if taken else value.else_branch), frame.child()

    def _call_value(self, callee: Any, arguments: Sequence[Any], span: Spans) -> Any:
        if isinstance(callee, Closure):
            everything = [*arguments, *callee.captured]
            if isinstance(callee.function, PrimFunc):
                raise UnsupportedError(
                    f"a call of the tensor program {callee.name} as a value", span=span
                )
            return self._call_function(callee.function, everything, callee.frame, callee.name)
        if callable(callee):
            return as_value(callee(*arguments))
        raise ExecutionError(f"{describe(callee)} is called", span=span)

    def _packed(self, name: str) -> Packed:
        found = self.packed.get(name)
        if found is not None:
            return found
        registered = get_function(name)
        return lambda *arguments: registered(*map(_to_packed, arguments))

    # --- values -------------------------------------------------------------------------

    def _seq(self, seq: rx.SeqExpr, frame: _Frame) -> Any:
        for binding in direct_bindings(seq):
            self._run_binding(binding, frame)
        return self._value(seq.body, frame)

    def _run_binding(self, binding: rx.Binding, frame: _Frame) -> None:
        try:
            self._binding(binding, frame)
        except TransectError as error:
            raise error.at(binding.span) from None

    def _binding(self, binding: rx.Binding, frame: _Frame) -> None:
        if isinstance(binding, rx.MatchCast):
            value = self._value(binding.value, frame)
            match = Match(frame.symbols)
            match.value(binding.type, value, f"the value cast to {binding.var.name}")
            match.finish()
            frame.variables[binding.var] = value
        elif isinstance(binding.value, rx.Function):
            # The closure shares the frame, so that it sees its own name.
            closure = Closure(binding.value, binding.var.name, frame)
            frame.variables[binding.var] = closure
        else:
            frame.variables[binding.var] = self._value(binding.value, frame)

    def _value(self, value: rx.Value, frame: _Frame) -> Any:
        if isinstance(value, rx.Var):
            if value not in frame.variables:
                raise ExecutionError(f"{value.name} has no value here")
            return frame.variables[value]
        if isinstance(value, rx.Call):
            return self._call(value, frame)
        if isinstance(value, rx.Constant):
            return value.data
        if isinstance(value, rx.ShapeExpr):
            return ShapeValue(int(evaluate(dim, frame.symbols)) for dim in value.values)
        if isinstance(value, rx.PrimValue):
            return evaluate(value.value, frame.symbols)
        if isinstance(value, rx.Tuple):
            return tuple(self._value(item, frame) for item in value.items)
        if isinstance(value, rx.TupleGetItem):
            return self._value(value.tuple_value, frame)[value.index]
        if isinstance(value, rx.If):
            return _own(self._seq(*self._branch(value, frame)))
        if isinstance(value, rx.SeqExpr):
            return self._seq(value, frame.child())
        return self._name(value, frame)

    def _name(self, value: rx.Value, frame: _Frame) -> Any:
        if isinstance(value, rx.GlobalFunc):
            function = self.module[value.name]
            if isinstance(function, rx.Function | PrimFunc):
                return Closure(function, value.name, _Frame())
        if isinstance(value, rx.ExternFunc):
            return self._packed(value.name)
        if isinstance(value, rx.Function):
            return Closure(value, "the function", frame)
        if isinstance(value, rx.StringValue):
            return value.value
        if isinstance(value, rx.DataTypeValue):
            return str(value.value)
        raise UnsupportedError(f"cannot interpret a {type(value).__name__}")

    # --- calls --------------------------------------------------------------------------

    def _call(self, call: rx.Call, frame: _Frame) -> Any:
        if not isinstance(call.op, rx.Op):
            callee = self._value(call.op, frame)
            return self._call_value(callee, self._values(call.args, frame), call.span)
        handler = _SPECIAL.get(type(call.op))
        if handler is not None:
            return handler(self, call, frame)
        return self._operator(call.op, call.args, self._values(call.args, frame))

    def _values(self, values: Sequence[rx.Value], frame: _Frame) -> list[Any]:
        return [self._value(value, frame) for value in values]

    def call_tir(self, call: rx.Call, frame: _Frame) -> Any:
        callee = call.args[0]
        function = self.module[callee.name] if isinstance(callee, rx.GlobalFunc) else None
        if not isinstance(function, PrimFunc):
            raise ExecutionError("call_tir of something that is not a tensor program")
        inputs = self._inputs(call, frame)
        outputs = self.outputs(call.type_args[0], frame)
        scalars = self._value(call.args[2], frame) if len(call.args) > 2 else ()
        if isinstance(call.op, special.CallTIRInplace):
            # Only this call may see the change: other uses of the input keep their value.
            for number, index in enumerate(call.op.inplace_indices):
                if index >= 0:
                    outputs[number] = inputs[index] = np.array(inputs[index])
            fresh = [o for o, i in zip(outputs, call.op.inplace_indices, strict=True) if i < 0]
        else:
            fresh = outputs
        self._run(function, [*inputs, *fresh], scalars)
        return _one_or_tuple(call.type_args[0], outputs)

    def call_dps_packed(self, call: rx.Call, frame: _Frame) -> Any:
        outputs = self.outputs(call.type_args[0], frame)
        function = self._value(call.args[0], frame)
        self._call_value(function, [*self._inputs(call, frame), *outputs], call.span)
        return _one_or_tuple(call.type_args[0], outputs)

    def call_packed(self, call: rx.Call, frame: _Frame) -> Any:
        function = self._value(call.args[0], frame)
        result = self._call_value(function, self._values(call.args[1:], frame), call.span)
        if result is None and call.type_args == (VOID_TYPE,):
            result = ()
        if call.type_args:
            match = Match(dict(frame.symbols))
            match.value(call.type_args[0], result, "the result of the packed function")
            match.finish()
        return result

    def call_with_tuple(self, call: rx.Call, frame: _Frame) -> Any:
        function, arguments = self._values(call.args, frame)
        return self._call_value(function, arguments, call.span)

    def make_closure(self, call: rx.Call, frame: _Frame) -> Any:
        function, captured = self._values(call.args, frame)
        if not isinstance(function, Closure):
            raise ExecutionError(f"make_closure of {describe(function)}")
        return Closure(
            function.function, function.name, function.frame, (*captured, *function.captured)
        )

    def assert_op(self, call: rx.Call, frame: _Frame) -> Any:
        condition, *values = self._values(call.args, frame)
        if not bool(condition):
            text = getattr(call.op, "format", "").format(*values)
            raise ExecutionError(f"assertion failed: {text}" if text else "assertion failed")
        return ()

    def print_values(self, call: rx.Call, frame: _Frame) -> Any:
        values = self._values(call.args, frame)
        text = getattr(call.op, "format", "")
        print(text.format(*values) if text else " ".join(map(str, values)))  # noqa: T201
        return ()

    def shape_of(self, call: rx.Call, frame: _Frame) -> Any:
        return ShapeValue(self._value(call.args[0], frame).shape)

    def tensor_to_shape(self, call: rx.Call, frame: _Frame) -> Any:
        return ShapeValue(int(item) for item in self._value(call.args[0], frame))

    def shape_to_tensor(self, call: rx.Call, frame: _Frame) -> Any:
        return np.array(self._value(call.args[0], frame), np.int64)

    def null_value(self, call: rx.Call, frame: _Frame) -> Any:
        del call, frame

    def _inputs(self, call: rx.Call, frame: _Frame) -> list[Any]:
        return list(self._value(call.args[1], frame))

    def outputs(self, kind: Type, frame: _Frame) -> list[Any]:
        """New arrays for the outputs of a destination-passing call."""
        made: list[Any] = []
        for tensor in flat_tensors(kind):
            if tensor.shape is None or tensor.dtype is None:
                raise ExecutionError(f"an output of unknown shape or dtype: {tensor!r}")
            shape = tuple(int(evaluate(dim, frame.symbols)) for dim in tensor.shape)
            made.append(np.zeros(shape, tensor.dtype.numpy))
        return made

    def _run(self, function: PrimFunc, buffers: list[Any], scalars: Sequence[Any]) -> None:
        self.programs.run(function, *buffers, *scalars)

    def _operator(self, op: rx.Op, operands: Sequence[rx.Value], values: list[Any]) -> Any:
        types = [concrete_type(o.type, v) for o, v in zip(operands, values, strict=True)]
        found = legalize(op, types)
        if found is not None:
            tensors = [item for value in values for item in _flat_arrays(value)]
            outputs = self.outputs(found.out_type, _Frame())
            self._run(
                found.function, [*tensors, *outputs], [evaluate(v, {}) for v in found.tir_vars]
            )
            return _one_or_tuple(found.out_type, outputs)
        if has_decomposition(op):
            return self._decompose(op, types, values)
        raise UnsupportedError(f"the interpreter cannot run {op.name}: it has no loops")

    def _decompose(self, op: Any, types: list[Type], values: list[Any]) -> Any:
        frame = _Frame()
        operands = [rx.Var(f"x{number}", kind) for number, kind in enumerate(types)]
        frame.variables.update(zip(operands, values, strict=True))

        def emit(value: rx.Value) -> rx.Var:
            result = self._value(value, frame)
            var = rx.Var("lv", concrete_type(value.type, result))
            frame.variables[var] = result
            return var

        return self._value(op.decompose(emit, *operands), frame)


def interpret(
    module: IRModule, name: str, *arguments: Any, packed: Mapping[str, Packed] | None = None
) -> Any:
    """The result of graph function `name` of `module`; see Interpreter."""
    return Interpreter(module, packed).run(name, *arguments)


_Handler = Callable[[Interpreter, rx.Call, _Frame], Any]

_SPECIAL: dict[type[rx.Op], _Handler] = {
    special.CallTIR: Interpreter.call_tir,
    special.CallTIRInplace: Interpreter.call_tir,
    special.CallDPSPacked: Interpreter.call_dps_packed,
    special.CallPacked: Interpreter.call_packed,
    special.CallPurePacked: Interpreter.call_packed,
    special.CallInplacePacked: Interpreter.call_packed,
    special.CallBuiltinWithCtx: Interpreter.call_with_tuple,
    special.InvokeClosure: Interpreter.call_with_tuple,
    special.InvokePureClosure: Interpreter.call_with_tuple,
    special.MakeClosure: Interpreter.make_closure,
    special.AssertOp: Interpreter.assert_op,
    special.Print: Interpreter.print_values,
    special.ShapeOf: Interpreter.shape_of,
    special.TensorToShape: Interpreter.tensor_to_shape,
    special.ShapeToTensor: Interpreter.shape_to_tensor,
    special.NullValue: Interpreter.null_value,
}


def _one_or_tuple(kind: Type, outputs: list[Any]) -> Any:
    return tuple(outputs) if isinstance(kind, TupleType) else outputs[0]


def _flat_arrays(value: Any) -> list[Any]:
    array = as_numpy(value)
    if array is not None:
        return [array]
    if isinstance(value, ShapeValue):
        return []
    return [part for item in as_sequence(value) or () for part in _flat_arrays(item)]


def _own(value: Any) -> Any:
    """A result of a function or branch: tensors of its own, whatever they were before."""
    if isinstance(value, np.ndarray):
        return np.array(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if type(value) is tuple:
        items: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType]
        return tuple(map(_own, items))
    return value


def _to_packed(value: Any) -> Any:
    return tvm_ffi.Shape(value) if isinstance(value, ShapeValue) else to_ffi(value)
