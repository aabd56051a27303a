"""Elementary functions as polynomials, on float and double lanes.

Relative errors are about one unit in the last place (see tests/codegen/test_math.py), specials as
in C. Sources: S. Moshier's Cephes for the float32 polynomials of log, sin and cos; N. Juffa's
erff; a minimax fit of our own for exp; Taylor series elsewhere, cut where the next term is below
half a unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.polynomial import chebyshev

from transect.codegen.llvm.formula import Formula
from transect.codegen.llvm.types import vector_of

_INF = math.inf
_NAN = math.nan
_LN2 = math.log(2.0)
_LOG10_2 = {
    32: (0.30078125, 2.4874566398119521373889e-4),
    64: (0.301025390625, 4.60503898119521373889472449e-6),
}
"""log10(2) in two parts, the first with trailing zeros: products with exponents are exact."""


def _round(f: Formula, x: str, factor: float = 1.0, offset: int = 0) -> tuple[str, str]:
    """(n, the nearest integer to x * factor, as a float; an integer whose low 12 bits are those of
    n + offset), for |x * factor| below 2^21.

    Adding 1.5 * 2^fraction leaves the integer in the low bits of the sum. As bits, the compiler
    does not see that adding and subtracting cancel (it would not, without fast-math flags, and
    there are none here).
    """
    magic = 1.5 * 2.0**f.shape.fraction_bits + offset
    total = f.add(x, magic) if factor == 1.0 else f.fma(x, factor, magic)
    return f.sub(total, magic), f.bits(total)


def _taylor(terms: int) -> list[float]:
    """1/n! for n = terms … 2: exp(r) = 1 + r + r^2 * polynomial."""
    return [1.0 / math.factorial(n) for n in range(terms, 1, -1)]


def _exp_range(f: Formula) -> tuple[float, float]:
    return (-104.0, 89.0) if f.shape.bits == 32 else (-746.0, 710.0)


def _clamp(f: Formula, x: str, low: float, high: float) -> str:
    """NaN stays."""
    x = f.select(f.test("olt", x, low), low, x)
    return f.select(f.test("ogt", x, high), high, x)


def _exp_parts(f: Formula, x: str, offset: int) -> tuple[str, str, str]:
    """(n as a float, n + offset in the low bits of an integer, r) with x = n ln 2 + r and
    |r| <= ln(2)/2."""
    number, low_bits = _round(f, x, 1.0 / _LN2, offset)
    high, low = (
        (0.693359375, -2.12194440e-4)
        if f.shape.bits == 32
        else (6.93145751953125e-1, 1.42860682030941723212e-6)
    )
    r = f.fma(number, -high, x)
    return number, low_bits, f.fma(number, -low, r)


_EXP32 = [0.00138145963823, 0.00836871709086, 0.0416683880927, 0.166665206294, 0.499999934476]
"""(exp(r) - 1 - r) / r^2 for |r| <= ln(2)/2: the result is off by 3.1e-9 at most (minimax fit)."""


def _exp_coefficients(f: Formula) -> list[float]:
    return _EXP32 if f.shape.bits == 32 else _taylor(13)


def _exp_near_zero(f: Formula, r: str) -> str:
    """exp(r) for |r| <= ln(2)/2, within 0.7 units: the last product is a third of the result."""
    return f.polynomial(r, [*_exp_coefficients(f), 1.0, 1.0])


def exp(f: Formula) -> str:
    low, high = _exp_range(f)
    x = f.arguments[0]
    if f.has_avx512 and f.shape.bits == 32:
        # Above, the polynomial of even degree is positive or, near infinity, NaN: both scaled by
        # what is too much, or infinite, are infinity.
        x = f.select(f.test("olt", x, low), low, x)
    else:
        x = _clamp(f, x, low, high)
    number, twice_biased, r = _exp_parts(f, x, 2 * f.shape.bias)
    return f.scale(_exp_near_zero(f, r), number, twice_biased)


def exp_nonpositive(f: Formula) -> str:
    """exp(x) for x <= 0 or NaN, as of distances from a maximum: nothing to clamp above, and powers
    of two that are in range when a constant is added to their exponents."""
    if f.has_avx512 and f.shape.bits == 32:
        return exp(f)
    low, _ = _exp_range(f)
    x = f.select(f.test("olt", f.arguments[0], low), low, f.arguments[0])
    raised = f.shape.bias // 2
    _, biased, r = _exp_parts(f, x, f.shape.bias + raised)
    value = f.mul(_exp_near_zero(f, r), f.power_of_two(biased))
    return f.mul(value, 2.0**-raised)


def exp2(f: Formula) -> str:
    low, high = (-151.0, 129.0) if f.shape.bits == 32 else (-1076.0, 1025.0)
    x = _clamp(f, f.arguments[0], low, high)
    number, twice_biased = _round(f, x, offset=2 * f.shape.bias)
    r = f.mul(f.sub(x, number), _LN2)
    return f.scale(_exp_near_zero(f, r), number, twice_biased)


def exp10(f: Formula) -> str:
    """10^x = 2^n * exp(r) with the reduction done in the base, which keeps large results exact."""
    low, high = (-46.0, 39.0) if f.shape.bits == 32 else (-324.5, 309.0)
    x = _clamp(f, f.arguments[0], low, high)
    number, twice_biased = _round(f, x, math.log2(10.0), 2 * f.shape.bias)
    head, rest = _LOG10_2[f.shape.bits]
    r = f.fma(number, -rest, f.fma(number, -head, x))
    r = f.mul(r, math.log(10.0))
    return f.scale(_exp_near_zero(f, r), number, twice_biased)


def expm1(f: Formula) -> str:
    low, high = (-26.0, 89.0) if f.shape.bits == 32 else (-56.0, 710.0)
    x0 = f.arguments[0]
    x = _clamp(f, x0, low, high)
    # 2^n p + (2^n - 1); 2^n may be out of range at the top, so halve and double.
    _, halved, r = _exp_parts(f, x, f.shape.bias - 1)
    p = f.fma(f.mul(r, r), f.polynomial(r, _exp_coefficients(f)), r)
    scale = f.power_of_two(halved)
    value = f.fma(p, scale, f.sub(scale, 0.5))
    value = f.add(value, value)
    # exp(x) - 1 keeps the sign of zero, and x itself where it is tiny.
    tiny = f.test("olt", f.fabs(x0), 2.0 ** -(f.shape.fraction_bits + 2))
    return f.select(tiny, x0, value)


def _log_parts(f: Formula, x: str) -> tuple[str, str]:
    """(e, m - 1) as floats with x = 2^e m and sqrt(1/2) <= m < sqrt(2); x positive and finite."""
    bits, fraction = f.shape.bits, f.shape.fraction_bits
    smallest = 2.0**-126 if bits == 32 else 2.0**-1022
    tiny = f.test("olt", x, smallest)
    x = f.select(tiny, f.mul(x, 2.0 ** (fraction + 2)), x)
    raw = f.bits(x)
    # Subtracting the bits of sqrt(1/2) makes the exponent field count from there.
    root = 0x3F3504F3 if bits == 32 else 0x3FE6A09E667F3BCD
    shifted = f.int_op("sub", raw, root)
    exponent = f.int_op("ashr", shifted, fraction)
    mantissa = f.from_bits(f.int_op("sub", raw, f.int_op("shl", exponent, fraction)))
    e = f.line(f"sitofp {f.shape.integers} {exponent} to {f.shape.type}")
    e = f.sub(e, f.select(tiny, float(fraction + 2), 0.0))
    return e, f.sub(mantissa, 1.0)


def _log_specials(f: Formula, x: str, value: str) -> str:
    value = f.select(f.test("oeq", x, _INF), _INF, value)
    value = f.select(f.test("oeq", x, 0.0), -_INF, value)
    return f.select(f.test("ult", x, 0.0), _NAN, value)


_LOG32 = [
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
]


def _log_tail(f: Formula, m: str) -> str:
    """log(1 + m) - m, for 1 + m between sqrt(1/2) and sqrt(2)."""
    square = f.mul(m, m)
    if f.shape.bits == 32:
        return f.fma(f.mul(square, m), f.polynomial(m, _LOG32), f.mul(square, -0.5))
    # log(1 + m) = 2 atanh(s), s = m / (2 + m): fdlibm's rearrangement, which loses no digits.
    s = f.div(m, f.add(m, 2.0))
    z = f.mul(s, s)
    series = f.mul(z, f.polynomial(z, [2.0 / n for n in range(25, 1, -2)]))
    half = f.mul(square, 0.5)
    return f.sub(f.mul(s, f.add(half, series)), half)


def log(f: Formula) -> str:
    x = f.arguments[0]
    e, m = _log_parts(f, x)
    tail = _log_tail(f, m)
    if f.shape.bits == 32:
        high, low = 0.693359375, -2.12194440e-4
    else:
        high, low = 6.93147180369123816490e-01, 1.90821492927058770002e-10
    value = f.add(m, f.fma(e, low, tail))
    return _log_specials(f, x, f.fma(e, high, value))


def _log_in_base(f: Formula, factor: float, high: float, low: float) -> str:
    """log2 and log10: (m + tail) * factor + e * (high + low).

    The factor is split too, as m times it would otherwise carry a rounding of its own.
    """
    x = f.arguments[0]
    e, m = _log_parts(f, x)
    tail = _log_tail(f, m)
    coarse = 2.0 ** (12 if f.shape.bits == 32 else 30)
    head = math.floor(factor * coarse) / coarse
    rest = factor - head
    value = f.mul(tail, factor)
    value = f.fma(m, rest, value)
    value = f.fma(e, low, value)
    value = f.fma(m, head, value)
    return _log_specials(f, x, f.fma(e, high, value))


def log2(f: Formula) -> str:
    return _log_in_base(f, 1.0 / _LN2, 1.0, 0.0)


def log10(f: Formula) -> str:
    return _log_in_base(f, 1.0 / math.log(10.0), *_LOG10_2[f.shape.bits])


def log1p(f: Formula) -> str:
    """log(u) + (x - (u - 1)) / u with u = 1 + x rounded (W. Kahan)."""
    x = f.arguments[0]
    u = f.add(x, 1.0)
    rest = f.div(f.sub(x, f.sub(u, 1.0)), u)
    value = f.add(f.apply("log", u), rest)
    value = f.select(f.test("oeq", u, _INF), u, value)
    value = f.select(f.test("oeq", u, 0.0), -_INF, value)
    tiny = f.test("olt", f.fabs(x), 2.0 ** -(f.shape.fraction_bits + 2))
    return f.select(tiny, x, value)


def sigmoid(f: Formula) -> str:
    """1 / (1 + exp(-x)); for negative x exp(x) / (1 + exp(x)), which does not lose the tail."""
    x = f.arguments[0]
    e = f.apply("exp_nonpositive", f.line(f"fneg {f.shape.type} {f.fabs(x)}"))
    below = f.test("olt", x, 0.0)
    # NaN comes out of exp.
    return f.quotient(f.select(below, e, 1.0), f.add(e, 1.0))


def tanh(f: Formula) -> str:
    """t / (t + 2) with t = expm1(2 |x|), which keeps every digit near zero."""
    x = f.arguments[0]
    a = f.fabs(x)
    if f.shape.bits == 32:
        # From 9.1 on the result is 1: so 2^n is at most 2^26, and never below 1.
        a = f.select(f.test("ogt", a, 9.1), 9.1, a)
        number, biased = _round(f, a, 2.0 / _LN2, f.shape.bias)
        # Half of what exp reduces 2a to; the coefficients have the powers of two.
        r = f.fma(number, 2.12194440e-4 / 2, f.fma(number, -0.693359375 / 2, a))
        series = [c * 2.0 ** (6 - k) for k, c in enumerate([*_EXP32, 1.0])]
        p = f.mul(r, f.polynomial(r, series))
        scale = f.power_of_two(biased)
        t = f.fma(p, scale, f.sub(scale, 1.0))
        return f.copysign(f.quotient(t, f.add(t, 2.0)), x)
    # Beyond 20 the result is 1.
    t = f.apply("expm1", f.add(a, a))
    value = f.copysign(f.select(f.test("ogt", a, 20.0), 1.0, f.div(t, f.add(t, 2.0))), x)
    return f.select(f.test("uno", x, x), x, value)


def sinh(f: Formula) -> str:
    """With t = expm1(|x|): (t + t / (t + 1)) / 2; near overflow exp(|x| / 2)^2 / 2."""
    x = f.arguments[0]
    a = f.fabs(x)
    t = f.apply("expm1", a)
    near = f.mul(f.add(t, f.div(t, f.add(t, 1.0))), 0.5)
    return f.copysign(_large_hyperbolic(f, a, near), x)


def cosh(f: Formula) -> str:
    a = f.fabs(f.arguments[0])
    e = f.apply("exp", a)
    near = f.fma(e, 0.5, f.div(0.5, e))
    return _large_hyperbolic(f, a, near)


def _large_hyperbolic(f: Formula, a: str, near: str) -> str:
    limit = 80.0 if f.shape.bits == 32 else 700.0
    e = f.apply("exp", f.mul(a, 0.5))
    return f.select(f.test("ogt", a, limit), f.mul(f.mul(e, 0.5), e), near)


_ERF_PIECES = {16: (3.93603515625, 6), 8: (1.90625, 7)}
"""By the size of erf's table: its pieces in an interval of length 1, beyond the last of which the
result is 1, and the coefficients of each. 3.936… has the first constants of the table close to
numbers of 24 bits."""


@cache
def _erf_table(size: int) -> tuple[tuple[float, ...], ...]:
    """The coefficients of erf((k + d) / pieces), |d| <= 1/2, for each k below `size`, highest power
    of d first: fitted at Chebyshev nodes, off by 3e-8 at most. At k = 0 it is a multiple of
    d, and the relative error as small."""
    pieces, terms = _ERF_PIECES[size]
    points = chebyshev.chebpts1(2 * terms)

    def piece(k: int) -> list[float]:
        nodes = points * 0.5 if k else points * 0.25 + 0.25
        values = exact = np.array([math.erf((k + d) / pieces) for d in nodes])
        coefficients: list[float] = []
        # Each is rounded before the higher ones are fitted, which then make up for that. The
        # weights are for the relative error.
        while len(coefficients) < terms:
            done = len(coefficients)
            weights = np.abs(nodes) ** done / exact
            fitted = np.polyfit(nodes, values, terms - 1 - done, w=weights)
            coefficients.append(float(np.float32(fitted[-1])) if done or k else 0.0)
            values = (values - coefficients[-1]) / nodes
        return coefficients[::-1]

    return tuple(zip(*(piece(k) for k in range(size)), strict=True))


def erf(f: Formula) -> str:
    """float32 only."""
    if not f.table_size:
        return _erf_of_two_parts(f)
    pieces, _ = _ERF_PIECES[f.table_size]
    x = f.arguments[0]
    t = f.fabs(x)
    last = (f.table_size - 0.51) / pieces
    t = f.select(f.test("ogt", t, last), last, t)
    number, index = _round(f, t, pieces)
    d = f.fma(t, pieces, f.line(f"fneg {f.shape.type} {number}"))
    value, *rest = (f.look_up(row, index) for row in _erf_table(f.table_size))
    for coefficient in rest:
        value = f.fma(value, d, coefficient)
    return f.copysign(value, x)


def _erf_of_two_parts(f: Formula) -> str:
    """N. Juffa's erff: two polynomials, the outer one in the exponent."""
    x = f.arguments[0]
    t, s = f.fabs(x), f.mul(x, x)
    near = f.fma(
        f.polynomial(
            s,
            [
                -5.96761703e-4,
                4.99119423e-3,
                -2.67681349e-2,
                1.12819925e-1,
                -3.76125336e-1,
                1.28379166e-1,
            ],
        ),
        x,
        x,
    )
    # Beyond 4 the result is 1; the polynomial would overflow.
    t = f.select(f.test("ogt", t, 4.0), 4.0, t)
    s = f.mul(t, t)
    r = f.fma(-1.72853470e-5, t, 3.83197126e-4)
    u = f.fma(-3.88396438e-3, t, 2.42546219e-2)
    r = f.fma(r, s, u)
    for coefficient in (-1.06777877e-1, -6.34846687e-1, -1.28717512e-1):
        r = f.fma(r, t, coefficient)
    r = f.fma(r, t, f.line(f"fneg {f.shape.type} {t}"))
    far = f.copysign(f.sub(1.0, f.apply("exp", r)), x)
    return f.select(f.test("ogt", f.fabs(x), 0.927734375), far, near)


def _sine(f: Formula, r: str) -> str:
    z = f.mul(r, r)
    if f.shape.bits == 32:
        p = f.polynomial(z, [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1])
    else:
        p = f.polynomial(z, [(-1.0) ** (n // 2) / math.factorial(n) for n in range(19, 1, -2)])
    return f.fma(f.mul(z, r), p, r)


def _cosine(f: Formula, r: str) -> str:
    z = f.mul(r, r)
    if f.shape.bits == 32:
        p = f.polynomial(z, [2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2])
    else:
        p = f.polynomial(z, [(-1.0) ** (n // 2) / math.factorial(n) for n in range(20, 2, -2)])
    return f.add(f.fma(f.mul(z, z), p, f.mul(z, -0.5)), 1.0)


_HALF_PI = (1.5707963267341256e00, 6.0771005063039e-11, 2.0222662487959506e-21)
"""pi/2 in parts of 33 bits (fdlibm): their products with integers below 2^20 are exact."""


def _reduce(f: Formula) -> tuple[str, str]:
    """(r, quadrant) with x = quadrant * pi/2 + r, for |x| up to TRIGONOMETRIC_LIMIT."""
    x = f.arguments[0]
    if f.shape.bits == 64:
        number, quadrant = _round(f, f.mul(x, 2.0 / math.pi))
        for part in _HALF_PI:
            x = f.fma(number, -part, x)
        return x, quadrant
    # Reduce in double, where two parts of pi/2 suffice.
    lanes = f.shape.lanes
    double, integers = vector_of("double", lanes), vector_of("i64", lanes)
    wide = Formula(f.module, type(f.shape)(64, lanes), features=f.features)
    wide.lines = f.lines
    y = f.line(f"fpext {f.shape.type} {x} to {double}")
    number, quadrant = _round(wide, wide.mul(y, 2.0 / math.pi))
    for part in _HALF_PI[:2]:
        y = wide.fma(number, -part, y)
    r = f.line(f"fptrunc {double} {y} to {f.shape.type}")
    return r, f.line(f"trunc {integers} {quadrant} to {f.shape.integers}")


TRIGONOMETRIC_LIMIT = 5e5
"""Beyond it the reduction loses digits, and the C library takes over."""


def _quadrants(f: Formula, shift: int) -> str:
    r, quadrant = _reduce(f)
    if shift:
        quadrant = f.int_op("add", quadrant, shift)
    odd = f.line(f"icmp ne {f.shape.integers} {f.int_op('and', quadrant, 1)}, {f.integer(0)}")
    value = f.select(odd, _cosine(f, r), _sine(f, r))
    sign = f.int_op("shl", f.int_op("and", quadrant, 2), f.shape.bits - 2)
    return f.from_bits(f.int_op("xor", f.bits(value), sign))


def sin(f: Formula) -> str:
    value = _quadrants(f, 0)
    # The sign of zero.
    return f.select(f.test("oeq", f.arguments[0], 0.0), f.arguments[0], value)


def cos(f: Formula) -> str:
    return _quadrants(f, 1)


ELEMENTARY: dict[str, tuple[Callable[[Formula], str], tuple[int, ...]]] = {
    "exp": (exp, (32, 64)),
    "exp_nonpositive": (exp_nonpositive, (32, 64)),
    "exp2": (exp2, (32, 64)),
    "exp10": (exp10, (32, 64)),
    "expm1": (expm1, (32, 64)),
    "log": (log, (32, 64)),
    "log2": (log2, (32, 64)),
    "log10": (log10, (32, 64)),
    "log1p": (log1p, (32, 64)),
    "sigmoid": (sigmoid, (32, 64)),
    "tanh": (tanh, (32, 64)),
    "sinh": (sinh, (32, 64)),
    "cosh": (cosh, (32, 64)),
    "erf": (erf, (32,)),
    "sin": (sin, (32, 64)),
    "cos": (cos, (32, 64)),
}
"""Function name -> (what writes it, the widths it is good for)."""
