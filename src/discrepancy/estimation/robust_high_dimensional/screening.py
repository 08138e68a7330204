"""Which of many columns tell of an outcome? Ranks, permutation p-values, and a greedy choice without near copies."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import as_tensor, fraction, generator_or_default, require_finite, sample, whole_number
from discrepancy.estimation.association import Association, outcome_of
from discrepancy.estimation.kernel_density_information import KernelDensityInformation
from discrepancy.inference import benjamini_hochberg, max_t, monte_carlo_p

_FEW = 10  # distinct whole numbers up to which a column is rather a set of labels
_AT_ONCE = 32  # permutations scored together


class ConstantColumnWarning(UserWarning):
    """Columns that never vary share no information with anything; they score zero."""


class LabelWarning(UserWarning):
    """Few distinct whole numbers are treated as measurements; they may be labels."""


class Adjustment(ABC):
    """How the p-values of many columns are adjusted for one another; a subclass is a frozen dataclass with a `level`."""

    level: float

    @abstractmethod
    def adjusted(self, observed: Tensor, null: Tensor) -> Tensor:
        """Adjusted p-values (p,) from observed scores (p,) and those of permuted outcomes (R, p)."""

    def note(self, columns: int, permutations: int) -> str | None:
        """What the number of permutations cannot show, if anything."""
        return None


@dataclass(frozen=True)
class FamilyWise(Adjustment):
    """The chance of any false selection is at most `level`: the largest standardised score of each permutation is the yardstick.

    p_j = (1 + #{max_k z*_k >= z_j}) / (R + 1) with z = (score - mean) / deviation over that column's permutations, which makes
    columns with other numbers of bins comparable. Raises ValueError for a level outside (0, 1). Source: Westfall and Young
    (1993).
    """

    level: float = 0.05

    def __post_init__(self) -> None:
        """Check the level."""
        fraction(self.level, "level")

    def adjusted(self, observed: Tensor, null: Tensor) -> Tensor:
        """Single-step maxT p-values."""
        return torch.from_numpy(max_t(observed.numpy(), null.numpy()).p_members)


@dataclass(frozen=True)
class FalseDiscovery(Adjustment):
    """The expected share of false ones among the selected columns is at most `level`: Benjamini and Hochberg's adjustment.

    It is applied to (1 + #{T* >= T}) / (R + 1) column by column, which is never below 1 / (R + 1): with p columns at least
    p / (level (R + 1)) of them must reach that for any to be selected; the result's `note` says how many that is.
    Raises ValueError for a level outside (0, 1). Source: Benjamini and Hochberg (1995).
    """

    level: float = 0.05

    def __post_init__(self) -> None:
        """Check the level."""
        fraction(self.level, "level")

    def adjusted(self, observed: Tensor, null: Tensor) -> Tensor:
        """Benjamini-Hochberg adjusted p-values."""
        return torch.from_numpy(benjamini_hochberg(_own_p(observed, null).numpy()))

    def note(self, columns: int, permutations: int) -> str | None:
        """How many columns must reach the smallest p-value."""
        need = columns / (self.level * (permutations + 1))
        if need <= 1:
            return None
        return (
            f"with {permutations} permutations of {columns} columns none is selected unless {int(-(-need // 1))} reach the "
            f"smallest p-value; {int(columns / self.level)} permutations lift this"
        )


@dataclass(frozen=True, repr=False)
class Screening(Result):
    """What a screen found for p columns.

    `scores` (p,); with permutations `z_scores` (p,), how many deviations above its permutations' mean each score is, `p_values`
    (p,) column by column and `adjusted` (p,); `order` (p,), best first, by z-scores where there are any; `selected` (p,),
    boolean; `removed` (p,), for a column that was dropped as a near copy the one that it copies, else -1.
    """

    scores: Tensor
    z_scores: Tensor | None
    p_values: Tensor | None
    adjusted: Tensor | None
    order: Tensor
    selected: Tensor
    removed: Tensor
    method: str = ""
    note: str | None = None


@torch.no_grad()
def screen(
    X: Any,
    y: Any,
    measure: Association | None = None,
    *,
    k: int | None = None,
    threshold: float | None = None,
    permutations: int = 0,
    adjustment: Adjustment | None = None,
    copies_above: float | None = None,
    labels: bool = False,
    generator: torch.Generator | None = None,
) -> Screening:
    """Rank the columns of X (n, p) by their association with y (n,), and select some.

    measure: an `Association`, `KernelDensityInformation()` where omitted. Selected is what passes every rule that was given:
    among the best `k`, a score of at least `threshold`, and with `permutations` an adjusted p-value within the level of
    `adjustment` (`FamilyWise()` where omitted; exact for rows that are exchangeable under independence). Ranking is by score,
    or by z-score where there are permutations. With `copies_above` the selection walks down the order and drops a column whose
    score with one already kept is above that number; the best `k` are then those that remain. labels: y is a set of classes.

    Scores at independence are not zero (see the measure): rank, or permute, rather than to set a threshold near zero. A column
    that never varies scores zero with a `ConstantColumnWarning`; a column of few whole numbers warns `LabelWarning` where the
    measure is a density.
    Raises ValueError for rows that do not match, values that are not finite, fewer than 3 rows, an outcome of one value, k > p.
    Time: (permutations + 1) p scores. The permutations are drawn once and shared by all columns.
    """
    measure = KernelDensityInformation() if measure is None else measure
    if not isinstance(measure, Association):
        raise TypeError(
            f"measure must be an Association such as KernelDensityInformation(), got {measure!r}: EachColumn(...) makes one of a "
            "Dependence, an estimator of mutual information, or a function of two vectors"
        )
    columns = sample(X, "X")
    if columns.ndim != 2:
        raise ValueError(f"X must be a table (n, p), got shape {tuple(columns.shape)}")
    outcome, classes = _checked_outcome(y, len(columns), labels)
    n, p = columns.shape
    for name, value, least in (("permutations", permutations, 0), ("k", k, 1)):
        if value is not None:
            whole_number(value, least, name)
    if k is not None and k > p:
        raise ValueError(f"k must be at most {p}, the number of columns, got {k}")
    if adjustment is not None and not permutations:
        raise ValueError("an adjustment of p-values needs permutations: permutations=199")
    adjustment = FamilyWise() if adjustment is None else adjustment
    columns = columns.detach().double().cpu()
    varies = ~(columns == columns[0]).all(0)
    _warn(columns, varies, measure)
    kept, table = columns[:, varies], torch.zeros(permutations + 1, p, dtype=torch.float64)
    if kept.shape[1]:
        source = generator_or_default(generator)
        orders = [torch.arange(n), *(torch.randperm(n, generator=source) for _ in range(permutations))]
        for start in range(0, len(orders), _AT_ONCE):
            some = torch.stack([outcome[order] for order in orders[start : start + _AT_ONCE]])
            table[start : start + _AT_ONCE, varies] = measure.scores(kept, some, classes)
    scores, null = table[0], table[1:]
    z = own = adjusted = None
    passing = torch.ones(p, dtype=torch.bool)
    if permutations:
        spread = null.std(0, correction=0)
        z = torch.where(spread > 0, (scores - null.mean(0)) / torch.where(spread > 0, spread, 1.0), 0.0)
        own, adjusted = _own_p(scores, null), adjustment.adjusted(scores, null)
        own[~varies], adjusted[~varies] = 1.0, 1.0
        passing &= adjusted <= adjustment.level
    if threshold is not None:
        passing &= scores >= threshold
    # Ties keep the order of the columns.
    order = torch.argsort(z if z is not None else scores, descending=True, stable=True)
    selected, removed = _selected(columns, order, passing & varies, k, copies_above, measure)
    return Screening(
        scores, z, own, adjusted, order, selected, removed,
        f"{measure.describe()}, {permutations} permutations" if permutations else measure.describe(),
        adjustment.note(p, permutations) if permutations else None,
    )  # fmt: skip


def _checked_outcome(y: Any, n: int, labels: bool) -> tuple[Tensor, int | None]:
    outcome = as_tensor(y, "y").cpu()
    if outcome.ndim == 2 and outcome.shape[1] == 1:
        outcome = outcome[:, 0]
    if outcome.shape != (n,):
        raise ValueError(f"y must have shape ({n},), one value for each row of X, got {tuple(outcome.shape)}")
    require_finite(outcome, "y")
    if n < 3:
        raise ValueError(f"screening needs at least 3 rows, got n_samples = {n}")
    if bool((outcome == outcome[0]).all()):
        kind = "one class" if labels else "one value"
        raise ValueError(f"y has {kind} only, {float(outcome[0]):g}: nothing can be told apart")
    return outcome_of(outcome, labels)


def _own_p(observed: Tensor, null: Tensor) -> Tensor:
    scale = torch.maximum(observed.abs(), null.abs().amax(0))
    reached = (null >= observed - 1e-9 * scale).sum(0)
    return torch.from_numpy(monte_carlo_p(reached.numpy(), len(null)) + 0.0)


def _warn(columns: Tensor, varies: Tensor, measure: Association) -> None:
    if not bool(varies.all()):
        still = (~varies).nonzero()[:, 0].tolist()
        warnings.warn(
            f"{len(still)} column(s) never vary and score zero, the first at index {still[0]}",
            ConstantColumnWarning,
            stacklevel=3,
        )
    if not isinstance(measure, KernelDensityInformation):
        return
    # Only columns of whole numbers are counted, which are few among measurements.
    whole = (varies & (columns == columns.round()).all(0)).nonzero()[:, 0].tolist()
    few = [j for j in whole if 2 < len(columns[:, j].unique()) <= _FEW]
    if few:
        warnings.warn(
            f"{len(few)} column(s) have at most {_FEW} distinct whole numbers, the first at index {few[0]}: if they are labels, "
            "HistogramInformation() counts them instead of smoothing over them",
            LabelWarning,
            stacklevel=3,
        )


def _selected(
    columns: Tensor, order: Tensor, passing: Tensor, k: int | None, copies_above: float | None, measure: Association
) -> tuple[Tensor, Tensor]:
    p = columns.shape[1]
    removed = torch.full((p,), -1)
    candidates = [j for j in order.tolist() if passing[j]]
    kept: list[int] = []
    for j in candidates:
        if k is not None and len(kept) == k:
            break
        if copies_above is not None and kept:
            near = measure.scores(columns[:, kept], columns[:, j][None])[0]
            if float(near.max()) > copies_above:
                removed[j] = kept[int(near.argmax())]
                continue
        kept.append(j)
    selected = torch.zeros(p, dtype=torch.bool)
    selected[kept] = True
    return selected, removed


__all__ = ["Adjustment", "ConstantColumnWarning", "FalseDiscovery", "FamilyWise", "LabelWarning", "Screening", "screen"]
