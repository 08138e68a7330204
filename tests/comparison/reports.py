"""Reports made by hand, so that documents and renderings are tested without any statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from discrepancy.comparison.columns.summary import level_summary, ordered_summary
from discrepancy.comparison.model import ColumnResult, JointResult, Kind, Member, Options
from discrepancy.comparison.report import ComparisonReport, GroupReport, UnitFacts


def ordered_data(mean: tuple[float, float] = (10.0, 10.6), sd: tuple[float, float] = (2.0, 2.2)) -> dict[str, Any]:
    """The summary of a pair of bell-shaped columns."""
    draws = np.random.default_rng(0)
    x, y = (m + s * draws.standard_normal(n) for m, s, n in zip(mean, sd, (5000, 4800), strict=True))
    return ordered_summary(x, y)


def level_data() -> dict[str, Any]:
    """The summary of five levels, one new and one gone."""
    names = ("card", "cash", "transfer", "wallet", "cheque")
    return level_summary(names, np.array([2600, 1650, 740, 0, 10]), np.array([1970, 1440, 1010, 380, 0]))


def column(
    name: str = "temperature", *, kind: Kind = Kind.NUMERIC, verdict: str | None = "drift", **changes: Any
) -> ColumnResult:
    """One column's result; `changes` overrides any field."""
    drift = verdict == "drift"
    size = {"drift": 0.31, "equivalent": 0.012, "undecided": 0.05}.get(verdict or "")
    tested = size is not None
    scale = (2.1 if kind.ordered else 1.0) if tested else None
    base = ColumnResult(
        name=name,
        kind=kind,
        unit="",
        tested=tested,
        distance=None if size is None or scale is None else size * scale + 0.02,
        low=None if size is None or scale is None else max(0.0, size - 0.06) * scale,
        high=None if size is None or scale is None else (size + 0.07) * scale,
        noise=0.03 if tested else None,
        corrected=None if size is None or scale is None else size * scale,
        scale=scale,
        size=size,
        size_low=None if size is None else max(0.0, size - 0.06),
        size_high=None if size is None else size + 0.07,
        delta=0.02 if tested else None,
        margin=0.1 if tested else None,
        p_value={"drift": 1e-5, "equivalent": 0.6, "undecided": 0.12}.get(verdict or ""),
        p_any={"drift": 1e-6, "equivalent": 0.4, "undecided": 0.05}.get(verdict or ""),
        p_value_low=0.0 if tested else None,
        p_value_high=0.01 if tested else None,
        driver=("W1" if kind.ordered else "TV") if tested else None,
        members=(Member("W1" if kind.ordered else "TV", 0.6, 0.04, 0.001), Member("missing", 0.01, 0.01, 1.0)) if tested else (),
        equivalent=(verdict == "equivalent") if tested else None,
        small=False if tested else None,
        units=(5000, 4800),
        n_eff=(5000.0, 4800.0),
        rows=(5000, 4800),
        missing={"reference": 0.01, "current": 0.012, "low": 0.0, "high": 0.006, "p_value": 1.0},
        js=None if kind.ordered else {"value": 0.02, "low": 0.01, "high": 0.03},
        p_adjusted={"drift": 0.0002, "equivalent": 1.0, "undecided": 0.7}.get(verdict or ""),
        drift=drift if tested else None,
        verdict=verdict if tested else "left out",  # type: ignore[arg-type]
        note=None if tested else "an identifier: as many levels as rows",
        summary=ordered_data() if kind.ordered else level_data(),
    )
    return replace(base, **changes)


def joint(**changes: Any) -> JointResult:
    """A joint result that found a changed pair."""
    base = JointResult(
        p_value=0.001,
        p_any=0.001,
        p_value_low=0.0,
        p_value_high=0.008,
        distance=0.21,
        low=0.15,
        high=0.26,
        size=0.21,
        members=(Member("MMD 0.7", 0.21, 0.01, 0.001), Member("pairs", 8.2, 0.05, 0.001)),
        driver="pairs",
        pairs=({"columns": ["temperature", "wind"], "reference": 0.62, "current": 0.18, "change": 0.54, "p_value": 0.001},),
        shares=({"column": "temperature", "share": 0.7}, {"column": "payment", "share": 0.25}, {"column": "wind", "share": 0.05}),
        typical={
            "reference": [{"row": 17, "score": 0.4, "values": {"temperature": "9.1", "payment": "card"}}],
            "current": [{"row": 3, "score": 0.6, "values": {"temperature": "12.4", "payment": "wallet"}}],
        },
        p_adjusted=0.004,
        drift=True,
        verdict="drift",
    )
    return replace(base, **changes)


def report(*given: ColumnResult, drift: bool | None = None, **changes: Any) -> ComparisonReport:
    """A whole report on some columns."""
    shown = given or (
        column("temperature", unit="°C"),
        column("payment", kind=Kind.CATEGORICAL),
        column("wind", verdict="equivalent"),
        column("rain", verdict="undecided"),
        column("recorded", kind=Kind.DATETIME, unit="s", distance=40 * 86400.0, low=35 * 86400.0, high=44 * 86400.0,
               summary=ordered_data((1.5e9, 1.5035e9), (4e6, 4e6))),
        column("id", kind=Kind.IDENTIFIER, verdict=None, summary={}),
    )  # fmt: skip
    base = ComparisonReport(
        names=("january.csv", "february.csv"),
        rows=(5000, 4800),
        options=Options(),
        columns=tuple(shown),
        joint=joint()
        if any(c.drift for c in shown)
        else joint(drift=False, verdict="undecided", pairs=(), p_adjusted=1.0, p_value=0.4),
        drift=any(c.drift for c in shown) if drift is None else drift,
        error_rate="If nothing changed by more than delta, the probability of any flag is at most 5 %.",
        version="0.1.0",
        units=UnitFacts("rows", (5000, 4800)),
        left_out={"old_name": "only in january.csv"},
        notes=("Rows look dependent in file order: --block auto takes that into account.",),
        seconds=1.3,
    )
    return replace(base, **changes)


def hostile() -> str:
    """A name that tries HTML, a formula, a terminal escape, Markdown, a direction override and a lone surrogate at once."""
    return "=cmd|'/c calc'!A1 <img src=x onerror=alert(1)>\"\x1b[2J\u202eevil\ud800 | **b** `c` {{7*7}}</script>\n# h"


def grouped() -> ComparisonReport:
    """A report with two groups."""
    one = GroupReport("north", (2000, 1900), (column("temperature"), column("wind", verdict="equivalent")), joint())
    two = GroupReport(hostile(), (3000, 2900), (column("temperature", verdict="undecided"),), None, ("few rows",))
    return report(columns=(), groups=(one, two), joint=None, drift=True, options=Options(by="region"))
