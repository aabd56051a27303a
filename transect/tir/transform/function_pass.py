"""FunctionPass: the base of the passes that rewrite tensor programs one by one."""

from __future__ import annotations

from abc import abstractmethod

from transect.ir.function import BaseFunc, IRModule
from transect.support.errors import TransectError
from transect.tir.function import PrimFunc
from transect.transform import Context, Pass


class FunctionPass(Pass):
    """A pass over each PrimFunc of a module; functions of other kinds are left alone."""

    @abstractmethod
    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The transformed function; `func` itself if nothing changed."""

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with every PrimFunc rewritten."""

        def visit(name: str, func: BaseFunc) -> BaseFunc:
            if not isinstance(func, PrimFunc):
                return func
            try:
                return self.rewrite(func, context)
            except TransectError as error:
                error.notes = (*error.notes, f"in {self.name} of function {name!r}")
                raise error.at(func.span) from None

        return module.map_functions(visit)
