"""One program through every layer: a tensor program, a graph that calls it, a packed function.

The module below is compiled once and then runs for any n, m and d.
Run it with `python examples/one_program.py`.
"""

import numpy as np

import transect

# fmt: off
from transect.script import ir as I, relax as R, tir as T

n, m, d = T.symbolic("n", "m", "d")

@I.ir_module
class MyIRModule:
    @T.prim_func
    def tir_mm(X: T.Buffer[(n, d), "float32"],
               W: T.Buffer[(d, m), "float32"],
               Y: T.Buffer[(n, m), "float32"]):
        for i, j, k in T.grid(n, m, d):
            with T.block("body"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                with T.init():
                    Y[vi, vj] = 0
                # Can be mapped on to HW intrinsics.
                Y[vi, vj] += X[vi, vk] * W[vk, vj]

    @R.function
    def relax_func(x: R.Tensor[(n, d), "float32"], w: R.Tensor[(d, m), "float32"]):
        with R.dataflow():
            # Invoke the TIR code.
            lv0: R.Tensor[(n, m), "float32"] = R.call_dps((n, m), tir_mm, [x, w])
            lv1: R.Tensor[(n * m,), "float32"] = R.flatten(lv0)
            gv0: R.Tensor[(n * m,), "float32"] = R.exp(lv1)
        # Invoke external update rule.
        R.call_packed("custom_inplace_update", gv0)
        return gv0
# fmt: on


@transect.register_function("custom_inplace_update")
def custom_inplace_update(array: np.ndarray) -> None:
    """The external update rule: halve in place."""
    array *= 0.5


def reference(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """What the program computes, in float64."""
    return np.exp((x.astype(np.float64) @ w.astype(np.float64)).ravel()) * 0.5


def main() -> None:
    model = transect.compile(MyIRModule)
    print(model.module)
    print(model.plan)
    random = np.random.default_rng(0)
    for size in ((4, 3, 5), (64, 128, 32), (1, 1, 1), (0, 7, 2)):
        rows, columns, depth = size
        x = random.standard_normal((rows, depth), np.float32) / max(1, depth)
        w = random.standard_normal((depth, columns), np.float32)
        result = model(x, w)
        error = np.max(np.abs(result - reference(x, w)) / reference(x, w), initial=0.0)
        print(f"n, m, d = {size}: shape {result.shape}, largest relative error {error:.1e}")


if __name__ == "__main__":
    main()
