"""The text of one LLVM function: fresh names, blocks, entry allocations, the single exit.

It knows LLVM's syntax and nothing of tensor programs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager

from transect.codegen.llvm.module import ModuleText, quoted

Line = str | list["Line"]
"""A line of text, or a place in it where more can be written later."""


class FunctionText:
    """Writes one function block by block. Values are operand strings such as "%12" or "7".

    Static allocations go to the entry block, so that SROA sees them and loops do not grow the
    stack. With `status=True` the function returns an i32 status and leaves through one exit,
    where `at_exit` lines run.
    """

    def __init__(
        self,
        module: ModuleText,
        name: str,
        parameters: Iterable[str],
        *,
        linkage: str = "internal ",
        attributes: str = "",
        result: str = "i32",
    ) -> None:
        self.module = module
        self.identifier = f"@{quoted(name)}"
        signature = f"{result} {self.identifier}({', '.join(parameters)})"
        self.header = f"define {linkage}{signature} {attributes}".rstrip()
        self.entry: list[str] = []
        self.lines: list[Line] = []
        self.at_exit: list[str] = []
        self.block = "body"
        self.open = True
        self.place = ""
        """What is said of an error that leaves from here, a line of a traceback; or empty."""
        self._count = 0

    def fresh(self, hint: str = "") -> str:
        """A new local name."""
        self._count += 1
        return f"%{hint}{self._count}" if hint else f"%v{self._count}"

    def label(self, hint: str) -> str:
        """A new block label, to be opened with `begin`."""
        self._count += 1
        return f"{hint}{self._count}"

    def emit(self, line: str) -> None:
        """One instruction without a result. Code after a terminator is dropped, as unreachable."""
        if self.open:
            self.lines.append(f"  {line}")

    def define(self, expression: str) -> str:
        """One instruction with a result; gives the result's name."""
        self._count += 1
        name = f"%v{self._count}"
        if self.open:
            self.lines.append(f"  {name} = {expression}")
        return name

    def bookmark(self) -> list[Line] | None:
        """A place here, for `writing_at`; None after a terminator."""
        if not self.open:
            return None
        place: list[Line] = []
        self.lines.append(place)
        return place

    @contextmanager
    def writing_at(self, place: list[Line]) -> Generator[None]:
        """Write to a bookmark: instructions only, no blocks."""
        outer = self.lines, self.open
        self.lines, self.open = place, True
        try:
            yield
        finally:
            self.lines, self.open = outer

    def allocate(self, kind: str, align: int = 8) -> str:
        """Static stack memory; gives its address."""
        name = self.fresh("a")
        self.entry.append(f"  {name} = alloca {kind}, align {align}")
        return name

    def branch(self, target: str) -> None:
        """Jump."""
        self.emit(f"br label %{target}")
        self.open = False

    def branch_if(
        self, condition: str, then: str, otherwise: str, *, likely: bool | None = None
    ) -> None:
        """Jump on an i1. likely: True if `then` is the usual way, False if `otherwise` is."""
        weights = ""
        if likely is not None:
            weights = f", !prof !{0 if likely else 1}"
        self.emit(f"br i1 {condition}, label %{then}, label %{otherwise}{weights}")
        self.open = False

    def begin(self, label: str) -> None:
        """Open block `label`, falling into it from the current block if that is still open."""
        if self.open:
            self.branch(label)
        self.lines.append(f"{label}:")
        self.block = label
        self.open = True

    def fail(self) -> None:
        """Leave with status -1; the error is set already, and gets the place added."""
        if self.place:
            helper = self.module.helper("transect.error.at")
            size = len(self.place.encode())
            self.emit(f"call void {helper}(ptr {self.module.string(self.place)}, i64 {size})")
        self.emit("store i32 -1, ptr %status")
        self.branch("exit")

    def fail_unless_zero(self, status: str) -> None:
        """Leave with status -1 if the i32 `status` is not zero."""
        bad, good = self.label("failed"), self.label("ok")
        test = self.define(f"icmp eq i32 {status}, 0")
        self.branch_if(test, good, bad, likely=True)
        self.begin(bad)
        self.fail()
        self.begin(good)

    def finish(self) -> str:
        """The text of a function that returns a status."""
        if self.open:
            self.branch("exit")
        return "\n".join(
            [
                self.header + " {",
                "entry:",
                "  %status = alloca i32, align 4",
                "  store i32 0, ptr %status",
                *self.entry,
                "  br label %body",
                "body:",
                *_flat(self.lines),
                "exit:",
                *self.at_exit,
                "  %status.value = load i32, ptr %status",
                "  ret i32 %status.value",
                "}",
            ]
        )


def _flat(lines: Iterable[Line]) -> Iterator[str]:
    for line in lines:
        if isinstance(line, str):
            yield line
        else:
            yield from _flat(line)
