"""How operators write their loops: `FunctionBuilder.compute`, `.reduce` and statements.

Scheduling them, and what they cost, is the business of other rooms.
"""

from transect.tir.builder.combiner import ARGMAX, ARGMIN, COMBINERS, Combiner
from transect.tir.builder.function_builder import FunctionBuilder, loop_nest
from transect.tir.builder.statements import assign, repeat_while, serial, store, when

__all__ = [
    "ARGMAX",
    "ARGMIN",
    "COMBINERS",
    "Combiner",
    "FunctionBuilder",
    "assign",
    "loop_nest",
    "repeat_while",
    "serial",
    "store",
    "when",
]
