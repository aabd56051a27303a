"""The store on disk: whole entries or none, whatever happens to writers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from transect.driver import Cache
from transect.support.errors import InputError

KEY = "0123456789abcdef"


def key(number):
    return f"{number:016x}"


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def files(cache):
    return [path for path in cache.folder.rglob("*") if path.is_file()]


def test_what_was_put_is_found(cache):
    assert cache.get(KEY) is None
    assert cache.put(KEY, b"\x00data" * 1000, {"a": [1, "b"]})
    entry = cache.get(KEY)
    assert entry is not None
    assert entry.data == b"\x00data" * 1000
    assert entry.metadata == {"a": [1, "b"]}
    assert cache.put(KEY, b"")
    replaced = Cache(cache.folder).get(KEY)
    assert replaced is not None
    assert replaced.data == b""
    cache.remove(KEY)
    cache.remove(KEY)
    assert cache.get(KEY) is None


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "grow", "metadata"])
def test_a_damaged_entry_is_dropped(cache, damage):
    cache.put(KEY, b"x" * 100, {"k": 1})
    (path,) = files(cache)
    raw = bytearray(path.read_bytes())
    if damage == "flip":
        raw[-3] ^= 1
    elif damage == "metadata":
        raw[66] ^= 1
    changed = {"truncate": raw[:-1], "empty": b"", "grow": raw + b"y"}.get(damage, raw)
    path.write_bytes(changed)
    assert cache.get(KEY) is None
    assert files(cache) == []


def test_the_least_recently_used_go_first(tmp_path):
    cache = Cache(tmp_path, limit=3 * 5200)
    for number in range(3):
        cache.put(key(number), bytes(1000))
        os.utime(tmp_path / key(number)[:2] / key(number), (number, number))
    assert cache.get(key(0)) is not None  # used now, so it is the newest
    cache.put(key(3), bytes(1000))
    kept = [number for number in range(4) if cache.get(key(number)) is not None]
    assert kept == [0, 2, 3]


@pytest.mark.parametrize("bad", ["", "../../etc/passwd", "ABCDEF0123", "0123", "g" * 16])
def test_only_hex_keys(cache, bad):
    with pytest.raises(InputError, match="not a cache key"):
        cache.get(bad)


def test_a_folder_that_cannot_be_written_only_misses(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    cache = Cache(blocker / "cache")
    assert not cache.put(KEY, b"data")
    assert cache.get(KEY) is None


_WRITER = """
import sys
from pathlib import Path
from transect.driver.cache import Cache
cache = Cache(Path(sys.argv[1]))
print("ready", flush=True)
number = 0
while True:
    number += 1
    cache.put("0123456789abcdef", bytes([number % 251]) * 200_000, {"byte": number % 251})
"""


def test_writers_that_race_and_are_killed_leave_whole_entries(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    cache = Cache(tmp_path)
    found = 0
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
        for killed in writers:
            deadline = time.monotonic() + 20
            count = 0
            while count < 10 and time.monotonic() < deadline:
                entry = cache.get(KEY)
                if entry is not None:
                    assert entry.data == bytes([entry.metadata["byte"]]) * 200_000
                    count += 1
            found += count
            killed.send_signal(signal.SIGKILL)
            killed.wait()
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
    assert found == 20
    entry = cache.get(KEY)
    assert entry is not None
    assert entry.data == bytes([entry.metadata["byte"]]) * 200_000
    cache.put(key(5), b"")
    assert not [path for path in files(cache) if path.suffix == ".tmp"]
