"""Script with mistakes: each message says what is wrong, where, and what to do."""

# A snippet a line reads best, however long.
# ruff: noqa: E501

import textwrap

import pytest

from transect.script import parse
from transect.support.errors import ScriptError


def _errors(text: str) -> ScriptError:
    with pytest.raises(ScriptError) as caught:
        parse(textwrap.dedent(text), file="bad.py")
    return caught.value


def _tensor_program(body: str) -> ScriptError:
    head = 'def f(A: T.Buffer((16, 8), "float32"), B: T.Buffer((16,), "int32"), n: T.int64):\n'
    return _errors(
        f"@T.prim_func\n{head}{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"
    )


def _graph(body: str) -> ScriptError:
    head = 'def f(x: R.Tensor((16, "n"), "float32"), t: R.Tuple(R.Object)):\n'
    return _errors(f"@R.function\n{head}{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n")


def test_message_shows_file_line_text_caret_and_remedy() -> None:
    error = _tensor_program("for i in range(16):\n    A[i, 0] = Bb[i] + 1")
    assert str(error) == textwrap.dedent(
        """\
        the name 'Bb' is not defined
          --> bad.py:4:19
           |
         4 |         A[i, 0] = Bb[i] + 1
           |                   ^^
          help: did you mean 'B'?"""
    )


def test_several_errors_are_reported_at_once() -> None:
    error = _tensor_program(
        """
        A[0] = 1.0
        x = undefined_name + 1
        B[x] = 1
        T.exq(n)
        for i in range(4):
            A[i, 0] = T.max(n, i)
        """
    )
    assert [item.message for item in error.errors] == [
        "A has 2 dimensions, indexed with 1",
        "the name 'undefined_name' is not defined",
        "T has no 'exq'",
        "expected float32, got int64",
    ]
    assert str(error).startswith("4 errors in this script\n")
    assert str(error).count("  --> bad.py:") == 4


def test_errors_of_several_functions_are_reported_at_once() -> None:
    error = _errors(
        """
        @I.ir_module
        class Module:
            @T.prim_func
            def f(A: T.Buffer((4,), "float32")):
                A[0, 0] = 1.0
            @R.function
            def g(x: R.Tensor((4,), "float32")):
                y = R.exq(x)
                z = R.exp(y)
                return z
        """
    )
    assert [item.message for item in error.errors] == [
        "A has 1 dimensions, indexed with 2",
        "R has no 'exq'",
    ]


TENSOR_PROGRAMS = {
    "A[0] = 1.0": ("A has 2 dimensions, indexed with 1", "its shape is (16, 8)"),
    "A[0, 0] = B[0, 1]": ("B has 1 dimensions, indexed with 2", "its shape is (16)"),
    "A[0, 0] = n": ("expected float32, got int64", 'convert it: T.Cast("float32", ...)'),
    "B[0] = 1.5": ("1.5 is not of int32", "round it, or store to a float buffer"),
    "B[0] = 'x'": ("expected a value of int32, got str", 'store a number or a term'),
    "A[1.5, 0] = 1.0": ("an index must be an integer, got float", 'cast it: T.Cast("int64", ...)'),
    "T.evaluate(T.exq(n))": ("T has no 'exq'", "did you mean 'exp'?"),
    "T.evaluate(n / 2)": ("/ of int64 is ambiguous", "use // (floor) or truncdiv(a, b)"),
    "T.evaluate(T.exp(A[0, 0], 2))": ("T.exp takes 1 arguments, got 2", 'a dtype, where it takes one, is dtype='),
    "T.evaluate(nn)": ("the name 'nn' is not defined", "did you mean 'n'?"),
    "T.evaluate(A.shap)": ("a Buffer has no attribute 'shap'", "did you mean 'shape'?"),
    "for i in n:\n    pass": ("cannot loop over a value of int64", "use range, T.serial, T.grid, T.parallel, …"),
    "for i, j in range(4):\n    pass": ("2 names for 1 loops", 'one name for each loop'),
    "for i in range(0, 8, 2):\n    pass": ("a loop has no step", "scale the index instead"),
    "for i in range(4):\n    pass\nelse:\n    pass": ("a loop has no else", 'write it after the loop'),
    "for i in T.serial(1.5):\n    pass": ("the bounds of a loop must be integers, got float32", 'T.Cast("int64", ...) makes it one'),
    "for i in T.thread_binding(4):\n    pass": (
        "T.thread_binding needs thread=",
        'name the axis: thread="threadIdx.x"',
    ),
    "while n:\n    pass": ("a condition must be a bool, got int64", "compare it: x != 0"),
    "x = n + 1\nfor i in range(4):\n    x = x + 1": (
        "'x' is bound outside of this suite already; variables are bound once",
        'use a buffer for what changes: x = T.alloc_buffer((1,), "int64", scope="local")',
    ),
    "x = n\nx += 1": (
        "only elements of buffers can be updated; variables are bound once",
        'keep it in a buffer: T.alloc_buffer((1,), "float32", scope="local")',
    ),
    "x: T.float32 = n": ("expected float32, got int64", 'convert it: T.Cast("float32", ...)'),
    "n[0] = 1": ("cannot store to a value of int64", "only buffers have elements to store to"),
    "vi = T.axis.spatial(4, n)": ("T.axis stands in a block", 'open one: with T.block("name"):'),
    "T.reads(A[0, 0])": ("this stands in a block", 'open one: with T.block("name"):'),
    'with T.block("b"):\n    vi = T.axis.remap("S", [n])': (
        "T.axis.remap takes variables of loops around the block",
        "T.axis.spatial(extent, value) takes any value",
    ),
    'for i in range(4):\n    with T.block("b"):\n        vi = T.axis.remap("X", [i])': (
        "no kind of axis 'X'",
        "S (spatial) or R (reduce)",
    ),
    'for i in range(4):\n    with T.block("b"):\n        vi = T.axis.remap("SS", [i])': ("2 kinds for 1 loops", 'one letter of "SR" for each loop'),
    'with T.block("b"):\n    T.reads(A[0, 0])\n    T.reads(B[0])': (
        "T.reads stands once in a block",
        "give all regions in one call",
    ),
    'with T.block("b"):\n    T.reads(n)': (
        "n is not a part of a buffer",
        "write for example A[i, 0:16]",
    ),
    "with T.init():\n    pass": ("T.init() stands once in a block", 'put all statements into the one'),
    "with n:\n    pass": ("a value of int64 opens no scope", "with takes T.block, T.init, T.attr, …"),
    "P = T.match_buffer(n + 1, (4,))": (
        "only a handle parameter or a region can be matched",
        "declare the parameter as `a: T.handle`, or give a region: A[0:16, i]",
    ),
    "P = T.Buffer((4,))": ("a buffer in a body needs data=", "T.alloc_buffer(...) allocates one"),
    "P = T.alloc_buffer((-1,))": ("a dimension cannot be negative: -1", 'dimensions start at 0'),
    'P = T.alloc_buffer((4,), "float23")': (
        "no such dtype: float23x1",
        (
            "use bool, (u)int2/4/8/16/32/64, float16/32/64, bfloat16, or the formats of ml_dtypes: "
            "float8_e4m3fn, float4_e2m1fn, …"
        ),
    ),
    "import os": (
        "Import statements have no meaning in a tensor program",
        "statements are assignments, for, while, if, with and assert",
    ),
    "return": ("a tensor program returns nothing", "leave it out"),
    "T.grid(4)": ("a Loops does nothing as a statement", "assign it to a name, or leave it out"),
    "T.evaluate(1 + 'x')": ("+ of int and str", 'the operands are terms, or Python values that have it'),
    "T.evaluate([1, 2][5])": ("IndexError: list index out of range", 'this is evaluated as Python while the script is parsed'),
    "T.evaluate(lambda: (yield))": ("expected an expression or a number, got function", 'for example 3, 0.5, T.float32(1), or a variable'),
    'q = I.constant("float32_9_00")\nT.evaluate(0)': (
        "the constant 'float32_9_00' is not in the text",
        "give parse(text, constants=...) the mapping that script(...) filled",
    ),
}  # fmt: skip


@pytest.mark.parametrize("body", TENSOR_PROGRAMS)
def test_tensor_program(body: str) -> None:
    message, remedy = TENSOR_PROGRAMS[body]
    error = _tensor_program(body)
    assert len(error.errors) == 1, str(error)
    assert error.message == message
    assert error.remedy == remedy
    assert "  --> bad.py:" in str(error)
    assert "^" in str(error)


GRAPHS = {
    "return y": ("the name 'y' is not defined", 'define it before, or give it to the parser: parse(text, y=...)'),
    "y = R.nn.sofmax(x)\nreturn y": ("R.nn has no 'sofmax'", "did you mean 'softmax'?"),
    "y = R.Tensro(x)\nreturn y": ("R has no 'Tensro'", "did you mean 'Tensor'?"),
    "y = R.nn.softmax(x, axsi=1)\nreturn y": ("R.nn.softmax has no argument 'axsi'", "did you mean 'axis'?"),
    "y = R.call_dps_packed('k', (x,), R.Tensor((n,), 'float32'), zz=1)\nreturn y": (
        "R.call_dps_packed has no argument 'zz'",
        "R.call_dps_packed(f, (x, y), out_sinfo=R.Tensor(...), tir_vars=R.shape([...]))",
    ),
    "y = R.nn.softmax()\nreturn y": ("R.nn.softmax needs x", "R.nn.softmax(x, axis=-1)"),
    "y = R.nn.softmax(x, 1, 2)\nreturn y": (
        "R.nn.softmax takes 2 arguments, got 3",
        "R.nn.softmax(x, axis=-1)",
    ),
    "y = R.nn.softmax(x, x=x)\nreturn y": ("R.nn.softmax got 'x' twice", "R.nn.softmax(x, axis=-1)"),
    "y = R.nn.softmax(x, axis=n)\nreturn y": (
        "an attribute must be a constant, got n",
        "only operands may be symbolic",
    ),
    'y: R.Tensor((16, n), "int8") = R.exp(x)\nreturn y': (
        'the value is R.Tensor((16, n), "float32"), not R.Tensor((16, n), "int8")',
        "R.match_cast(value, type) checks at run time what is not known here",
    ),
    'y: R.Tensor((n, 16), "float32") = R.exp(x)\nreturn y': (
        'the value is R.Tensor((16, n), "float32"), not R.Tensor((n, 16), "float32")',
        "R.match_cast(value, type) checks at run time what is not known here",
    ),
    "y: 3 = R.exp(x)\nreturn y": (
        "int is no type",
        'for example R.Tensor((16,), "float32"), R.Tuple(...), R.Object',
    ),
    "y = R.exp(x)": ("'f' has no result", "end it with: return value"),
    "return x\ny = R.exp(x)": ("nothing may follow the result", "return comes last"),
    "with R.dataflow():\n    y = R.exp(x)\n    return y": (
        "the result of a function stands outside of dataflow blocks",
        'write return after the block, less indented',
    ),
    "with R.dataflow():\n    with R.dataflow():\n        y = R.exp(x)\nreturn y": (
        "a dataflow block inside another",
        "close the first one before",
    ),
    "R.output(x)\nreturn x": ("R.output stands in a dataflow block", "with R.dataflow():"),
    "with T.block('b'):\n    pass\nreturn x": ("only R.dataflow() opens a block in a graph function", 'write with R.dataflow():'),
    "for i in range(3):\n    y = x\nreturn x": (
        "For statements have no meaning in a graph function",
        "statements are assignments, with R.dataflow(), if and return",
    ),
    "if R.const(True):\n    y = x\nreturn x": ("a branch of a graph needs an else", "both sides give a value"),
    "if R.const(True):\n    y = x\nelse:\n    z = x\nreturn x": (
        "both sides of a branch assign their value to one name, last",
        'end both with the same name = value',
    ),
    "a, b = t\nreturn a": ("2 names for 1 values", 'as many of the one as of the other'),
    "y = t[3]\nreturn y": ("no item 3 in a value of type R.Tuple(R.Object)", None),
    "y = x[0]\nreturn y": ('no item 0 in a value of type R.Tensor((16, n), "float32")', None),
    "y = x(x)\nreturn y": ('a value of type R.Tensor((16, n), "float32") cannot be called', 'functions, operators and packed functions can'),
    'y = R.call_dps((4,), "f", [x])\nreturn y': (
        "the dtype of the result is not known",
        'give its type: R.Tensor((n, m), "float32")',
    ),
    "y = R.call_tir(x)\nreturn y": (
        "R.call_tir needs a function and its inputs",
        "R.call_tir(f, (x, y), R.Tensor(...))",
    ),
    'y = R.match_cast(x, R.Tensor((4,), "float32", ndim=2))\nreturn y': (
        "a shape of 1 dimensions with ndim=2",
        'drop ndim=: the shape says it',
    ),
    "y = cls.g(x)\nreturn y": ("the module has no function 'g'", 'there is: f'),
    "def g(y):\n    return y\nreturn x": (
        "a function inside a graph function is one itself",
        "write @R.function above it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("body", GRAPHS)
def test_graph(body: str) -> None:
    message, remedy = GRAPHS[body]
    error = _graph(body)
    assert len(error.errors) == 1, str(error)
    assert error.message == message
    assert error.remedy == remedy
    assert "  --> bad.py:" in str(error)


MODULES = {
    "def f():\n    pass": ("the function 'f' has no decorator", "write @T.prim_func or @R.function above it"),
    "@staticmethod\ndef f():\n    pass": (
        "'f' has @staticmethod, which makes no function of a module",
        "write @T.prim_func or @R.function above it",
    ),
    "@T.prim_func\ndef f(A):\n    pass": (
        "the parameter 'A' has no type",
        'for example T.Buffer((16,), "float32"), T.int64, T.handle',
    ),
    '@T.prim_func\ndef f(A: "float32"):\n    pass': ("the name 'float32' is not defined", 'define it before, or give it to the parser: parse(text, float32=...)'),
    "@T.prim_func\ndef f(A: 3):\n    pass": (
        "3 is no type of a parameter",
        'use T.Buffer((16,), "float32"), T.int64, T.handle',
    ),
    "@T.prim_func\ndef f(a: T.int64 = 3):\n    pass": (
        "parameters are positional and have no defaults",
        "name every parameter",
    ),
    "@R.function\ndef f(x):\n    return x": (
        "the parameter 'x' has no type",
        'for example R.Tensor((16,), "float32")',
    ),
    "@I.ir_module\nclass M:\n    x: int = 3": (
        "AnnAssign statements have no meaning in a module",
        "a module holds functions",
    ),
    "class M:\n    pass": ("the class 'M' is not decorated", "write @I.ir_module above it"),
    "x = 3": ("the text holds no definition", "write one class with @I.ir_module, or functions"),
    "import os\n@T.prim_func\ndef f():\n    pass": (
        "the text cannot import 'os'",
        "give it to the parser: parse(text, os=...)",
    ),
    "@T.prim_func\ndef f(:\n    pass": (
        "not valid Python: invalid syntax",
        "script is written in Python's syntax",
    ),
    'k = T.symbolic("k")\n@T.prim_func\ndef f(A: T.Buffer((4,), "int8")):\n    A[k] = 1': (
        "no parameter binds the symbolic variable 'k'",
        "use it as a dimension of a buffer parameter, or make it a parameter",
    ),
    "@I.ir_module\nclass M:\n    @T.prim_func\n    def f():\n        pass\n    @T.prim_func\n    def f():\n        pass": (
        "the module has a function 'f' already",
        'give one of them another name',
    ),
    "@I.ir_module\nclass M:\n    @R.function\n    def f(x: R.Object):\n        return cls.f(x)": (
        "the type of 'f' is needed before its body is known",
        "annotate the parameters and the result: -> R.Tensor(...)",
    ),
    '@I.ir_module\nclass M:\n    @T.prim_func\n    def k(A: T.Buffer((4,), "int8")):\n        pass\n    @R.function\n'
    '    def f(x: R.Tensor((4,), "int8")):\n        return R.call_dps((4,), k, [x])': (
        "k has 1 buffers: 0 outputs after 1 inputs, got 1 shapes",
        'inputs come first, then outputs, as in its parameters',
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", MODULES)
def test_module(text: str) -> None:
    message, remedy = MODULES[text]
    error = _errors(text)
    assert len(error.errors) == 1, str(error)
    assert error.message == message
    assert error.remedy == remedy


@pytest.mark.parametrize("text", ["", "\0", "(" * 500, "x" * 10, "@T.prim_func\n" * 3, "# nothing"])
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(ScriptError):
        parse(text)
