"""What a column's `summary` says, typed: the renderers read it through these and never by key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from discrepancy.comparison.model import ColumnResult


@dataclass(frozen=True)
class Moments:
    """Count of present values, mean, standard deviation, smallest and largest of one table; None where there is none."""

    count: int | None = None
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class OrderedFacts:
    """An ordered column in both tables: quantiles at common probabilities, densities on common bins, moments."""

    probabilities: tuple[float, ...]
    quantiles: tuple[tuple[float, ...], tuple[float, ...]]
    edges: tuple[float, ...]
    densities: tuple[tuple[float, ...], tuple[float, ...]]
    moments: tuple[Moments, Moments]

    def median(self, side: int) -> float | None:
        """The median of the reference (0) or the current table (1)."""
        if 0.5 not in self.probabilities or not self.quantiles[side]:
            return None
        return self.quantiles[side][self.probabilities.index(0.5)]


@dataclass(frozen=True)
class Level:
    """One level with its shares of the rows."""

    name: str
    reference: float
    current: float

    @property
    def change(self) -> float:
        """Current share minus reference share."""
        return self.current - self.reference


@dataclass(frozen=True)
class LevelFacts:
    """The levels of a column, the most frequent first; how many more there are; which are new and which are gone."""

    levels: tuple[Level, ...]
    rest: int
    novel: tuple[str, ...]
    vanished: tuple[str, ...]


def _both(record: dict[str, Any], key: str) -> tuple[Any, Any]:
    value = record.get(key) or {}
    return value.get("reference"), value.get("current")


def ordered(result: ColumnResult) -> OrderedFacts | None:
    """The facts of an ordered column, or None where there are none (a column of levels, or all missing)."""
    record = result.summary
    if "quantiles" not in record:
        return None
    quantiles = _both(record, "quantiles")
    densities = _both(record, "density")
    columns = {key: _both(record, key) for key in ("count", "mean", "sd", "min", "max")}
    moments = tuple(
        Moments(*(columns[key][side] for key in ("count", "mean", "sd", "min", "max"))) for side in (0, 1)
    )  # fmt: skip
    return OrderedFacts(
        probabilities=tuple(record.get("probabilities") or ()),
        quantiles=(tuple(quantiles[0] or ()), tuple(quantiles[1] or ())),
        edges=tuple(record.get("edges") or ()),
        densities=(tuple(densities[0] or ()), tuple(densities[1] or ())),
        moments=(moments[0], moments[1]),
    )


def levels(result: ColumnResult) -> LevelFacts | None:
    """The facts of a column of levels, or None for an ordered one."""
    record = result.summary
    if "levels" not in record:
        return None
    return LevelFacts(
        levels=tuple(Level(entry["level"], entry["reference"], entry["current"]) for entry in record["levels"]),
        rest=record.get("rest", 0),
        novel=tuple(record.get("novel") or ()),
        vanished=tuple(record.get("vanished") or ()),
    )
