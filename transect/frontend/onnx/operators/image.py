"""Images: resizing, padding, sampling, regions, blocks of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from transect.frontend.onnx.data_shapes import read_sizes, require_elements
from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.values import as_dimension
from transect.ir.expr import (
    EQ,
    Expr,
    IntImm,
    as_int,
    logical_or,
    maximum,
    minimum,
    select,
    true,
)
from transect.relax.expr import Value, constant, make_tuple, shape_expr

_METHODS = {
    "nearest": "nearest_neighbor",
    "linear": "linear",
    "bilinear": "linear",
    "cubic": "cubic",
}


def simplest_fraction(value: float) -> Fraction:
    """The fraction with the least denominator that rounds to this float32."""
    single = np.float32(value)
    for exponent in range(1, 8):
        found = Fraction(float(single)).limit_denominator(10**exponent)
        if np.float32(float(found)) == single:
            return found
    return Fraction(float(single))


def resize(node: Node) -> Result:
    """Resampling along axes, by scales or to sizes."""
    value = node.value(0)
    rank = len(node.shape(value))
    axes = [node.axis(axis, rank) for axis in node.attribute("axes", list(range(rank)))]
    mode = node.attribute("coordinate_transformation_mode", "half_pixel")
    roi = node.value(1) if mode == "tf_crop_and_resize" else None
    fields: dict[str, Any] = {
        "method": _METHODS[node.attribute("mode", "nearest")],
        "coordinate_transformation_mode": mode,
        "rounding_method": node.attribute("nearest_mode", "round_prefer_floor"),
        "cubic_alpha": node.attribute("cubic_coeff_a", -0.75),
        "cubic_exclude": node.attribute("exclude_outside", 0),
        "antialias": node.attribute("antialias", 0) == 1,
        "extrapolation_value": node.attribute("extrapolation_value", 0.0),
    }
    if node.has(3) and _is_given(node, 3):
        old = [node.shape(value)[axis] for axis in axes]
        target, ratio = _sizes(node, old)
        require_elements(node, old, target, "resized")
        return _resized(node, axes, target, ratio, roi, fields)
    if not node.has(2):
        raise node.error("neither scales nor sizes are given", "the model is not valid ONNX")
    return _scaled(node, axes, 2, roi, fields)


def resize_10(node: Node) -> Result:
    """Upsample, and Resize of opset 10: points without a shift of half a pixel, by scales."""
    rank = len(node.shape(node.value(0)))
    mode = node.attribute("mode", "nearest")
    if mode not in _METHODS:
        raise node.error(f"mode {mode!r}", "the model is not valid ONNX")
    fields: dict[str, Any] = {
        "method": _METHODS[mode],
        "coordinate_transformation_mode": "asymmetric",
        "rounding_method": "inward",
    }
    return _scaled(node, list(range(rank)), 1, None, fields)


def _is_given(node: Node, index: int) -> bool:
    """Whether an operand is there and not empty, which also means that it is not."""
    array = node.constant(index)
    return array is None or array.size > 0


def _sizes(node: Node, old: Sequence[Expr]) -> tuple[list[Expr], list[Expr] | None]:
    """The new extents for operand 3, and the scale (numerators, denominators) if it is not their
    ratio."""
    given = [as_dimension(size) for size in node.elements(3, "sizes").values]
    if len(given) != len(old):
        raise node.error(f"{len(given)} sizes for {len(old)} axes")
    policy = node.attribute("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return given, None
    best = minimum if policy == "not_larger" else maximum
    target: list[Expr] = []
    for dim in old:
        # One scale for all axes, rounded to the nearest extent, halves up.
        choices = [
            (size * dim * 2 + other) // (other * 2) for size, other in zip(given, old, strict=True)
        ]
        chosen = choices[0]
        for choice in choices[1:]:
            chosen = best(chosen, choice)
        target.append(node.simplify(chosen))
    pairs = [(as_int(size), as_int(dim)) for size, dim in zip(given, old, strict=True)]
    known = [Fraction(size, dim) for size, dim in pairs if size is not None and dim]
    if len(known) != len(pairs):
        return target, None
    scale = min(known) if policy == "not_larger" else max(known)
    count = len(old)
    return target, [*[IntImm(scale.numerator)] * count, *[IntImm(scale.denominator)] * count]


def _scaled(
    node: Node, axes: list[int], index: int, roi: Value | None, fields: dict[str, Any]
) -> Result:
    """Resized by scales: operand `index`, or the attribute."""
    dims = [node.shape(node.value(0))[axis] for axis in axes]
    scales = node.constant(index) if node.has(index) else np.asarray(node.attribute("scales", []))
    if scales is None:
        factor = node.value(index)
        shape = node.emit("shape_to_tensor", shape_expr(*dims))
        extent = node.emit("astype", shape, dtype=node.dtype(factor))
        product = node.emit("floor", node.emit("multiply", extent, factor))
        sizes = read_sizes(node, node.emit("astype", product, dtype="int64"), "resized")
        require_elements(node, dims, sizes.values, "resized")
        return _emit(node, axes, sizes.values, factor, roi, fields)
    if scales.size != len(axes):
        raise node.error(f"{scales.size} scales for {len(axes)} axes")
    if not np.all(scales > 0):
        raise node.error(f"the scales {scales.tolist()} are not all positive")
    fractions = [simplest_fraction(float(scale)) for scale in scales.reshape(-1)]
    target = [
        node.simplify(dim * f.numerator // f.denominator)
        for dim, f in zip(dims, fractions, strict=True)
    ]
    ratio = [IntImm(f.numerator) for f in fractions] + [IntImm(f.denominator) for f in fractions]
    return _resized(node, axes, target, ratio, roi, fields)


def _resized(
    node: Node,
    axes: list[int],
    target: Sequence[Expr],
    ratio: Sequence[Expr] | None,
    roi: Value | None,
    fields: dict[str, Any],
) -> Result:
    """Resized to known extents, along the axes where that changes anything."""
    dims = node.shape(node.value(0))
    count = len(axes)

    def changes(k: int) -> bool:
        same = node.analyzer.can_prove_equal(target[k], dims[axes[k]])
        return not same or (ratio is not None and ratio[k] is not ratio[count + k])

    kept = list(range(count)) if roi is not None else [k for k in range(count) if changes(k)]
    if not kept:
        return node.value(0)
    scale = None
    if ratio is not None:
        scale = shape_expr(*(ratio[k] for k in kept), *(ratio[count + k] for k in kept))
    return _emit(node, [axes[k] for k in kept], [target[k] for k in kept], scale, roi, fields)


def _emit(
    node: Node,
    axes: list[int],
    target: Sequence[Expr],
    scale: Value | None,
    roi: Value | None,
    fields: dict[str, Any],
) -> Value:
    optional = [make_tuple() if scale is None else scale, make_tuple() if roi is None else roi]
    return node.emit(
        "image.resize", node.value(0), node.shape_of(target), *optional, axes=tuple(axes), **fields
    )


# --- padding --------------------------------------------------------------------------------------

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "circular"}


def axis_is(axis: Expr, place: int, rank: int) -> Expr:
    """Whether an axis counted from either end is the one at `place`."""
    return logical_or(EQ(axis, IntImm(place)), EQ(axis, IntImm(place - rank)))


def pad(node: Node) -> Result:
    """A tensor extended, or cropped by negative widths, on both sides of its axes."""
    value = node.value(0)
    rank = len(node.shape(value))
    mode = node.attribute("mode", "constant")
    if mode not in _PAD_MODES:
        raise node.error(f"mode {mode!r}", "the model is not valid ONNX")
    given: list[Expr]
    fill = node.attribute("value", 0.0)
    if node.opset >= 11:
        given = [as_dimension(width) for width in node.elements(1, "pads").values]
    else:
        given = [IntImm(width) for width in node.attribute("pads", node.attribute("paddings", []))]
    axes = node.elements(3, "axes").values if node.has(3) else tuple(map(IntImm, range(rank)))
    if len(given) != 2 * len(axes):
        raise node.error(f"{len(given)} pads for {len(axes)} axes")
    widths: list[Expr] = [IntImm(0)] * (2 * rank)
    for k, axis in enumerate(axes):
        number = as_int(axis)
        for place in range(rank) if number is None else [node.axis(number, rank)]:
            # Of an axis that only a run knows, every one may be it.
            here = true() if number is not None else axis_is(axis, place, rank)
            for side in (0, 1):
                at = side * rank + place
                widths[at] = select(here, given[side * len(axes) + k], widths[at])
    if mode != "constant":
        old = node.shape(value)
        new = [dim + widths[k] + widths[k + rank] for k, dim in enumerate(old)]
        require_elements(node, old, new, "padded")
    known = [as_int(width) for width in widths]
    numbers = [width for width in known if width is not None]
    filler = node.constant(2) if node.has(2) else None
    if filler is not None and filler.dtype.kind == "f":
        fill = float(filler.reshape(()))
    plain = filler is None or filler.dtype.kind == "f" or not filler.any()
    if len(numbers) == len(widths) and plain and (filler is not None or not node.has(2)):
        if not any(numbers):
            return value
        pairs = tuple(zip(numbers[:rank], numbers[rank:], strict=True))
        return node.emit(
            "nn.pad", value, pad_width=pairs, pad_mode=_PAD_MODES[mode], pad_value=float(fill)
        )
    operands = [value, node.shape_of(widths)]
    if node.has(2):
        operands.append(node.emit("reshape", node.value(2), shape_expr()))
    elif fill:
        operands.append(constant(np.asarray(fill, node.dtype(value).numpy)))
    return node.emit("nn.dynamic_pad", *operands, pad_mode=_PAD_MODES[mode])


# --- blocks of pixels -----------------------------------------------------------------------------


def depth_to_space(node: Node) -> Result:
    """Channels moved into blocks of pixels."""
    value = node.value(0)
    size = node.attribute("blocksize", 1)
    if node.attribute("mode", "DCR") == "CRD":
        return node.emit("nn.pixel_shuffle", value, upscale_factor=size)
    n, c, h, w = node.shape(value)
    block = IntImm(size)
    deep = node.simplify(c // (size * size))
    cut = node.emit("reshape", value, node.shape_of([n, block, block, deep, h, w]))
    moved = node.emit("permute_dims", cut, axes=(0, 3, 4, 1, 5, 2))
    return node.emit("reshape", moved, node.shape_of([n, deep, h * size, w * size]))


def space_to_depth(node: Node) -> Result:
    """Blocks of pixels moved into channels."""
    value = node.value(0)
    size = node.attribute("blocksize", 1)
    n, c, h, w = node.shape(value)
    block = IntImm(size)
    if node.attribute("mode", "DCR") == "CRD":
        return node.emit("nn.pixel_unshuffle", value, downscale_factor=size)
    rows, columns = node.simplify(h // size), node.simplify(w // size)
    cut = node.emit("reshape", value, node.shape_of([n, c, rows, block, columns, block]))
    moved = node.emit("permute_dims", cut, axes=(0, 3, 5, 1, 2, 4))
    return node.emit("reshape", moved, node.shape_of([n, c * (size * size), rows, columns]))


# --- sampling -------------------------------------------------------------------------------------


def grid_sample(node: Node) -> Result:
    """An image read at the places of a grid."""
    value, grid = node.value(0), node.value(1)
    rank = len(node.shape(grid))
    if node.dtype(grid) is not node.dtype(value) and not node.dtype(grid).is_float:
        raise node.error(f"a grid of {node.dtype(grid)}")
    places = node.emit("permute_dims", grid, axes=(0, rank - 1, *range(1, rank - 1)))
    return node.emit(
        "image.grid_sample",
        value,
        places,
        method=node.attribute("mode", "linear"),
        padding_mode=node.attribute("padding_mode", "zeros"),
        align_corners=node.attribute("align_corners", 0) == 1,
    )


def affine_grid(node: Node) -> Result:
    """The places that affine maps take the points of images to."""
    size = node.sizes(1, "size").values[2:]
    grid = node.emit(
        "image.affine_grid",
        node.value(0),
        node.shape_of(size),
        align_corners=node.attribute("align_corners", 0) == 1,
    )
    return node.emit("permute_dims", grid, axes=(0, *range(2, len(size) + 2), 1))


def roi_align(node: Node) -> Result:
    """Regions of images sampled into cells; before opset 16 without the shift of half a pixel."""
    default = "half_pixel" if node.opset >= 16 else "output_half_pixel"
    return node.emit(
        "image.roi_align",
        node.value(0),
        node.value(1),
        node.value(2),
        output_size=(node.attribute("output_height", 1), node.attribute("output_width", 1)),
        sampling_ratio=node.attribute("sampling_ratio", 0),
        spatial_scale=node.attribute("spatial_scale", 1.0),
        mode=node.attribute("mode", "avg"),
        half_pixel=node.attribute("coordinate_transformation_mode", default) == "half_pixel",
    )


def max_roi_pool(node: Node) -> Result:
    """The maxima in the cells of regions of images."""
    return node.emit(
        "image.roi_max_pool",
        node.value(0),
        node.value(1),
        output_size=tuple(node.attribute("pooled_shape", [1, 1])),
        spatial_scale=node.attribute("spatial_scale", 1.0),
    )


IMAGE: dict[str, tuple[Converter, ...]] = {
    "AffineGrid": one(affine_grid),
    "DepthToSpace": one(depth_to_space),
    "GridSample": one(grid_sample),
    "MaxRoiPool": one(max_roi_pool),
    "Pad": one(pad),
    "Resize": (Converter(resize_10, 10), Converter(resize, 11)),
    "RoiAlign": one(roi_align),
    "SpaceToDepth": one(space_to_depth),
    "Upsample": one(resize_10),
}
"""Converters of operators on images."""
