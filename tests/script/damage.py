"""Damaging valid scripts: what the parser must refuse with a message, or read as something else."""

# A program reads best in one piece, however long its lines.
# ruff: noqa: E501

from __future__ import annotations

import io
import tokenize
from typing import Any

from hypothesis import strategies as st

PROGRAMS = (
    '''
@I.ir_module
class Module:
    I.module_attrs({"a": 1})
    I.module_global_infos({"vdevice": [I.vdevice("llvm", 0), I.vdevice({"kind": "cuda"}, 0)]})

    @T.prim_func
    def mm(X: T.Buffer(("n", 16), "float32"), W: T.Buffer((16, "m"), "float32"), y: T.handle, k: T.int32):
        n, m = T.int64(), T.int64()
        Y = T.match_buffer(y, (n, m), "float32", offset_factor=1)
        T.func_attr({"tir.noalias": True, "x": [1, 2.5, "s"]})
        C = T.alloc_buffer((n, m), scope="shared")
        for i, j, r in T.grid(n, m, 16):
            with T.block("body"):
                vi, vj, vr = T.axis.remap("SSR", [i, j, r])
                T.reads(X[vi, vr], W[vr, vj])
                T.writes(C[vi, vj])
                T.where(i < n and not j >= m)
                with T.init():
                    C[vi, vj] = T.float32(0)
                C[vi, vj] += X[vi, vr] * T.max(W[vr, vj], 0.5)
        for i in T.thread_binding(0, n, thread="threadIdx.x"):
            if i % 2 == 0:
                Y[i, 0] = T.exp(C[i, 0])
            elif i > 3:
                Y[i, 0] = T.Select(i < 7, C[i, 0], T.float32(1e-3)) ** 2.0
            else:
                while k < 3:
                    T.evaluate(T.call_extern("int32", "f", k, i // 4))

    @R.function
    def main(x: R.Tensor(("n", 16), "float32"), w: R.Tensor((16, "m"), "float32"), c: R.Tensor((), "bool")) -> R.Object:
        n, m = T.int64(), T.int64()
        cls = Module
        R.func_attr({"k": 1})
        with R.dataflow():
            a = R.call_tir(cls.mm, (x, w), R.Tensor((n, m), "float32"), tir_vars=R.shape([n]))
            b: R.Tensor((n * m,), "float32") = R.flatten(a)
            d = R.sum(R.exp(b) + R.const([1.5], "float32"), axis=[-1], keepdims=True)
            e = R.match_cast(d, R.Tensor(("q",), "float32"))
            R.output(b, d, e)
        if c:
            g = R.nn.relu(b)
        else:
            g = R.concat((b, b), axis=0)[0:3] if False else b
        u, v = R.split(g, 2)
        @R.function
        def inner(z: R.Tensor(dtype="float32", ndim=1)) -> R.Tensor(dtype="float32", ndim=1):
            return z * 2
        R.call_packed("custom.update", u, R.prim_value(n * 2), R.str("s"), sinfo_args=R.Tuple)
        return (inner(u), (v, d))
''',
    '''
@T.prim_func(private=True)
def main(A: T.Buffer((16, 16), "float32"), B: T.Buffer((16,), "float16"), C: T.Buffer((16,), "int32"),
         p: T.handle, n: T.int64, f: T.float32):
    P = T.match_buffer(p, (16, "k"), "float32", strides=("s", 1), elem_offset="o", align=128, offset_factor=8)
    q = T.allocate([16], "float32", "local", annotations={"a": 1})
    Q = T.decl_buffer((4, 4), "float32", data=q, strides=(4, 1))
    with T.block("outer"):
        vi = T.axis.spatial(16, n)
        T.block_attr({"m": T.index_map(lambda i, j: (j, i // 4, i % 4)), "b": [T.int32(2), "x"]})
        M = T.match_buffer(A[vi, 0:16], (1, 16))
        C[vi] = T.cast(M[0, 3], "int32") + T.if_then_else(n < 3, T.int32(1), -2)
    with T.LetStmt(n + 1) as k:
        Q[k % 4, 0] = T.float32("inf")
    for t in T.vectorized(4):
        C[t] = C[T.min(t, 3)] << 2
    with T.attr(T.comm_reducer(lambda x, y: x + y, [T.float32(0)]), "reduce_scope", T.reinterpret("handle", T.uint64(0))):
        C[0:4] = T.Broadcast(T.int32(1), 4)
    z = T.bind(n * 3 - 7)
    T.Assert(z != 0, "zero", kind="TypeError")
    T.evaluate(T.tvm_access_ptr(T.type_annotation("float32"), A.data, 0, 16, 1))
    tx = T.env_thread("threadIdx.x")
    with T.launch_thread(tx, 16):
        P[tx, 0] = A[tx, 1] + f / 3.0
''',
)  # fmt: skip

_WORDS = (
    "T", "R", "I", "T.int64", "T.Buffer", "T.handle", "T.axis", "T.axis.remap", "R.Tensor", "R.add", "R.call_tir",
    "R.output", "T.block", "T.init", "T.let", "n", "A", "x", "cls", "Module", "self", "None", "True", "0", "-1", "1e400",
    "99999999999999999999999999", "2 ** 70", "1 << 9999", "0.5", "'a'", "'é∂🜁'", "b'x'", "f'{n}'", "...", "()", "[]", "{}",
    "(1, 2)", "{'a': 1}", "lambda: 0", "lambda i: i", "[i for i in range(3)]", "*x", "**x", "x := 3", "yield", "await x",
    "return", "pass", "break", "continue", "raise", "del A", "import os", "global n", "if", "else", ":", ",", ".", "(", ")",
    "[", "]", "=", "+=", "==", "//", "%", "@", "<<", "not", "and", "is", "in", "float('nan')", "complex(1, 2)", "1j", "print",
    "type(n)", "n.dtype", "A.data", "A.shape[0]", "x.shape", "T.Buffer((16,), 'float32')", "'float33'", "'float32'", "'q'",
    "T.grid()", "T.vectorized", "T.float32x4", "int", "object()", "range(10)", "range(3, 0)", "__import__", "i j", "été", "ℵ",
    "((((((((((1))))))))))", "-" * 60 + "1", "not " * 40 + "n",
)  # fmt: skip


def _tokens(text: str) -> list[tuple[int, int]]:
    """Start and end of each token of `text`."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = [
        (starts[item.start[0] - 1] + item.start[1], starts[item.end[0] - 1] + item.end[1])
        for item in tokenize.generate_tokens(io.StringIO(text).readline)
        if item.string.strip()
    ]
    return [pair for pair in found if pair[0] < pair[1]]


_TOKENS = {text: _tokens(text) for text in PROGRAMS}


@st.composite
def damaged(draw: Any) -> str:
    """A script with one to three mistakes."""
    text = draw(st.sampled_from(PROGRAMS))
    edits = []
    for _ in range(draw(st.integers(1, 3))):
        start, end = draw(st.sampled_from(_TOKENS[text]))
        word = draw(st.one_of(st.sampled_from(_WORDS), st.text(max_size=3)))
        other_start, other_end = draw(st.sampled_from(_TOKENS[text]))
        new = draw(st.sampled_from(("", word, f"{text[start:end]} {text[start:end]}",
                                    text[other_start:other_end], f"({text[start:end]}, {word})")))  # fmt: skip
        edits.append((start, end, new))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    lines = text.split("\n")
    if draw(st.integers(0, 2)) == 0:
        at = draw(st.integers(0, len(lines) - 1))
        action = draw(st.sampled_from(("drop", "double", "move", "indent", "dedent")))
        line = lines[at]
        if action == "drop":
            del lines[at]
        elif action == "double":
            lines.insert(at, line)
        elif action == "move":
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
        elif action == "indent":
            lines[at] = "    " + line
        else:
            lines[at] = line.removeprefix("    ")
    return "\n".join(lines)
