"""Cases of windows, images, norms, signals and attention, by family: (opset, cases)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.frontend.cases import Case, Size, case, node

PICTURE: tuple[Size, ...] = ("n", 4, "h", "w")
SIGNAL: tuple[Size, ...] = ("n", 4, "w")
VOLUME: tuple[Size, ...] = ("n", 4, 4, "h", "w")


def weighted(kind: str, shape: tuple[int, ...], bias: int = 0, **attributes: Any) -> Any:
    """A node that takes the input of the case, a weight and perhaps a bias."""
    random = np.random.default_rng(len(shape))

    def build(g: Any, x: str) -> str:
        constants = [g.constant(random.standard_normal(shape), np.float32)]
        constants += [g.constant(random.standard_normal(bias), np.float32)] if bias else []
        return g.op(kind, x, *constants, **attributes)

    return build


def convolutions() -> Iterator[Case]:
    for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        for strides in ([1, 1], [2, 3]):
            yield case(
                f"Conv {mode} {strides}",
                weighted("Conv", (6, 4, 3, 2), 6, auto_pad=mode, strides=strides),
                PICTURE,
            )
        yield case(
            f"Conv {mode} gaps", weighted("Conv", (6, 4, 1, 1), auto_pad=mode, strides=[2, 2]),
            PICTURE,
        )  # fmt: skip
    yield case("Conv 1d same", weighted("Conv", (6, 2, 3), auto_pad="SAME_LOWER", strides=[2],
        group=2), SIGNAL)  # fmt: skip
    yield case("Conv 3d", weighted("Conv", (6, 4, 2, 2, 3), pads=[1, 0, 1, 0, 1, 1]), VOLUME)
    yield case(
        "Conv dilated", weighted("Conv", (8, 1, 2, 2), 8, group=4, dilations=[2, 1]), PICTURE
    )


def attentions() -> Iterator[Case]:
    heads: tuple[Size, ...] = ("n", 4, "m", 8)
    few: tuple[Size, ...] = ("n", 2, "k", 8)
    yield case("Attention", node("Attention"), heads, ("n", 4, "k", 8), ("n", 4, "k", 6))
    yield case("grouped, capped", node("Attention", softcap=2.0, scale=0.3), heads, few, few)
    yield case("causal", node("Attention", is_causal=1), heads, few, few)
    yield case("mask", node("Attention"), heads, few, few, ("m", "k"))
    flat: tuple[Size, ...] = ("n", "m", 32)
    few_flat: tuple[Size, ...] = ("n", "k", 16)
    numbers = {"q_num_heads": 4, "kv_num_heads": 2}
    yield case("3d", node("Attention", **numbers), flat, few_flat, few_flat)

    def cached(g: Any, *names: str) -> str:
        query, key, value, past_key, past_value = names
        operands = (query, key, value, "", past_key, past_value)
        return g.op("Attention", *operands, outputs=3, is_causal=1)[0]

    past: tuple[Size, ...] = ("n", 2, "h", 8)
    yield case("caches", cached, heads, ("n", 2, "m", 8), ("n", 2, "m", 8), past, past)


def newer_norms() -> Iterator[Case]:
    rms = node("RMSNormalization", axis=-2)
    yield case("RMSNormalization", rms, ("n", "m", 3, 4), (3, 4))
    yield case("RMSNormalization broadcast", rms, ("n", "m", 3, 4), (1, 4))


def moved() -> Iterator[Case]:
    def affine(g: Any, theta: str) -> str:
        return g.op("AffineGrid", theta, g.constant([1, 2, 3, 4], np.int64))

    yield case("AffineGrid", affine, (1, 2, 3))

    def deformed(g: Any, x: str, offset: str, mask: str) -> str:
        weight = g.constant(np.random.default_rng(0).standard_normal((6, 4, 2, 2)), np.float32)
        return g.op("DeformConv", x, weight, offset, g.constant(np.ones(6), np.float32), mask,
            pads=[0, 0, 1, 1], offset_group=2)  # fmt: skip

    yield case("DeformConv", deformed, PICTURE, ("n", 16, "h", "w"), ("n", 8, "h", "w"))


def older() -> Iterator[Case]:
    for mode in ("nearest", "linear"):

        def enlarged(g: Any, x: str, mode: str = mode) -> str:
            return g.op("Upsample", x, g.constant([1, 1, 2, 1.5], np.float32), mode=mode)

        yield case(f"Upsample {mode}", enlarged, PICTURE)


def transposes() -> Iterator[Case]:
    kind = "ConvTranspose"
    yield case(kind, weighted(kind, (4, 3, 3, 2), 3), PICTURE)
    yield case("apart", weighted(kind, (4, 3, 2, 2), 3, strides=[2, 2]), PICTURE)
    yield case(
        "everything",
        weighted(
            kind, (4, 3, 3, 2), 6, group=2, strides=[2, 3], pads=[1, 0, 0, 1], dilations=[1, 2],
            output_padding=[1, 2],
        ),
        PICTURE,
    )  # fmt: skip
    yield case("1d", weighted(kind, (4, 3, 3), strides=[2]), SIGNAL)
    yield case("3d", weighted(kind, (4, 2, 2, 3, 2), strides=[2, 1, 2]), VOLUME)
    for mode in ("SAME_UPPER", "SAME_LOWER"):
        yield case(mode, weighted(kind, (4, 3, 3, 4), strides=[2, 3], auto_pad=mode), PICTURE)


def pools() -> Iterator[Case]:
    for kind in ("MaxPool", "AveragePool", "LpPool"):
        for mode in ("SAME_UPPER", "SAME_LOWER"):
            build = node(kind, kernel_shape=[3, 2], strides=[2, 2], auto_pad=mode)
            yield case(f"{kind} {mode}", build, PICTURE)
    yield case("LpPool 3", node("LpPool", kernel_shape=[2, 3], p=3, pads=[1, 0, 0, 1]), PICTURE)
    yield case("LpPool 1d", node("LpPool", kernel_shape=[2], p=1), SIGNAL)
    yield case("GlobalLpPool", node("GlobalLpPool", p=3), PICTURE)
    for order in (0, 1):
        build = node("MaxPool", outputs=2, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1],
            storage_order=order)  # fmt: skip
        yield case(f"indices {order}", build, PICTURE)
    build = node("MaxPool", outputs=2, kernel_shape=[2, 2, 2], dilations=[2, 1, 1])
    yield case("indices 3d", build, VOLUME)

    def unpool(g: Any, x: str) -> str:
        values, index = g.op("MaxPool", x, outputs=2, kernel_shape=[2, 2], strides=[2, 2])
        return g.op("MaxUnpool", values, index, kernel_shape=[2, 2], strides=[2, 2])

    yield case("MaxUnpool", unpool, ("n", 4, 6, 8))


def resizes() -> Iterator[Case]:
    def build(scales: Any = None, sizes: Any = None, **attributes: Any) -> Any:
        def made(g: Any, x: str) -> str:
            first = "" if scales is None else g.constant(scales, np.float32)
            rest = [] if sizes is None else [g.constant(sizes, np.int64)]
            return g.op("Resize", x, "", first, *rest, **attributes)

        return made

    places = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel",
        "half_pixel_symmetric")  # fmt: skip
    for mode in ("nearest", "linear", "cubic"):
        for place in places:
            for scale in ([1, 1, 2, 3], [1, 1, 0.5, 1.5]):
                if place == "align_corners" and scale[2] < 1:
                    continue
                yield case(
                    f"{mode} {place} {scale}",
                    build(scale, mode=mode, coordinate_transformation_mode=place),
                    PICTURE,
                )
        yield case(f"{mode} sizes", build(None, [7, 5], mode=mode, axes=[2, 3]), PICTURE)
    for rounding in ("floor", "ceil", "round_prefer_ceil"):
        yield case(rounding, build([1, 1, 1.5, 0.75], nearest_mode=rounding), PICTURE)
    for mode in ("linear", "cubic"):
        yield case(f"antialias {mode}", build([1, 1, 0.5, 0.4], mode=mode, antialias=1), PICTURE)
    yield case("exclude", build([1, 1, 2, 0.5], mode="cubic", exclude_outside=1), PICTURE)
    yield case("1d", build([1, 1, 2.5], mode="linear"), SIGNAL)

    def to_shape_of(g: Any, x: str, other: str) -> str:
        sizes = g.op("Slice", g.op("Shape", other), g.constant([2]), g.constant([4]))
        return g.op("Resize", x, "", "", sizes, mode="linear", axes=[2, 3])

    yield case("like another", to_shape_of, PICTURE, ("n", 2, "k", "m"))

    def by_input(g: Any, x: str) -> str:
        scales = g.op("Exp", g.constant([0, 0, 0.7, -0.3], np.float32))
        return g.op("Resize", x, "", scales, mode="linear")

    yield case("computed scales", by_input, PICTURE)


def pads() -> Iterator[Case]:
    def build(widths: list[int], *rest: Any, **attributes: Any) -> Any:
        def made(g: Any, x: str) -> str:
            return g.op("Pad", x, g.constant(widths, np.int64), *(g.constant(r) for r in rest),
                **attributes)  # fmt: skip

        return made

    for mode in ("constant", "edge", "reflect"):
        yield case(mode, build([0, 0, 1, 2, 0, 0, 2, 1], mode=mode), PICTURE)
        yield case(f"{mode} crop", build([0, 0, -1, 1, 0, 0, 0, -1], mode=mode), PICTURE)
    yield case("wrap", build([0, 0, 1, 2, 0, 0, 2, 1], mode="wrap"), PICTURE)
    yield case("value", build([0, 1, 0, 0, 0, 0, 0, 3], np.float32(2.5)), PICTURE)
    yield case("axes", build([1, 2, 0, 1], np.float32(0), np.array([-1, 1])), PICTURE)

    def to_multiple(g: Any, x: str) -> str:
        size = g.op("Gather", g.op("Shape", x), g.constant([3]))
        rest = g.op("Mod", g.op("Neg", size), g.constant([4]))
        widths = g.op("Concat", g.constant([0] * 7), rest, axis=0)
        return g.op("Pad", x, widths)

    yield case("to a multiple", to_multiple, PICTURE)


def norms() -> Iterator[Case]:
    yield case("LRN", node("LRN", size=3, alpha=0.1, bias=2.0), PICTURE)
    yield case("LRN beta", node("LRN", size=5, beta=0.5), PICTURE)
    yield case("InstanceNormalization", node("InstanceNormalization"), PICTURE, (4,), (4,))
    for p in (1, 2):
        yield case(f"LpNormalization {p}", node("LpNormalization", p=p, axis=2), PICTURE)
    yield case("LayerNormalization outputs", node("LayerNormalization", outputs=3, axis=2),
        ("n", "m", 3, 4), (3, 4), (3, 4))  # fmt: skip


def pixels() -> Iterator[Case]:
    for mode in ("DCR", "CRD"):
        yield case(f"DepthToSpace {mode}", node("DepthToSpace", blocksize=2, mode=mode),
            ("n", 8, "h", "w"))  # fmt: skip
    yield case("SpaceToDepth", node("SpaceToDepth", blocksize=2), ("n", 3, 4, 6))
    for mode in ("linear", "nearest", "cubic"):
        for outside in ("zeros", "border", "reflection"):
            for corners in (0, 1):
                build = node("GridSample", mode=mode, padding_mode=outside, align_corners=corners)
                places: tuple[Size, ...] = ("n", "m", "k", 2)
                yield case(f"GridSample {mode} {outside} {corners}", build, PICTURE, places)
    yield case("GridSample 3d", node("GridSample"), VOLUME, ("n", 2, "m", "k", 3))


def signals() -> Iterator[Case]:
    def dft(**attributes: Any) -> Any:
        def made(g: Any, x: str) -> str:
            return g.op("DFT", x, "", g.constant(np.int64(1)), **attributes)

        return made

    yield case("DFT", dft(), ("n", 12, 1))
    yield case("DFT onesided", dft(onesided=1), ("n", 9, 1))
    yield case("DFT inverse", dft(inverse=1), ("n", "w", 2))

    def stft(g: Any, x: str) -> str:
        window = g.constant(np.hanning(4), np.float32)
        return g.op("STFT", x, g.constant(np.int64(2)), window)

    yield case("STFT", stft, ("n", 16, 1))
    yield case("Det", node("Det"), ("n", "m", "m"))


def sums() -> Iterator[Case]:
    nm: tuple[Size, ...] = ("n", "m")
    for text, *shapes in (
        ("ij,jk->ik", nm, ("m", "k")),
        ("bhqd,bhkd->bhqk", ("n", 2, "m", 3), ("n", 2, "k", 3)),
        ("bqhd,bkhd->bhqk", ("n", "m", 2, 3), ("n", "k", 2, 3)),
        ("bij,bjk", ("n", 3, "m"), ("n", "m", 4)),
        ("...ij,...jk->...ik", ("n", 2, 3, "m"), ("n", 2, "m", 4)),
        ("ii->i", ("m", "m")),
        ("ij->j", nm),
        ("i,j->ij", ("n",), ("m",)),
        ("abc,cd,de->abe", ("n", 2, "m"), ("m", 3), (3, "k")),
    ):
        yield case(text, node("Einsum", equation=text), *shapes)


def regions() -> Iterator[Case]:
    def align(**attributes: Any) -> Any:
        def made(g: Any, x: str) -> str:
            boxes = g.constant([[0, 0, 3, 2], [1, 1.5, 4, 3.2]], np.float32)
            return g.op("RoiAlign", x, boxes, g.constant([0, 0], np.int64), output_height=2,
                output_width=3, **attributes)  # fmt: skip

        return made

    for mode in ("avg", "max"):
        yield case(f"RoiAlign {mode}", align(mode=mode, sampling_ratio=2), PICTURE)
    yield case("RoiAlign adaptive", align(spatial_scale=0.7), PICTURE)
    yield case("RoiAlign older", align(coordinate_transformation_mode="output_half_pixel"), PICTURE)

    def pool(g: Any, x: str) -> str:
        boxes = g.constant([[0, 0, 0, 3, 2], [0, 1, 1, 4, 3]], np.float32)
        return g.op("MaxRoiPool", x, boxes, pooled_shape=[2, 2])

    yield case("MaxRoiPool", pool, PICTURE)

    def blocks(g: Any, x: str) -> str:
        sizes = g.constant([5, 6], np.int64), g.constant([2, 3], np.int64)
        return g.op("Col2Im", x, *sizes, pads=[1, 0, 0, 1], strides=[1, 2])

    yield case("Col2Im", blocks, ("n", 12, 15))


NN_FAMILIES: dict[str, tuple[int, Callable[[], Iterator[Case]]]] = {
    "windows": (17, convolutions),
    "transposes": (17, transposes),
    "pooling": (17, pools),
    "resizes": (19, resizes),
    "pads": (19, pads),
    "norms": (17, norms),
    "pixels": (20, pixels),
    "signals": (20, signals),
    "sums": (17, sums),
    "regions": (18, regions),
    "attentions": (23, attentions),
    "newer norms": (23, newer_norms),
    "moved": (20, moved),
    "older": (9, older),
}
"""Family -> opset, cases."""
