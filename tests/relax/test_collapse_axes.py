"""CollapseAxes: kernels over fewer axes, called on views."""

import numpy as np

import transect
from transect.ir.function import IRModule
from transect.ir.types import TensorType
from transect.relax.transform.collapse_axes import CollapseAxes
from transect.script import ir as I
from transect.script import relax as R
from transect.script import tir as T
from transect.tir.function import SCHEDULED, PrimFunc
from transect.transform import Context


@I.ir_module
class Pointwise:
    @T.prim_func(private=True)
    def product(
        X: T.Buffer((2, 3, 5, 7), "float32"),
        W: T.Buffer((7, 4), "float32"),
        Y: T.Buffer((2, 3, 5, 4), "float32"),
    ):
        for n, h, w, f, c in T.grid(2, 3, 5, 4, 7):
            with T.block("Y"):
                vn, vh, vw, vf, vc = T.axis.remap("SSSSR", [n, h, w, f, c])
                with T.init():
                    Y[vn, vh, vw, vf] = T.float32(0)
                Y[vn, vh, vw, vf] += X[vn, vh, vw, vc] * W[vc, vf]

    @R.function
    def main(x: R.Tensor((2, 3, 5, 7), "float32"), w: R.Tensor((7, 4), "float32")) -> R.Tensor(
        (2, 3, 5, 4), "float32"
    ):
        cls = Pointwise
        with R.dataflow():
            y = R.call_tir(cls.product, (x, w), out_sinfo=R.Tensor((2, 3, 5, 4), "float32"))
            R.output(y)
        return y


def _shapes(module: IRModule) -> list[list[tuple[int, ...]]]:
    return [
        [tuple(int(extent.value) for extent in buffer.shape) for buffer in func.buffers]
        for func in module.functions.values()
        if isinstance(func, PrimFunc)
    ]


def test_a_kernel_is_called_on_views() -> None:
    after = CollapseAxes()(Pointwise, Context())
    assert [(30, 7), (7, 4), (30, 4)] in _shapes(after)
    result = after["main"].ret_type
    assert isinstance(result, TensorType)
    assert len(result.shape or ()) == 4
    assert CollapseAxes()(after, Context()) is after


def test_a_program_that_its_author_scheduled_stays_as_it_is() -> None:
    product = Pointwise["product"]
    assert isinstance(product, PrimFunc)
    module = Pointwise.with_function("product", product.with_attrs(**{SCHEDULED: True}))
    assert CollapseAxes()(module, Context()) is module


def test_views_cost_no_copy_and_results_are_the_same() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.random((2, 3, 5, 7), np.float32), rng.random((7, 4), np.float32)
    model = transect.compile(Pointwise, libraries=(), cache=False)
    np.testing.assert_allclose(model(x, w), x @ w, rtol=1e-5)
    assert str(model.stages["LowerToHost"]).count("cls.") == 1
