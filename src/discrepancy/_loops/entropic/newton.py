"""Newton's method on the semi-dual F(h) = <b, h> - <a, levels(h)>, whose gradient is b - P^T 1: rows are exact at every step."""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.apart import apart, copied
from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic.arithmetic import FAST
from discrepancy._loops.entropic.conjugate_gradients import newton_direction
from discrepancy._loops.entropic.systems import evaluate, lift

LN2 = 0.6931471805599453
# Error above which a Sinkhorn sweep is worth more than going straight to Newton.
CALM = 0.1
# Entries of a tally: evaluations, products with the plan, Newton steps, sweeps, and whether rounding stopped the steps.
EVALUATIONS, PRODUCTS, STEPS, SWEEPS, STUCK = 0, 1, 2, 3, 4


@compiled(fastmath=FAST)
def _distance(b, columns):
    total = 0.0
    for j in range(b.size):
        total += abs(b[j] - columns[j])
    return total


@compiled(fastmath=FAST)
def sweeps(system, scale, h, a, b, goal, calm, count, columns, levels, tally):
    """At most `count` of Sinkhorn's updates h += log2(b / c) until the L1 error is below max(goal, calm); returns the error.

    h, columns, levels and the plan belong together before and after.
    """
    error = _distance(b, columns)
    for _ in range(count):
        if error <= goal or error < calm:
            break
        lowest = 1.0
        for j in range(b.size):
            lowest = min(lowest, columns[j])
        if lowest < 1e-290:
            lift(system, scale, h, a, b, columns, levels)
        for j in range(b.size):
            if columns[j] >= 1e-290:
                h[j] += np.log2(b[j] / columns[j])
        evaluate(system, scale, h, a, columns, levels)
        tally[EVALUATIONS] += 1
        tally[SWEEPS] += 1
        error = _distance(b, columns)
    return error


@compiled(fastmath=FAST)
def _clipped_direction(x, b, residual, longest):
    """Makes the direction's b-mean zero (a constant changes nothing) and cuts it to +-longest; returns its slope and length."""
    mean = 0.0
    for j in range(x.size):
        mean += b[j] * x[j]
    slope = 0.0
    largest = 0.0
    cut = 0.0
    for j in range(x.size):
        d = x[j] - mean
        x[j] = d
        largest = max(largest, abs(d))
        slope += residual[j] * d
        cut += residual[j] * max(-longest, min(longest, d))
    if largest <= longest:
        return slope, 1.0, largest
    if cut > 0.0:
        for j in range(x.size):
            x[j] = max(-longest, min(longest, x[j]))
        return cut, 1.0, longest
    return slope, longest / largest, largest


@compiled(fastmath=FAST)
def _trial(system, scale, h, move, x, a, b, columns, levels, tried, tally):
    """Writes the point h + move x / ln 2 and evaluates there; returns F and the slope that is left."""
    value = 0.0
    for j in range(h.size):
        tried[j] = h[j] + (move / LN2) * x[j]
    value = evaluate(system, scale, tried, a, columns, levels)
    tally[EVALUATIONS] += 1
    slope = 0.0
    for j in range(h.size):
        value += b[j] * tried[j]
        slope += (b[j] - columns[j]) * x[j]
    return value, slope


@compiled(fastmath=FAST)
def newton(system, scale, h, a, b, inverse_a, goal, steps, shift, floor, travel, budget, columns, levels, tally):
    """At most `steps` Newton steps until the L1 error |b - P^T 1|_1 is at most `goal`; returns the error.

    h, columns, levels and the plan belong together before and after, also where tally[STUCK] was set: no step raises F
    any more. Ends early when h has moved by more than `travel` (in natural units) or evaluations and products reach `budget`.
    Each step: conjugate gradients to a share of the error that shrinks with it; components cut to +-8, beyond which the
    quadratic model means nothing; back-tracking by 0.3 under Armijo's rule; and doubling while most of the slope is left,
    since a weak link between two parts may carry e^k times too much mass, of which a full step removes one factor e.
    """
    m = h.size
    x, residual = apart(m), apart(m)
    tried, begun = apart(m), copied(h)
    error = _distance(b, columns)
    stalls = 0
    value = 0.0
    for i in range(a.size):
        value -= a[i] * levels[i]
    for j in range(m):
        value += b[j] * h[j]
    for _ in range(steps):
        left = budget - tally[EVALUATIONS] - tally[PRODUCTS]
        if error <= goal or left <= 0:
            break
        for j in range(m):
            residual[j] = b[j] - columns[j]
        share = min(0.1, max(0.3 * np.sqrt(error), 0.1 * goal / error))
        tally[PRODUCTS] += newton_direction(
            system, inverse_a, columns, residual, shift * error, floor, share * error, min(500, left), x
        )
        tally[STEPS] += 1
        slope, move, longest = _clipped_direction(x, b, residual, 8.0)
        if not slope > 0.0:
            tally[STUCK] = 1
            break
        slack = 1e-13 * abs(value)
        while True:
            reached, end = _trial(system, scale, h, move, x, a, b, columns, levels, tried, tally)
            if (reached - value) * LN2 >= 1e-4 * move * slope - slack:
                break
            move *= 0.3
            if move < 1e-7 or tally[EVALUATIONS] + tally[PRODUCTS] >= budget:
                tally[STUCK] = 1
                break
        if tally[STUCK] == 1:
            evaluate(system, scale, h, a, columns, levels)
            tally[EVALUATIONS] += 1
            break
        while end > 0.25 * slope and move * longest < 40.0 and _distance(b, columns) > goal:
            further, beyond = _trial(system, scale, h, 2.0 * move, x, a, b, columns, levels, tried, tally)
            if not (further > reached and beyond >= -0.3 * slope):
                reached, end = _trial(system, scale, h, move, x, a, b, columns, levels, tried, tally)
                break
            move *= 2.0
            reached, end = further, beyond
        h[:] = tried
        before, gained = error, reached - value
        value = reached
        error = _distance(b, columns)
        # Neither the error nor F moves beyond rounding: three such steps are the end of what can be had.
        stalls = stalls + 1 if error > 0.9 * before and gained <= slack else 0
        if stalls == 3:
            tally[STUCK] = 1
            break
        moved = 0.0
        for j in range(m):
            moved = max(moved, abs(h[j] - begun[j]))
        if moved * LN2 > travel:
            break
    return error
