"""`transect cache`: the compiled models that are kept, and forgetting them."""

from __future__ import annotations

import time

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from transect.cli.request import Outcome, Request, UsageError
from transect.driver.cache import Cache, EntryInfo

_DIGITS = 12


def cache(request: Request, *, action: str, key: str | None) -> Outcome:
    """JSON keys: folder, limit and bytes; list: entries (key, name, bytes, used: seconds since
    1970); clear: freed (bytes), removed (entries)."""
    del request
    store = Cache()
    entries = store.entries()
    data: dict[str, object] = {"folder": str(store.folder), "limit": store.limit}
    if action == "path":
        return Outcome(data, lambda console: console.print(escape(str(store.folder))))
    if action == "clear":
        return _clear(store, entries, key, data)
    if action != "list":
        raise UsageError(f"{action!r} is nothing to do with a cache", remedy="list, clear or path")
    data["bytes"] = sum(entry.size for entry in entries)
    data["entries"] = [
        {"key": entry.key, "name": _name(entry), "bytes": entry.size, "used": entry.used}
        for entry in entries
    ]

    def show(console: Console) -> None:
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("key", no_wrap=True)
        table.add_column("model", overflow="fold")
        table.add_column("size", justify="right")
        table.add_column("used", justify="right")
        for entry in entries:
            table.add_row(
                entry.key[:_DIGITS], escape(_name(entry)), _size(entry.size), _ago(entry.used)
            )
        if entries:
            console.print(table)
        total = _size(sum(entry.size for entry in entries))
        console.print(
            escape(f"{len(entries)} entries, {total} of {_size(store.limit)}, in {store.folder}")
        )

    return Outcome(data, show)


def _clear(
    store: Cache, entries: list[EntryInfo], key: str | None, data: dict[str, object]
) -> Outcome:
    chosen = [entry for entry in entries if key is None or entry.key.startswith(key)]
    if key is not None and len(chosen) != 1:
        raise UsageError(
            f"{len(chosen)} entries begin with {key!r}", remedy="see transect cache list"
        )
    if key is None:
        freed = store.clear()
    else:
        store.remove(chosen[0].key)
        freed = chosen[0].size
    data |= {"freed": freed, "removed": len(chosen)}
    text = f"{len(chosen)} entries forgotten, {_size(freed)} freed"
    return Outcome(data, lambda console: console.print(text))


def _name(entry: EntryInfo) -> str:
    return str(entry.metadata.get("model", ""))


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _ago(when: float) -> str:
    seconds = max(0.0, time.time() - when)
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"
