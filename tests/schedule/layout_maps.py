"""Index maps for the tests of layouts, by the number of indices."""

from collections.abc import Callable, Sequence

from transect.ir.expr import Expr

Map = Callable[..., Sequence[Expr]]

ONE: list[Map] = [
    lambda i: (i // 4, i % 4),
    lambda i: (i % 2, i // 2),
    lambda i: ((i + 2) // 4, (i + 2) % 4),
    lambda i: (i // 8, i // 2 % 4, i % 2),
]
TWO: list[Map] = [
    lambda i, j: (j, i),
    lambda i, j: (j // 4, i, j % 4),
    lambda i, j: (i // 2, j // 4, i % 2, j % 4),
    lambda i, j: (i, j // 3, j % 3),
    lambda i, j: ((j + 1) // 2, (j + 1) % 2, i),
]
THREE: list[Map] = [
    lambda i, j, k: (j, k, i),
    lambda i, j, k: (i // 2, j // 4, k, i % 2, j % 4),
    lambda i, j, k: (i, j, k // 2, k % 2),
]
MAPS = {1: ONE, 2: TWO, 3: THREE}
