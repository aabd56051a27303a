"""One step of recurrent networks: the gates, and what becomes of the state.

The loop over the steps, and the matrix products before it and in it, are the front end's. All cells
share their operands. projected: (steps, batch, gates * hidden), the products of the inputs with
their weights and all biases. recurrent: (batch, gates * hidden), the product of the state with its
weights. step: the number of the iteration, an integer scalar. lengths: of the sequences, where they
differ, (batch,); rows that have ended keep their state. Backwards, a sequence begins at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transect.ir.dtype import INT64, DType
from transect.ir.expr import Expr, Var, as_int, cast, const, maximum, minimum, select
from transect.ir.types import TensorType, TupleType, Type
from transect.relax.op.elementwise import FloatUnary, Sigmoid, Tanh
from transect.relax.op.inference import common_dtype, require_rank, require_same, tensor
from transect.relax.op.nn_activation import (
    Elu,
    HardSigmoid,
    LeakyRelu,
    Relu,
    Softplus,
    Softsign,
    ThresholdedRelu,
)
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder, store, when
from transect.tir.function import PrimFunc
from transect.tir.stmt import Stmt


@dataclass(frozen=True)
class Affine(FloatUnary):
    """alpha * x + beta."""

    alpha: float = 1.0
    beta: float = 0.0

    def scalar(self, x: Expr) -> Expr:
        """A line."""
        return x * const(self.alpha, x.dtype) + const(self.beta, x.dtype)


@dataclass(frozen=True)
class ScaledTanh(FloatUnary):
    """alpha * tanh(beta * x)."""

    alpha: float = 1.0
    beta: float = 1.0

    def scalar(self, x: Expr) -> Expr:
        """The intrinsic, scaled."""
        return Tanh().scalar(x * const(self.beta, x.dtype)) * const(self.alpha, x.dtype)


ACTIVATIONS: dict[str, tuple[type[Any], tuple[float, ...]]] = {
    "affine": (Affine, (1.0, 0.0)),
    "elu": (Elu, (1.0,)),
    "hardsigmoid": (HardSigmoid, (0.2, 0.5)),
    "leakyrelu": (LeakyRelu, (0.01,)),
    "relu": (Relu, ()),
    "scaledtanh": (ScaledTanh, (1.0, 1.0)),
    "sigmoid": (Sigmoid, ()),
    "softplus": (Softplus, ()),
    "softsign": (Softsign, ()),
    "tanh": (Tanh, ()),
    "thresholdedrelu": (ThresholdedRelu, (1.0,)),
}
"""Name in lower case -> the operator, and the defaults of the parameters it has: alpha, beta."""


@dataclass(frozen=True)
class Place:
    """Where step `step` reads and writes in sequences of at most `most` steps."""

    step: Expr
    most: Expr
    lengths: Buffer | None
    reverse: bool

    def goes_on(self, row: Var) -> Expr | None:
        """Whether the sequence of a row has this step; None if all have."""
        return None if self.lengths is None else self.step < self._length(row)

    def time(self, row: Var) -> Expr:
        """The position of the step in the sequence of a row, inside even where it has ended."""
        at = self._length(row) - 1 - self.step if self.reverse else self.step
        return at if self.lengths is None else minimum(maximum(at, 0), self.most - 1)

    def keep(self, row: Var, new: Expr, old: Expr) -> Expr:
        """`new`, or `old` where the sequence of a row has ended."""
        condition = self.goes_on(row)
        return new if condition is None else select(condition, new, old)

    def _length(self, row: Var) -> Expr:
        return self.most if self.lengths is None else cast(self.lengths[row], INT64)


@dataclass(frozen=True)
class Cell(Operator):
    """Base of the cells. functions: names of ACTIVATIONS; parameters: alpha and beta of each, as
    far as it has them. clip: the bound of what goes into them, None for none."""

    functions: tuple[str, ...] = ("tanh",)
    parameters: tuple[tuple[float, ...], ...] = ((),)
    clip: float | None = None
    reverse: bool = False

    def activate(self, number: int, value: Expr, *, clipped: bool = True) -> Expr:
        """Activation function `number` of a value, clipped unless it is not the sum of a gate."""
        if clipped and self.clip is not None:
            bound = const(self.clip, value.dtype)
            value = minimum(maximum(value, const(-self.clip, value.dtype)), bound)
        kind, _ = ACTIVATIONS[self.functions[number]]
        return kind(*self.parameters[number]).scalar(value)

    def place(self, projected: Buffer, step: Expr, lengths: Buffer | None) -> Place:
        """Where this step is."""
        return Place(cast(step, INT64), projected.shape[0], lengths, self.reverse)

    def state_type(self, projected: Type, recurrent: Type, h: Type) -> TensorType:
        """The type of the next state: that of the state."""
        given = [tensor(self, projected, "projected"), tensor(self, recurrent, "recurrent")]
        state = tensor(self, h, "h")
        for item, rank, what in ((given[0], 3, "projected"), (given[1], 2, "recurrent")):
            require_rank(self, item, rank, what)
            if item.shape is not None and state.shape is not None:
                batch = item.shape[rank - 2]
                require_same(self, batch, state.shape[0], f"the batches of {what} and h")
        require_rank(self, state, 2, "h")
        common_dtype(self, *given, state)
        return state


@dataclass(frozen=True)
class RnnCell(Cell):
    """nn.rnn_cell(projected, recurrent, h, step, lengths): f(projected + recurrent).

    functions: f. Source: ONNX RNN-14.
    """

    name = "nn.rnn_cell"

    def infer(
        self, projected: Type, recurrent: Type, h: Type, step: Type, lengths: Type | None = None
    ) -> TensorType:
        """The type of h."""
        return self.state_type(projected, recurrent, h)

    def legalize(
        self,
        b: FunctionBuilder,
        projected: Buffer,
        recurrent: Buffer,
        h: Buffer,
        step: Expr,
        lengths: Buffer | None = None,
    ) -> Buffer:
        """One map."""
        at = self.place(projected, step, lengths)

        def state(row: Var, column: Var) -> Expr:
            total = projected[at.time(row), row, column] + recurrent[row, column]
            return at.keep(row, self.activate(0, total), h[row, column])

        return b.compute(h.shape, state, name="h_next")


@dataclass(frozen=True)
class GruReset(Cell):
    """nn.gru_reset(projected, recurrent, h, step, lengths): the state times the reset gate.

    recurrent: of the gates z, r. functions: f, g. Source: ONNX GRU-14.
    """

    name = "nn.gru_reset"

    def infer(
        self, projected: Type, recurrent: Type, h: Type, step: Type, lengths: Type | None = None
    ) -> TensorType:
        """The type of h."""
        return self.state_type(projected, recurrent, h)

    def legalize(
        self,
        b: FunctionBuilder,
        projected: Buffer,
        recurrent: Buffer,
        h: Buffer,
        step: Expr,
        lengths: Buffer | None = None,
    ) -> Buffer:
        """One map."""
        at, size = self.place(projected, step, lengths), h.shape[1]

        def reset(row: Var, column: Var) -> Expr:
            total = projected[at.time(row), row, size + column] + recurrent[row, size + column]
            return self.activate(0, total) * h[row, column]

        return b.compute(h.shape, reset, name="reset")


@dataclass(frozen=True)
class GruCell(Cell):
    """nn.gru_cell(projected, recurrent, h, step, lengths, candidate): the next state.

    recurrent: of the gates z, r, h (the reset gate comes after the product), or of z, r with
    `candidate`, the product of the state that was reset. functions: f, g. Source: ONNX GRU-14.
    """

    name = "nn.gru_cell"

    def infer(
        self,
        projected: Type,
        recurrent: Type,
        h: Type,
        step: Type,
        lengths: Type | None = None,
        candidate: Type | None = None,
    ) -> TensorType:
        """The type of h."""
        return self.state_type(projected, recurrent, h)

    def legalize(
        self,
        b: FunctionBuilder,
        projected: Buffer,
        recurrent: Buffer,
        h: Buffer,
        step: Expr,
        lengths: Buffer | None = None,
        candidate: Buffer | None = None,
    ) -> Buffer:
        """One map."""
        at, size = self.place(projected, step, lengths), h.shape[1]

        def state(row: Var, column: Var) -> Expr:
            time = at.time(row)

            def gate(number: int) -> Expr:
                place = size * number + column
                return self.activate(0, projected[time, row, place] + recurrent[row, place])

            if candidate is None:
                product = gate(1) * recurrent[row, size * 2 + column]
            else:
                product = candidate[row, column]
            new = self.activate(1, projected[time, row, size * 2 + column] + product)
            update, old = gate(0), h[row, column]
            one = const(1, new.dtype)
            return at.keep(row, (one - update) * new + update * old, old)

        return b.compute(h.shape, state, name="h_next")


@dataclass(frozen=True)
class LstmCell(Cell):
    """nn.lstm_cell(projected, recurrent, h, c, step, lengths, peephole): the next h and c.

    The gates are i, o, f, c. peephole: (3 * hidden,), of i, o, f. functions: f, g, h. input_forget:
    the forget gate is 1 - i. Source: ONNX LSTM-14.
    """

    name = "nn.lstm_cell"
    input_forget: bool = False

    def infer(
        self,
        projected: Type,
        recurrent: Type,
        h: Type,
        c: Type,
        step: Type,
        lengths: Type | None = None,
        peephole: Type | None = None,
    ) -> TupleType:
        """The types of h and c."""
        return TupleType((self.state_type(projected, recurrent, h), tensor(self, c, "c")))

    def legalize(
        self,
        b: FunctionBuilder,
        projected: Buffer,
        recurrent: Buffer,
        h: Buffer,
        c: Buffer,
        step: Expr,
        lengths: Buffer | None = None,
        peephole: Buffer | None = None,
    ) -> tuple[Buffer, Buffer]:
        """A map for c, then one for h."""
        at, size = self.place(projected, step, lengths), h.shape[1]

        def total(number: int, row: Var, column: Var, seen: Buffer | None = None) -> Expr:
            place = size * number + column
            value = projected[at.time(row), row, place] + recurrent[row, place]
            if peephole is not None and seen is not None:
                value = value + peephole[place] * seen[row, column]
            return value

        def memory(row: Var, column: Var) -> Expr:
            enter = self.activate(0, total(0, row, column, c))
            if self.input_forget:
                stay = const(1, enter.dtype) - enter
            else:
                stay = self.activate(0, total(2, row, column, c))
            new = self.activate(1, total(3, row, column))
            return at.keep(row, stay * c[row, column] + enter * new, c[row, column])

        following = b.compute(c.shape, memory, name="c_next")

        def state(row: Var, column: Var) -> Expr:
            leave = self.activate(0, total(1, row, column, following))
            new = leave * self.activate(2, following[row, column], clipped=False)
            return at.keep(row, new, h[row, column])

        return b.compute(h.shape, state, name="h_next"), following


@dataclass(frozen=True)
class StepStore:
    """The program that writes a step's state into the sequence of states, in place.

    It takes y (steps, directions, batch, hidden), or with batch_first (batch, steps, directions,
    hidden), then h (batch, hidden), the lengths (batch,) if their dtype is given, and the number
    of the step. direction: which of the directions.
    """

    dtype: DType
    hidden: Expr
    directions: int
    direction: int
    lengths: DType | None = None
    reverse: bool = False
    batch_first: bool = False

    def program(self) -> PrimFunc:
        """One map over h."""
        steps, batch, hidden = Var("steps"), Var("batch"), Var("hidden")
        size = hidden if as_int(self.hidden) is None else self.hidden
        b = FunctionBuilder("store_step")
        shape = (steps, self.directions, batch, size)
        order = (2, 0, 1, 3) if self.batch_first else (0, 1, 2, 3)
        y = b.input("y", [shape[axis] for axis in order], self.dtype)
        h = b.input("h", (batch, size), self.dtype)
        counts = None if self.lengths is None else b.input("lengths", (batch,), self.lengths)
        at = Place(b.scalar("step"), steps, counts, self.reverse)

        def write(row: Var, column: Var) -> Stmt:
            place = (at.time(row), self.direction, row, column)
            put = store(y, tuple(place[axis] for axis in order), h[row, column])
            condition = at.goes_on(row)
            return put if condition is None else when(condition, put)

        b.block((batch, size), write, name="store")
        return b.finish(()).with_attrs(global_symbol=None)
