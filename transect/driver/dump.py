"""Writing the program after every pass as script that can be read back, constants included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from transect.ir.function import IRModule
from transect.script import save_constants, script

CONSTANTS = "constants.npz"
"""The file beside the scripts that holds the large constants of all of them."""


def dump_scripts(folder: Path | None) -> Callable[[int, str, IRModule], None] | None:
    """A Context's `dump` that writes `NN_pass.py` files to `folder`; None for None.

    `transect.script.parse_file` reads them.
    """
    if folder is None:
        return None
    constants: dict[str, np.ndarray] = {}

    def write(number: int, name: str, module: IRModule) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        known = len(constants)
        text = script(module, constants=constants, constants_file=CONSTANTS)
        (folder / f"{number:02}_{name}.py").write_text(text, encoding="utf-8")
        # Even a program without constants names the file.
        if number == 0 or len(constants) > known:
            save_constants(folder / CONSTANTS, constants)

    return write
