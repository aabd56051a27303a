"""Every registered tensor intrinsic: its description and its implementation compute the same."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest

from tests.codegen.support import compiled, lower
from transect.codegen.llvm.compile import assembly
from transect.hardware import find_target, intrinsic_table, this_machine
from transect.hardware.arm import TARGETS as ARM
from transect.hardware.x86 import TARGETS as X86
from transect.ir.expr import Call, StringImm, as_int
from transect.ir.function import IRModule
from transect.support.errors import InputError, UnsupportedError
from transect.target import Target
from transect.tir.interpret import interpret
from transect.tir.tensor_intrin import TensorIntrin, package_names
from transect.tir.transform.convert_blocks import ConvertBlocksToOpaque
from transect.tir.transform.flatten_buffer import FlattenBuffer
from transect.tir.transform.lower_init import LowerInit
from transect.tir.transform.lower_match_buffer import LowerMatchBuffer
from transect.tir.transform.lower_opaque_block import LowerOpaqueBlock
from transect.tir.visit import walk_terms
from transect.transform import Context, Pipeline

INTRINSICS = tuple(
    item
    for item in map(TensorIntrin.get, (*intrinsic_table(), *package_names()))
    # Tiles are no arguments of a function: see test_amx.
    if all(buffer.scope == "global" for buffer in item.description.buffers)
)
FLATTEN = Pipeline(
    LowerInit(), ConvertBlocksToOpaque(), LowerMatchBuffer(), LowerOpaqueBlock(), FlattenBuffer()
)
EACH = pytest.mark.parametrize("intrin", INTRINSICS, ids=lambda item: item.name)


def _arguments(intrin: TensorIntrin, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    for buffer in intrin.description.buffers:
        shape = [as_int(extent) or 0 for extent in buffer.shape]
        if buffer.dtype.is_float:
            # Halves of small integers: every sum is exact, in any order.
            values = rng.integers(-16, 17, shape) / 2
        else:
            low, high = int(buffer.dtype.min_value), int(buffer.dtype.max_value)
            values = rng.integers(low, high, shape, endpoint=True)
        found.append(values.astype(buffer.dtype.numpy))
    return found


def _copies(arrays: list[np.ndarray]) -> list[np.ndarray]:
    return [array.copy() for array in arrays]


def _instructions(intrin: TensorIntrin) -> set[str]:
    """LLVM's names for what the implementation calls."""
    names = {
        term.args[0].value
        for term in walk_terms(intrin.implementation.body)
        if isinstance(term, Call) and term.args and isinstance(term.args[0], StringImm)
    }
    assert names, f"{intrin.name} calls no instruction"
    return names


def _mnemonic(name: str, target: Target) -> str:
    """What the assembler calls it: the last part of LLVM's name that is no type or size."""
    parts = [part for part in name.split(".")[1:] if not re.fullmatch(r"v?\d+[a-z]*\d*", part)]
    word = parts[-1]
    if word == "wd":
        return "vpmaddwd"
    if word == "fma":
        return "fmla" if target.name == "arm" else "vfmadd"
    return word if word.startswith("v") or target.name == "arm" else f"v{word}"


def _target(intrin: TensorIntrin) -> Target:
    """A named target that has all that the intrinsic needs."""
    named = [*X86.values(), *ARM.values()]
    return next(target for target in named if not intrin.missing(target))


def test_there_are_intrinsics_of_every_kind() -> None:
    names = {intrin.name for intrin in INTRINSICS}
    assert len(names) == len(INTRINSICS)
    for part in ("fma_", "vpmaddwd", "vpdpbusd", "vdpbf16ps", "fmla", "sdot", "smmla"):
        assert any(part in name for name in names), part


@EACH
@pytest.mark.parametrize("seed", range(4))
def test_implementation_interpreted_agrees(intrin: TensorIntrin, seed: int) -> None:
    given = _arguments(intrin, seed)
    expected, ours = _copies(given), _copies(given)
    interpret(intrin.description, *expected)
    # Vectors that go on in the next row are plain loads of flat memory.
    interpret(FLATTEN(IRModule.of(main=intrin.implementation), Context()), *ours)
    for a, b in zip(expected, ours, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(given, expected, strict=True))


@EACH
def test_implementation_compiled_agrees(intrin: TensorIntrin) -> None:
    if intrin.missing(this_machine()):
        # Elsewhere it can be emitted only.
        target = _target(intrin)
        text = assembly(lower(intrin.implementation, target), target)
        for name in _instructions(intrin):
            assert re.search(rf"\b{_mnemonic(name, target)}", text), text
        return
    run = compiled(intrin.implementation, target=this_machine())
    for seed in range(20):
        given = _arguments(intrin, seed)
        expected, ours = _copies(given), _copies(given)
        interpret(intrin.description, *expected)
        run(*ours)
        for a, b in zip(expected, ours, strict=True):
            np.testing.assert_array_equal(a, b)


@EACH
def test_assembly_has_the_instruction(intrin: TensorIntrin) -> None:
    target = _target(intrin)
    text = assembly(lower(intrin.implementation, target), target)
    for name in _instructions(intrin):
        assert re.search(rf"\b{_mnemonic(name, target)}", text), text


def test_bfloat16_dot_product_rounds_like_its_description_up_to_order() -> None:
    intrin = TensorIntrin.get("x86.avx512_bf16.vdpbf16ps_16")
    if intrin.missing(this_machine()):
        pytest.skip("this processor has no bfloat16 dot product")
    rng = np.random.default_rng(0)
    a = rng.standard_normal(2).astype(ml_dtypes.bfloat16)
    b = rng.standard_normal((16, 2)).astype(ml_dtypes.bfloat16)
    c = rng.standard_normal(16).astype(np.float32)
    expected, ours = c.copy(), c.copy()
    interpret(intrin.description, a, b, expected)
    compiled(intrin.implementation, target=this_machine())(a, b, ours)
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


def test_code_generation_refuses_an_instruction_that_the_target_lacks() -> None:
    intrin = TensorIntrin.get("x86.avx512_vnni.vpdpbusd_16")
    target = find_target("x86-avx2")
    with pytest.raises(
        UnsupportedError, match=r"vpdpbusd\.512 needs avx512_vnni, which x86-x86-64"
    ):
        assembly(lower(intrin.implementation, target), target)


def test_code_generation_refuses_an_instruction_of_another_kind() -> None:
    intrin = TensorIntrin.get("arm.dotprod.sdot_4")
    target = find_target("x86-icelake")
    with pytest.raises(UnsupportedError, match="is an instruction of arm"):
        assembly(lower(intrin.implementation, target), target)


def test_an_unknown_name_says_what_is_near() -> None:
    with pytest.raises(InputError, match=r"no tensor intrinsic 'x86\.avx512_vnni\.vpdpbusd'") as e:
        TensorIntrin.get("x86.avx512_vnni.vpdpbusd")
    assert "x86.avx512_vnni.vpdpbusd_16" in str(e.value)
    assert TensorIntrin.get("nothing", allow_missing=True) is None
