"""Graph passes as TVMScript: the program before, the program expected."""
# Embedded programs name every value that they return, and bind some that nothing uses.
# ruff: noqa: RET504, F841

import numpy as np

from tests.relax.programs import assert_same
from transect.relax.interpret import interpret
from transect.relax.transform.canonicalize import Canonicalize
from transect.relax.transform.dead_code_elimination import DeadCodeElimination
from transect.relax.transform.eliminate_common_subexpr import EliminateCommonSubexpr
from transect.relax.transform.fuse_tir import FuseOps
from transect.relax.transform.lambda_lift import LambdaLift
from transect.relax.transform.legalize_ops import LegalizeOps
from transect.relax.transform.to_non_dataflow import ToNonDataflow
from transect.relax.verify import verify_module
from transect.relax.visit import copy_with_fresh_vars
from transect.script import ir as I
from transect.script import parse, script
from transect.script import relax as R
from transect.script import tir as T
from transect.transform.base import Pipeline


def check(step, before, expected):
    verify_module(before)
    after = step(before)
    verify_module(after)
    assert_same(after, expected)


def test_copies_and_equal_values_are_gone_after_clean_up():
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor(("n", "m"), "float32")) -> R.Tensor(("n", "m"), "float32"):
            with R.dataflow():
                a = R.exp(x)
                b = R.exp(x)
                c = b
                unused = R.tanh(a)
                gv = R.add(a, c)
                R.output(gv)
            return gv

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor(("n", "m"), "float32")) -> R.Tensor(("n", "m"), "float32"):
            with R.dataflow():
                a = R.exp(x)
                gv = R.add(a, a)
                R.output(gv)
            return gv

    check(
        Pipeline(EliminateCommonSubexpr(), Canonicalize(), DeadCodeElimination()), Before, Expected
    )


def test_a_cast_to_what_is_known_is_no_cast():
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor(("n", 4), "float32")):
            k = T.int64()
            with R.dataflow():
                y = R.match_cast(x, R.Tensor((k, 4), "float32"))
                gv = R.reshape(y, R.shape([k * 4]))
                R.output(gv)
            return gv

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor(("n", 4), "float32")):
            n = T.int64()
            with R.dataflow():
                gv = R.reshape(x, R.shape([n * 4]))
                R.output(gv)
            return gv

    check(Canonicalize(), Before, Expected)


def test_operators_become_tensor_programs():
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor(("n", "m"), "float32"), y: R.Tensor(("m",), "float32")):
            with R.dataflow():
                gv = R.add(x, y)
                R.output(gv)
            return gv

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor(("n", "m"), "float32"), y: R.Tensor(("m",), "float32")):
            n, m = T.int64(), T.int64()
            cls = Expected
            with R.dataflow():
                gv = R.call_tir(cls.add, (x, y), out_sinfo=R.Tensor((n, m), "float32"))
                R.output(gv)
            return gv

        @T.prim_func(private=True)
        def add(
            x: T.Buffer(("n", "m"), "float32"),
            y: T.Buffer(("m",), "float32"),
            z: T.Buffer(("n", "m"), "float32"),
        ):
            n, m = T.int64(), T.int64()
            for i, j in T.grid(n, m):
                with T.block("z"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    T.reads(x[vi, vj], y[vj])
                    T.writes(z[vi, vj])
                    z[vi, vj] = x[vi, vj] + y[vj]

    check(LegalizeOps(), Before, Expected)


def test_a_tensor_program_and_an_operator_are_fused():
    @I.ir_module
    class Before:
        @T.prim_func(private=True)
        def double(x: T.Buffer(("n",), "float32"), y: T.Buffer(("n",), "float32")):
            n = T.int64()
            for i in range(n):
                with T.block("y"):
                    vi = T.axis.remap("S", [i])
                    y[vi] = x[vi] + x[vi]

        @R.function
        def main(x: R.Tensor(("k",), "float32")):
            k = T.int64()
            cls = Before
            with R.dataflow():
                a = R.call_tir(cls.double, (x,), out_sinfo=R.Tensor((k,), "float32"))
                gv = R.exp(a)
                R.output(gv)
            return gv

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor(("k",), "float32")):
            k = T.int64()
            cls = Expected
            with R.dataflow():
                gv = R.call_tir(cls.fused_double_exp, (x,), out_sinfo=R.Tensor((k,), "float32"))
                R.output(gv)
            return gv

        @T.prim_func(private=True)
        def fused_double_exp(x: T.Buffer(("k",), "float32"), y: T.Buffer(("k",), "float32")):
            k = T.int64()
            double = T.alloc_buffer((k,), "float32")
            for i in range(k):
                with T.block("y"):
                    vi = T.axis.remap("S", [i])
                    double[vi] = x[vi] + x[vi]
            for i in range(k):
                with T.block("y_1"):
                    vi = T.axis.remap("S", [i])
                    y[vi] = T.exp(double[vi])

    check(Pipeline(LegalizeOps(), FuseOps()), Before, Expected)


def test_a_nested_function_becomes_a_function_of_the_module():
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((4,), "float32"), y: R.Tensor((4,), "float32")) -> R.Tensor(
            (4,), "float32"
        ):
            @R.function
            def inner(z: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
                r = R.add(x, z)
                return r

            gv = inner(y)
            return gv

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((4,), "float32"), y: R.Tensor((4,), "float32")) -> R.Tensor(
            (4,), "float32"
        ):
            cls = Expected
            gv = cls.main_inner(y, x)
            return gv

        @R.function(private=True)
        def main_inner(z: R.Tensor((4,), "float32"), x: R.Tensor((4,), "float32")) -> R.Tensor(
            (4,), "float32"
        ):
            r = R.add(x, z)
            return r

    check(LambdaLift(), Before, Expected)


def test_dataflow_blocks_become_ordinary_bindings():
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor(("n",), "float32")):
            with R.dataflow():
                a = R.exp(x)
                gv = R.tanh(a)
                R.output(gv)
            y = R.exp(gv)
            return y

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor(("n",), "float32")):
            a = R.exp(x)
            gv = R.tanh(a)
            y = R.exp(gv)
            return y

    check(ToNonDataflow(), Before, Expected)


NESTED = """
@I.ir_module
class Module:
    @R.function
    def main(x: R.Tensor(("n",), "float32"), k: R.Tensor((), "int64")) -> R.Tensor(("n",), "float32"):
        n = T.int64()
        @R.function
        def again(u: R.Tensor((n,), "float32"), j: R.Tensor((), "int64")) -> R.Tensor((n,), "float32"):
            c = R.less_equal(j, R.const(0, "int64"))
            if c:
                r = R.add(u, x)
            else:
                r = again(R.add(u, x), R.subtract(j, R.const(1, "int64")))
            return r
        return again(x, k)
"""  # noqa: E501


def test_a_nested_function_may_call_itself():
    module = parse(NESTED)
    verify_module(module)
    assert_same(parse(script(module)), module)
    copied = module.with_function("main", copy_with_fresh_vars(module["main"]))
    verify_module(copied)
    assert_same(copied, module)
    lifted = LambdaLift()(module)
    verify_module(lifted)
    x, k = np.arange(3, dtype=np.float32), np.array(2)
    for program in (module, copied, lifted):
        np.testing.assert_array_equal(interpret(program, "main", x, k), x * 4)
