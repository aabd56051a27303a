"""Register tiles of contractions, as the cost model predicts them for the rule's own nest."""

import numpy as np
import pytest

from tests.schedule.programs import matmul
from transect.hardware.kernel import KernelInfo
from transect.hardware.x86 import AVX2, ICELAKE
from transect.hardware.x86 import register_tile as module
from transect.hardware.x86.contraction import ContractionRule
from transect.ir.expr import Var
from transect.plan import Option
from transect.target import Target
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc

N, M, D = Var("n"), Var("m"), Var("d")


def tiles(func: PrimFunc, target: Target = ICELAKE) -> dict[str, Option]:
    """The options of the tile site, the best one for typical sizes first."""
    info = KernelInfo.of(func)
    assert info is not None
    site = ContractionRule().space(info, target)[0]
    return {option.name: option for option in site.options}


def seconds(option: Option, target: Target = ICELAKE, size: int = 64) -> float:
    return option.cost.seconds(target, lambda _: size)


def panels(n: int, m: int, d: int, width: int) -> PrimFunc:
    """A product whose columns lie in panels."""
    builder = FunctionBuilder("panels")
    x = builder.input("x", (n, d), "float32")
    w = builder.input("w", (-(-m // width), d, width), "float32")
    y = builder.reduce(
        (n, m), (d,), lambda i, j, k: x[i, k] * w[j // width, k, j % width], name="y"
    )
    return builder.finish([y])


def test_names_and_parameters_are_rows_and_columns() -> None:
    found = tiles(matmul(500, 768, 640))
    assert {"6x64", "8x48", "14x32", "16x16", "1x128", "6x32"} <= found.keys()
    assert dict(found["6x64"].parameters) == {"rows": 6, "vectors": 4}
    assert "3x7" not in found


def test_tiles_fit_in_the_registers_of_the_target() -> None:
    for target in (ICELAKE, AVX2):
        for option in tiles(matmul(500, 768, 640), target).values():
            rows, vectors = option.parameters["rows"], option.parameters["vectors"]
            assert isinstance(rows, int)
            assert isinstance(vectors, int)
            read = vectors if rows > 1 else 1  # What is used once is read in place.
            assert rows * vectors + read + 1 <= target.vector_registers
    assert "8x48" not in tiles(matmul(500, 768, 640), AVX2)


def test_registers_are_spared_where_sizes_are_unknown() -> None:
    assert {"9x48", "14x32"} <= tiles(matmul(500, 768, 640)).keys()
    found = tiles(matmul(N, M, D))
    assert not {"9x48", "14x32"} & found.keys()
    assert {"8x48", "6x64"} <= found.keys()


def test_panels_give_their_width() -> None:
    widths = {option.parameters["vectors"] for option in tiles(panels(64, 96, 32, 48)).values()}
    assert widths == {3}


def test_many_results_take_a_tile_that_hides_latency() -> None:
    best = next(iter(tiles(matmul(512, 768, 768)).values()))
    rows, vectors = best.parameters["rows"], best.parameters["vectors"]
    assert isinstance(rows, int)
    assert isinstance(vectors, int)
    assert rows * vectors >= 20
    found = tiles(matmul(512, 768, 768))
    assert seconds(found["1x16"]) > 5 * seconds(best)


def test_what_is_left_over_is_a_tile_of_its_own() -> None:
    one, two, three = (seconds(tiles(matmul(n, 768, 512))["8x48"]) for n in (8, 12, 16))
    # Four rows left take less than eight more.
    assert one < two < three - (three - one) / 4


def test_rows_in_one_set_of_the_cache_cost_time() -> None:
    near, far = (tiles(matmul(128, 768, d)) for d in (1000, 1024))

    def ratio(found: dict[str, Option]) -> float:
        return seconds(found["14x32"]) / seconds(found["8x48"])

    assert ratio(far) > 1.05 * ratio(near)


def test_sizes_share_a_prediction() -> None:
    module._predicted.cache_clear()
    for sizes in ((64, 64, 64), (65, 3, 17), (1, 1000, 8), (N, M, D), (N, 48, 5)):
        tiles(matmul(*sizes))
    assert module._predicted.cache_info().misses == 1
    tiles(panels(64, 96, 32, 48))
    assert module._predicted.cache_info().misses == 1


def test_unknown_sizes_are_predicted_for_the_sizes_given() -> None:
    found = tiles(matmul(N, 768, 512))
    times = [seconds(found["8x48"], size=size) for size in (8, 64, 512)]
    assert times == sorted(times)
    assert times[2] == pytest.approx(8 * times[1], rel=0.2)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_types(dtype: str) -> None:
    builder = FunctionBuilder("typed")
    x, w = builder.input("x", (64, 32), dtype), builder.input("w", (32, 64), dtype)
    y = builder.reduce((64, 64), (32,), lambda i, j, k: x[i, k] * w[k, j], name="y")
    found = tiles(builder.finish([y]))
    times = np.array([seconds(option) for option in found.values()])
    assert len(found) > 10
    assert np.all(np.isfinite(times))
    assert np.all(times > 0)
