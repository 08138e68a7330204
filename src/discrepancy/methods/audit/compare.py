"""Is the difference between two formats, or two models, real? Within strata, with cells as what is independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from discrepancy._results import Estimate, Result, TestResult
from discrepancy._validate import generator_or_default
from discrepancy.inference import (
    CommonOddsRatio,
    FisherResult,
    cluster_bootstrap,
    cochran_mantel_haenszel,
    fisher_exact,
    rate_difference,
    rate_ratio,
    sign_flip_test,
    stratified_permutation_test,
)
from discrepancy.methods.audit.records import AuditRecords, Cuts, Denominator, all_answers


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """The misaligned share at one value of a factor against another.

    `odds_ratio` is Cochran-Mantel-Haenszel's within strata: its interval and `p_value` (exact conditional) are the answer to
    "same question, same model, other format". `permutation` exchanges answers inside strata, `cells` flips whole strata (valid
    whatever the answers of one cell have in common), `cell_difference` is the mean difference over strata with a bootstrap of
    whole strata. `difference`, `ratio` and `fisher` pool the strata: right only where both arms have the same mix of them.
    """

    factor: str
    a: str
    b: str
    counts: dict[str, int]
    strata: int
    odds_ratio: CommonOddsRatio
    p_value: float
    permutation: TestResult
    cells: TestResult
    cell_difference: Estimate
    difference: Estimate
    ratio: Estimate
    fisher: FisherResult
    denominator: str
    note: str | None = None


def compare(
    records: AuditRecords,
    factor: str,
    a: str,
    b: str,
    *,
    strata: Sequence[str] = ("model", "question"),
    denominator: Denominator = all_answers,
    cuts: Cuts | None = None,
    level: float = 0.95,
    permutations: int = 9999,
    generator: torch.Generator | None = None,
) -> Comparison:
    """Compare the misaligned share of records with `factor` = a and = b, inside strata.

    `denominator`: `all_answers` (default) or `coherent_answers`; report both, since coherence is changed by the format too.
    Time O(permutations x strata). Raises ValueError for an unknown column or value, a factor among the strata, or fewer than two
    strata with answers in both arms.
    """
    cuts = Cuts() if cuts is None else cuts
    if factor in strata:
        raise ValueError(f"{factor!r} is what is compared and cannot be a stratum too")
    values, arm = records.keys([factor])
    known = [value[0] for value in values]
    for value in (a, b):
        if value not in known:
            raise ValueError(f"no answer has {factor} = {value!r}, there are {known}")
    counted, bad = denominator(records, cuts), cuts.misaligned(records)
    groups, place = records.keys(strata)
    table = {}
    for name, value in (("a", a), ("b", b)):
        here = counted & (arm == known.index(value))
        table[f"events_{name}"] = np.bincount(place[here & bad], minlength=len(groups))
        table[f"trials_{name}"] = np.bincount(place[here], minlength=len(groups))
    both = (table["trials_a"] > 0) & (table["trials_b"] > 0)
    if int(both.sum()) < 2:
        raise ValueError(
            f"a stratified comparison needs at least two strata of {tuple(strata)} with answers in both arms, "
            f"got {int(both.sum())}: pool them with inference.rate_difference, or sample more"
        )
    generator = generator_or_default(generator)
    inside = {name: v[both] for name, v in table.items()}
    gaps = inside["events_a"] / inside["trials_a"] - inside["events_b"] / inside["trials_b"]
    totals = {name: int(v.sum()) for name, v in table.items()}
    pooled = tuple(totals.values())
    odds = cochran_mantel_haenszel(*inside.values(), level=level)
    note = None
    if totals["events_a"] + totals["events_b"] == 0:
        note = "no event in either arm: p = 1 says that nothing was seen, not that nothing is there; see required_samples"
    elif not both.all():
        note = f"{int((~both).sum())} strata have answers in one arm only and take no part within strata"
    return Comparison(
        factor, a, b, totals, int(both.sum()), odds, odds.exact_p,
        permutation=stratified_permutation_test(*inside.values(), permutations=permutations, generator=generator),
        cells=sign_flip_test(gaps, permutations=permutations, generator=generator),
        cell_difference=cluster_bootstrap(
            lambda w: (w * gaps).sum(-1) / w.sum(-1), len(gaps), level=level, generator=generator
        ),
        difference=rate_difference(*pooled, level=level),
        ratio=rate_ratio(*pooled, level=level),
        fisher=fisher_exact(*pooled),
        denominator=getattr(denominator, "__name__", type(denominator).__name__).replace("_", " "),
        note=note,
    )  # fmt: skip


__all__ = ["Comparison", "compare"]
