"""Integer division by zero in a model: an error that names the node, never a signal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

import transect

INTEGERS = [np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64]


def model(kind: str, dtype: Any, size: int | str, **attributes: int) -> Any:
    code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node(kind, ["a", "b"], ["y"], name="block/quotient", **attributes)],
        "g",
        [helper.make_tensor_value_info(name, code, [size]) for name in "ab"],
        [helper.make_tensor_value_info("y", code, [size])],
    )
    opsets = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return transect.compile(made, cache=False)


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("kind", ["Div", "Mod", "Mod fmod"])
def test_by_zero(kind: str, dtype: Any) -> None:
    name, *options = kind.split()
    run = model(name, dtype, "n", **dict.fromkeys(options, 1))
    # A short one in one thread, a long one in several; the zero is in the middle of a vector.
    for size in (5, 100_000):
        a, b = np.full(size, 7, dtype), np.full(size, 2, dtype)
        assert set(run(a, b)) == {1 if name == "Mod" else 3}
        b[size // 2] = 0
        with pytest.raises(ZeroDivisionError, match="integer division by zero") as info:
            run(a, b)
        assert "block/quotient" in "".join(info.value.__notes__)
        b[size // 2] = 2
        assert len(run(a, b)) == size


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_the_least_integer_by_minus_one_wraps_around(dtype: Any) -> None:
    least = np.array([np.iinfo(dtype).min] * 9, dtype)
    minus = np.full(9, -1, dtype)
    assert (model("Div", dtype, 9)(least, minus) == least).all()
    assert (model("Mod", dtype, 9)(least, minus) == 0).all()
