"""An instruction of one's own: declared here, found by the compiler, used in a model.

VPMADDWD multiplies pairs of 16-bit integers and adds the two products of each pair. Nothing in
transect takes such integers to it: below is what is computed and how, and that is all there is to
say. Run it with `python examples/new_intrinsic.py`.
"""

import numpy as np

import transect
from transect.hardware import this_machine

# fmt: off
from transect.script import relax as R
from transect.script import tir as T


# What it computes: loops around one block.
@T.prim_func
def description(A: T.Buffer((2,), "int16"),
                B: T.Buffer((8, 2), "int16"),
                C: T.Buffer((8,), "int32")):
    with T.block("root"):
        T.reads(C[0:8], A[0:2], B[0:8, 0:2])
        T.writes(C[0:8])
        for i, k in T.grid(8, 2):
            with T.block("update"):
                vi, vk = T.axis.remap("SR", [i, k])
                C[vi] += T.cast(A[vk], "int32") * T.cast(B[vi, vk], "int32")


# How it is called: the pair goes to all lanes, as one integer of 32 bits.
@T.prim_func
def implementation(A: T.Buffer((2,), "int16"),
                   B: T.Buffer((8, 2), "int16"),
                   C: T.Buffer((8,), "int32")):
    with T.block("root"):
        T.reads(C[0:8], A[0:2], B[0:8, 0:2])
        T.writes(C[0:8])
        C[0:8] = C.vload([0], "int32x8") + T.call_llvm_pure_intrin(
            "int32x8", "llvm.x86.avx2.pmadd.wd",
            T.reinterpret("int16x16", T.broadcast(
                T.reinterpret("int32", A.vload([0], "int16x2")), 8)),
            B.vload([0, 0], "int16x16"))


VPMADDWD = transect.TensorIntrin("example.vpmaddwd", description, implementation,
                                 target="x86", requires={"avx2"}, rate=2.0)


def model(rows: int, depth: int, width: int, columns: int):
    """Two layers of 16-bit integers; the 32-bit sums between are shifted back to 16 bits."""
    random = np.random.default_rng(0)
    first, second = (random.integers(-99, 100, shape, np.int16)
                     for shape in ((depth, width), (width, columns)))
    W1, W2 = R.const(first), R.const(second)

    @R.function
    def main(x: R.Tensor((rows, depth), "int16")):
        with R.dataflow():
            h = R.matmul(x, W1, out_dtype="int32")
            s = R.astype(R.right_shift(h, R.const(7, "int32")), "int16")
            y = R.matmul(s, W2, out_dtype="int32")
            R.output(y)
        return y
    return main, first, second
# fmt: on


def main() -> None:
    function, first, second = model(64, 96, 128, 40)
    if VPMADDWD.missing(this_machine()):
        print(f"this processor lacks {', '.join(VPMADDWD.missing(this_machine()))}")
        return
    compiled = transect.compile(function, intrinsics=[VPMADDWD])
    for line in str(compiled.explain()).splitlines():
        if "instruction" in line:
            print(line)
    x = np.random.default_rng(1).integers(-99, 100, (64, 96), np.int16)
    hidden = (x.astype(np.int32) @ first.astype(np.int32)) >> 7
    expected = hidden.astype(np.int16).astype(np.int32) @ second.astype(np.int32)
    assert np.array_equal(np.asarray(compiled(x)), expected)
    print("the result is that of numpy, bit for bit")


if __name__ == "__main__":
    main()
