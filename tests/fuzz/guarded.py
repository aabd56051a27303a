"""Arrays between pages that cannot be touched: an access out of bounds ends the process.

Inputs, results, weights and all memory that compiled code takes for itself lie flush against such a
page, before it or behind it. What is left of a page for alignment holds a pattern that must stay.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import numpy as np

from transect import runtime
from transect.codegen.llvm import objects
from transect.codegen.llvm import runtime as helpers
from transect.codegen.llvm.module import ModuleText
from transect.driver import CompiledModel
from transect.runtime.call_source import NUMPY, array_call
from transect.runtime.code import load_code

PAGE = mmap.PAGESIZE
PATTERN = 0xFF
"""Every byte of memory that has no value yet: NaN as a float, -1 as an integer."""

_PROT_NONE = 0
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

_TAKE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
_GIVE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_kept: list[object] = []
"""Compiled code calls its allocator once more when it is unloaded, whenever that is."""


@dataclass
class Block:
    """Memory of `size` bytes, `start` bytes after the first page that may be touched."""

    memory: mmap.mmap
    base: int
    start: int
    size: int

    @property
    def address(self) -> int:
        return self.base + PAGE + self.start

    def is_intact(self) -> bool:
        """Whether nothing was written beside the block."""
        whole = np.frombuffer(self.memory, np.uint8)[PAGE:-PAGE]
        rest = (whole[: self.start], whole[self.start + self.size :])
        return all(bool((part == PATTERN).all()) for part in rest)


@dataclass
class Guard:
    """Makes blocks. behind: flush against the page behind them, as far as the alignment lets them
    be; else against the page before them."""

    behind: bool
    taken: dict[int, Block] = field(default_factory=dict[int, Block])
    arrays: list[Block] = field(default_factory=list[Block])
    damaged: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        self.functions = {"aligned_alloc": _TAKE(self.take), "free": _GIVE(self.give)}
        _kept.append(self.functions)

    def block(self, size: int, alignment: int) -> Block:
        inner = -(-size // PAGE) * PAGE
        memory = mmap.mmap(-1, inner + 2 * PAGE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        ctypes.memset(base + PAGE, PATTERN, inner)
        for edge in (base, base + PAGE + inner):
            if _libc.mprotect(edge, PAGE, _PROT_NONE):
                raise OSError(ctypes.get_errno(), "mprotect")
        start = (inner - size) // alignment * alignment if self.behind else 0
        return Block(memory, base, start, size)

    # --- arrays -----------------------------------------------------------------------------

    def empty(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """As numpy.empty."""
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        block = self.block(count * kind.itemsize, kind.itemsize)
        self.arrays.append(block)
        return np.frombuffer(block.memory, kind, count, PAGE + block.start).reshape(shape)

    def copy(self, array: np.ndarray) -> np.ndarray:
        """The elements of `array`."""
        made = self.empty(array.shape, array.dtype)
        made[...] = array
        return made

    # --- the allocator of compiled code -----------------------------------------------------

    def take(self, alignment: int, size: int) -> int:
        """aligned_alloc"""
        block = self.block(size, alignment)
        self.taken[block.address] = block
        return block.address

    def give(self, address: int | None) -> None:
        """free"""
        if address:
            block = self.taken.pop(address)
            if not block.is_intact():
                self.damaged.append(block.size)

    def damage(self) -> str | None:
        """What was written beside an array or block so far, if anything was."""
        beside = [block.size for block in self.arrays if not block.is_intact()] + self.damaged
        self.arrays.clear()
        return f"written beside blocks of {beside} bytes" if beside else None


def _edited(text: str, old: str, new: str) -> str:
    assert old in text, f"the helper no longer has {old!r}"
    return text.replace(old, new)


def _take(module: ModuleText) -> str:
    """A workspace has its own size, not that of its class, and none is kept for the next."""
    text = helpers.workspace_take(module)
    text = _edited(text, "%bytes = shl i64 1, %class", "%bytes = add i64 %size, 64")
    return _edited(text, "%empty = icmp eq ptr %seen, null", "%empty = icmp eq i64 0, 0")


def _release(module: ModuleText) -> str:
    module.declare("free", "void", ["ptr"])
    return """define internal void @transect.workspace.release(ptr %slot) {
entry:
  %data = load ptr, ptr %slot
  %none = icmp eq ptr %data, null
  br i1 %none, label %done, label %drop
drop:
  store ptr null, ptr %slot
  %block = getelementptr i8, ptr %data, i64 -64
  call void @free(ptr %block)
  br label %done
done:
  ret void
}"""


def _alloc(module: ModuleText) -> str:
    text = objects.tensor_alloc(module)
    return _edited(text, "add i64 %header, %rounded", "add i64 %header, %size")


@contextmanager
def exact_workspaces() -> Generator[None]:
    """Compile such that each block of memory has the size that is asked for."""
    with (
        patch.dict(
            helpers.HELPERS,
            {"transect.workspace.take": _take, "transect.workspace.release": _release},
        ),
        patch.dict(objects.HELPERS, {"transect.tensor.alloc": _alloc}),
    ):
        yield


def guarded(model: CompiledModel, guard: Guard) -> Any:
    """A callable as `model`, compiled with `exact_workspaces`, whose memory the guard places."""
    artifact: runtime.Artifact = model._artifact
    symbols = {
        name: ctypes.cast(function, ctypes.c_void_p).value or 0
        for name, function in guard.functions.items()
    }
    constants = [guard.copy(array) for array in artifact.constants]
    libraries = [library.open() for library in artifact.libraries]
    code = load_code(
        artifact.image, artifact.entries, artifact.imports, constants, libraries, symbols
    )
    entry = runtime.load_function(code, artifact.signature.name)
    kind = replace(NUMPY, names={"empty": guard.empty, "large": guard.empty})
    call = array_call(artifact.signature, kind, entry, _refuse, _copied)
    return lambda *inputs: call(*map(guard.copy, inputs))


def _refuse(*_inputs: Any) -> Any:
    raise AssertionError("these inputs cannot be passed as they are")


def _copied(value: Any) -> np.ndarray:
    """A result that the program owns, as an array: it must not outlive the guard."""
    return np.from_dlpack(value).copy()
