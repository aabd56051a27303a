"""What this machine does at best on one or more threads: multiply-adds in registers, by instruction
set, and reading memory in order. Loops in LLVM IR, translated and linked as all compiled code.
"""

from __future__ import annotations

import ctypes
import platform
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from transect.codegen.llvm.backend import HOST, compile_text
from transect.codegen.llvm.shared_object import link
from transect.runtime.code import UNLOAD, load_code
from transect.target import host_target

_STREAMS = 4
_CHAINS = 12
"""Independent vectors: two units with a latency of four to six cycles stay busy, and with both
operands they fit in the 16 registers of AVX2."""
_STEPS = 1_500_000
_TILE_STEPS = 60_000

_PALETTE = np.zeros(64, np.uint8)
"""The configuration of eight tiles of 16 rows of 64 bytes."""
_PALETTE[0], _PALETTE[16:32:2], _PALETTE[48:56] = 1, 64, 16


@dataclass(frozen=True)
class Unit:
    """A vector instruction that multiplies and adds.

    feature: of the processor. kind: of the accumulators. source: of both operands. operations: of
    one instruction, multiplications and additions. function: the intrinsic. accumulator: its place
    among the three operands.
    """

    feature: str
    kind: str
    source: str
    operations: int
    function: str
    accumulator: int


UNITS = {
    "float32": Unit("avx512f", "<16 x float>", "<16 x float>", 32, "llvm.fma.v16f32", 2),
    "float32 AVX2": Unit("fma", "<8 x float>", "<8 x float>", 16, "llvm.fma.v8f32", 2),
    "bfloat16": Unit(
        "avx512_bf16", "<16 x float>", "<32 x bfloat>", 64, "llvm.x86.avx512bf16.dpbf16ps.512", 0
    ),
    "int8": Unit("avx512_vnni", "<16 x i32>", "<64 x i8>", 128, "llvm.x86.avx512.vpdpbusd.512", 0),
}
"""By dtype."""

TILES = {
    "bfloat16 AMX": ("amx_bf16", "tdpbf16ps", 2 * 16 * 16 * 32),
    "int8 AMX": ("amx_int8", "tdpbusd", 2 * 16 * 16 * 64),
}
"""By dtype: the feature, the instruction, and its operations."""


class Peak:
    """A loop to measure: so much work a step, on some threads at once.

    work: operations or bytes of one step on one thread. starts: the pointer that each thread takes.
    """

    def __init__(self, text: str, work: float, steps: int, starts: Sequence[int]) -> None:
        text += f"\ndefine i32 @{UNLOAD}() {{ ret i32 0 }}\n"
        linked = link([compile_text(text, HOST, "")], ["loop", UNLOAD])
        self.code = load_code(linked.image, ["loop"], linked.imports)
        kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)
        self.loop = kind(self.code.address("loop"))
        self.work, self.steps, self.starts = work, steps, starts
        self.data: np.ndarray | None = None

    def rate(self, repeats: int = 5) -> float:
        """Work a second, all threads together: the best of some repeats of the slowest thread."""
        times: list[list[float]] = [[] for _ in self.starts]
        together = threading.Barrier(len(self.starts))

        def run(number: int) -> None:
            together.wait()
            for _ in range(repeats):
                begin = time.perf_counter()
                self.loop(self.steps, self.starts[number])
                times[number].append(time.perf_counter() - begin)

        others = [threading.Thread(target=run, args=(n,)) for n in range(1, len(self.starts))]
        for thread in others:
            thread.start()
        run(0)
        for thread in others:
            thread.join()
        # One may begin before the others and end after them.
        inner = slice(1, -1) if others else slice(None)
        return self.work * self.steps * len(self.starts) / max(min(of[inner]) for of in times)


def arithmetic(threads: int) -> dict[str, Peak]:
    """The loops of every unit that this processor has: operations a second."""
    features = host_target().features
    found = {
        name: Peak(_vector_loop(unit), unit.operations * _CHAINS, _STEPS, [0] * threads)
        for name, unit in UNITS.items()
        if unit.feature in features
    }
    tiles = {name: unit for name, unit in TILES.items() if unit[0] in features}
    if tiles and _ask_for_tiles():
        for name, (_, instruction, operations) in tiles.items():
            places = [_PALETTE.ctypes.data] * threads
            found[name] = Peak(_tile_loop(instruction), operations * 4, _TILE_STEPS, places)
    return found


def reading(size: int, threads: int) -> Peak:
    """The loop that reads `size` bytes in order, a part for each thread: bytes a second."""
    work = _STREAMS * 128
    steps = max(1, size // threads // work)
    data = np.ones(steps * threads * work // 4, np.float32)
    starts = [data.ctypes.data + number * steps * work for number in range(threads)]
    peak = Peak(_read_loop(steps), work, steps, starts)
    peak.data = data
    return peak


def _loop(declared: str, before: str, phis: str, body: str, after: str) -> str:
    return f"""
{declared}
define void @loop(i64 %steps, ptr %start) {{
entry:
{before}
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
{phis}
{body}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %steps
  br i1 %more, label %loop, label %end
end:
{after}
  ret void
}}
"""


def _vector_loop(unit: Unit) -> str:
    """One instruction for each of the chains a step. What a volatile load gives is no constant."""
    kind, source = unit.kind, unit.source
    operands = [(source, "%a"), (source, "%b")]
    operands.insert(unit.accumulator, (kind, "%s{n}"))
    call = ", ".join(f"{of} {name}" for of, name in operands)
    types = ", ".join(of for of, _ in operands)
    chains = range(_CHAINS)
    return _loop(
        f"declare {kind} @{unit.function}({types})",
        f"""  %out = alloca {kind}
  %in = alloca {source}
  store {source} zeroinitializer, ptr %in
  %a = load volatile {source}, ptr %in
  %b = load volatile {source}, ptr %in""",
        _lines(f"%s{n} = phi {kind} [zeroinitializer, %entry], [%t{n}, %loop]" for n in chains),
        _lines(f"%t{n} = call {kind} @{unit.function}({call.format(n=n)})" for n in chains),
        _lines(f"store volatile {kind} %t{n}, ptr %out" for n in chains),
    )


def _tile_loop(instruction: str) -> str:
    """A product for each of four accumulators a step, of two tiles and two. start: the palette."""
    products = [(0, 4, 6), (1, 4, 7), (2, 5, 6), (3, 5, 7)]
    return _loop(
        f"""declare void @llvm.x86.ldtilecfg(ptr)
declare void @llvm.x86.tilerelease()
declare void @llvm.x86.tilezero(i8 immarg)
declare void @llvm.x86.{instruction}(i8 immarg, i8 immarg, i8 immarg)""",
        _lines(
            [
                "call void @llvm.x86.ldtilecfg(ptr %start)",
                *(f"call void @llvm.x86.tilezero(i8 {n})" for n in range(8)),
            ]
        ),
        "",
        _lines(
            f"call void @llvm.x86.{instruction}(i8 {c}, i8 {a}, i8 {b})" for c, a, b in products
        ),
        "  call void @llvm.x86.tilerelease()",
    )


def _read_loop(steps: int) -> str:
    """Two lines of each of four streams a step, fetched ahead, joined by exclusive or, which costs
    less than reading. One stream, or none fetched ahead, is slower from memory by a tenth."""
    kind, lines = "<16 x i32>", range(_STREAMS * 2)
    places = _lines(
        f"%b{n} = getelementptr i8, ptr %start, i64 {n // 2 * steps * 128 + n % 2 * 64}\n"
        f"  %p{n} = getelementptr [128 x i8], ptr %b{n}, i64 %i\n"
        f"  %v{n} = load {kind}, ptr %p{n}, align 4\n"
        f"  %t{n} = xor {kind} %s{n}, %v{n}\n"
        f"  %f{n} = getelementptr i8, ptr %p{n}, i64 1024\n"
        f"  call void @llvm.prefetch.p0(ptr %f{n}, i32 0, i32 3, i32 1)"
        for n in lines
    )
    return _loop(
        "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
        f"  %out = alloca {kind}",
        _lines(f"%s{n} = phi {kind} [zeroinitializer, %entry], [%t{n}, %loop]" for n in lines),
        places,
        _lines(f"store volatile {kind} %t{n}, ptr %out" for n in lines),
    )


def _lines(instructions: Iterable[str]) -> str:
    return "\n".join(f"  {line}" for line in instructions)


def _ask_for_tiles() -> bool:
    """Whether the system lets this process use tiles; Linux wants to be asked once."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0
