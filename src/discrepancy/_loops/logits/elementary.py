"""Exponentials and logarithms for the loops on logits, in the precision of their argument, as SIMD code.

Each function has a formula for float32 and one for float64, chosen when a loop is compiled. Polynomials replace the
mathematical library, whose calls a loop cannot run side by side.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from discrepancy._loops.compiled import compiled
from discrepancy._loops.exponential import (
    _ROUND_DOUBLE,
    _ROUND_SINGLE,
    _bits_of_double,
    _bits_of_single,
    _double_of_bits,
    _single_of_bits,
)

_LOG2E = 1.4426950408889634
_F = np.float32
_LOG2E_SINGLE = _F(_LOG2E)
# 1 / k! for e^y - 1 - y and 1 / (2 k + 1) for the logarithm, highest power first.
_R = tuple(1.0 / math.factorial(k) for k in range(20))
# Where 2^r is put together from bits, r = -127 (-1023) comes out as an exact zero.
_LOW_SINGLE, _HIGH_SINGLE = _F(-127.0 / _LOG2E), _F(127.0 / _LOG2E)
_LOW_DOUBLE, _HIGH_DOUBLE = -1023.0 / _LOG2E, 1023.0 / _LOG2E


@compiled(fastmath={"contract"})
def _scaled_single(y):
    """(2^s - 1, 2^r) with e^y = 2^r 2^s, r whole and |s| <= 1/2, for a float32 y <= 88; log 2 is taken
    off in two parts, the first of so few bits that its multiples are exact."""
    if y < _LOW_SINGLE:
        y = _LOW_SINGLE
    rounded = _F(y * _LOG2E_SINGLE + _F(_ROUND_SINGLE))
    r = _F(rounded - _F(_ROUND_SINGLE))
    s = ((y - r * _F(0.693359375)) - r * _F(-2.12194440054690583e-4)) * _LOG2E_SINGLE
    p = _F(0.0001545316294512069)
    p = p * s + _F(0.0013390863664671234)
    p = p * s + _F(0.009618082557277852)
    p = p * s + _F(0.05550357114219078)
    p = p * s + _F(0.24022650760568126)
    p = p * s + _F(0.6931471880262288)
    return p * s, _single_of_bits(types.int32((_bits_of_single(rounded) + types.int32(127)) << types.int32(23)))


@compiled(fastmath={"contract"})
def _scaled_double(y):
    """(2^s - 1, 2^r) with e^y = 2^r 2^s for a float64 y <= 709."""
    if y < _LOW_DOUBLE:
        y = _LOW_DOUBLE
    rounded = y * _LOG2E + _ROUND_DOUBLE
    r = rounded - _ROUND_DOUBLE
    s = ((y - r * 6.93147180369123816490e-01) - r * 1.90821492927058770002e-10) * _LOG2E
    p = 4.4549605981865186e-10
    p = p * s + 7.072585949269223e-09
    p = p * s + 1.0178062445845774e-07
    p = p * s + 1.321544258792169e-06
    p = p * s + 1.525273382983612e-05
    p = p * s + 0.0001540353044173605
    p = p * s + 0.0013333558146416936
    p = p * s + 0.009618129107606888
    p = p * s + 0.0555041086648216
    p = p * s + 0.24022650695910097
    p = p * s + 0.6931471805599453
    return p * s, _double_of_bits((_bits_of_double(rounded) + 1023) << 52)


@compiled(fastmath={"contract"})
def _decay_single(y):
    z, scale = _scaled_single(y)
    return scale + scale * z


@compiled(fastmath={"contract"})
def _decay_double(y):
    z, scale = _scaled_double(y)
    return scale + scale * z


@compiled(fastmath={"contract"})
def _growth_single(y):
    z, scale = _scaled_single(_HIGH_SINGLE if y > _HIGH_SINGLE else y)
    return _F(np.inf) if y > _HIGH_SINGLE else scale + scale * z


@compiled(fastmath={"contract"})
def _growth_double(y):
    z, scale = _scaled_double(_HIGH_DOUBLE if y > _HIGH_DOUBLE else y)
    return np.inf if y > _HIGH_DOUBLE else scale + scale * z


@compiled(fastmath={"contract"})
def _expm1_single(y):
    z, scale = _scaled_single(y)
    return scale * z + (scale - _F(1.0))


@compiled(fastmath={"contract"})
def _expm1_double(y):
    z, scale = _scaled_double(y)
    return scale * z + (scale - 1.0)


@compiled(fastmath={"contract"})
def _excess_single(y):
    p = _F(_R[11])
    p = p * y + _F(_R[10])
    p = p * y + _F(_R[9])
    p = p * y + _F(_R[8])
    p = p * y + _F(_R[7])
    p = p * y + _F(_R[6])
    p = p * y + _F(_R[5])
    p = p * y + _F(_R[4])
    p = p * y + _F(_R[3])
    p = p * y + _F(_R[2])
    return p * y * y


@compiled(fastmath={"contract"})
def _excess_double(y):
    p = _R[19]
    p = p * y + _R[18]
    p = p * y + _R[17]
    p = p * y + _R[16]
    p = p * y + _R[15]
    p = p * y + _R[14]
    p = p * y + _R[13]
    p = p * y + _R[12]
    p = p * y + _R[11]
    p = p * y + _R[10]
    p = p * y + _R[9]
    p = p * y + _R[8]
    p = p * y + _R[7]
    p = p * y + _R[6]
    p = p * y + _R[5]
    p = p * y + _R[4]
    p = p * y + _R[3]
    p = p * y + _R[2]
    return p * y * y


@compiled(fastmath={"contract"}, error_model="numpy")
def _log1p_single(z):
    w = z / (_F(2.0) + z)
    s = w * w
    p = _F(1 / 17)
    p = p * s + _F(1 / 15)
    p = p * s + _F(1 / 13)
    p = p * s + _F(1 / 11)
    p = p * s + _F(1 / 9)
    p = p * s + _F(1 / 7)
    p = p * s + _F(1 / 5)
    p = p * s + _F(1 / 3)
    return (w + w) * (p * s + _F(1.0))


@compiled(fastmath={"contract"}, error_model="numpy")
def _log1p_double(z):
    w = z / (2.0 + z)
    s = w * w
    p = 1 / 33
    p = p * s + 1 / 31
    p = p * s + 1 / 29
    p = p * s + 1 / 27
    p = p * s + 1 / 25
    p = p * s + 1 / 23
    p = p * s + 1 / 21
    p = p * s + 1 / 19
    p = p * s + 1 / 17
    p = p * s + 1 / 15
    p = p * s + 1 / 13
    p = p * s + 1 / 11
    p = p * s + 1 / 9
    p = p * s + 1 / 7
    p = p * s + 1 / 5
    p = p * s + 1 / 3
    return (w + w) * (p * s + 1.0)


@compiled(fastmath={"contract"})
def _log1p_unit_single(z):
    bits = _bits_of_single(_F(1.0) + z)
    e = _F((bits >> types.int32(23)) - types.int32(126))
    rest = _single_of_bits(types.int32((bits & types.int32(0x7FFFFF)) | types.int32(126 << 23))) - _F(1.0)
    small = z >= _F(-0.5)
    return (_F(0.0) if small else e * _F(0.6931471805599453)) + _log1p_single(z if small else rest)


@compiled(fastmath={"contract"})
def _log1p_unit_double(z):
    bits = _bits_of_double(1.0 + z)
    e = float((bits >> 52) - 1022)
    rest = _double_of_bits((bits & 0xFFFFFFFFFFFFF) | (1022 << 52)) - 1.0
    small = z >= -0.5
    return (0.0 if small else e * 0.6931471805599453) + _log1p_double(z if small else rest)


def decay(y: Any) -> Any:
    """e^y for y <= 0; exactly zero where it underflows, -inf included."""
    raise NotImplementedError("compiled loops only")


def growth(y: Any) -> Any:
    """e^y for any y; +inf where it overflows."""
    raise NotImplementedError("compiled loops only")


def expm1(y: Any) -> Any:
    """e^y - 1 to full relative accuracy, for y <= 88."""
    raise NotImplementedError("compiled loops only")


def excess(y: Any) -> Any:
    """e^y - 1 - y to full relative accuracy, for |y| <= 1: its series, which has no cancellation."""
    raise NotImplementedError("compiled loops only")


def log1p(z: Any) -> Any:
    """log(1 + z) to full relative accuracy, for -1/2 <= z <= 0: 2 artanh(z / (2 + z))."""
    raise NotImplementedError("compiled loops only")


def log1p_unit(z: Any) -> Any:
    """log(1 + z) for -1 < z <= 0: powers of two taken off 1 + z where z < -1/2."""
    raise NotImplementedError("compiled loops only")


def _by_precision(function: Any, single: Callable[[Any], Any], double: Callable[[Any], Any]) -> None:
    def choose(y):
        if isinstance(y, types.Float):
            return (lambda y: single(y)) if y.bitwidth == 32 else (lambda y: double(y))
        return None

    def choose_z(z):
        if isinstance(z, types.Float):
            return (lambda z: single(z)) if z.bitwidth == 32 else (lambda z: double(z))
        return None

    overload(function)(choose_z if function in (log1p, log1p_unit) else choose)


_by_precision(decay, _decay_single, _decay_double)
_by_precision(growth, _growth_single, _growth_double)
_by_precision(expm1, _expm1_single, _expm1_double)
_by_precision(excess, _excess_single, _excess_double)
_by_precision(log1p, _log1p_single, _log1p_double)
_by_precision(log1p_unit, _log1p_unit_single, _log1p_unit_double)

__all__ = ["decay", "excess", "expm1", "growth", "log1p", "log1p_unit"]
