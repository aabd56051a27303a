"""The numpy interpreter of tensor programs: the reference that compiled code is tested against.

It runs PrimFuncs at every stage, from blocks to flat loops and host functions. Dtypes, wrap-around,
rounding and the order of accumulations are those of the program; an access outside a buffer raises,
and memory that was never written holds NaN or 0xCD bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tvm_ffi

from transect.ir.dtype import as_dtype
from transect.ir.expr import Expr, Var
from transect.ir.function import IRModule
from transect.support.errors import ExecutionError, InputError, InputTypeError
from transect.tir.affine import Affine
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc, symbolic_vars
from transect.tir.interpreter.extern import EXTERN_FUNCTIONS
from transect.tir.interpreter.frame import Frame, ReturnSignal
from transect.tir.interpreter.grid import Value, wrap
from transect.tir.interpreter.host import AnyList, as_pointer
from transect.tir.interpreter.linear import Scope, linear
from transect.tir.interpreter.memory import Array, Pointer, from_array, whole_bytes
from transect.tir.interpreter.statements import Do, StmtCompiler

PackedFunction = Callable[..., Any]


class Interpreter:
    """Runs the PrimFuncs of a module.

    packed: Python functions by the names that call_packed uses; others are looked up with
    `tvm_ffi.get_global_func`. extern: Python equivalents of C functions by symbol, besides those of
    `EXTERN_FUNCTIONS`; a pointer arrives as a `Pointer`. vectorize: False runs every loop in order,
    one element at a time: slower, and free of the proofs that lockstep needs.
    """

    def __init__(
        self,
        module: IRModule | None = None,
        *,
        packed: Mapping[str, PackedFunction] | None = None,
        extern: Mapping[str, PackedFunction] | None = None,
        vectorize: bool = True,
    ) -> None:
        self.module = IRModule.of() if module is None else module
        self.packed = dict(packed or {})
        self.extern = {**EXTERN_FUNCTIONS, **(extern or {})}
        self.vectorize = vectorize
        self._compiled: dict[tuple[PrimFunc, tuple[int, ...]], Do] = {}

    # --- calls from outside

    def call(self, name: str, *args: Any) -> Any:
        """Run a function of the module; see `run`."""
        return self.run(_prim_func(self.module, name), *args)

    def run(self, func: PrimFunc, *args: Any) -> Any:
        """Run `func` on one argument per parameter, outputs included (destination-passing).

        A buffer parameter takes a numpy array of its dtype and shape, which binds symbolic
        variables; if it is not contiguous and the buffer has no strides, a copy is used and written
        back. A handle takes an array, a `Pointer`, an `AnyList` or any object; a scalar a number.
        A lowered function takes the values of its trailing parameters as well. Returns what the
        function returns by `T.ret`, else None.

        Raises InputError or InputTypeError for arguments that do not fit, ExecutionError for an
        access outside a buffer or a division by zero, and what an assertion names if it fails.
        """
        if len(args) != len(func.params):
            names = ", ".join(var.name for var in func.params)
            raise InputError(f"{len(func.params)} arguments are needed ({names}), got {len(args)}")
        values: dict[Var, Value] = {}
        copies: list[tuple[Array, Array]] = []
        symbols: dict[Var, int] = {}
        for var, arg in zip(func.params, args, strict=True):
            buffer = func.buffer_map.get(var)
            if buffer is not None:
                values[buffer.data] = values[var] = _buffer_argument(buffer, arg, symbols, copies)
            elif var.dtype.is_handle:
                values[var] = _handle_argument(var, arg)
            else:
                values[var] = np.asarray(arg).astype(var.dtype.numpy)[()]
        _check_symbols(func, args, symbols, values)
        try:
            result = self._execute(func, values, symbols)
        finally:
            for original, copy in copies:
                if original.flags.writeable:
                    original[...] = copy
        return result

    def call_entry(self, name: str, *args: Any) -> Any:
        """Run a packed entry `(self, args, num_args, result)` as a caller of the C ABI does: arrays
        and numbers in slots. Returns what it puts in the result slot."""
        result = AnyList([None])
        func = _prim_func(self.module, name)
        self.run(func, None, AnyList(list(args)), len(args), result)
        return result.slots[0]

    # --- calls from inside

    def call_native(self, name: str, args: list[Value]) -> None:
        """Call a PrimFunc of the module: one value per parameter, then its symbolic variables."""
        func = _prim_func(self.module, name)
        targets = (*func.params, *symbolic_vars(func))
        if len(args) != len(targets):
            raise ExecutionError(f"{name} takes {len(targets)} arguments, got {len(args)}")
        values: dict[Var, Value] = {}
        symbols: dict[Var, int] = {}
        for position, (var, arg) in enumerate(zip(targets, args, strict=True)):
            if position >= len(func.params):
                symbols[var] = int(arg)
            elif var in func.buffer_map:
                values[func.buffer_map[var].data] = values[var] = as_pointer(arg, var.name)
            else:
                values[var] = arg
        self._execute(func, values, symbols)

    def call_packed(self, name: str, args: list[Value]) -> Value:
        """Call a registered packed function with Python objects: arrays for tensors."""
        function = self.packed.get(name)
        if function is None:
            function = tvm_ffi.get_global_func(name, allow_missing=True)
        if function is None:
            raise ExecutionError(f"no packed function {name!r} is registered")
        return function(*(arg.item() if isinstance(arg, np.generic) else arg for arg in args))

    def call_extern(self, symbol: str, args: list[Value]) -> Value:
        """Call the Python equivalent of a C function."""
        function = self.extern.get(symbol)
        if function is None:
            raise ExecutionError(
                f"the interpreter does not know the C function {symbol!r}",
                remedy="pass a Python equivalent: Interpreter(module, extern={...})",
            )
        return function(*(arg.item() if isinstance(arg, np.generic) else arg for arg in args))

    # --- running

    def _execute(
        self, func: PrimFunc, values: Mapping[Var, Value], symbols: Mapping[Var, int]
    ) -> Value:
        sizes = {
            var: int(values[var])
            for var in func.params
            if var.dtype.is_integral and var.dtype.is_scalar
        }
        sizes.update(symbols)
        key = (func, tuple(sizes.values()))
        body = self._compiled.get(key)
        if body is None:
            scope = Scope(forms={var: Affine(size, {}) for var, size in sizes.items()})
            body = StmtCompiler(vectorize=self.vectorize).body(func.body, scope)
            self._compiled[key] = body
        frame = Frame(self)
        frame.vars.update(values)
        frame.vars.update({var: wrap(size, var.dtype) for var, size in sizes.items()})
        frame.ints.update(sizes)
        try:
            with np.errstate(all="ignore"):
                body(frame)
        except ReturnSignal as signal:
            return signal.value
        return None


def interpret(
    program: PrimFunc | IRModule,
    *args: Any,
    name: str = "main",
    packed: Mapping[str, PackedFunction] | None = None,
    extern: Mapping[str, PackedFunction] | None = None,
    vectorize: bool = True,
) -> Any:
    """Run a PrimFunc, or the PrimFunc `name` of a module, once. See `Interpreter`."""
    if isinstance(program, PrimFunc):
        runner = Interpreter(packed=packed, extern=extern, vectorize=vectorize)
        return runner.run(program, *args)
    runner = Interpreter(program, packed=packed, extern=extern, vectorize=vectorize)
    return runner.call(name, *args)


def _prim_func(module: IRModule, name: str) -> PrimFunc:
    func = module[name]
    if not isinstance(func, PrimFunc):
        raise InputTypeError(f"{name} is no tensor program but a {type(func).__name__}")
    return func


def _as_array(arg: Any) -> Array | None:
    return arg if isinstance(arg, np.ndarray) else None  # pyright: ignore[reportUnknownVariableType]


def _handle_argument(var: Var, arg: Any) -> Value:
    array = _as_array(arg)
    return arg if array is None else Pointer(from_array(array, var.name))


def _buffer_argument(
    buffer: Buffer, arg: Any, symbols: dict[Var, int], copies: list[tuple[Array, Array]]
) -> Pointer:
    if isinstance(arg, Pointer):
        return arg
    array = _as_array(arg)
    if array is None:
        raise InputTypeError(f"{buffer.name} takes a numpy array, got {type(arg).__name__}")
    if as_dtype(array.dtype) is not buffer.dtype.element:
        raise InputTypeError(f"{buffer.name} is {buffer.dtype}, got an array of {array.dtype}")
    shape = array.shape
    if buffer.dtype.lanes > 1:
        shape = shape[:-1]
    if len(shape) != buffer.ndim:
        raise InputError(f"{buffer.name} has {buffer.ndim} dimensions, got shape {array.shape}")
    _bind_fields(buffer.shape, shape, symbols)
    if isinstance(buffer.elem_offset, Var):
        symbols.setdefault(buffer.elem_offset, 0)
    if buffer.strides and array.size and min(array.strides, default=1) > 0:
        steps = [step // array.itemsize for step in array.strides]
        _bind_fields(buffer.strides, steps, symbols)
        return Pointer(from_array(whole_bytes(array), buffer.name))
    if not array.flags.c_contiguous:
        copy = np.ascontiguousarray(array)
        copies.append((array, copy))
        array = copy
    compact = [step // array.itemsize for step in array.strides]
    _bind_fields(buffer.strides, compact, symbols)
    return Pointer(from_array(array, buffer.name))


def _bind_fields(fields: Sequence[Expr], numbers: Sequence[int], symbols: dict[Var, int]) -> None:
    for field, number in zip(fields, numbers, strict=False):
        if isinstance(field, Var):
            symbols.setdefault(field, number)


def _check_symbols(
    func: PrimFunc, args: Sequence[Any], symbols: dict[Var, int], values: Mapping[Var, Value]
) -> None:
    """Every dimension has the value that the arguments say."""
    known = {var: Affine(size, {}) for var, size in symbols.items()}
    for var in func.params:
        if var.dtype.is_integral and var.dtype.is_scalar:
            known[var] = Affine(int(values[var]), {})
            symbols.pop(var, None)
    scope = Scope(forms=known)
    for var, arg in zip(func.params, args, strict=True):
        buffer = func.buffer_map.get(var)
        array = _as_array(arg)
        if buffer is None or array is None:
            continue
        for axis, (field, size) in enumerate(zip(buffer.shape, array.shape, strict=False)):
            form = linear(field, scope)
            if not form.is_const:
                raise InputError(f"nothing tells axis {axis} of {buffer.name}: {field!r}")
            if form.const != size:
                raise InputError(
                    f"axis {axis} of {buffer.name} has {size} elements, expected {form.const}"
                )
