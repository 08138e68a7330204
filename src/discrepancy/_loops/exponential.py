"""2^t by a polynomial, in double and single precision, written so that a loop over it becomes SIMD code.

t = r + s with r the nearest whole number and |s| <= 1/2: 2^s is a polynomial 1 + s q(s) whose q interpolates (2^s - 1) / s at
Chebyshev nodes, and 2^r is put together from bits. Neither branches nor calls the mathematical library.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from discrepancy._loops.compiled import compiled

# Adding 1.5 * 2^52 (1.5 * 2^23) to a number of moderate size rounds it to a whole number, which is left in the lowest bits.
_ROUND_DOUBLE = 6755399441055744.0
_ROUND_SINGLE = 12582912.0


@intrinsic
def _bits_of_double(typing_context, value):  # pyright: ignore[reportUnusedParameter]
    """The bit pattern of a float64 as an int64."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.int64))

    return types.int64(types.float64), generate


@intrinsic
def _double_of_bits(typing_context, bits):  # pyright: ignore[reportUnusedParameter]
    """The float64 with the bit pattern of an int64."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(types.int64), generate


@intrinsic
def _bits_of_single(typing_context, value):  # pyright: ignore[reportUnusedParameter]
    """The bit pattern of a float32 as an int32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), generate


@intrinsic
def _single_of_bits(typing_context, bits):  # pyright: ignore[reportUnusedParameter]
    """The float32 with the bit pattern of an int32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@compiled(fastmath={"contract"})
def exp2_double(t):
    """2^t for a float64 t <= 1023, within 1 unit in the last place (subnormals within 1.5); below -1022.5 exactly 0,
    -inf included. About fifteen operations."""
    if t < -1023.0:
        t = -1023.0
    rounded = t + _ROUND_DOUBLE
    s = t - (rounded - _ROUND_DOUBLE)
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
    p = p * s + 1.0
    # The lowest 12 bits hold r + 1023, which lies in [0, 2046]: shifted into place they are the exponent of 2^r, or zero.
    return p * _double_of_bits((_bits_of_double(rounded) + 1023) << 52)


@compiled(fastmath={"contract"})
def exp2_single(t):
    """2^t for a float32 t <= 127, within 1 unit in the last place; below -126.5 exactly 0, -inf included."""
    if t < types.float32(-127.0):
        t = types.float32(-127.0)
    rounded = types.float32(t + types.float32(_ROUND_SINGLE))
    s = types.float32(t - types.float32(rounded - types.float32(_ROUND_SINGLE)))
    p = types.float32(0.0001545316294512069)
    p = p * s + types.float32(0.0013390863664671234)
    p = p * s + types.float32(0.009618082557277852)
    p = p * s + types.float32(0.05550357114219078)
    p = p * s + types.float32(0.24022650760568126)
    p = p * s + types.float32(0.6931471880262288)
    p = p * s + types.float32(1.0)
    return p * _single_of_bits(types.int32((_bits_of_single(rounded) + types.int32(127)) << types.int32(23)))
