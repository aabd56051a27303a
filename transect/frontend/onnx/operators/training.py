"""Steps of optimizers (ai.onnx.preview.training): new values from gradients, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.ir.dtype import INT64
from transect.relax.expr import Value, constant


class _Step:
    """The arithmetic of one tensor's step; a number becomes a scalar of the tensor's dtype.

    rate: R, in that dtype. count: T, how many steps came before. x, gradient: the tensor and its
    gradient with that of its norm added.
    """

    def __init__(self, node: Node, x: Value, gradient: Value) -> None:
        self.node = node
        self.x = x
        dtype = node.dtype(x)
        self.rate = node.emit("astype", node.value(0), dtype=dtype)
        self.count = node.emit("astype", node.value(1), dtype=dtype)
        norm: float = node.attribute("norm_coefficient", 0.0)
        self.gradient = self("add", self("multiply", norm, x), gradient)

    def __call__(self, name: str, *operands: Value | float) -> Value:
        """A call of operator `name`."""
        values = (
            item if isinstance(item, Value) else self.node.scalar(item, self.x) for item in operands
        )
        return self.node.emit(name, *values)

    def mix(self, share: float, old: Value, rest: float, new: Value) -> Value:
        """share * old + rest * new."""
        return self("add", self("multiply", share, old), self("multiply", rest, new))

    def later(self, after: Value, first: Value) -> Value:
        """`after`, or `first` in the first step."""
        is_later = self.node.emit("greater", self.node.value(1), constant(0, INT64))
        return self("where", is_later, after, first)

    def moved(self, rate: Value, direction: Value) -> Value:
        """x - rate * direction."""
        return self("subtract", self.x, self("multiply", rate, direction))


def _adagrad(step: _Step, squares: Value) -> Sequence[Value]:
    node = step.node
    slower = step("add", 1.0, step("multiply", step.count, node.attribute("decay_factor", 0.0)))
    squares = step("add", squares, step("multiply", step.gradient, step.gradient))
    root = step("add", step("sqrt", squares), node.attribute("epsilon", 1e-6))
    moved = step.moved(step("divide", step.rate, slower), step("divide", step.gradient, root))
    return moved, squares


def _adam(step: _Step, mean: Value, squares: Value) -> Sequence[Value]:
    node = step.node
    alpha: float = node.attribute("alpha", 0.9)
    beta: float = node.attribute("beta", 0.999)
    mean = step.mix(alpha, mean, 1 - alpha, step.gradient)
    squares = step.mix(beta, squares, 1 - beta, step("multiply", step.gradient, step.gradient))
    root = step("add", step("sqrt", squares), node.attribute("epsilon", 1e-6))
    left = [step("subtract", 1.0, step("power", share, step.count)) for share in (alpha, beta)]
    fuller = step("divide", step("multiply", step.rate, step("sqrt", left[1])), left[0])
    moved = step.moved(step.later(fuller, step.rate), step("divide", mean, root))
    kept = 1 - node.attribute("norm_coefficient_post", 0.0)
    return step("multiply", kept, moved), mean, squares


def _momentum(step: _Step, momentum: Value) -> Sequence[Value]:
    node = step.node
    alpha: float = node.attribute("alpha", 0.0)
    one_, beta = (node.scalar(item, step.x) for item in (1.0, node.attribute("beta", 1.0)))
    share = step("multiply", step.later(beta, one_), step.gradient)
    momentum = step("add", step("multiply", alpha, momentum), share)
    direction = momentum
    if node.attribute("mode", "standard") == "nesterov":
        direction = step("add", step.gradient, step("multiply", alpha, momentum))
    return step.moved(step.rate, direction), momentum


def _each(rule: Callable[..., Sequence[Value]], states: int) -> Callable[[Node], Result]:
    """A converter of `rule` for a tensor, which has so many states besides itself. Operands and
    results are ordered by role: all tensors, all gradients, all of each state."""

    def convert(node: Node) -> Result:
        values = [node.value(index) for index in range(2, len(node.operands))]
        count, rest = divmod(len(values), states + 2)
        if rest or not count:
            raise node.error(f"{len(values)} tensors, not a multiple of {states + 2}")
        rows = [values[number::count] for number in range(count)]
        made = [rule(_Step(node, x, gradient), *state) for x, gradient, *state in rows]
        return [item for role in zip(*made, strict=True) for item in role]

    return convert


TRAINING: dict[str, tuple[Converter, ...]] = {
    "Adagrad": one(_each(_adagrad, 1)),
    "Adam": one(_each(_adam, 2)),
    "Momentum": one(_each(_momentum, 1)),
}
"""Converters of ai.onnx.preview.training."""
