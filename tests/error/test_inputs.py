"""Wrong and unusual inputs of a compiled model: a clear error or the right answer."""

import re
import subprocess
import sys

import numpy as np
import pytest

import transect
from transect.driver import CompiledModel
from transect.runtime import register_function
from transect.script import ir as I
from transect.script import relax as R
from transect.script import tir as T
from transect.support.errors import InputError, InputTypeError

n, m, d = T.symbolic("n", "m", "d")


@I.ir_module
class Dense:
    """x @ w + b over three dynamic dimensions, two of them shared by two inputs."""

    @R.function
    def main(
        x: R.Tensor[(n, d), "float32"],
        w: R.Tensor[(d, m), "float32"],
        b: R.Tensor[(m,), "float32"],
    ):
        with R.dataflow():
            y = R.add(R.matmul(x, w), b)
            R.output(y)
        return y


@I.ir_module
class Square:
    """Both dimensions of an input are one."""

    @R.function
    def main(x: R.Tensor[(n, n), "float64"], fixed: R.Tensor[(n, 3), "float64"]):
        with R.dataflow():
            y = R.matmul(x, fixed)
            R.output(y)
        return y


@I.ir_module
class Updating:
    """A program that writes to its input."""

    @R.function
    def main(x: R.Tensor[(n, 4), "float32"]):
        R.call_packed("tests.error.increment", x)
        return R.add(x, x)


@register_function("tests.error.increment")
def increment(array: np.ndarray) -> None:
    array += 1


@T.prim_func
def add_one(X: T.Buffer[(n, 4), "float32"], Y: T.Buffer[(n, 4), "float32"]):
    for i, j in T.grid(n, 4):
        with T.block("add"):
            vi, vj = T.axis.remap("SS", [i, j])
            Y[vi, vj] = X[vi, vj] + T.float32(1)


@pytest.fixture(scope="module")
def dense() -> CompiledModel:
    return transect.compile(Dense)


@pytest.fixture(scope="module")
def square() -> CompiledModel:
    return transect.compile(Square)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


X, W, B = floats(4, 5), floats(5, 3), floats(3)
TAKES = "note: it takes: x: float32 (n, d), w: float32 (d, m), b: float32 (m,)"


def check(model: CompiledModel, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> None:
    result = model(x, w, b)
    assert result.dtype == np.float32
    wanted = np.asarray(x, np.float64) @ np.asarray(w, np.float64) + np.asarray(b, np.float64)
    np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)


# --- names and numbers of inputs ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        ((), {}, "missing inputs: 'x', 'w', 'b'"),
        ((X, W), {}, "missing inputs: 'b'"),
        ((X,), {"b": B}, "missing inputs: 'w'"),
        ((X, W, B, B), {}, "main takes 3 inputs, got 4"),
        ((X, W), {"bias": B}, "no input is named 'bias'"),
        ((X, W, B), {"x": X}, "given by position and by name: 'x'"),
        ((), {"X": X, "W": W, "b": B}, "no input is named 'X', 'W'"),
    ],
)
def test_names_and_numbers(dense: CompiledModel, arguments, named, message: str) -> None:
    with pytest.raises(InputError) as caught:
        dense(*arguments, **named)
    assert caught.value.message == message
    assert TAKES in str(caught.value)


def test_names_in_any_order(dense: CompiledModel) -> None:
    np.testing.assert_array_equal(dense(b=B, x=X, w=W), dense(X, W, B))


# --- ranks, dtypes, shapes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((floats(4), W, B), "'x' has 1 dimensions, expected 2: float32 (n, d)"),
        ((floats(4, 5, 1), W, B), "main: argument 0 'x' must have 2 dimensions, got 3"),
        ((X, W, np.float32(3)), "main: argument 2 'b' must have 1 dimension, got 0"),
        ((X, W, floats(1, 3)), "main: argument 2 'b' must have 1 dimension, got 2"),
        (
            (X, floats(6, 3), B),
            "main: argument 1 'w': dimension 0 is 6, but 'd' is 5 (from argument 0 'x')",
        ),
        (
            (X, W, floats(4)),
            "main: argument 2 'b': dimension 0 is 4, but 'm' is 3 (from argument 1 'w')",
        ),
        (
            (X, W, floats(1)),
            "main: argument 2 'b': dimension 0 is 1, but 'm' is 3 (from argument 1 'w')",
        ),
        (
            (floats(4, 0), W, B),
            "main: argument 1 'w': dimension 0 is 5, but 'd' is 0 (from argument 0 'x')",
        ),
    ],
)
def test_ranks_and_shapes_that_contradict_each_other(
    dense: CompiledModel, arguments, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dense(*arguments)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            ((3, 4), (3, 3)),
            "main: argument 0 'x': dimension 1 is 4, but 'n' is 3 (from argument 0 'x')",
        ),
        (
            ((3, 3), (4, 3)),
            "main: argument 1 'fixed': dimension 0 is 4, but 'n' is 3 (from argument 0 'x')",
        ),
        (((3, 3), (3, 2)), "main: argument 1 'fixed': dimension 1 is 2, expected 3"),
    ],
)
def test_a_dimension_that_occurs_twice_in_an_input(
    square: CompiledModel, shapes, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        square(*(np.zeros(shape) for shape in shapes))


@pytest.mark.parametrize(
    ("x", "message", "remedy"),
    [
        (X.astype(np.float64), "has dtype float64, expected float32 (n, d)", "x.astype('float32')"),
        (X.astype(np.float16), "has dtype float16, expected float32 (n, d)", "x.astype('float32')"),
        (X.astype(np.int32), "has dtype int32, expected float32 (n, d)", "x.astype('float32')"),
        (X > 0, "has dtype bool, expected float32 (n, d)", "x.astype('float32')"),
        (X.astype(np.complex64), "has dtype complex64, expected", "x.astype('float32')"),
        (X.astype(">f4"), "is not in native byte order", "x.astype('float32')"),
        (X.astype(object), "has dtype object, expected float32 (n, d)", "x.astype('float32')"),
        (X.astype("U8"), "has dtype <U8, expected float32 (n, d)", "x.astype('float32')"),
        (X.astype("M8[s]"), "has dtype datetime64[s], expected", "x.astype('float32')"),
        (np.zeros((4, 5), [("a", "f4")]), "expected float32 (n, d)", "x.astype('float32')"),
        (X.tolist(), "is a list, expected an array", "np.asarray(x, 'float32')"),
        (None, "is a NoneType, expected an array", "np.asarray(x, 'float32')"),
        ("x", "is a str, expected an array", "np.asarray(x, 'float32')"),
        (3.5, "is a float, expected an array", "np.asarray(x, 'float32')"),
        ((X, X), "is a tuple, expected an array", "np.asarray(x, 'float32')"),
    ],
)
def test_dtypes_and_types(dense: CompiledModel, x, message: str, remedy: str) -> None:
    with pytest.raises(InputTypeError) as caught:
        dense(x, W, B)
    assert caught.value.message.startswith("input 'x' ")
    assert message in caught.value.message
    assert caught.value.remedy == remedy


def test_a_model_is_as_good_as_before_after_an_error(dense: CompiledModel) -> None:
    for wrong in (floats(4), X.astype(np.float64), floats(4, 6)):
        with pytest.raises((ValueError, TypeError)):
            dense(wrong, W, B)
        check(dense, X, W, B)


# --- unusual, and right -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "depth", "columns"), [(0, 5, 3), (4, 0, 3), (4, 5, 0), (0, 0, 0), (0, 5, 0), (1, 1, 1)]
)
def test_empty_dimensions(dense: CompiledModel, rows: int, depth: int, columns: int) -> None:
    check(dense, floats(rows, depth), floats(depth, columns), floats(columns))


@pytest.mark.parametrize(
    "x",
    [
        np.asfortranarray(X),
        floats(5, 4).T,
        floats(8, 10)[::2, ::2],
        floats(4, 5)[::-1],
        floats(4, 5)[:, ::-1],
        floats(9, 7)[3:7, 1:6],
        np.broadcast_to(floats(5), (4, 5)),
        np.broadcast_to(np.float32(2), (4, 5)),
        np.lib.stride_tricks.sliding_window_view(floats(8), 5),
    ],
    ids=["fortran", "transposed", "strided", "up", "left", "cut", "rows", "scalar", "windows"],
)
def test_arrays_that_are_not_contiguous(dense: CompiledModel, x: np.ndarray) -> None:
    kept = x.copy()
    check(dense, x, W, B)
    np.testing.assert_array_equal(x, kept)


def test_arrays_that_are_not_aligned(dense: CompiledModel) -> None:
    raw = np.zeros(X.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(X.tobytes(), np.uint8)
    x = raw[1:].view(np.float32).reshape(X.shape)
    assert not x.flags.aligned
    check(dense, x, W, B)


def test_read_only_arrays(dense: CompiledModel) -> None:
    x, w = X.copy(), W.T.copy().T
    x.flags.writeable = w.flags.writeable = False
    check(dense, x, w, np.frombuffer(B.tobytes(), np.float32))


def test_one_array_for_several_inputs(square: CompiledModel) -> None:
    x = np.arange(9.0).reshape(3, 3)
    np.testing.assert_allclose(square(x, x), x @ x)


@pytest.mark.parametrize("kind", [np.matrix, np.ma.MaskedArray, np.memmap])
def test_subclasses_of_arrays(dense: CompiledModel, kind, tmp_path) -> None:
    if kind is np.memmap:
        x = np.memmap(tmp_path / "x", np.float32, "w+", shape=X.shape)
        x[:] = X
    else:
        x = X.view(kind)
    result = dense(x, W, B)
    assert type(result) is np.ndarray
    np.testing.assert_allclose(result, X @ W + B, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_not_a_number_and_infinity_come_through(dense: CompiledModel, special: float) -> None:
    x = X.copy()
    x[1, 2] = special
    result = dense(x, W, B)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(result, x @ W + B, rtol=1e-4, atol=1e-5)
    assert not np.isfinite(result[1]).any()


# --- programs that write to their inputs --------------------------------------------------------


def test_an_input_is_updated_in_place() -> None:
    model = transect.compile(Updating)
    x = np.zeros((3, 4), np.float32)
    np.testing.assert_array_equal(model(x), np.full((3, 4), 2, np.float32))
    np.testing.assert_array_equal(x, np.ones((3, 4), np.float32))


def test_a_strided_input_is_updated_in_place() -> None:
    model = transect.compile(Updating)
    whole = np.zeros((6, 8), np.float32)
    np.testing.assert_array_equal(model(whole[::2, ::2]), np.full((3, 4), 2, np.float32))
    wanted = np.zeros((6, 8), np.float32)
    wanted[::2, ::2] = 1
    np.testing.assert_array_equal(whole, wanted)


def test_a_read_only_array_is_not_written_to() -> None:
    x = np.zeros((3, 4), np.float32)
    x.flags.writeable = False
    for model, arguments, name in (
        (transect.compile(Updating), (x,), "x"),
        (transect.compile(add_one), (np.ones((3, 4), np.float32), x), "Y"),
    ):
        with pytest.raises(InputError) as caught:
            model(*arguments)
        assert caught.value.message == (
            f"input {name!r} is read-only, and the program writes to it"
        )
        assert caught.value.remedy == "pass a copy"
    np.testing.assert_array_equal(x, np.zeros((3, 4), np.float32))


def test_memory_that_is_written_to_and_read() -> None:
    memory = np.zeros((6, 4), np.float32)
    model = transect.compile(add_one)
    for source, result in ((memory[:3], memory[2:5]), (memory[:2], memory[:2])):
        with pytest.raises(InputError, match="inputs 'Y' and 'X' share memory") as caught:
            model(source, result)
        assert caught.value.remedy == "pass a copy"
    model(memory[:3], memory[3:])
    np.testing.assert_array_equal(memory[3:], np.ones((3, 4), np.float32))


# --- torch --------------------------------------------------------------------------------------

ABSENT = """
import sys
sys.modules["torch"] = None
import numpy as np
import transect
from tests.error.test_inputs import B, Dense, W, X, check
check(transect.compile(Dense), X, W, B)
"""


def test_torch_is_not_needed() -> None:
    """`import torch` raises in this process."""
    subprocess.run([sys.executable, "-W", "error", "-c", ABSENT], check=True, timeout=120)


@pytest.mark.torch
def test_torch_tensors_in_torch_tensors_out(dense: CompiledModel) -> None:
    torch = pytest.importorskip("torch")
    x, w, b = (torch.from_numpy(array) for array in (X, W, B))
    result = dense(x, w, b)
    assert isinstance(result, torch.Tensor)
    np.testing.assert_allclose(result.numpy(), X @ W + B, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="requires a gradient"):
        dense(x.clone().requires_grad_(), w, b)
    with pytest.raises(InputTypeError, match="has dtype float64, expected float32"):
        dense(x.double(), w, b)
