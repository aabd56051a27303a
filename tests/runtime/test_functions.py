"""Registered functions: names, conversions, exceptions."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import tvm_ffi

from transect.runtime import get_function, register_function, remove_function
from transect.runtime.functions import BUILTIN, explained, provide_builtin
from transect.support.errors import InputError, InputTypeError


@pytest.fixture
def name(request):
    unique = f"test_functions.{request.node.name}"
    yield unique
    if tvm_ffi.get_global_func(unique, allow_missing=True) is not None:
        remove_function(unique)


def test_arguments_are_arrays_over_the_same_memory(name):
    @register_function(name)
    def update(x, items, shape):
        assert isinstance(x, np.ndarray)
        x += 1
        assert (items[0], items[1].tolist(), shape) == ("a", [1.0], (2, 3))

    x = np.zeros(3, np.float32)
    assert get_function(name)(x, ("a", np.ones(1)), tvm_ffi.Shape((2, 3))) is None
    np.testing.assert_array_equal(x, [1, 1, 1])
    assert callable(update)


@pytest.mark.parametrize(
    "result",
    [
        np.arange(6.0).reshape(2, 3).T,
        np.broadcast_to(np.float32(1), (2, 2)),
        np.arange(3).astype(ml_dtypes.bfloat16),
        np.float32(2.5),
        np.zeros(()),
        np.zeros((0, 4), np.int8),
    ],
)
def test_arrays_of_every_kind_can_be_returned(name, result):
    register_function(name, lambda: result)
    got = get_function(name)()
    assert isinstance(got, tvm_ffi.Tensor)
    assert got.shape == np.shape(result)
    assert got.is_contiguous()
    assert str(got.dtype) == np.asarray(result).dtype.name


def test_tuples_and_plain_values_can_be_returned(name):
    register_function(name, lambda: (1, 2.5, "text", True, None, (np.zeros(1),)))
    got = get_function(name)()
    assert list(got[:5]) == [1, 2.5, "text", True, None]
    assert got[5][0].shape == (1,)


def test_raw_functions_get_values_as_they_are(name):
    seen = []
    register_function(name, seen.append, raw=True)
    get_function(name)(np.zeros(1))
    assert isinstance(seen[0], tvm_ffi.Tensor)


def test_names_are_taken_once(name):
    with pytest.raises(InputTypeError, match="a int cannot be called"):
        register_function(name, 3)
    register_function(name, lambda: 1)
    with pytest.raises(InputError, match="registered already"):
        register_function(name, lambda: 2)
    register_function(name, lambda: 3, override=True)
    assert get_function(name)() == 3
    remove_function(name)
    with pytest.raises(InputError, match="no function"):
        get_function(name)
    with pytest.raises(InputError):
        remove_function(name)


def test_the_original_exception_is_found_again(name):
    raised = LookupError("gone")

    def fail():
        raise raised

    register_function(name, fail)
    with pytest.raises(Exception, match="gone") as caught:
        get_function(name)()
    assert explained(caught.value) is raised
    other = ValueError("other")
    assert explained(other) is other


def test_builtin_functions(capsys):
    provide_builtin()
    provide_builtin()
    assert set(BUILTIN) == {"transect.print"}
    get_function("transect.print")("{} and {}", 1, "b")
    get_function("transect.print")("", 2, np.arange(2))
    assert capsys.readouterr().out == "1 and b\n2 [0 1]\n"
