"""The text of one LLVM module: declarations, globals, string and data constants, functions.

It knows LLVM's syntax and nothing of tensor programs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np

from transect.runtime.code import CONSTANTS as CONSTANT_TABLE
from transect.support.errors import UnsupportedError

SMALL_CONSTANT = 4096
"""Bytes up to which constant data is part of the object; larger data is bound when it is loaded."""

_PLAIN = re.compile(r"[A-Za-z_.$][\w.$]*")


def quoted(name: str) -> str:
    """`name` as an LLVM identifier without its sigil."""
    if _PLAIN.fullmatch(name):
        return name
    escaped = "".join(c if c.isalnum() or c in "._$ -" else f"\\{ord(c):02X}" for c in name)
    return f'"{escaped}"'


def byte_string(data: bytes) -> str:
    """`data` as an LLVM constant string."""
    return (
        'c"'
        + "".join(chr(b) if 32 <= b < 127 and b not in (34, 92) else f"\\{b:02X}" for b in data)
        + '"'
    )


class ModuleText:
    """Collects the parts of a module; `str()` gives the text.

    helpers: IR functions that are written on first use, by name; each writer may ask for others.
    futex_number: of the system call on the target machine.
    """

    def __init__(
        self, helpers: dict[str, Callable[[ModuleText], str]], futex_number: int = 202
    ) -> None:
        self.helpers = helpers
        self.futex_number = futex_number
        self.declarations: dict[str, str] = {}
        self.globals: list[str] = []
        self.functions: list[str] = []
        self.constants: list[np.ndarray] = []
        self.entries: list[str] = []
        self.externs: set[str] = set()
        self._helpers_done: set[str] = set()
        self._strings: dict[bytes, str] = {}
        self._packed: dict[str, str] = {}
        self._whole: dict[tuple[str, str], str] = {}
        self._data: dict[int, tuple[np.ndarray, str, bool]] = {}

    def declare(
        self, name: str, result: str, parameters: Iterable[str], attributes: str = ""
    ) -> str:
        """Declare an external function once; gives its identifier. Types that differ between uses
        are fine: every call states its own."""
        identifier = f"@{quoted(name)}"
        if name not in self.declarations:
            self.declarations[name] = (
                f"declare {result} {identifier}({', '.join(parameters)}) {attributes}".rstrip()
            )
            if not name.startswith("llvm."):
                self.externs.add(name)
        return identifier

    def helper(self, name: str) -> str:
        """The identifier of a helper function, written on first use."""
        if name not in self._helpers_done:
            self._helpers_done.add(name)
            writer = self.helpers.get(name)
            if writer is None:
                raise UnsupportedError(f"no run-time helper {name!r}")
            self.functions.append(writer(self))
        return f"@{quoted(name)}"

    def has_helper(self, name: str) -> bool:
        """Whether a helper has been asked for."""
        return name in self._helpers_done

    def define_helper(self, name: str, text: Callable[[], str]) -> str:
        """The identifier of a helper written by `text()` if it does not exist yet."""
        if name not in self._helpers_done:
            self._helpers_done.add(name)
            self.functions.append(text())
        return f"@{quoted(name)}"

    def string(self, text: str | bytes) -> str:
        """A pointer to a zero-terminated constant string."""
        data = text.encode() if isinstance(text, str) else text
        if data not in self._strings:
            name = f"@.str.{len(self._strings)}"
            value = byte_string(data + b"\0")
            self.globals.append(
                f"{name} = private unnamed_addr constant [{len(data) + 1} x i8] {value}, align 1"
            )
            self._strings[data] = name
        return self._strings[data]

    def packed_function(self, name: str) -> str:
        """A pointer to the record {cached handle, name, length} of a registered function."""
        if name not in self._packed:
            record = f"@.packed.{len(self._packed)}"
            text = self.string(name)
            self.globals.append(
                f"{record} = internal global {{ptr, ptr, i64}} "
                f"{{ptr null, ptr {text}, i64 {len(name.encode())}}}"
            )
            self._packed[name] = record
        return self._packed[name]

    @property
    def packed_records(self) -> tuple[str, ...]:
        """The records of all registered functions that the module calls."""
        return tuple(self._packed.values())

    def data(self, array: np.ndarray) -> tuple[str, bool]:
        """(identifier, direct): constant data. Direct: the global is the data; otherwise it is
        the entry of the constant table that will hold a pointer to it."""
        known = self._data.get(id(array))
        if known is not None:
            return known[1], known[2]
        contiguous = np.ascontiguousarray(array)
        direct = contiguous.nbytes <= SMALL_CONSTANT
        if direct:
            name = f"@.data.{len(self._data)}"
            value = byte_string(contiguous.tobytes() or b"\0")
            size = max(1, contiguous.nbytes)
            self.globals.append(
                f"{name} = private unnamed_addr constant [{size} x i8] {value}, align 64"
            )
        else:
            name = f"getelementptr inbounds (ptr, ptr @{CONSTANT_TABLE}, i64 {len(self.constants)})"
            self.constants.append(contiguous)
        self._data[id(array)] = (array, name, direct)
        return name, direct

    def whole(self, kind: str, value: str) -> str:
        """A pointer to a constant vector of type `kind`, all lanes of it in memory. Nothing writes
        to it, but LLVM must not know: it would put the value in the place of the load."""
        if (kind, value) not in self._whole:
            name = f"@.whole.{len(self._whole)}"
            self.globals.append(f"{name} = internal global {kind} {value}, align 64")
            self._whole[kind, value] = name
        return self._whole[kind, value]

    def __str__(self) -> str:
        table = []
        if self.constants:
            table = [
                (
                    f"@{CONSTANT_TABLE} = global [{len(self.constants)} x ptr] zeroinitializer, "
                    "align 64"
                )
            ]
        weights = [
            '!0 = !{!"branch_weights", i32 4000, i32 1}',
            '!1 = !{!"branch_weights", i32 1, i32 4000}',
        ]
        return "\n".join(
            [*table, *self.globals, *self.declarations.values(), *self.functions, *weights, ""]
        )
