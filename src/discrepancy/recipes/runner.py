"""How every recipe runs: seeds, checks with an interval over seeds, a figure, and the comparison with its committed finding."""

from __future__ import annotations

import importlib
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from discrepancy._results import Finding
from discrepancy.recipes.catalogue import finding as committed_finding
from discrepancy.recipes.catalogue import has_recipe, paper

if TYPE_CHECKING:
    from discrepancy._kinds import Discrepancy
    from discrepancy.divergences.admission import Admission

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What a run of one seed is told: the seed, whether to be quick, and the discrepancy that replaces the paper's."""

    seed: int
    quick: bool = False
    choice: Discrepancy | None = None


@dataclass(frozen=True)
class Check:
    """One number that could fail: what must hold in words, the measured mean and its interval over seeds, the verdict."""

    name: str
    bound: str
    measured: float
    low: float
    high: float
    held: bool
    timing: bool = False  # a ratio of times: reported, and no ground for a contradiction on a shared machine

    def to_dict(self) -> Row:
        """As plain JSON; what is not finite is None."""
        row = {"name": self.name, "bound": self.bound, "held": self.held, "timing": self.timing}
        for name in ("measured", "low", "high"):
            value = float(getattr(self, name))
            row[name] = value if math.isfinite(value) else None
        return row


def check(name: str, values: Sequence[float], bound: str, held: bool, *, timing: bool = False) -> Check:
    """A check on one value a seed: the mean and its 95 % t-interval over seeds."""
    mean = statistics.fmean(values)
    half = math.nan
    if len(values) > 1:
        from scipy.special import stdtrit

        half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    return Check(name, bound, mean, mean - half, mean + half, bool(held), timing)


@dataclass(frozen=True)
class SwapTask:
    """A method's small task for `discrepancy matrix`: what it measures, and one number for a divergence and a seed.

    `admits` is the method's own declaration of what it takes, `default` the paper's choice, `better` the direction in which the
    number improves ("neither": it describes, and ranks nothing). A run takes a few seconds.
    """

    measures: str
    better: Literal["higher", "lower", "neither"]
    admits: Admission
    run: Callable[[Any, int], float]
    default: Any


@dataclass(frozen=True)
class Recipe:
    """A paper's claim made runnable.

    `measure(setting)` returns the numbers of one seed, `judge(rows, quick)` turns those of all seeds into checks,
    `draw(rows, file)` saves the figure. `swaps` says whether `--discrepancy` may replace the paper's choice;
    `needs` names the data sets (datasets.catalogue) that must be there; `task` is what `discrepancy matrix` runs with each
    divergence.
    """

    slug: str
    measure: Callable[[Setting], Row]
    judge: Callable[[list[Row], bool], list[Check]]
    draw: Callable[[list[Row], Path], None]
    seeds: tuple[int, ...] = (0, 1, 2)
    quick_seeds: tuple[int, ...] = (0,)
    swaps: bool = False
    needs: tuple[str, ...] = field(default=())
    task: SwapTask | None = None


def recipe(slug: str) -> Recipe:
    """The recipe of a paper; ValueError if the paper is unknown or only planned."""
    paper(slug)
    if not has_recipe(slug):
        raise ValueError(f"{slug} is planned: it has no recipe yet (`discrepancy papers` shows which have)")
    return importlib.import_module(f"discrepancy.recipes.{slug.replace('-', '_')}").RECIPE


def reproduce(
    slug: str,
    *,
    quick: bool = False,
    choice: Discrepancy | None = None,
    figure: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Finding:
    """Run a recipe over its seeds and judge it.

    Raises ValueError for an unknown or planned paper, or a choice where the method takes none, and
    `datasets.MissingCarrier` where a data package is missing, before any work.
    """
    chosen = recipe(slug)
    if choice is not None and not chosen.swaps:
        raise ValueError(f"{slug} takes no other discrepancy: it is about this one")
    if chosen.needs:
        from discrepancy.datasets import path

        for name in chosen.needs:
            path(name)
    seeds = chosen.quick_seeds if quick else chosen.seeds
    rows: list[Row] = []
    for done, seed in enumerate(seeds):
        rows.append({"seed": seed} | chosen.measure(Setting(seed, quick, choice)))
        if progress is not None:
            progress(done + 1, len(seeds))
    checks = chosen.judge(rows, quick)
    if figure is not None:
        figure.parent.mkdir(parents=True, exist_ok=True)
        chosen.draw(rows, figure)
    plain = [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]
    return Finding(
        slug=slug,
        claim=paper(slug).claim,
        held=all(c.held for c in checks),
        measured="; ".join(f"{c.name} {c.measured:.3g} ({c.bound})" for c in checks),
        numbers={"checks": [c.to_dict() for c in checks]},
        per_seed=plain,
        quick=quick,
    )


def contradiction(found: Finding) -> str | None:
    """A sentence if a run contradicts the committed finding, else None.

    A check contradicts when its verdict flipped and its number moved by more than half of the committed one (rounding on
    another machine may flip a verdict that sits on its bound; that is not news).
    """
    committed = (committed_finding(found.slug) or {}).get("quick" if found.quick else "full")
    if committed is None:
        return None
    before = {c["name"]: c for c in committed["numbers"]["checks"]}
    for now in found.numbers["checks"]:
        then = before.get(now["name"])
        if then is None or then["held"] == now["held"] or now.get("timing"):
            continue
        old, new = then["measured"], now["measured"]
        if old is None or new is None or abs(new - old) > 0.5 * abs(old):
            return f"{found.slug}: {now['name']} was {old} and {'held' if then['held'] else 'not held'}, and is now {new}"
    return None
