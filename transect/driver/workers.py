"""Workers: processes that run LLVM beside the compiler, on texts that go through pipes.

Processes of their own, started anew: `spawn` dies in a script without a `__main__` guard, `fork`
deadlocks OpenMP. What they do is in `codegen.llvm.worker`.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from transect.codegen.llvm.compile import translate_here
from transect.support import flags

_MOST = 16
_ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-P", "-m", "transect.codegen.llvm.worker")
"""What starts a worker."""


def default_count() -> int:
    """How many workers a large compile gets: what TRANSECT_WORKERS says, or one a core."""
    wanted = flags.workers()
    return min(_MOST, flags.num_threads()) if wanted is None else wanted


class Workers:
    """Some processes that compile, in a `with` statement; they start at once, and load LLVM while
    the caller goes on. All are gone when it ends.

    count: how many. seconds: how long one text may take. A worker that dies, hangs or cannot be
    started costs time, and a RuntimeWarning, and nothing else: its text is compiled here.
    """

    def __init__(
        self, count: int, *, seconds: float = 300.0, command: Sequence[str] = COMMAND
    ) -> None:
        self.seconds = seconds
        self._workers: list[_Worker] = []
        for _ in range(count):
            try:
                self._workers.append(_Worker(command))
            except OSError as error:
                _note(f"cannot be started: {error}")
                break

    @property
    def count(self) -> int:
        """How many are running."""
        return len(self._workers)

    def translate(self, texts: Sequence[str], arch: str, features: str) -> list[bytes]:
        """Object files from texts (see `codegen.llvm.compile.Translate`)."""
        if not self._workers:
            return translate_here(texts, arch, features)
        answers: list[bytes | str] = [""] * len(texts)
        waiting = list(range(len(texts)))

        def drain(worker: _Worker) -> None:
            while waiting:
                try:
                    number = waiting.pop()
                except IndexError:  # Another thread was faster.
                    return
                answers[number] = worker.compile(texts[number], arch, features, self.seconds)
                if not worker.is_alive:
                    return

        with ThreadPoolExecutor(len(self._workers)) as threads:
            list(threads.map(drain, self._workers))
        result: list[bytes] = []
        for text, answer in zip(texts, answers, strict=True):
            if isinstance(answer, bytes):
                result.append(answer)
                continue
            if answer:
                _note(answer)
            result += translate_here([text], arch, features)
        return result

    def close(self) -> None:
        """End the processes and wait for them."""
        for worker in self._workers:
            worker.close()
        self._workers.clear()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _note(why: str) -> None:
    warnings.warn(
        f"a process that compiles kernels {why}; compiling in this one instead "
        "(TRANSECT_WORKERS=0 always does)",
        RuntimeWarning,
        stacklevel=3,
    )


class _Worker:
    def __init__(self, command: Sequence[str]) -> None:
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self.is_alive = True

    def compile(self, text: str, arch: str, features: str, seconds: float) -> bytes | str:
        """The object file, or why there is none: "" if LLVM refused the text."""
        data = text.encode()
        request = {"arch": arch, "features": features, "size": len(data)}
        deadline = time.monotonic() + seconds
        try:
            self._write(json.dumps(request).encode() + b"\n" + data, deadline)
            head = b""
            while not head.endswith(b"\n"):
                head += self._read(1, deadline)
            answer: dict[str, Any] = json.loads(head)
            content = self._read(answer["size"], deadline)
        except TimeoutError:
            self.close()
            return f"did not answer within {seconds:g} seconds"
        except (OSError, ValueError, KeyError, TypeError):
            self.close()
            return f"ended with status {self.process.returncode}"
        return content if answer["ok"] else ""

    def _write(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        stream = _pipe(self.process.stdin)
        os.set_blocking(stream, False)
        while rest:
            self._wait(stream, select.POLLOUT, deadline)
            rest = rest[os.write(stream, rest) :]

    def _read(self, size: int, deadline: float) -> bytes:
        stream = _pipe(self.process.stdout)
        parts: list[bytes] = []
        while size:
            self._wait(stream, select.POLLIN, deadline)
            part = os.read(stream, size)
            if not part:
                raise OSError("the pipe was closed")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    @staticmethod
    def _wait(stream: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(stream, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError

    def close(self) -> None:
        """End the process, whatever it does, and collect it."""
        self.is_alive = False
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.wait()


def _pipe(stream: IO[bytes] | None) -> int:
    assert stream is not None
    return stream.fileno()
