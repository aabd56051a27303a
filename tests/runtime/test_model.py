"""CompiledModel at the boundary, with an entry written in Python in place of compiled code."""

from __future__ import annotations

import threading

import ml_dtypes
import numpy as np
import pytest
import tvm_ffi

from transect.runtime import CompiledModel, Output, Parameter, Signature
from transect.runtime.arrays import to_numpy
from transect.support.errors import InputError, InputTypeError

MATMUL = Signature(
    "main",
    (
        Parameter("x", "tensor", "float32", ("n", "d")),
        Parameter("w", "tensor", "float32", ("d", "m")),
    ),
    (Output("destination", "float32", ("n", "m")), Output("destination", "float32", ("n * m",))),
    [0, [1, 0]],
)


def matmul(x, w, y, flat):
    """Both outputs hold x @ w."""
    result = to_numpy(x) @ to_numpy(w)
    to_numpy(y)[...] = result
    to_numpy(flat)[...] = result.reshape(-1)


def model(signature, function) -> CompiledModel:
    return CompiledModel(tvm_ffi.convert(function), signature)


@pytest.mark.parametrize(("n", "d", "m"), [(2, 3, 4), (1, 1, 1), (0, 3, 4), (2, 0, 4)])
def test_destinations_are_allocated_and_put_into_the_result(n, d, m):
    x, w = np.random.rand(n, d).astype("f4"), np.random.rand(d, m).astype("f4")
    y, (flat, again) = model(MATMUL, matmul)(x, w=w)
    np.testing.assert_allclose(y, x @ w, rtol=1e-6)
    np.testing.assert_allclose(flat, (x @ w).reshape(-1), rtol=1e-6)
    assert again is y


def test_the_fast_call_passes_arrays_as_they_are():
    seen = []
    call = model(
        Signature("main", (Parameter("x", "tensor", "int64", (2,)),), (), []),
        lambda x: seen.append(x.data_ptr()),
    )
    x = np.zeros(2, np.int64)
    assert call(x) == ()
    assert seen == [x.ctypes.data]


def test_read_only_and_strided_arrays_give_the_right_answer():
    x, w = np.random.rand(3, 2).astype("f4"), np.random.rand(4, 3).astype("f4")
    x.flags.writeable = False
    y, _ = model(MATMUL, matmul)(x, w.T[:2])
    np.testing.assert_allclose(y, x @ w.T[:2], rtol=1e-6)


@pytest.mark.parametrize(
    ("args", "named", "message"),
    [
        ((1,), {}, "missing inputs: 'w'"),
        ((1, 2, 3), {}, "takes 2 inputs, got 3"),
        ((1,), {"x": 2}, "given by position and by name: 'x'"),
        ((1, 2), {"z": 2}, "no input is named 'z'"),
    ],
)
def test_wrong_arguments_are_named(args, named, message):
    with pytest.raises(InputError, match=message) as caught:
        model(MATMUL, matmul)(*args, **named)
    assert "x: float32 (n, d)" in str(caught.value)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 2)), "dtype float64, expected float32"),
        (np.zeros((2, 2), ">f4"), "not in native byte order"),
        (np.zeros((2, 2), object), "dtype object"),
        (np.zeros((2, 2), "U3"), "dtype <U3"),
        ([[1.0]], "is a list, expected an array"),
        (None, "is a NoneType"),
    ],
)
def test_values_that_cannot_be_passed(x, message):
    with pytest.raises(InputTypeError, match=message):
        model(MATMUL, matmul)(x, np.zeros((2, 2), np.float32))


def test_a_wrong_rank_is_an_error_with_the_expected_shape():
    with pytest.raises(InputError, match=r"'x' has 1 dimensions, expected 2: float32 \(n, d\)"):
        model(MATMUL, matmul)(np.zeros(3, np.float32), np.zeros((2, 2), np.float32))


def test_an_output_of_negative_size_is_an_error():
    signature = Signature(
        "main",
        (Parameter("x", "tensor", "float32", ("n",)),),
        (Output("destination", "float32", ("n // (n - 2)",)),),
        0,
    )
    for n in (1, 2):
        with pytest.raises(InputError, match=f"negative or undefined size for n={n}"):
            model(signature, lambda x, y: None)(np.zeros(n, np.float32))


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0)])
def test_dtypes_of_ml_dtypes_go_in_and_out(name, shape):
    dtype = np.dtype(getattr(ml_dtypes, name))
    dims = tuple(shape)
    signature = Signature(
        "main",
        (Parameter("x", "tensor", name, dims),),
        (Output("destination", name, dims), Output("owned", name, dims)),
        [0, 1],
    )

    def copy(x, y):
        assert str(x.dtype) == str(y.dtype) == name
        to_numpy(y)[...] = to_numpy(x)
        return x

    x = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    y, same = model(signature, copy)(x)
    assert y.dtype == same.dtype == dtype
    np.testing.assert_array_equal(y.astype("f4"), x.astype("f4"))
    np.testing.assert_array_equal(same.astype("f4"), x.astype("f4"))


MUTATE = Signature("main", (Parameter("x", "tensor", "float32", ("n",), mutated=True),), (), [])


def increment(x):
    to_numpy(x)[...] += 1


def test_a_mutated_input_is_updated_also_where_it_is_strided():
    x = np.zeros(6, np.float32)
    model(MUTATE, increment)(x[::2])
    np.testing.assert_array_equal(x, [1, 0, 1, 0, 1, 0])


def test_a_mutated_input_must_be_writable():
    x = np.zeros(3, np.float32)
    x.flags.writeable = False
    with pytest.raises(InputError, match="read-only"):
        model(MUTATE, increment)(x)


def test_a_mutated_input_may_not_share_memory_with_another():
    signature = Signature(
        "main",
        (
            Parameter("x", "tensor", "float32", (2,), mutated=True),
            Parameter("y", "tensor", "float32", (2,)),
        ),
        (),
        [],
    )
    x = np.zeros(3, np.float32)
    with pytest.raises(InputError, match="'x' and 'y' share memory"):
        model(signature, lambda *_: None)(x[:2], x[1:])
    assert model(signature, lambda *_: None)(np.zeros(2, "f4"), x[1:]) == ()


SCALARS = Signature(
    "main",
    (
        Parameter("n", "scalar", "int64", name_of="n"),
        Parameter("s", "shape", shape=("a", "b")),
        Parameter(
            "t",
            "tuple",
            items=(Parameter("p", "tensor", "float32", (1,)), Parameter("q", "string")),
        ),
        Parameter("f", "scalar", "float32"),
        Parameter("u", "scalar", "uint64"),
    ),
    (Output("destination", "int64", ("n + a * b",)), Output("owned")),
    [0, 1],
)


def test_scalars_shapes_strings_and_tuples():
    def entry(n, s, t, f, u, y):
        assert (n, tuple(s), t[1], f, u) == (3, (4, 5), "text", 2.0, -1)
        return to_numpy(t[0]).item()

    y, value = model(SCALARS, entry)(
        np.int64(3), [4, np.int32(5)], [np.ones(1, "f4"), "text"], 2, 2**64 - 1
    )
    assert y.shape == (23,)
    assert value == 1.0


@pytest.mark.parametrize(
    ("n", "s", "t", "f"),
    [
        (1.5, (1, 2), (np.ones(1, "f4"), "a"), 1.0),
        (True, (1, 2), (np.ones(1, "f4"), "a"), 1.0),
        (2**63, (1, 2), (np.ones(1, "f4"), "a"), 1.0),
        (1, (1,), (np.ones(1, "f4"), "a"), 1.0),
        (1, "ab", (np.ones(1, "f4"), "a"), 1.0),
        (1, (1, 2), (np.ones(1, "f4"),), 1.0),
        (1, (1, 2), (np.ones(1, "f4"), 3), 1.0),
        (1, (1, 2), (np.ones(1, "f4"), "a"), "x"),
    ],
)
def test_wrong_scalars_shapes_and_tuples(n, s, t, f):
    with pytest.raises((InputError, InputTypeError)):
        model(SCALARS, lambda *_: None)(n, s, t, f, 0)


def test_results_are_of_the_kind_of_the_first_array():
    call = model(MATMUL, matmul)
    x = np.ones((2, 2), np.float32)
    assert isinstance(call(x, tvm_ffi.from_dlpack(x))[0], np.ndarray)
    assert isinstance(call(tvm_ffi.from_dlpack(x), x)[0], tvm_ffi.Tensor)


def test_threads_share_a_model():
    call = model(MATMUL, matmul)
    failures = []

    def work(seed):
        random = np.random.default_rng(seed)
        for n in range(1, 20):
            x = random.random((n, 3), np.float32)
            y, _ = call(x, x.T)
            if not np.allclose(y, x @ x.T):
                failures.append(n)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_owned_values_come_in_the_kind_of_the_inputs():
    signature = Signature(
        "main",
        (Parameter("x", "tensor", "float32", ("n",)),),
        (Output("owned"), Output("destination", "float32", ("n",)), Output("owned")),
        [0, 1, [2]],
    )

    def entry(x, y):
        to_numpy(y)[...] = 7
        return (x, tvm_ffi.Shape((1, 2)))

    x = np.arange(3, dtype=np.float32)
    same, y, (shape,) = model(signature, entry)(x)
    assert isinstance(same, np.ndarray)
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(y, [7, 7, 7])
    assert shape == (1, 2)


@pytest.mark.torch
class TestTorch:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    def test_torch_in_torch_out(self, torch):
        x, w = torch.rand(2, 3), torch.rand(4, 3).T
        y, _ = model(MATMUL, matmul)(x, w)
        assert isinstance(y, torch.Tensor)
        torch.testing.assert_close(y, x @ w)

    def test_bfloat16_and_owned_results(self, torch):
        signature = Signature(
            "main",
            (Parameter("x", "tensor", "bfloat16", ("n",)),),
            (Output("owned", "bfloat16"),),
            0,
        )
        x = torch.rand(3).bfloat16()
        assert torch.equal(model(signature, lambda x: x)(x), x)

    def test_a_negated_view_is_resolved(self, torch):
        x = torch.tensor([1 + 2j, 3 + 4j]).conj().imag.reshape(1, 2)
        assert x.is_neg()
        y, _ = model(MATMUL, matmul)(x, torch.eye(2))
        torch.testing.assert_close(y, torch.tensor([[-2.0, -4.0]]))

    def test_a_gradient_is_refused_unless_off(self, torch):
        x = torch.rand(2, 2, requires_grad=True)
        with pytest.raises(InputError, match="requires a gradient"):
            model(MATMUL, matmul)(x, torch.eye(2))
        with torch.no_grad():
            y, _ = model(MATMUL, matmul)(x, torch.eye(2))
        torch.testing.assert_close(y, x.detach())

    def test_tensors_without_data_are_refused(self, torch):
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode():
            fake = torch.zeros(2, 2)
        for x in (fake, torch.zeros(2, 2, device="meta")):
            with pytest.raises(InputTypeError, match="without data"):
                model(MATMUL, matmul)(x, torch.eye(2))

    def test_sparse_and_wrong_dtypes_are_refused(self, torch):
        with pytest.raises(InputTypeError, match="layout"):
            model(MATMUL, matmul)(torch.eye(2).to_sparse(), torch.eye(2))
        with pytest.raises(InputTypeError, match="dtype float64"):
            model(MATMUL, matmul)(torch.eye(2).double(), torch.eye(2))
