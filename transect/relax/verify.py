"""The verifier of graph functions: re-derives every type and checks every rule of the level.

Tensor programs have a verifier of their own in `tir`; here only calls of them are checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from transect.ir.dtype import BOOL
from transect.ir.expr import Var as Symbol
from transect.ir.expr import as_int
from transect.ir.function import IRModule
from transect.ir.structural import structural_equal
from transect.ir.traverse import free_vars
from transect.ir.types import (
    CallableType,
    ObjectType,
    PrimType,
    ShapeType,
    TensorType,
    TupleType,
    Type,
)
from transect.relax import expr as rx
from transect.relax.call import CallTIR, CallTIRInplace, call_inputs
from transect.relax.emit import is_leaf, is_normal
from transect.relax.inference import function_type, infer_type, is_pure_call, is_subtype
from transect.relax.shapes import dimensions, plain_vars, show, type_vars
from transect.relax.unify import unify_prim_func
from transect.relax.visit import own_types
from transect.support.errors import TransectError, VerifyError
from transect.tir.function import PrimFunc


def verify_module(module: IRModule) -> None:
    """Check every graph function of a module. Raises VerifyError at the first binding that breaks
    a rule: A-normal form, scopes, types, purity, calls of functions."""
    for name, function in module.functions.items():
        if isinstance(function, rx.Function):
            verify_function(function, module, name)


def verify_function(
    function: rx.Function, module: IRModule | None = None, name: str = "the function"
) -> None:
    """Check one function; calls of the module's functions only if `module` is given."""
    _Verifier(module, name).function(function)


class _Verifier:
    def __init__(self, module: IRModule | None, name: str) -> None:
        self.module = module
        self.name = name
        self.scope: set[rx.Var] = set()
        self.symbols: set[Symbol] = set()
        self.bound: set[rx.Var] = set()
        self.pure = True
        self.block: rx.BindingBlock | None = None
        self.binding: rx.Binding | None = None

    # --- errors -------------------------------------------------------------------------

    def fail(self, message: str, remedy: str | None = None) -> VerifyError:
        notes: list[str] = []
        span = ()
        if self.binding is not None:
            span = self.binding.span
            items = self.block.bindings if self.block is not None else (self.binding,)
            index = next(i for i, item in enumerate(items) if item is self.binding)
            for number in range(max(0, index - 1), min(len(items), index + 2)):
                mark = "->" if number == index else "  "
                notes.append(f"{mark} {_one_line(items[number])}")
        return VerifyError(f"in {self.name}: {message}", span=span, remedy=remedy, notes=notes)

    # --- structure ----------------------------------------------------------------------

    def function(self, function: rx.Function) -> None:
        outer = set(self.scope), set(self.symbols), self.pure
        self.pure = function.pure
        for param in function.params:
            if param.dataflow:
                raise self.fail(f"parameter {param.name} is a dataflow variable")
            self.define(param)
        self.symbols.update(plain_vars(param.type for param in function.params))
        for param in function.params:
            self.well_scoped(param.type, f"the type of parameter {param.name}")
        self.seq(function.body)
        self.well_scoped(function.ret_type, "the return type")
        if not is_subtype(function.body.type, function.ret_type):
            raise self.fail(
                f"the body has type {function.body.type!r}, not the declared {function.ret_type!r}"
            )
        expected = function_type(function.params, function.ret_type, pure=function.pure)
        if function.type is not expected:
            raise self.fail(f"the function's type is {function.type!r}, not {expected!r}")
        self.scope, self.symbols, self.pure = outer

    def seq(self, seq: rx.SeqExpr) -> None:
        """A body or branch. Its symbolic variables end with it; the type must not leak them."""
        symbols = set(self.symbols)
        scope = set(self.scope)
        for block in seq.blocks:
            self.check_block(block)
        self.block, self.binding = None, None
        if not is_leaf(seq.body):
            raise self.fail(f"the result {_one_line(seq.body)} is not bound to a variable")
        self.leaf(seq.body)
        if not is_subtype(seq.body.type, seq.type):
            raise self.fail(f"the result has type {seq.body.type!r}, not {seq.type!r}")
        self.scope, self.symbols = scope, symbols
        self.well_scoped(seq.type, "the type of the result")

    def check_block(self, block: rx.BindingBlock) -> None:
        for binding in block.bindings:
            self.block, self.binding = block, binding
            self.check_binding(binding, dataflow=block.dataflow)
        if block.dataflow:
            self.scope.difference_update(b.var for b in block.bindings if b.var.dataflow)

    def check_binding(self, binding: rx.Binding, *, dataflow: bool) -> None:
        if binding.var.dataflow and not dataflow:
            raise self.fail(f"the dataflow variable {binding.var.name} is outside a dataflow block")
        if isinstance(binding, rx.MatchCast):
            self.leaf(binding.value)
            self.symbols.update(plain_vars((binding.type,)))
            self.well_scoped(binding.type, "the cast type")
            if binding.var.type is not binding.type:
                raise self.fail(f"the variable of a match_cast must have the type {binding.type!r}")
            if not _may_match(binding.value.type, binding.type):
                raise self.fail(f"{binding.value.type!r} can never be {binding.type!r}")
        else:
            if isinstance(binding.value, rx.Function):
                # A nested function may call itself.
                self.define(binding.var)
            self.value(binding.value, dataflow=dataflow)
            self.block_of(binding)
            self.well_scoped(binding.var.type, f"the type of {binding.var.name}")
            if not is_subtype(binding.value.type, binding.var.type):
                raise self.fail(
                    f"{binding.var.name} has type {binding.var.type!r}, "
                    f"its value {binding.value.type!r}"
                )
            if isinstance(binding.value, rx.Function):
                return
        self.define(binding.var)

    def block_of(self, binding: rx.Binding) -> None:
        """Return to `binding` after its branches or nested function were checked."""
        if self.binding is not binding:
            self.block, self.binding = None, binding

    def define(self, var: rx.Var) -> None:
        if var in self.bound:
            raise self.fail(f"{var.name} is bound twice")
        self.bound.add(var)
        self.scope.add(var)

    # --- values -------------------------------------------------------------------------

    def value(self, value: rx.Value, *, dataflow: bool) -> None:
        if isinstance(value, rx.Function):
            self.function(value)
            return
        if not is_normal(value):
            raise self.fail(
                "an operand is not a variable, constant or name",
                remedy="bind nested values to variables: run Normalize",
            )
        if isinstance(value, rx.If):
            if dataflow:
                raise self.fail("a branch in a dataflow block")
            self.leaf(value.condition)
            self.condition(value.condition.type)
            binding = self.binding
            self.seq(value.then_branch)
            self.seq(value.else_branch)
            self.block, self.binding = None, binding
        elif isinstance(value, rx.Call):
            self.call(value, dataflow=dataflow)
        elif isinstance(value, rx.TupleGetItem):
            self.leaf(value.tuple_value)
        else:
            self.leaf(value)
        self.check_type(value)

    def condition(self, kind: Type) -> None:
        """What a branch decides by: one bool, as a scalar or a tensor of one element."""
        if isinstance(kind, TensorType):
            dtype = kind.dtype
            single = kind.ndim <= 0 or (
                kind.shape is not None and all(as_int(dim) == 1 for dim in kind.shape)
            )
        else:
            dtype = kind.dtype if isinstance(kind, PrimType) else None
            single = isinstance(kind, PrimType | ObjectType)
        if not single or dtype not in (BOOL, None):
            raise self.fail(
                f"the condition of a branch is {kind!r}, not one bool",
                remedy="compare it: R.not_equal(x, 0)",
            )

    def check_type(self, value: rx.Value) -> None:
        try:
            derived = infer_type(value)
        except TransectError as error:
            raise self.fail(error.message, error.remedy) from error
        if not is_subtype(derived, value.type):
            raise self.fail(f"the value claims type {value.type!r}, but is {derived!r}")

    def leaf(self, value: rx.Value) -> None:
        if isinstance(value, rx.Tuple):
            for item in value.items:
                self.leaf(item)
            return
        if isinstance(value, rx.Var):
            if value not in self.scope:
                why = "used outside its dataflow block" if value in self.bound else "not defined"
                raise self.fail(f"{value.name} is {why}")
            return
        if isinstance(value, rx.GlobalFunc):
            self.global_func(value)
            return
        if isinstance(value, rx.PrimValue):
            self.in_scope(free_vars((value.value,)), "a scalar")
        for kind in own_types(value):
            self.well_scoped(kind, "a value's type")
        if isinstance(value, rx.Constant):
            self.check_type(value)

    def global_func(self, value: rx.GlobalFunc) -> None:
        if self.module is None:
            return
        if value.name not in self.module:
            raise self.fail(f"the module has no function {value.name!r}")
        callee = self.module[value.name]
        if isinstance(callee, rx.Function) and isinstance(value.type, CallableType):
            actual = function_type(callee.params, callee.ret_type, pure=callee.pure)
            if not structural_equal(value.type, actual, map_free=True):
                raise self.fail(f"{value.name} is {actual!r}, referred to as {value.type!r}")

    def call(self, call: rx.Call, *, dataflow: bool) -> None:
        if not isinstance(call.op, rx.Op):
            self.leaf(call.op)
        for operand in call.args:
            self.leaf(operand)
        for kind in call.type_args:
            self.well_scoped(kind, "a type argument")
        if not is_pure_call(call):
            what = call.op.name if isinstance(call.op, rx.Op) else "the callee"
            if dataflow:
                raise self.fail(f"{what} may have an effect, but this is a dataflow block")
            if self.pure:
                raise self.fail(
                    f"{what} may have an effect, but the function is declared pure",
                    remedy="declare it impure: @R.function(pure=False)",
                )
        if isinstance(call.op, CallTIR | CallTIRInplace):
            self.call_tir(call)

    def call_tir(self, call: rx.Call) -> None:
        callee = call.args[0]
        if not isinstance(callee, rx.GlobalFunc) or len(call.args) not in (2, 3):
            raise self.fail("call_tir takes a function of the module, a tuple, and a shape")
        if not call.type_args or not isinstance(call.type_args[0], TensorType | TupleType):
            raise self.fail("call_tir needs the type of its output")
        if self.module is None:
            return
        function = self.module[callee.name]
        if not isinstance(function, PrimFunc):
            raise self.fail(f"{callee.name} is not a tensor program")
        inputs = [item.type for item in call_inputs(call)]
        outputs = out_types(call)
        if isinstance(call.op, CallTIRInplace):
            outputs = self.inplace(call.op, inputs, outputs)
        for kind in (*inputs, *outputs):
            if not isinstance(kind, TensorType):
                raise self.fail(f"call_tir passes {kind!r}, which is not a tensor")
        shape = call.args[2] if len(call.args) == 3 else None
        tir_vars = shape.values if isinstance(shape, rx.ShapeExpr) else ()
        try:
            found = unify_prim_func(function, [*inputs, *outputs], tir_vars, callee.name)
        except TransectError as error:
            raise self.fail(error.message, error.remedy) from error
        for expected, given in found.unproved:
            raise self.fail(
                f"{callee.name} needs the dimension {show(expected)} where it is passed "
                f"{show(given)}, and these cannot be proved equal",
                remedy="match_cast the argument to the shape that the callee expects",
            )

    def inplace(
        self, op: CallTIRInplace, inputs: Sequence[Type], outputs: Sequence[Type]
    ) -> list[Type]:
        if len(op.inplace_indices) != len(outputs):
            raise self.fail("inplace_indices needs one entry per output")
        for index, kind in zip(op.inplace_indices, outputs, strict=True):
            if index >= len(inputs) or (index >= 0 and not is_subtype(inputs[index], kind)):
                raise self.fail(f"an output {kind!r} cannot overwrite input {index}")
        return [k for i, k in zip(op.inplace_indices, outputs, strict=True) if i < 0]

    # --- symbolic variables -------------------------------------------------------------

    def well_scoped(self, kind: Type, what: str) -> None:
        self.in_scope(type_vars(kind), what)
        for dim in dimensions(kind):
            if isinstance(kind, TensorType | ShapeType) and not dim.dtype.is_integral:
                raise self.fail(f"{what} has a dimension of dtype {dim.dtype}")

    def in_scope(self, symbols: Iterable[Symbol], what: str) -> None:
        for symbol in symbols:
            if symbol not in self.symbols:
                raise self.fail(
                    f"{what} uses the symbolic variable {symbol.name}, which nothing defines",
                    remedy="it must stand alone in a parameter's shape, or in a match_cast before",
                )


def out_types(call: rx.Call) -> list[Type]:
    """The types of the outputs of a destination-passing call."""
    kind = call.type_args[0]
    return list(kind.items) if isinstance(kind, TupleType) else [kind]


def _may_match(value: Type, wanted: Type) -> bool:
    if isinstance(value, ObjectType) or isinstance(wanted, ObjectType):
        return True
    if isinstance(value, TensorType) and isinstance(wanted, TensorType):
        return (value.dtype in (wanted.dtype, None) or wanted.dtype is None) and (
            value.ndim in (wanted.ndim, -1) or wanted.ndim == -1
        )
    if isinstance(value, TupleType) and isinstance(wanted, TupleType):
        return len(value.items) == len(wanted.items) and all(
            map(_may_match, value.items, wanted.items)
        )
    return type(value) is type(wanted)


def _one_line(value: object) -> str:
    lines = repr(value).strip().splitlines()
    return lines[0] if len(lines) == 1 else f"{lines[0]} …"
