"""Images of index maps: shapes, ways back and padding agree with every element's place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.schedule.layout_maps import MAPS
from transect.arith import Analyzer
from transect.arith.evaluate import evaluate
from transect.ir.expr import Expr, Var, as_expr, as_int
from transect.support.errors import InputError
from transect.tir.index_image import IndexImage, arrange, image_of
from transect.tir.index_map import IndexMap, index_map_of

N, M = Var("n"), Var("m")


def image(function: object, *shape: Expr | int) -> IndexImage | str:
    analyzer = Analyzer()
    for var in (N, M):
        analyzer.bind(var, (0, None))
    index_map, _ = index_map_of(function, len(shape))  # pyright: ignore[reportArgumentType]
    return image_of(index_map, [as_expr(extent) for extent in shape], analyzer)


@given(st.integers(1, 3), st.data())
def test_an_image_holds_each_element_once(rank: int, data: st.DataObject) -> None:
    function = data.draw(st.sampled_from(MAPS[rank]))
    shape = [data.draw(st.integers(1, 9)) for _ in range(rank)]
    symbols = [Var(f"n{n}") for n in range(rank)]
    analyzer = Analyzer()
    for var in symbols:
        analyzer.bind(var, (0, None))
    index_map, _ = index_map_of(function, rank)
    found = image_of(index_map, symbols, analyzer)
    assert isinstance(found, IndexImage)
    sizes = dict(zip(symbols, shape, strict=True))
    extents = [evaluate(extent, sizes) for extent in found.shape]
    grid = dict(zip(found.inverse.inputs, np.indices(extents), strict=True))
    inside = np.broadcast_to(evaluate(found.inside, {**grid, **sizes}), extents)
    assert inside.sum() == np.prod(shape)
    back = [
        np.broadcast_to(evaluate(item, {**grid, **sizes}), extents)[inside]
        for item in found.inverse.outputs
    ]
    elements = dict(zip(index_map.inputs, back, strict=True))
    for new, output in zip(grid.values(), index_map.outputs, strict=True):
        np.testing.assert_array_equal(evaluate(output, elements), new[inside])


def test_what_divides_is_not_padded() -> None:
    found = image(lambda i, j: (i // 16, j // 16, i % 16, j % 16), N * 16, 64)
    assert isinstance(found, IndexImage)
    assert not found.pads
    assert found.shape[0] is N
    assert [as_int(extent) for extent in found.shape[1:]] == [4, 16, 16]


def test_a_fusion_is_cut_where_it_is_longer_than_the_last_axis() -> None:
    found = image(lambda i, j: ((i * M + j) // 8, (i * M + j) % 8), N, M)
    assert isinstance(found, IndexImage)
    assert "n * m" in repr(found.inside)


@pytest.mark.parametrize(
    ("function", "shape", "reason"),
    [
        (lambda i, j: (i, j // 4), (4, 16), "overlap or leave a gap"),
        (lambda i, j: (i,), (4, 4), "index 'j' does not occur in the map"),
        (lambda i: (i * 2,), (N,), "takes only multiples of 2"),
        (lambda i: (i + 3,), (N,), "index 0 starts at 3, not at 0"),
        (lambda i: (N - 1 - i,), (N,), "is not known to be positive"),
        (lambda i: (i // N, i % N), (M,), "is not known to be positive"),
        (lambda i, j: ((i + j) % 4, j), (4, 4), "shares index 'j' with others"),
        (lambda i, j: (i * j,), (4, 4), "multiplies"),
        (lambda i: (i // 4, (i + 1) % 4), (16,), "divided with the offsets"),
    ],
)
def test_maps_that_are_not_known_to_be_one_to_one(
    function: object, shape: tuple[Expr | int, ...], reason: str
) -> None:
    found = image(function, *shape)
    assert isinstance(found, str)
    assert reason in found


def test_arrange_moves_elements_and_fills_up() -> None:
    index_map, _ = index_map_of(lambda i, j: (j // 4, i, j % 4), 2)
    data = np.arange(10).reshape(2, 5)
    got = arrange(data, index_map, pad_value=-1)
    assert got.shape == (2, 2, 4)
    np.testing.assert_array_equal(got[1], [[4, -1, -1, -1], [9, -1, -1, -1]])
    np.testing.assert_array_equal(got[0], data[:, :4])


def test_arrange_refuses_what_is_no_layout() -> None:
    index_map, _ = index_map_of(lambda i: (i // 2,), 1)
    with pytest.raises(InputError, match="overlap or leave a gap"):
        arrange(np.arange(4), index_map)


def test_separators_are_told_from_the_outputs() -> None:
    index_map, separators = index_map_of(lambda *i: (i[1], IndexMap.AXIS_SEPARATOR, i[0]), 2)
    assert separators == (1,)
    assert index_map.outputs == (index_map.inputs[1], index_map.inputs[0])
