"""Programs that parse and mean nothing: the verifiers refuse them and say why."""

# A snippet a line reads best, however long.
# ruff: noqa: E501

import textwrap

import pytest

from transect.driver.verify import verify_module
from transect.ir.function import BaseFunc, IRModule
from transect.script import parse
from transect.support.errors import TransectError

PROGRAM = """
@T.prim_func(private=True)
def main(A: T.Buffer((16, 16), "float32"), C: T.Buffer((16,), "int32"), p: T.handle, n: T.int64, m: T.int32, f: T.float32):
"""

TENSOR_PROGRAMS = {
    # What stands in the program, and a part of what is said of it.
    "writes": ('with T.block("b"):\n    vi = T.axis.spatial(16, n)\n    T.reads()\n    T.writes(A[0, 0])\n    C[vi] = 1', "block b writes C and does not say so"),
    "writes of less": ('with T.block("b"):\n    vi = T.axis.spatial(15, n)\n    T.reads()\n    T.writes(C[vi])\n    C[vi + 1] = 1', "block b writes C outside the region it declares"),
    "reads": ('with T.block("b"):\n    vi = T.axis.spatial(16, n)\n    T.reads()\n    T.writes(C[vi])\n    C[vi] = T.Cast("int32", A[vi, 0])', "block b reads A and does not say so"),
    "init": ('with T.block("b"):\n    vk = T.axis.reduce(16, n)\n    with T.init():\n        C[vk] = 0\n    C[vk] = C[vk] + 1', "reduce iteration variable"),
    "thread_binding": ('for i in T.thread_binding(4, thread="threadIdx.x"):\n    for j in T.thread_binding(4, thread="threadIdx.x"):\n        C[i + j] = 1', "a loop over threadIdx.x inside another one"),
    "decl_buffer": ('with T.scope():\n    q = T.allocate([4], "int32")\nQ = T.decl_buffer((4,), "int32", data=q)\nQ[0] = 1', "not"),
    "scope": ('with T.scope():\n    k = T.bind(n + 1)\n    C[k] = 1\nC[k] = 1', "k"),
    "match_buffer": ('with T.block("b"):\n    M = T.match_buffer(A[0:4, 0:16], (4, 16), "int32")\n    M[0, 0] = 1', "M matches a region of float32"),
    "exp": ("T.evaluate(T.exp(m))", "exp"),
    "if_then_else": ("T.evaluate(T.if_then_else(m, n, n))", "if_then_else"),
    "Select": ("T.evaluate(T.Select(m, n, n))", "Select on int32, not bool"),
    "shift_left": ('T.evaluate(T.call_intrin("float32", "tir.shift_left", f, f))', "shift_left"),
    "Assert": ('T.Assert(n, "n")', "bool"),
    "while": ("while n:\n    C[0] = 1", "condition"),
    "store of a dtype": ("C[0] = f", "expected int32, got float32"),
    "index": ("C[f] = 1", "an index must be an integer"),
    "where": ('with T.block("b"):\n    T.where(n)\n    C[0] = 1', "a condition must be a bool"),
    "call_packed": ("T.evaluate(T.call_packed(n, 3))", "call_packed"),
}  # fmt: skip

GRAPH = """
@I.ir_module
class Module:
    @T.prim_func(private=True)
    def kernel(A: T.Buffer((16,), "float32"), B: T.Buffer((16,), "float32")):
        for i in range(16):
            with T.block("b"):
                vi = T.axis.spatial(16, i)
                B[vi] = A[vi] + 1.0

    @R.function(pure=True)
    def main(x: R.Tensor((16,), "float32"), y: R.Tensor(("n", 4), "float32"), c: R.Tensor((), "bool"), i: R.Tensor((), "int64")):
"""

GRAPHS = {
    "call_tir": ("return R.call_tir(cls.kernel, (y,), out_sinfo=R.Tensor((16,), 'float32'))", "kernel"),
    "call_tir of a shape": ("return R.call_tir(cls.kernel, (x,), out_sinfo=R.Tensor((8,), 'float32'))", "kernel"),
    "call_tir of a dtype": ("return R.call_tir(cls.kernel, (x,), out_sinfo=R.Tensor((16,), 'int32'))", "kernel"),
    "call_tir_inplace": ("return R.call_tir_inplace(cls.kernel, (x, y), inplace_indices=[1], out_sinfo=R.Tensor((16,), 'float32'))", "overwrite"),
    "call_packed": ("R.call_packed('f', x)\nreturn x", "declared pure"),
    "call_packed in a dataflow block": ("with R.dataflow():\n    z = R.call_packed('f', x)\n    R.output(z)\nreturn z", "dataflow block"),
    "match_cast": ("z = R.match_cast(x, R.Tensor((4, 4), 'float32'))\nreturn z", "can never be"),
    "match_cast as an operand": ("return R.match_cast(x, R.Tensor((16,), 'float32'))", "stands alone"),
    "if": ("if i:\n    z = x\nelse:\n    z = x\nreturn z", "the condition of a branch is R.Tensor((), \"int64\"), not one bool"),
}  # fmt: skip


def _accept(text: str) -> None:
    made = parse(text, file="refused.py")
    assert isinstance(made, IRModule | BaseFunc)
    verify_module(made if isinstance(made, IRModule) else IRModule.of(main=made))


def _complaint(text: str) -> str:
    """What is said of the script, by the parser or by a verifier."""
    with pytest.raises(TransectError) as caught:
        _accept(text)
    shown = str(caught.value)
    assert "refused.py:" in shown, shown
    return shown


@pytest.mark.parametrize("name", TENSOR_PROGRAMS)
def test_tensor_program(name: str) -> None:
    body, part = TENSOR_PROGRAMS[name]
    assert part in _complaint(PROGRAM + textwrap.indent(body, "    ") + "\n")


@pytest.mark.parametrize("name", GRAPHS)
def test_graph(name: str) -> None:
    body, part = GRAPHS[name]
    assert part in _complaint(GRAPH + textwrap.indent(body, " " * 8) + "\n")
