"""Which extension of a processor LLVM's functions for its instructions need.

LLVM ends the process where it is asked for an instruction that the processor lacks.
"""

from __future__ import annotations

import re

from transect.support.errors import UnsupportedError
from transect.target import Target

_NEEDS: tuple[tuple[str, frozenset[str]], ...] = tuple(
    (pattern, frozenset(features.split()))
    for pattern, features in (
        # avx_vnni has the same functions for vectors of 256 bits.
        (r"llvm\.x86\.avx512\.vpdp\w+\.512", "avx512_vnni"),
        (r"llvm\.x86\.avx512\.vpdp\w+\.(128|256)", "avx512_vnni|avx_vnni"),
        (r"llvm\.x86\.avx512bf16\.\w+\.512", "avx512_bf16"),
        (r"llvm\.x86\.avx512bf16\.\w+\.(128|256)", "avx512_bf16 avx512vl"),
        (r"llvm\.x86\.avx512fp16\.", "avx512_fp16"),
        (r"llvm\.x86\.tdpbf16", "amx_bf16"),
        (r"llvm\.x86\.tdpb", "amx_int8"),
        (r"llvm\.x86\.(ldtilecfg|sttilecfg|tile)", "amx_tile"),
        (r"llvm\.x86\.avx512", "avx512f"),
        (r"llvm\.x86\.avx2\.", "avx2"),
        (r"llvm\.x86\.avx\.", "avx"),
        (r"llvm\.aarch64\.neon\.[su]dot\.", "dotprod"),
        (r"llvm\.aarch64\.neon\.(usdot|smmla|ummla|usmmla)\.", "i8mm"),
        (r"llvm\.aarch64\.neon\.bf", "bf16"),
        (r"llvm\.aarch64\.sve\.", "sve"),
        (r"llvm\.aarch64\.neon\.", "neon"),
    )
)
"""The beginning of a name -> features of the Target; "a|b": one of them. The first that fits."""

_KINDS = {"x86": "x86", "aarch64": "arm"}


def require_instruction(name: str, target: Target) -> None:
    """Raise UnsupportedError for an LLVM function that `target` has no instruction for."""
    parts = name.split(".")
    kind = _KINDS.get(parts[1]) if len(parts) > 1 else None
    if kind is not None and kind != target.name:
        raise UnsupportedError(
            f"{name} is an instruction of {kind}; {target} is of another kind",
            remedy=f"compile for a target of the kind {kind!r}, or schedule without it",
        )
    for pattern, needed in _NEEDS:
        if not re.match(pattern, name):
            continue
        lacking = [item for item in sorted(needed) if not target.features & set(item.split("|"))]
        if lacking:
            what = " and ".join(item.replace("|", " or ") for item in lacking)
            raise UnsupportedError(
                f"{name} needs {what}, which {target} lacks",
                remedy="choose an intrinsic that the target has: TensorIntrin.missing(target)",
            )
        return
