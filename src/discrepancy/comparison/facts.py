"""What a column's `summary` says, typed: the renderers read it through these and never by key."""

from __future__ import annotations

from dataclasses import dataclass

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
    novel_count: int
    vanished_count: int


def ordered(result: ColumnResult) -> OrderedFacts | None:
    """The facts of an ordered column, or None where there are none (a column of levels, or one without a summary)."""
    record = result.summary
    if "probabilities" not in record:
        return None
    sides = [record["reference"], record["current"]]
    moments = [Moments(*(side[key] for key in ("count", "mean", "sd", "min", "max"))) for side in sides]
    histogram = record["histogram"] or {"edges": [], "reference": {"density": []}, "current": {"density": []}}
    return OrderedFacts(
        probabilities=tuple(record["probabilities"]),
        quantiles=(tuple(sides[0]["quantiles"]), tuple(sides[1]["quantiles"])),
        edges=tuple(histogram["edges"]),
        densities=(tuple(histogram["reference"]["density"]), tuple(histogram["current"]["density"])),
        moments=(moments[0], moments[1]),
    )


def levels(result: ColumnResult) -> LevelFacts | None:
    """The facts of a column of levels, or None for an ordered one."""
    record = result.summary
    if "levels" not in record:
        return None
    return LevelFacts(
        levels=tuple(Level(entry["level"], entry["reference_share"], entry["current_share"]) for entry in record["levels"]),
        rest=record["rest"],
        novel=tuple(entry["level"] for entry in record["novel"]),
        vanished=tuple(entry["level"] for entry in record["vanished"]),
        novel_count=record["novel_count"],
        vanished_count=record["vanished_count"],
    )
