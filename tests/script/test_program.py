"""Whole programs: decorated Python, text and files; constants, spans, captured values, dumps."""

# Annotations of embedded programs hold strings, which are no forward references.

from pathlib import Path

import numpy as np
import pytest

from transect.ir.expr import Add, IntImm, Sub, Var, as_expr, false, true
from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.ir.structural import structural_equal, structural_hash, structural_mismatch
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.op.elementwise import Exp
from transect.script import ir as I
from transect.script import load_constants, parse, parse_file, save_constants, script
from transect.script import relax as R
from transect.script import tir as T
from transect.support.errors import InputError, ScriptError
from transect.support.span import Span
from transect.tir.buffer import buffer
from transect.tir.function import PrimFunc
from transect.tir.stmt import BlockRealize, Evaluate, For, SeqStmt, seq

n, m, d = T.symbolic("n", "m", "d")


@I.ir_module
class MyIRModule:
    @T.prim_func
    def tir_mm(
        X: T.Buffer[(n, d), "float32"],
        W: T.Buffer[(d, m), "float32"],
        Y: T.Buffer[(n, m), "float32"],
    ):
        for i, j, k in T.grid(n, m, d):
            with T.block("body"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                with T.init():
                    Y[vi, vj] = 0
                Y[vi, vj] += X[vi, vk] * W[vk, vj]

    @R.function
    def relax_func(x: R.Tensor[(n, d), "float32"], w: R.Tensor[(d, m), "float32"]):
        with R.dataflow():
            lv0: R.Tensor[(n, m), "float32"] = R.call_dps((n, m), tir_mm, [x, w])
            lv1: R.Tensor[(n * m,), "float32"] = R.flatten(lv0)
            gv0: R.Tensor[(n * m,), "float32"] = R.exp(lv1)
        R.call_packed("custom_inplace_update", gv0)
        return gv0


TEXT = """from transect.script import ir as I, relax as R, tir as T


@I.ir_module
class Module:
    @T.prim_func
    def tir_mm(
        X: T.Buffer(("n", "d"), "float32"),
        W: T.Buffer(("d", "m"), "float32"),
        Y: T.Buffer(("n", "m"), "float32"),
    ):
        for i, j, k in T.grid(n, m, d):
            with T.block("body"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                T.reads(X[vi, vk], W[vk, vj])
                T.writes(Y[vi, vj])
                with T.init():
                    Y[vi, vj] = 0.0
                Y[vi, vj] = Y[vi, vj] + X[vi, vk] * W[vk, vj]

    @R.function(pure=False)
    def relax_func(
        x: R.Tensor(("n", "d"), "float32"),
        w: R.Tensor(("d", "m"), "float32"),
    ) -> R.Tensor(("n * m",), "float32"):
        with R.dataflow():
            lv0: R.Tensor((n, m), "float32") = R.call_tir(cls.tir_mm, (x, w), out_sinfo=R.Tensor((n, m), "float32"))
            lv1: R.Tensor((n * m,), "float32") = R.flatten(lv0)
            gv0: R.Tensor((n * m,), "float32") = R.exp(lv1)
            R.output(gv0)
        _: R.Object = R.call_packed("custom_inplace_update", gv0)
        return gv0
"""  # noqa: E501


def test_seed_program_prints_as_a_python_program() -> None:
    assert script(MyIRModule) == TEXT
    assert repr(MyIRModule) == TEXT


def test_seed_program_parses_back_equal() -> None:
    again = parse(TEXT)
    assert structural_mismatch(MyIRModule, again) is None
    assert structural_hash(MyIRModule) == structural_hash(again)


def test_printed_program_runs_as_a_python_file(tmp_path: Path) -> None:
    path = tmp_path / "dump.py"
    path.write_text(TEXT)
    scope: dict[str, object] = {"__name__": "dump"}
    exec(compile(TEXT, str(path), "exec"), scope)
    assert structural_equal(scope["Module"], MyIRModule)
    assert structural_equal(parse_file(path), MyIRModule)


def test_two_functions_have_variables_of_their_own() -> None:
    program, graph = MyIRModule["tir_mm"], MyIRModule["relax_func"]
    assert isinstance(program, PrimFunc)
    assert isinstance(graph, rx.Function)
    rows = program.buffers[0].shape[0]
    assert isinstance(rows, Var)
    assert rows is not n
    assert rows is not graph.params[0].type.shape[0]  # pyright: ignore[reportAttributeAccessIssue]


# --- what is captured ------------------------------------------------------------------------

SIZE = 16


def _scaled(value: T.Var, factor: int) -> object:
    return value * factor


def test_enclosing_python_values_are_captured() -> None:
    extent, kind, offsets = 4, "float16", [1, 2]

    @T.prim_func
    def func(A: T.Buffer((SIZE, extent), kind)):
        for i in range(SIZE - sum(o for o in offsets)):
            A[_scaled(i, 1), offsets[1]] = A[i, len(offsets)] + T.Cast(kind, extent * 1.0)
            if kind == "float32":
                A[0, 0] = T.float16(7)

    expected = parse("""
@T.prim_func
def func(A: T.Buffer((16, 4), "float16")):
    for i in range(13):
        A[i, 2] = A[i, 2] + T.float16(4)
""")
    # A helper of Python runs while the function is parsed: i * 1 is the product, not folded.
    text = script(func).replace("A[i * 1, 2]", "A[i, 2]")
    assert structural_mismatch(parse(text), expected) is None


def test_class_inside_a_function_sees_its_variables() -> None:
    def build(size: int) -> IRModule:
        @I.ir_module
        class Inner:
            @T.prim_func
            def f(A: T.Buffer((size,), "int32")):
                A[size - 1] = size

        return Inner

    assert "A[4] = 5" in script(build(5))
    assert "A[6] = 7" in script(build(7))


def test_definition_without_source_is_refused() -> None:
    scope: dict[str, object] = {"T": T}
    with pytest.raises(ScriptError, match="the source of 'f' is not available") as caught:
        exec("@T.prim_func\ndef f(A: T.Buffer((4,), 'int8')):\n    A[0] = 1\n", scope)
    assert "transect.script.parse" in str(caught.value)


# --- spans -----------------------------------------------------------------------------------


def test_statements_know_their_place_in_the_file() -> None:
    program = MyIRModule["tir_mm"]
    assert isinstance(program, PrimFunc)
    assert isinstance(program.body, BlockRealize)
    loop = program.body.block.body
    assert isinstance(loop, For)
    (span,) = loop.span
    assert isinstance(span, Span)
    assert Path(span.file).name == "test_program.py"
    assert span.source_line() == "        for i, j, k in T.grid(n, m, d):"
    graph = MyIRModule["relax_func"]
    assert isinstance(graph, rx.Function)
    binding = graph.body.blocks[0].bindings[1]
    (span,) = binding.span
    assert isinstance(span, Span)
    assert span.source_line() == '            lv1: R.Tensor[(n * m,), "float32"] = R.flatten(lv0)'


def test_spans_of_text_hold_their_lines() -> None:
    func = parse('@T.prim_func\ndef f(A: T.Buffer((4,), "int8")):\n    A[0] = 1\n', file="given.py")
    assert isinstance(func, PrimFunc)
    assert func.body.span == (Span("given.py", 3, 4, 3, 12, "    A[0] = 1"),)


# --- constants -------------------------------------------------------------------------------


def _with_constants(*arrays: np.ndarray) -> IRModule:
    builder = BlockBuilder()
    with builder.function("main", ()):
        values = [builder.emit(Exp()(rx.constant(item))) for item in arrays]
        builder.emit_func_output(rx.make_tuple(*values))
    return builder.module


def test_small_constants_are_written_out() -> None:
    values = (1.5, [[1.0, -0.0], [3.0, 1e-30]], [0.1] * 16)
    module = _with_constants(
        *(np.array(v, np.float32) for v in values), np.zeros((0, 3), np.float32)
    )
    text = script(module)
    assert "I.constant(" not in text
    assert structural_mismatch(module, parse(text)) is None


def test_large_constants_are_references(tmp_path: Path) -> None:
    large = np.arange(100, dtype=np.float32).reshape(10, 10)
    odd = np.array([float("nan"), float("inf")], np.float32)
    half = rx.constant(np.linspace(0, 1, 50), "bfloat16").data
    module = _with_constants(large, large.copy(), odd, half, np.zeros((40,), np.float16))
    constants: dict[str, np.ndarray] = {}
    text = script(module, constants=constants, constants_file="constants.npz")
    assert len(constants) == 4
    assert all(text.count(name) >= 1 for name in constants)
    assert structural_mismatch(module, parse(text, constants=constants)) is None
    save_constants(tmp_path / "constants.npz", constants)
    (tmp_path / "dump.py").write_text(text)
    assert structural_mismatch(module, parse_file(tmp_path / "dump.py")) is None
    loaded = load_constants(tmp_path / "constants.npz")
    assert {k: (v.dtype, v.shape) for k, v in loaded.items()} == {
        k: (v.dtype, v.shape) for k, v in constants.items()
    }
    with pytest.raises(ScriptError, match="is not in the text"):
        parse(script(module))


def test_file_of_constants_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "constants.npz"
    with pytest.raises(InputError, match="no file of constants"):
        load_constants(path)
    path.write_bytes(b"PK\x03\x04 truncated")
    with pytest.raises(InputError, match="is no file of constants"):
        load_constants(path)


# --- what a printer gets wrong easily --------------------------------------------------------


def _round_trip(func: PrimFunc) -> str:
    text = script(func)
    assert structural_mismatch(func, parse(text)) is None, text
    return text


def _func(*stmts: object, params: tuple[Var, ...] = ()) -> PrimFunc:
    return PrimFunc(params, {}, seq(*stmts), {"global_symbol": "main"})  # pyright: ignore[reportArgumentType]


def test_unfolded_constants_stay_unfolded() -> None:
    text = _round_trip(_func(Evaluate(Sub(IntImm(2), IntImm(3))), Evaluate(Add(false(), true()))))
    assert "T.evaluate(T.Sub(2, 3))" in text
    assert "T.evaluate(T.Add(False, True))" in text


def test_parentheses_keep_the_tree() -> None:
    a, b, c = Var("a"), Var("b"), Var("c")
    terms = [a - (b - c), (a - b) - c, a * (b + c), (a + b) * c, a // (b // c), a % b % c, -(b - a)]
    terms += [
        (a < b) & ((b < c) & (c < a)),
        (a < b) & (b < c) & (c < a),
        ~((a < b) | (b < c)) & (a < c),
    ]
    text = _round_trip(_func(*map(Evaluate, terms), params=(a, b, c)))
    assert "T.evaluate(a - (b - c))" in text


def test_names_that_python_cannot_use_are_changed() -> None:
    names = ["lambda", "a.b", "1x", "T", "len", "x", "x", "x_1", "cls", "é"]
    variables = tuple(Var(name) for name in names)
    total = variables[0] + 0
    for var in variables[1:]:
        total = total + var
    text = _round_trip(_func(Evaluate(total), params=variables))
    assert "lambda_: T.int64, a_b: T.int64" in text.replace(",\n    ", ", ")


def test_nested_sequences_keep_their_scope() -> None:
    inner = SeqStmt((Evaluate(as_expr(1)), SeqStmt((Evaluate(as_expr(2)),)), SeqStmt(())))
    func = PrimFunc((), {}, SeqStmt((inner, Evaluate(as_expr(3)))), {})
    assert script(func).count("with T.scope():") == 3
    _round_trip(func)


def test_shared_variable_of_two_functions_compares_by_function() -> None:
    dim = Var("n")
    one = PrimFunc((p := Var("p", "handle"),), {p: buffer("A", (dim,))}, Evaluate(dim), {})
    two = replace(one, body=Evaluate(dim + 1))
    module = IRModule.of(one=one, two=two)
    again = parse(script(module))
    assert structural_mismatch(module, again) is None
    assert structural_hash(module) == structural_hash(again)


def test_one_sided_reads_are_completed() -> None:
    func = parse("""
@T.prim_func
def f(A: T.Buffer((16, 16), "float32"), B: T.Buffer((16,), "float32")):
    for i in range(16):
        with T.block("b"):
            vi = T.axis.spatial(16, i)
            T.writes(B[vi])
            B[vi] = A[vi, 0]
            for k in range(1, 16):
                B[vi] = B[vi] + A[vi, k]
""")
    assert "T.reads(A[vi, 0:16], B[vi])" in script(func)
