"""Which values of a graph function an impure or in-place call may change.

A value that may be changed is neither merged with an equal one, nor folded, nor made a view.
"""

from __future__ import annotations

from transect.ir.node import Node
from transect.relax import expr as rx
from transect.relax.call import (
    CallBuiltinWithCtx,
    CallInplacePacked,
    CallPacked,
    CallPurePacked,
    CallTIRInplace,
    InvokeClosure,
    InvokePureClosure,
    MakeClosure,
)
from transect.relax.inference import is_pure_call
from transect.relax.visit import bindings, operands

_MAY_RETURN_ARGUMENTS = (
    CallTIRInplace,
    CallInplacePacked,
    CallPacked,
    CallPurePacked,
    CallBuiltinWithCtx,
    InvokeClosure,
    InvokePureClosure,
    MakeClosure,
)


class _Classes:
    """Sets of variables that may share memory."""

    def __init__(self) -> None:
        self._parent: dict[rx.Var, rx.Var] = {}

    def find(self, var: rx.Var) -> rx.Var:
        root = var
        while (up := self._parent.get(root, root)) is not root:
            root = up
        self._parent[var] = root
        return root

    def join(self, a: rx.Var, b: rx.Var) -> None:
        self._parent[self.find(a)] = self.find(b)


def mutable_vars(function: rx.Function, within: Node | None = None) -> set[rx.Var]:
    """The variables whose tensors may be changed after they are made, parameters among them.

    within: only by the calls in this part of the function, such as a block.
    """
    classes = _Classes()
    changed: list[rx.Var] = []
    everyone: list[rx.Var] = list(function.params)
    for binding in bindings(function):
        everyone.append(binding.var)
        value = binding.value
        for other in _aliases(value):
            classes.join(binding.var, other)
    for binding in bindings(function if within is None else within):
        value = binding.value
        if isinstance(value, rx.Call) and _changes_operands(value):
            changed.extend(var for operand in operands(value) for var in leaf_vars(operand))
    roots = {classes.find(var) for var in changed}
    return {var for var in (*everyone, *changed) if classes.find(var) in roots}


def may_change(value: rx.Value) -> bool:
    """Whether evaluating `value` may change a tensor made before: an impure or in-place call, or a
    branch with one."""
    if isinstance(value, rx.Call):
        return _changes_operands(value)
    if isinstance(value, rx.If):
        # The bindings of branches inside are among them.
        inside = (
            item.value for b in (value.then_branch, value.else_branch) for item in bindings(b)
        )
        return any(isinstance(item, rx.Call) and _changes_operands(item) for item in inside)
    return False


def _changes_operands(call: rx.Call) -> bool:
    if isinstance(call.op, CallTIRInplace | CallInplacePacked):
        return True
    return not is_pure_call(call)


def _aliases(value: rx.Value) -> list[rx.Var]:
    """The variables whose memory `value` may share."""
    if isinstance(value, rx.Call):
        op = value.op
        if isinstance(op, rx.Op) and not isinstance(op, _MAY_RETURN_ARGUMENTS) and not op.is_view:
            return []
        return [var for operand in operands(value) for var in leaf_vars(operand)]
    if isinstance(value, rx.If):
        branches = (value.then_branch, value.else_branch)
        return [var for branch in branches for var in leaf_vars(branch.body)]
    return leaf_vars(value)


def leaf_vars(value: rx.Value) -> list[rx.Var]:
    """The variables in an operand."""
    if isinstance(value, rx.Var):
        return [value]
    if isinstance(value, rx.Tuple):
        return [var for item in value.items for var in leaf_vars(item)]
    if isinstance(value, rx.TupleGetItem):
        return leaf_vars(value.tuple_value)
    return []
