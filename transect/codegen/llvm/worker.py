"""A process that turns LLVM IR text into object code: `python -m transect.codegen.llvm.worker`.

It reads requests from standard input until that ends, so it never outlives its parent for long, and
writes answers to standard output. A request: a line of JSON with "arch", "features" and "size",
then so many bytes of text. An answer: a line of JSON with "ok" and "size", then so many bytes, the
object file or the message of an error. `driver.workers` is the other end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import BinaryIO

from transect.codegen.llvm.backend import compile_text
from transect.support.errors import TransectError


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    while line := requests.readline():
        request = json.loads(line)
        text = requests.read(request["size"]).decode()
        if len(text.encode()) < request["size"]:
            return  # The parent died while it was writing.
        try:
            answer, good = compile_text(text, request["arch"], request["features"]), True
        except (TransectError, RuntimeError) as error:
            answer, good = str(error).encode(), False
        answers.write(json.dumps({"ok": good, "size": len(answer)}).encode() + b"\n" + answer)
        answers.flush()


def main() -> None:
    """Serve standard input and output."""
    # Ctrl-C is for the parent, whose end ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What else is printed must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(sys.stdin.buffer, answers)
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
