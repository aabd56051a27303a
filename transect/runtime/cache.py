"""A store of bytes on disk under keys: compiled objects survive the process.

What the bytes are and how a key is made is the caller's business. Safe with several processes at
once and with processes killed at any point: a reader sees a whole entry or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transect.support import flags
from transect.support.errors import InputError

_MAGIC = b"transect-cache-1"
_HEADER = struct.Struct("<16sQQ32s")  # magic, bytes of metadata, bytes of payload, checksum
_KEY = re.compile(r"[0-9a-f]{8,128}")
_STALE_SECONDS = 3600.0
"""Age from which a temporary file counts as left behind by a process that died."""


@dataclass(frozen=True)
class Entry:
    """What a key holds. metadata: JSON-able."""

    data: bytes
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Cache:
    """Entries in files under `folder`, at most about `limit` bytes, least recently used ones go
    first. A damaged entry counts as absent and is removed. A cache that cannot be written (a full
    or read-only disk) only misses."""

    folder: Path = field(default_factory=lambda: flags.cache_dir() / "objects")
    limit: int = 2 << 30

    def get(self, key: str) -> Entry | None:
        """The entry under `key`, or None. Raises InputError if `key` is not lower-case hex."""
        path = self._path(key)
        try:
            raw = path.read_bytes()
        except OSError:
            return None
        entry = _unpack(raw)
        with contextlib.suppress(OSError):
            if entry is None:
                path.unlink()
            else:
                os.utime(path)
        return entry

    def put(self, key: str, data: bytes, metadata: dict[str, Any] | None = None) -> bool:
        """Store an entry, in place of an older one; whether it was written."""
        path = self._path(key)
        raw = _pack(data, {} if metadata is None else metadata)
        # The name is this process's own, so that two writers never share a temporary file.
        temporary = path.with_name(f"{path.name}.{os.getpid()}-{time.monotonic_ns()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(raw)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            return False
        self._evict()
        return True

    def remove(self, key: str) -> None:
        """Forget the entry under `key`, if there is one."""
        with contextlib.suppress(OSError):
            self._path(key).unlink()

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise InputError(f"not a cache key: {key!r}", remedy="8 to 128 lower-case hex digits")
        return self.folder / key[:2] / key

    def _evict(self) -> None:
        """Remove the least recently used entries above the limit, and what dead writers left."""
        found: list[tuple[float, int, Path]] = []
        now = time.time()
        for path in self.folder.glob("??/*"):
            # Another process may remove the file at any moment.
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.suffix == ".tmp":
                    if now - status.st_mtime > _STALE_SECONDS:
                        path.unlink()
                else:
                    found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                break
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size


def _pack(data: bytes, metadata: dict[str, Any]) -> bytes:
    text = json.dumps(metadata).encode()
    return _HEADER.pack(_MAGIC, len(text), len(data), _checksum(text, data)) + text + data


def _unpack(raw: bytes) -> Entry | None:
    """The entry in the bytes of a file, None if they are not a whole one."""
    if len(raw) < _HEADER.size:
        return None
    magic, text_size, data_size, checksum = _HEADER.unpack_from(raw)
    if magic != _MAGIC or len(raw) != _HEADER.size + text_size + data_size:
        return None
    text = raw[_HEADER.size : _HEADER.size + text_size]
    data = raw[_HEADER.size + text_size :]
    if _checksum(text, data) != checksum:
        return None
    return Entry(data, json.loads(text))


def _checksum(text: bytes, data: bytes) -> bytes:
    digest = hashlib.blake2b(text, digest_size=32)
    digest.update(data)
    return digest.digest()
