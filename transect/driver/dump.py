"""Writing the program after every pass as script that can be read back, constants included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from transect.ir.function import IRModule
from transect.script import save_constants, script
from transect.transform.base import dump_to

CONSTANTS = "constants.npz"
"""The file beside the scripts that holds the large constants of all of them."""


def dump_scripts(folder: Path | None) -> Callable[[int, str, IRModule], None] | None:
    """A Context's `dump` that writes `NN_pass.py` files to `folder`; None for None.

    `transect.script.parse_file` reads them.
    """
    if folder is None:
        return None
    constants: dict[str, np.ndarray] = {}

    def text(module: IRModule) -> str:
        known = len(constants)
        written = script(module, constants=constants, constants_file=CONSTANTS)
        # Even a program without constants names the file.
        if len(constants) > known or not (folder / CONSTANTS).exists():
            save_constants(folder / CONSTANTS, constants)
        return written

    return dump_to(folder, text)
