"""Relocatable ELF objects -> one shared object that `dlopen` takes: a linker of our own.

No machine that runs a model needs a linker or LLVM. Only what LLVM's position-independent code for
x86-64 on Linux uses is covered. Loading is in `runtime.code`.

Undefined symbols are no business of the dynamic linker: code reaches each through a slot of the
table `IMPORTS`, which whoever loads the object fills, so that a missing one can be named.

Formats: System V ABI, and its AMD64 supplement (relocations, section 4.4).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from transect.runtime.code import IMPORTS
from transect.support.errors import UnsupportedError

_PAGE = 4096
_X86_64 = 62
_FILE_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_DYNAMIC_ENTRIES = 9
_UNWIND, _UNWIND_SEGMENT, _STACK_SEGMENT = ".eh_frame", 0x6474E550, 0x6474E551
_SEGMENTS = 6
_RELA, _NOBITS, _SYMTAB = 4, 8, 2
_WRITE, _ALLOC, _EXECUTE, _THREAD = 1, 2, 4, 0x400
_STUB = 8
_PLAIN, _RELATIVE, _WIDE = 1, 8, 24
_PC_RELATIVE = (2, 4)
_THROUGH_TABLE = (9, 41, 42)
"""Relocations: R_X86_64_64, RELATIVE, PC64, then PC32 and PLT32, then GOTPCREL and its variants."""


@dataclass(frozen=True)
class Linked:
    """image: the bytes of the shared object. imports: the symbols that the slots of the table
    IMPORTS must hold, in order."""

    image: bytes
    imports: tuple[str, ...]


def is_linkable(code: bytes) -> bool:
    """Whether `code` is an object file that `link` knows: ELF, 64 bits, x86-64."""
    return code[:5] == b"\x7fELF\2" and code[18:20] == _X86_64.to_bytes(2, "little")


def link(objects: Sequence[bytes], exports: Sequence[str]) -> Linked:
    """Link `objects` to a shared object that shows `exports`, and IMPORTS if it has any.

    Raises UnsupportedError for object files of another kind, and for what ours never contain.
    """
    parsed = [_Object(code) for code in objects]
    return _Linker(parsed, exports).run()


@dataclass(eq=False)
class _Section:
    """A section that is part of the program."""

    kind: int
    flags: int
    alignment: int
    size: int
    data: bytes
    name: str
    address: int = 0

    @property
    def segment(self) -> int:
        """0: read only, 1: code, 2: writable, 3: writable and zero, without bytes in the file."""
        if self.flags & _EXECUTE:
            return 1
        return (2 + (self.kind == _NOBITS)) if self.flags & _WRITE else 0


@dataclass(frozen=True)
class _Symbol:
    name: str
    section: _Section | None
    value: int
    is_local: bool


class _Object:
    """An object file, taken apart."""

    def __init__(self, code: bytes) -> None:
        if not is_linkable(code):
            raise UnsupportedError(
                "machine code that is not x86-64 ELF cannot be made a shared object"
            )
        header: tuple[int, ...] = _FILE_HEADER.unpack_from(code)
        offset, count, names = header[6], header[12], header[13]
        raw: list[tuple[int, ...]] = [
            _SECTION.unpack_from(code, offset + i * _SECTION.size) for i in range(count)
        ]
        self.sections: dict[int, _Section] = {}
        for index, item in enumerate(raw):
            name, kind, flags, _, start, size, _, _, alignment, _ = item
            if flags & _THREAD and size:
                raise UnsupportedError("thread-local variables in machine code")
            if flags & _ALLOC:
                data = b"" if kind == _NOBITS else code[start : start + size]
                text = _string(code, raw[names][4] + name)
                self.sections[index] = _Section(kind, flags, max(1, alignment), size, data, text)
        self.symbols: list[_Symbol] = []
        for item in raw:
            if item[1] == _SYMTAB:
                self._read_symbols(code, item[4], item[5], raw[item[6]][4])
        self.relocations: list[tuple[_Section, tuple[int, int, int]]] = [
            (self.sections[item[7]], _RELOCATION.unpack_from(code, item[4] + at))
            for item in raw
            if item[1] == _RELA and item[7] in self.sections
            for at in range(0, item[5], _RELOCATION.size)
        ]

    def _read_symbols(self, code: bytes, start: int, size: int, strings: int) -> None:
        for at in range(start, start + size, _SYMBOL.size):
            name, info, _, index, value, _ = _SYMBOL.unpack_from(code, at)
            # Absolute symbols are only the name of the source file.
            section = self.sections.get(index)
            text = _string(code, strings + name)
            self.symbols.append(_Symbol(text, section, value, info >> 4 == 0))


def _string(code: bytes, at: int) -> str:
    return code[at : code.index(b"\0", at)].decode()


class _Linker:
    def __init__(self, objects: Sequence[_Object], exports: Sequence[str]) -> None:
        self.objects = objects
        named = [s for item in objects for s in item.symbols if s.name and not s.is_local]
        self.defined = {symbol.name: symbol for symbol in named if symbol.section is not None}
        self.imports = sorted({symbol.name for symbol in named} - set(self.defined))
        missing = [name for name in exports if name not in self.defined]
        if missing:
            raise UnsupportedError(f"the machine code does not define {missing[0]!r}")
        self.exports = [*exports, *([IMPORTS] if self.imports else [])]
        self.table: dict[tuple[_Section, int], int] = {}
        self.pointers: list[tuple[int, int]] = []
        """Addresses of pointers that the system adjusts when it loads the object, and their values
        for a base of 0."""

    def run(self) -> Linked:
        """The tables that the system wants, the sections, each in its place and relocated."""
        strings = b"\0" + b"".join(name.encode() + b"\0" for name in self.exports)
        count = len(self.exports) + 1
        symbols_at = _FILE_HEADER.size + _SEGMENTS * _PROGRAM.size
        hash_at = symbols_at + count * _SYMBOL.size
        strings_at = hash_at + 4 * (3 + count)
        read_end = self._place(0, _aligned(strings_at + len(strings), 8))
        # Unwinders read entries up to a word of zero.
        unwind_at = _aligned(read_end + 4, 4)
        read_end = unwind_at + 12

        code_at = _aligned(read_end, _PAGE)
        self.stubs_at = _aligned(self._place(1, code_at), _STUB)
        code_end = self.stubs_at + len(self.imports) * _STUB

        self.slots_at = data_at = _aligned(code_end, _PAGE)
        self._make_table(self.slots_at + 8 * len(self.imports))
        dynamic_at = self.slots_at + 8 * (len(self.imports) + len(self.table))
        data_end = self._place(2, dynamic_at + 16 * _DYNAMIC_ENTRIES)
        pointers_at = _aligned(data_end, 8)
        room = len(self.table) + sum(
            info & 0xFFFFFFFF == _PLAIN
            for item in self.objects
            for _, (_, info, _) in item.relocations
        )
        data_end = pointers_at + room * _RELOCATION.size
        memory_end = self._place(3, data_end)

        image = self.image = bytearray(data_end)
        self._copy_sections()
        self._write_stubs()
        self._relocate()
        dynamic = [
            (4, hash_at),
            (5, strings_at),
            (6, symbols_at),
            (10, len(strings)),
            (11, _SYMBOL.size),
            (7, pointers_at),
            (8, len(self.pointers) * _RELOCATION.size),
            (9, _RELOCATION.size),
            (0, 0),
        ]
        assert len(dynamic) == _DYNAMIC_ENTRIES
        struct.pack_into(
            f"<{2 * len(dynamic)}Q", image, dynamic_at, *(v for e in dynamic for v in e)
        )
        for number, (at, value) in enumerate(self.pointers):
            _RELOCATION.pack_into(
                image, pointers_at + number * _RELOCATION.size, at, _RELATIVE, value
            )
        image[strings_at : strings_at + len(strings)] = strings
        self._write_symbols(symbols_at, hash_at)
        self._write_unwind_header(unwind_at)
        segments = [
            (1, 4, 0, read_end, read_end, _PAGE),
            (1, 5, code_at, code_end - code_at, code_end - code_at, _PAGE),
            (1, 6, data_at, data_end - data_at, memory_end - data_at, _PAGE),
            (2, 6, dynamic_at, 16 * len(dynamic), 16 * len(dynamic), 8),
            (_UNWIND_SEGMENT, 4, unwind_at, 12, 12, 4),
            (_STACK_SEGMENT, 6, 0, 0, 0, 16),
        ]
        assert len(segments) == _SEGMENTS
        self._write_header(segments)
        return Linked(bytes(image), tuple(self.imports))

    # --- layout ---

    def _place(self, segment: int, start: int) -> int:
        """Give the sections of a segment their addresses, the unwind tables last; the end."""
        sections = [
            section
            for item in self.objects
            for section in item.sections.values()
            if section.segment == segment
        ]
        for section in sorted(sections, key=lambda section: section.name == _UNWIND):
            section.address = _aligned(start, section.alignment)
            start = section.address + section.size
        return start

    def _make_table(self, start: int) -> None:
        """A slot for every symbol of our own that code reaches through a table."""
        for item in self.objects:
            for _, (_, info, _) in item.relocations:
                section, value = self._definition(item.symbols[info >> 32])
                if info & 0xFFFFFFFF in _THROUGH_TABLE and section is not None:
                    self.table.setdefault((section, value), start + 8 * len(self.table))

    def _definition(self, symbol: _Symbol) -> tuple[_Section | None, int]:
        found = symbol if symbol.section is not None else self.defined.get(symbol.name, symbol)
        return found.section, found.value

    # --- contents ---

    def _copy_sections(self) -> None:
        for item in self.objects:
            for section in item.sections.values():
                self.image[section.address : section.address + len(section.data)] = section.data

    def _write_stubs(self) -> None:
        """jmp *slot(%rip), for each import."""
        for number in range(len(self.imports)):
            at = self.stubs_at + number * _STUB
            distance = self.slots_at + 8 * number - (at + 6)
            struct.pack_into("<BBi", self.image, at, 0xFF, 0x25, distance)

    def _relocate(self) -> None:
        for (section, value), slot in self.table.items():
            self._point(slot, section.address + value)
        numbers = {name: number for number, name in enumerate(self.imports)}
        for item in self.objects:
            for section, (offset, info, addend) in item.relocations:
                kind, symbol = info & 0xFFFFFFFF, item.symbols[info >> 32]
                at = section.address + offset
                home, value = self._definition(symbol)
                target = None if home is None else home.address + value
                if kind in _PC_RELATIVE:
                    # What is not here can only be called.
                    if target is None:
                        target = self.stubs_at + _STUB * numbers[symbol.name]
                    struct.pack_into("<i", self.image, at, target + addend - at)
                elif kind in _THROUGH_TABLE:
                    slot = (
                        self.slots_at + 8 * numbers[symbol.name]
                        if home is None
                        else self.table[home, value]
                    )
                    struct.pack_into("<i", self.image, at, slot + addend - at)
                elif kind == _PLAIN and target is not None:
                    self._point(at, target + addend)
                elif kind == _WIDE and target is not None:
                    struct.pack_into("<q", self.image, at, target + addend - at)
                else:
                    raise UnsupportedError(
                        f"relocation {kind} of {symbol.name or section.name!r} in machine code"
                    )

    def _point(self, at: int, target: int) -> None:
        struct.pack_into("<Q", self.image, at, target)
        self.pointers.append((at, target))

    def _write_symbols(self, symbols_at: int, hash_at: int) -> None:
        """The exported symbols, and a hash table of one bucket: a chain of all of them."""
        name_at = 1
        for number, name in enumerate(self.exports, 1):
            address = self.slots_at
            if name != IMPORTS:
                section, value = self._definition(self.defined[name])
                assert section is not None
                address = section.address + value
            # A global symbol of no type, in any section that exists.
            entry = (name_at, 1 << 4, 0, 1, address, 0)
            _SYMBOL.pack_into(self.image, symbols_at + number * _SYMBOL.size, *entry)
            name_at += len(name.encode()) + 1
        count = len(self.exports) + 1
        chain = (0, *range(2, count), 0)[:count]
        struct.pack_into(f"<{3 + count}I", self.image, hash_at, 1, count, min(1, count - 1), *chain)

    def _write_unwind_header(self, at: int) -> None:
        """.eh_frame_hdr without a search table: version 1, a pointer to the first entry."""
        unwind = [
            section.address
            for item in self.objects
            for section in item.sections.values()
            if section.name == _UNWIND
        ]
        first = min(unwind, default=at - 4)
        struct.pack_into("<4Bi", self.image, at, 1, 0x1B, 0xFF, 0xFF, first - (at + 4))

    def _write_header(self, segments: Sequence[tuple[int, int, int, int, int, int]]) -> None:
        identity = b"\x7fELF\2\1\1".ljust(16, b"\0")
        header = (identity, 3, _X86_64, 1, 0, _FILE_HEADER.size, 0, 0, _FILE_HEADER.size)
        _FILE_HEADER.pack_into(self.image, 0, *header, _PROGRAM.size, len(segments), 0, 0, 0)
        for number, (kind, flags, start, file_size, size, alignment) in enumerate(segments):
            entry = (kind, flags, start, start, start, file_size, size, alignment)
            _PROGRAM.pack_into(self.image, _FILE_HEADER.size + number * _PROGRAM.size, *entry)


def _aligned(value: int, alignment: int) -> int:
    return value + -value % alignment
