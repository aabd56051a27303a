"""The names of I: modules and what belongs to them. `from transect.script import ir as I`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transect.ir import expr as ir
from transect.ir.dtype import as_dtype
from transect.ir.expr import ExprLike, GlobalVar
from transect.ir.function import IRModule
from transect.ir.types import DummyGlobalInfo, VDevice
from transect.script import directives as d
from transect.script.axes import make_range
from transect.script.entry import decorate_module

__all__ = [
    "GlobalVar",
    "Range",
    "array",
    "constant",
    "constants",
    "dummy_global_info",
    "ir_module",
    "module_attrs",
    "module_global_infos",
    "vdevice",
]

constant = d.ConstantReference()


def ir_module(cls: type | None = None, **options: Any) -> Any:
    """Decorator: parse a class as an IRModule. check_well_formed is accepted and has no effect."""
    frame = inspect.currentframe()
    caller = frame.f_back if frame is not None else None
    if cls is None:

        def later(actual: type) -> IRModule:
            return decorate_module(actual, caller)

        return later
    del options
    return decorate_module(cls, caller)


def module_attrs(attrs: Mapping[str, Any]) -> d.Attributes:
    """Attributes of the module."""
    return d.Attributes("module", attrs)


def module_global_infos(infos: Mapping[str, Sequence[Any]]) -> d.Attributes:
    """Information that functions refer to: {"vdevice": [I.vdevice("cuda", 0)]}."""
    return d.Attributes("global_infos", infos)


def vdevice(target: Any, index: int = 0, scope: str = "global") -> VDevice:
    """A device of the module."""
    known = dict(target) if hasattr(target, "keys") else {"kind": target}
    return VDevice(str(known.get("kind", known.get("name", ""))), index, scope)


def dummy_global_info() -> DummyGlobalInfo:
    """Global information that says nothing."""
    return DummyGlobalInfo()


def Range(start: ExprLike, stop: ExprLike | None = None) -> ir.Range:
    """The interval [start, stop), or [0, start)."""
    return make_range(0, start) if stop is None else make_range(start, stop)


def constants(path: str) -> d.ConstantsFile:
    """The file, beside this script's, that holds the arrays which `I.constant` names."""
    return d.ConstantsFile(path)


def array(data: Any, dtype: Any) -> np.ndarray:
    """An array as an attribute."""
    return np.asarray(data, as_dtype(dtype).numpy)
