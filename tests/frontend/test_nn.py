"""Operators on windows, images and signals, compiled, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

import transect
from tests.frontend.cases_nn import NN_FAMILIES
from tests.frontend.onnx_models import expected
from tests.frontend.test_operators import joined, values

SIZES = {"n": 2, "m": 3, "k": 6, "h": 6, "w": 8}
OTHER_SIZES = [{"n": 1, "m": 5, "k": 2, "h": 9, "w": 7}, {"n": 3, "m": 2, "k": 9, "h": 5, "w": 13}]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("family", NN_FAMILIES)
def test_family(family: str, dynamic: bool) -> None:
    opset, cases = NN_FAMILIES[family]
    found = list(cases())
    proto, owners = joined(found, dynamic, opset, SIZES)
    model = transect.compile(proto, cache=False)
    for sizes in [SIZES, *(OTHER_SIZES if dynamic else [])]:
        inputs = values(found, sizes)
        results = model(**inputs)
        results = results if isinstance(results, tuple) else (results,)
        wanted = expected(proto, inputs)
        for owner, ours, theirs in zip(owners, results, wanted, strict=True):
            assert ours.dtype == theirs.dtype, owner
            assert ours.shape == theirs.shape, owner
            np.testing.assert_allclose(ours, theirs, rtol=5e-4, atol=5e-5, err_msg=owner)
