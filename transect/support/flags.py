"""Environment flags, read in one place and documented in docs/flags.md."""

from __future__ import annotations

import os
from pathlib import Path


def check() -> bool:
    """TRANSECT_CHECK=1: verify after every pass and guard IR nodes against assignment."""
    return os.environ.get("TRANSECT_CHECK", "0") not in ("", "0")


def debug() -> int:
    """TRANSECT_DEBUG=0..4: how much a compile prints about itself."""
    text = os.environ.get("TRANSECT_DEBUG", "0")
    return int(text) if text.isdigit() else 0


def dump() -> Path | None:
    """TRANSECT_DUMP=dir: write the module after every pass to dir/NN_pass.py."""
    text = os.environ.get("TRANSECT_DUMP")
    return Path(text) if text else None


def cache_dir() -> Path:
    """TRANSECT_CACHE_DIR: where compiled objects are kept; a per-user directory by default."""
    text = os.environ.get("TRANSECT_CACHE_DIR")
    if text:
        return Path(text)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "transect"


def cache_limit() -> int:
    """TRANSECT_CACHE_LIMIT: bytes that compiled models may take on disk, "500M" or "8G"; 4G by
    default."""
    text = os.environ.get("TRANSECT_CACHE_LIMIT", "").strip().upper()
    number, unit = text.rstrip("KMGT"), text[-1:]
    scale = 1 << 10 * ("KMGT".index(unit) + 1) if unit.isalpha() and unit in "KMGT" else 1
    return int(number) * scale if number.isdigit() else 4 << 30


def workers() -> int | None:
    """TRANSECT_WORKERS: processes that compile kernels; 0 to compile in this one. None if unset."""
    text = os.environ.get("TRANSECT_WORKERS", "")
    return int(text) if text.isdigit() else None


def num_threads() -> int:
    """TRANSECT_NUM_THREADS: threads of a parallel loop; the usable cores by default."""
    text = os.environ.get("TRANSECT_NUM_THREADS", "")
    if text.isdigit() and int(text) > 0:
        return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
