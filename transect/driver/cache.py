"""A store of bytes on disk under keys: compiled models survive the process.

What the bytes are and how a key is made is the caller's business. Safe with several processes at
once and with processes killed at any point: a reader sees a whole entry or none.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import re
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from transect.runtime import release_pages
from transect.support import flags
from transect.support.errors import InputError

_MAGIC = b"transect-cache-2"
_HEADER = struct.Struct("<16sQQ32s")  # magic, bytes of metadata, bytes of payload, checksum
_KEY = re.compile(r"[0-9a-f]{8,128}")
_CHUNK = 1 << 22
_PAGE = 4096


@dataclass(frozen=True)
class Entry:
    """What a key holds. data: mapped from the file, shared by all processes that read it, at the
    start of a page. metadata: JSON-able."""

    data: memoryview
    metadata: dict[str, Any]


@dataclass(frozen=True)
class EntryInfo:
    """What a listing tells of an entry. size: bytes on disk. used: seconds since 1970 when it was
    last written or read. metadata: of the entry."""

    key: str
    size: int
    used: float
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Cache:
    """Entries in files under `folder`, at most `limit` bytes of them, least recently used ones go
    first; an entry that is larger than that is not stored. A damaged entry counts as absent and is
    removed. A cache that cannot be written (a full or read-only disk) only misses."""

    folder: Path = field(default_factory=lambda: flags.cache_dir() / "models")
    limit: int = field(default_factory=flags.cache_limit)

    def get(self, key: str) -> Entry | None:
        """The entry under `key`, or None. Raises InputError if `key` is not lower-case hex."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                entry = _read(file)
        except OSError:
            return None
        with contextlib.suppress(OSError):
            if entry is None:
                path.unlink()
            else:
                os.utime(path)
        return entry

    def put(
        self,
        key: str,
        data: bytes | list[bytes | memoryview],
        metadata: dict[str, Any] | None = None,
    ) -> bool:
        """Store an entry, in place of an older one; whether it was written.

        data: the bytes, or parts of them in order.
        """
        path = self._path(key)
        parts = [data] if isinstance(data, bytes) else data
        text = json.dumps({} if metadata is None else metadata).encode()
        # The payload starts at a page, so that what is aligned in it is aligned in memory.
        text += b" " * (-(_HEADER.size + len(text)) % _PAGE)
        size = sum(memoryview(part).nbytes for part in parts)
        total = _HEADER.size + len(text) + size
        if total > self.limit:
            return False
        # The name is this writer's own, so that two never share a temporary file.
        temporary = path.with_name(f"{path.name}.{os.getpid()}-{time.monotonic_ns()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb", buffering=0) as file:
                # Held as long as this process lives: how others know that it does.
                fcntl.flock(file, fcntl.LOCK_EX)
                self._evict(total)
                _write(file, text, parts, size)
                temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            return False
        return True

    def remove(self, key: str) -> None:
        """Forget the entry under `key`, if there is one."""
        with contextlib.suppress(OSError):
            self._path(key).unlink()

    def clear(self) -> int:
        """Forget all entries; the bytes that were freed. What is in use stays in memory."""
        freed = 0
        for path, status in self._files():
            with contextlib.suppress(OSError):
                path.unlink()
                freed += status.st_size
        return freed

    def entries(self) -> list[EntryInfo]:
        """The entries, most recently used first; their payloads are not read."""
        found: list[EntryInfo] = []
        for path, status in self._files():
            with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
                header = _read_header(file)
                if header is not None:
                    metadata = json.loads(header[1])
                    found.append(EntryInfo(path.name, status.st_size, status.st_mtime, metadata))
        return sorted(found, key=lambda entry: -entry.used)

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise InputError(f"not a cache key: {key!r}", remedy="8 to 128 lower-case hex digits")
        return self.folder / key[:2] / key

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """The files of entries; what dead writers left behind is removed on the way."""
        for path in self.folder.glob("??/*"):
            # Another process may remove the file at any moment.
            with contextlib.suppress(OSError):
                if path.suffix != ".tmp":
                    yield path, path.stat()
                elif not _is_being_written(path):
                    path.unlink()

    def _evict(self, room: int) -> None:
        """Remove the least recently used entries until there are `room` bytes below the limit."""
        found = sorted(self._files(), key=lambda item: item[1].st_mtime_ns)
        total = room + sum(status.st_size for _, status in found)
        for path, status in found:
            if total <= self.limit:
                break
            with contextlib.suppress(OSError):
                path.unlink()
            total -= status.st_size


def _is_being_written(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _write(file: FileIO, text: bytes, parts: Sequence[bytes | memoryview], size: int) -> None:
    digest = blake3(text)
    file.write(bytes(_HEADER.size))
    for part in (text, *parts):
        rest = memoryview(part).cast("B")
        if part is not text:
            digest.update(rest)
        while rest:
            rest = rest[file.write(rest[:_CHUNK]) :]
        if isinstance(part, memoryview) and isinstance(part.obj, np.ndarray):
            release_pages(part.obj)
    file.seek(0)
    file.write(_HEADER.pack(_MAGIC, len(text), size, digest.digest()))


def _read_header(file: BufferedReader) -> tuple[tuple[Any, ...], bytes] | None:
    """The fields of the header and the text of the metadata; None if it is not whole."""
    raw = file.read(_HEADER.size)
    if len(raw) < _HEADER.size:
        return None
    fields = _HEADER.unpack(raw)
    size = os.fstat(file.fileno()).st_size
    if fields[0] != _MAGIC or _HEADER.size + fields[1] + fields[2] != size:
        return None
    return fields, file.read(fields[1])


def _read(file: BufferedReader) -> Entry | None:
    """The entry in a file, None if it is not whole."""
    header = _read_header(file)
    if header is None:
        return None
    (_, text_size, _, checksum), text = header
    digest = blake3(text)
    # Read, not mapped: a page that was only checked shall not count as memory of the process.
    buffer = memoryview(bytearray(_CHUNK))
    while count := file.readinto(buffer):
        digest.update(buffer[:count])
    if digest.digest() != checksum:
        return None
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return Entry(memoryview(mapped)[_HEADER.size + text_size :], json.loads(text))
