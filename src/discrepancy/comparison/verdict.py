"""From p-values to words: one family of tests, its correction, and drift, equivalent or undecided for each member.

Sources: Holm (1979); Benjamini and Hochberg (1995); Gandy (2009) for p-values that are Monte Carlo numbers; Besag and
Clifford (1991) for stopping early.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from discrepancy.comparison.model import ColumnResult, JointResult, Options
from discrepancy.comparison.units import FEWEST
from discrepancy.inference import benjamini_hochberg, holm

MOST_DRAWS = 64_000
_GROWTH = 4
_STOP_EARLY_ABOVE = 20  # columns
WITHIN_ERROR = "the verdict is within Monte Carlo error of the other one: raise --permutations"

Refine = Callable[[str, int], ColumnResult]
RefineJoint = Callable[[int], JointResult]


@dataclass(frozen=True)
class Verdict:
    """A finished table: its results with p_adjusted, drift and verdict set, whether anything was flagged, and what that risks.

    `family` is how many tests share the error rate, over all groups where there are any; `error_rate` says it in a sentence.
    """

    columns: tuple[ColumnResult, ...]
    joint: JointResult | None
    drift: bool
    level: float
    correction: str
    family: int
    error_rate: str


def stops_early(columns: int) -> bool:
    """Whether clearly null columns may stop after 20 exceedances: worth it, and of no consequence, in a table of over 20."""
    return columns > _STOP_EARLY_ABOVE


def decide(
    columns: Sequence[ColumnResult],
    joint: JointResult | None,
    options: Options,
    refine: Refine,
    *,
    refine_joint: RefineJoint | None = None,
) -> Verdict:
    """The verdict on one table: the tested columns and the joint test are one family, corrected as `options.correction` says.

    `drift` is exactly p_adjusted <= level. Where the Monte Carlo interval of a p-value straddles the step that it has to pass,
    `refine(name, R)` is asked for the column with R draws, four times as many up to 64,000; what is still open then is
    noted. `equivalent` needs no correction: it is shown column by column (Berger 1982). Under 20 units in all nothing is
    a member and all is undecided, since too few arrangements exist for any p-value to be small.
    """
    part = (list(columns), joint)
    found = decide_groups(
        {"": part},
        options,
        lambda _, name, draws: refine(name, draws),
        refine_joint=None if refine_joint is None else lambda _, draws: refine_joint(draws),
    )
    return found[""]


def decide_groups(
    parts: Mapping[str, tuple[Sequence[ColumnResult], JointResult | None]],
    options: Options,
    refine: Callable[[str, str, int], ColumnResult],
    *,
    refine_joint: Callable[[str, int], JointResult] | None = None,
) -> dict[str, Verdict]:
    """As `decide`, with the tests of all groups in one family: parts maps a group to its columns and joint test.

    refine(group, name, R) and refine_joint(group, R) return that result with R draws.
    """
    results: dict[tuple[str, int], ColumnResult | JointResult] = {}
    for group, (columns, joint) in parts.items():
        results |= {(group, i): column for i, column in enumerate(columns)}
        if joint is not None:
            results[group, -1] = joint
    few = {group: bool(columns) and sum(columns[0].units) < FEWEST for group, (columns, _) in parts.items()}
    members = [
        key
        for key, r in results.items()
        if r.p_value is not None and not few[key[0]] and (not isinstance(r, ColumnResult) or r.tested)
    ]

    def again(key: tuple[str, int], draws: int) -> ColumnResult | JointResult | None:
        old = results[key]
        if isinstance(old, ColumnResult):
            return refine(key[0], old.name, draws)
        return None if refine_joint is None else refine_joint(key[0], draws)

    _settle(results, members, options, again)
    adjusted = dict(zip(members, _adjusted(_p(results, members), options.correction).tolist(), strict=True))
    sentence = error_rate(options, len(members))
    verdicts = {}
    for group, (columns, joint) in parts.items():
        judged = tuple(
            _column(results[group, i], adjusted.get((group, i)), few[group], options.level) for i in range(len(columns))
        )
        whole = None if joint is None else _joint(results[group, -1], adjusted.get((group, -1)), few[group], options.level)
        drift = any(c.drift for c in judged) or (whole is not None and bool(whole.drift))
        verdicts[group] = Verdict(judged, whole, drift, options.level, options.correction, len(members), sentence)
    return verdicts


def _p(results: Mapping[tuple[str, int], ColumnResult | JointResult], members: list[tuple[str, int]]) -> np.ndarray:
    return np.array([results[key].p_value for key in members], dtype=float)


def _adjusted(p: np.ndarray, correction: str) -> np.ndarray:
    if correction == "holm":
        return holm(p)
    return benjamini_hochberg(p) if correction == "bh" else p


def _settle(
    results: dict[tuple[str, int], ColumnResult | JointResult],
    members: list[tuple[str, int]],
    options: Options,
    again: Callable[[tuple[str, int], int], ColumnResult | JointResult | None],
) -> None:
    """Draws more for every member on whose Monte Carlo error its rejection hangs, until none does or the draws are spent."""
    draws = dict.fromkeys(members, options.permutations)
    spent: set[tuple[str, int]] = set()
    while True:
        open_members = [members[i] for i in _straddling(results, members, options)]
        todo = [key for key in open_members if key not in spent]
        if not todo:
            break
        for key in todo:
            more = draws[key] * _GROWTH
            found = again(key, more) if more <= MOST_DRAWS else None
            if found is None:
                spent.add(key)
            else:
                results[key], draws[key] = found, more
    for key in open_members:
        results[key] = replace(results[key], note=_joined(results[key].note, WITHIN_ERROR))


def _straddling(
    results: Mapping[tuple[str, int], ColumnResult | JointResult], members: list[tuple[str, int]], options: Options
) -> list[int]:
    """Members whose Monte Carlo interval holds the step that their p-value is compared with.

    Holm: steps level/k, level/(k - 1), ... up to and with the first failure; what comes after fails with it, whatever its p.
    Benjamini-Hochberg: level i/k. None: the level.
    """
    p = _p(results, members)
    k = len(p)
    order = np.argsort(p, kind="stable")
    found = []
    for position, i in enumerate(order.tolist()):
        if options.correction == "holm":
            step = options.level / (k - position)
        elif options.correction == "bh":
            step = options.level * (position + 1) / k
        else:
            step = options.level
        low, high = results[members[i]].p_value_low, results[members[i]].p_value_high
        if low is not None and high is not None and low <= step < high:
            found.append(i)
        if options.correction == "holm" and p[i] > step:
            break
    return found


def _column(result: ColumnResult | JointResult, p_adjusted: float | None, few_units: bool, level: float) -> ColumnResult:
    assert isinstance(result, ColumnResult)
    if not result.tested:
        return replace(result, p_adjusted=None, drift=False, small=False, verdict="left out")
    if few_units:
        p_adjusted = None if result.p_value is None else 1.0
        note = f"undecided: {sum(result.units)} units in both tables together are fewer than {FEWEST}"
        return replace(
            result, p_adjusted=p_adjusted, drift=False, small=False, verdict="undecided", note=_joined(result.note, note)
        )
    drift = p_adjusted is not None and p_adjusted <= level
    shown = result.equivalent is True
    word = "drift" if drift else "equivalent" if shown else "undecided"
    return replace(result, p_adjusted=p_adjusted, drift=drift, small=drift and shown, verdict=word)


def _joint(result: ColumnResult | JointResult, p_adjusted: float | None, few_units: bool, level: float) -> JointResult:
    assert isinstance(result, JointResult)
    if few_units:
        p_adjusted = None if result.p_value is None else 1.0
        return replace(result, p_adjusted=p_adjusted, drift=False, verdict="undecided", pairs=())
    drift = p_adjusted is not None and p_adjusted <= level
    # The list of pairs has its own error rate only behind a rejection of the whole.
    return replace(
        result, p_adjusted=p_adjusted, drift=drift, verdict="drift" if drift else "undecided", pairs=result.pairs if drift else ()
    )


def _joined(old: str | None, new: str) -> str:
    return new if not old else old if new in old else f"{old}; {new}"


def error_rate(options: Options, family: int) -> str:
    """What the flags risk, in one sentence."""
    share = f"{100 * options.level:g} %"
    plain = options.delta == 0 and not any(options.deltas.values())
    unchanged = "changed at all" if plain else "changed by more than its minimum effect"
    tests = "1 test" if family == 1 else f"{family:,} tests"
    if family == 0:
        return "Nothing could be tested, so nothing is flagged."
    if options.correction == "holm" and family == 1:
        return f"If nothing {unchanged}, the probability that the one test flags it is at most {share}."
    if options.correction == "holm":
        return f"If nothing {unchanged}, the probability of any flag among the {tests} is at most {share} (Holm)."
    if options.correction == "bh":
        return (
            f"Of the flags among the {tests}, on average at most {share} are false (Benjamini-Hochberg); "
            f"false means that nothing there {unchanged}."
        )
    return f"No family error rate: each of the {tests} by itself flags what has not {unchanged} with probability at most {share}."


__all__ = ["MOST_DRAWS", "Verdict", "decide", "decide_groups", "error_rate", "stops_early"]
