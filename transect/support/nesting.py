"""Room for deeply nested programs: branches in branches, as deep as models have them.

Passes visit what is nested by calling themselves. Python's limit of 1000 frames is there to protect
its own stack from endless recursion, and 200 nested branches need more.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager

FRAMES = 20_000
"""Enough for a thousand nested branches; their C frames fit a stack of 8 MB."""

_lock = threading.Lock()
_users: list[int] = []
"""The limit that each compile under way found."""


@contextmanager
def deep_nesting() -> Generator[None]:
    """Let calls nest deeply inside, in all threads, until the last of several is done."""
    with _lock:
        _users.append(sys.getrecursionlimit())
        sys.setrecursionlimit(max(_users[0], FRAMES))
    try:
        yield
    finally:
        with _lock:
            before = _users[0]
            _users.pop()
            if not _users:
                sys.setrecursionlimit(before)
