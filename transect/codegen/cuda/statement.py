"""Statements of a kernel as CUDA C++ text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from transect.codegen.cuda.expression import ExpressionText, c_type
from transect.ir.dtype import DType, as_dtype
from transect.ir.expr import Expr, FloatImm, IntImm, Var, as_int
from transect.support.errors import TransectError, UnsupportedError
from transect.tir.function import PrimFunc
from transect.tir.stmt import (
    Allocate,
    AllocateConst,
    AssertStmt,
    AttrStmt,
    Bind,
    BufferStore,
    DeclBuffer,
    Evaluate,
    For,
    IfThenElse,
    SeqStmt,
    Stmt,
    While,
)


class KernelText:
    """Writes one `__global__` function: `body`, with a variable for each thread axis.

    threads: of a block, if that is a constant. `constants` are definitions to put before it.
    """

    def __init__(
        self, name: str, func: PrimFunc, axes: Sequence[For], body: Stmt, threads: int | None
    ) -> None:
        self.expression = ExpressionText()
        self.lines: list[str] = []
        self.constants: list[str] = []
        self.taken: set[str] = {name}
        self.indent = 1
        self.kernel = name
        for loop in axes:
            self.thread(loop.var, loop.thread or "")
        self._write(name, func, body, threads)

    def _write(self, name: str, func: PrimFunc, body: Stmt, threads: int | None) -> None:
        parameters: list[str] = []
        for param in func.params:
            label = self._name(param)
            parameters.append(f"{self._parameter_type(param)} {label}")
        bounds = f" __launch_bounds__({threads})" if threads is not None else ""
        head = f'extern "C" __global__ void{bounds} {name}({", ".join(parameters)}) {{'
        self.lines.append(head)
        self.run(body)
        self.lines.append("}")

    def _parameter_type(self, param: Var) -> str:
        if param.dtype.is_handle and param.pointer is not None:
            return f"{c_type(param.pointer.element)}*"
        return c_type(param.dtype)

    @property
    def text(self) -> str:
        """The function, with the constants it uses before it."""
        return "\n".join([*self.constants, *self.lines])

    def thread(self, var: Var, axis: str) -> None:
        """`var` is a thread's index along an axis: "threadIdx.x"."""
        self.expression.names[var] = f"(({c_type(var.dtype)})({axis}))"

    def _name(self, var: Var) -> str:
        base = "".join(c if c.isalnum() or c == "_" else "_" for c in var.name)
        base = base if base[:1].isalpha() else f"v_{base}"
        # A trailing underscore keeps clear of C++ keywords and of CUDA's own names.
        label, number = f"{base}_", 1
        while label in self.taken:
            label, number = f"{base}_{number}_", number + 1
        self.taken.add(label)
        self.expression.names[var] = label
        return label

    def line(self, text: str) -> None:
        """One line at the present indentation."""
        self.lines.append("  " * self.indent + text)

    def block(self, head: str, body: Stmt) -> None:
        """`body` in braces after `head`."""
        self.line(f"{head} {{".strip())
        self.indent += 1
        self.run(body)
        self.indent -= 1
        self.line("}")

    def run(self, stmt: Stmt) -> None:
        """Write a statement. Raises UnsupportedError at its span for what kernels cannot do."""
        writer = _WRITERS.get(type(stmt))
        try:
            if writer is None:
                raise UnsupportedError(
                    f"{type(stmt).__name__} in a CUDA kernel", remedy="run the lowering passes"
                )
            writer(self, stmt)
        except TransectError as error:
            raise error.at(stmt.span) from None

    def evaluate(self, stmt: Evaluate) -> None:
        self.line(f"{self.expression(stmt.value)};")

    def store(self, stmt: BufferStore) -> None:
        if stmt.predicate is not None:
            raise UnsupportedError("a store with lanes left out", remedy="do not vectorize")
        target = self.expression.element(stmt.buffer.data, stmt.indices)
        self.line(f"{target} = {self.expression(stmt.value)};")

    def bind(self, stmt: Bind) -> None:
        value = self.expression(stmt.value)
        self.line(f"const {c_type(stmt.var.dtype)} {self._name(stmt.var)} = {value};")

    def allocate(self, stmt: Allocate) -> None:
        scope = stmt.var.pointer.scope if stmt.var.pointer is not None else "local"
        sizes = [as_int(extent) for extent in stmt.extents]
        if any(size is None for size in sizes):
            raise UnsupportedError(
                f"{stmt.var.name!r} in {scope} memory with the size {stmt.extents!r}",
                remedy="give buffers of a kernel constant sizes, by tiling its loops",
            )
        count = int(np.prod([size or 0 for size in sizes]))
        qualifier = {"local": "", "shared": "__shared__ "}.get(scope)
        if qualifier is None:
            raise UnsupportedError(
                f"{stmt.var.name!r} in {scope!r} memory inside a kernel",
                remedy='use "local" or "shared"',
            )
        align = int(stmt.annotations.get("alignment", 16))
        name = self._name(stmt.var)
        self.line(f"{qualifier}__align__({align}) {c_type(stmt.dtype)} {name}[{max(1, count)}];")

    def allocate_const(self, stmt: AllocateConst) -> None:
        dtype = as_dtype(stmt.data.dtype)
        values = ", ".join(self._constant(item, dtype) for item in stmt.data.ravel())
        name = f"{self.kernel}_{self._name(stmt.var)}"
        self.expression.names[stmt.var] = name
        size = max(1, stmt.data.size)
        self.constants.append(
            f"static __device__ const {c_type(dtype)} {name}[{size}] = {{{values}}};"
        )

    def _constant(self, item: np.generic, dtype: DType) -> str:
        value = item.item()
        term: Expr = FloatImm(float(value), dtype) if dtype.is_float else IntImm(int(value), dtype)
        return self.expression(term)

    def declare(self, stmt: DeclBuffer) -> None:
        del stmt  # Accesses name the pointer.

    def check(self, stmt: AssertStmt) -> None:
        self.line(f"if (!{self.expression(stmt.condition)}) __trap();")

    def attribute(self, stmt: AttrStmt) -> None:
        self.run(stmt.body)

    def sequence(self, stmt: SeqStmt) -> None:
        for item in stmt.stmts:
            if isinstance(item, SeqStmt):
                self.block("", item)
            else:
                self.run(item)

    def condition(self, stmt: IfThenElse) -> None:
        self.block(f"if ({self.expression(stmt.condition)})", stmt.then_case)
        if stmt.else_case is not None:
            self.block("else", stmt.else_case)

    def loop(self, stmt: For) -> None:
        if stmt.kind in ("thread_binding", "parallel"):
            raise UnsupportedError(
                f"a {stmt.kind} loop inside a kernel",
                remedy="bind loops to blockIdx and threadIdx axes, each once around a statement",
            )
        low, extent = self.expression(stmt.min), self.expression(stmt.min + stmt.extent)
        name = self._name(stmt.var)
        if stmt.kind in ("unrolled", "vectorized"):
            self.line("#pragma unroll")
        kind = c_type(stmt.var.dtype)
        self.block(f"for ({kind} {name} = {low}; {name} < {extent}; ++{name})", stmt.body)

    def repeat(self, stmt: While) -> None:
        self.block(f"while ({self.expression(stmt.condition)})", stmt.body)


_WRITERS: dict[type[Stmt], Callable[..., None]] = {
    Evaluate: KernelText.evaluate,
    BufferStore: KernelText.store,
    Bind: KernelText.bind,
    Allocate: KernelText.allocate,
    AllocateConst: KernelText.allocate_const,
    DeclBuffer: KernelText.declare,
    AssertStmt: KernelText.check,
    AttrStmt: KernelText.attribute,
    SeqStmt: KernelText.sequence,
    IfThenElse: KernelText.condition,
    For: KernelText.loop,
    While: KernelText.repeat,
}
