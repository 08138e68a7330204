"""The swap table: every method's small task with every divergence that it takes, over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from discrepancy._results import NumericalError
from discrepancy.recipes.catalogue import finding, has_recipe, papers
from discrepancy.recipes.runner import SwapTask, recipe

# The columns of the committed table: bounded and unbounded, covering and seeking, smooth and not.
DIVERGENCES = (
    "kl",
    "reverse-kl",
    "jeffreys",
    "jensen-shannon",
    "alpha:a=0.5",
    "squared-hellinger",
    "chi-squared",
    "neyman-chi-squared",
    "le-cam",
    "total-variation",
)


@dataclass(frozen=True)
class Cell:
    """One method with one divergence: its numbers, one a seed, or why there are none.

    `refusal` is the method's own reason for not taking the divergence, `failure` what went wrong in a run.
    """

    method: str
    divergence: str
    values: tuple[float, ...] = ()
    refusal: str | None = None
    failure: str | None = None

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.values)

    @property
    def half_width(self) -> float:
        """Half of the 95 % t-interval of the mean; NaN for one seed."""
        return _half_width(self.values)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        record: dict[str, Any] = {"method": self.method, "divergence": self.divergence}
        if self.values:
            half = self.half_width
            record |= {"values": list(self.values), "mean": self.mean}
            record |= {"low": self.mean - half, "high": self.mean + half} if math.isfinite(half) else {}
        return record | {k: v for k, v in (("refusal", self.refusal), ("failure", self.failure)) if v is not None}


@dataclass(frozen=True)
class Row:
    """What a row of the table measures, in which direction it improves, and the divergence of the paper."""

    method: str
    measures: str
    better: str
    default: str


@dataclass(frozen=True)
class Matrix:
    """The swap table: `rows` (methods), `divergences` (columns, as the command line names them) and a cell for each pair."""

    rows: tuple[Row, ...]
    divergences: tuple[str, ...]
    seeds: int
    cells: tuple[Cell, ...]

    def cell(self, method: str, divergence: str) -> Cell:
        """One cell; KeyError where there is none."""
        for cell in self.cells:
            if (cell.method, cell.divergence) == (method, divergence):
                return cell
        raise KeyError((method, divergence))

    def best(self, row: Row) -> Cell | None:
        """The cell of the best mean in a row; None where the row ranks nothing or has no number."""
        found = [c for c in self.cells if c.method == row.method and c.values]
        if row.better == "neither" or not found:
            return None
        return max(found, key=lambda c: c.mean if row.better == "higher" else -c.mean)

    def level_with_best(self, row: Row) -> frozenset[str]:
        """The divergences of a row that the seeds do not tell from the best: the paired 95 % t-interval has zero in it."""
        top = self.best(row)
        if top is None:
            return frozenset()
        level = {top.divergence}
        for cell in self.cells:
            if cell.method != row.method or len(cell.values) != len(top.values) or cell is top:
                continue
            differences = [a - b for a, b in zip(cell.values, top.values, strict=True)]
            half = _half_width(differences)
            if math.isnan(half) or abs(statistics.fmean(differences)) <= half:
                level.add(cell.divergence)
        return frozenset(level)

    def joined(self, newer: Matrix) -> Matrix:
        """This table with the rows of a newer one added, or put in the place of its own; rows by name.

        Raises ValueError unless both have the same divergences and the same number of seeds.
        """
        if (newer.divergences, newer.seeds) != (self.divergences, self.seeds):
            raise ValueError(
                f"tables of {self.seeds} seeds and divergences {', '.join(self.divergences)} take rows of the same, got "
                f"{newer.seeds} seeds and {', '.join(newer.divergences)}"
            )
        rows = {row.method: row for row in self.rows} | {row.method: row for row in newer.rows}
        own = {row.method for row in newer.rows}
        cells = [cell for cell in self.cells if cell.method not in own] + list(newer.cells)
        names = sorted(rows)
        ordered = tuple(cell for name in names for cell in cells if cell.method == name)
        return Matrix(tuple(rows[name] for name in names), self.divergences, self.seeds, ordered)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "schema_version": 1,
            "seeds": self.seeds,
            "methods": [vars(row) for row in self.rows],
            "divergences": list(self.divergences),
            "cells": [cell.to_dict() for cell in self.cells],
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Matrix:
        """The table that `to_dict` wrote."""
        cells = tuple(
            Cell(c["method"], c["divergence"], tuple(c.get("values", ())), c.get("refusal"), c.get("failure"))
            for c in record["cells"]
        )
        return cls(tuple(Row(**m) for m in record["methods"]), tuple(record["divergences"]), record["seeds"], cells)


def tasks() -> dict[str, SwapTask]:
    """The methods that the table can have as rows, by slug."""
    found = {}
    for entry in papers():
        if has_recipe(entry.slug):
            task = recipe(entry.slug).task
            if task is not None:
                found[entry.slug] = task
    return found


def committed() -> Matrix | None:
    """The table that the package carries."""
    record = finding("matrix")
    return None if record is None else Matrix.from_dict(record)


def swap_table(
    methods: Sequence[str],
    divergences: Sequence[str],
    *,
    seeds: int = 5,
    progress: Callable[[int, int, str], None] | None = None,
    mapper: Callable[..., Iterable[Cell]] = map,
) -> Matrix:
    """Run each method's small task with each divergence, seeds 0 to `seeds` - 1 the same along a row.

    Names are slugs of papers and texts as the command line takes them ("alpha:a=0.5"). A divergence that a method refuses is a
    cell with its reason; a run that fails numerically is one too. `mapper` is `map`,
    or that of a pool of processes. Raises ValueError for an unknown name, a method without a task,
    a divergence named twice, or fewer than one seed, before any run. Time: the sum of the tasks, a few seconds each.
    """
    from discrepancy._registry import parse

    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    known = {slug: _task(slug) for slug in methods}
    if not known or not divergences:
        raise ValueError("name at least one method and one divergence")
    objects = {text: parse(text) for text in divergences}
    if len(objects) != len(divergences):
        raise ValueError(f"a divergence is named twice in {', '.join(divergences)}")
    rows = tuple(Row(slug, task.measures, task.better, repr(task.default)) for slug, task in known.items())
    pairs = [(slug, text) for slug in known for text in objects]
    cells: list[Cell] = []
    for cell in mapper(run_cell, *zip(*pairs, strict=True), [seeds] * len(pairs)):
        cells.append(cell)
        if progress is not None:
            progress(len(cells), len(pairs), f"{cell.method} with {cell.divergence}")
    return Matrix(rows, tuple(objects), seeds, tuple(cells))


def _task(slug: str) -> SwapTask:
    task = recipe(slug).task
    if task is None:
        raise ValueError(f"{slug} takes no divergence to swap; the methods that do are {', '.join(tasks())}")
    return task


def run_cell(slug: str, text: str, seeds: int) -> Cell:
    """One method with one divergence, by their names, over seeds 0 to `seeds` - 1."""
    from discrepancy._registry import parse

    task, divergence = _task(slug), parse(text)
    refusal = task.admits.refusal(divergence)
    if refusal is not None:
        return Cell(slug, text, refusal=refusal)
    values = []
    for seed in range(seeds):
        try:
            value = float(task.run(divergence, seed))
        except NumericalError as error:
            return Cell(slug, text, failure=f"seed {seed}: {error}")
        if not math.isfinite(value):
            return Cell(slug, text, failure=f"seed {seed}: the result is {value}")
        values.append(value)
    return Cell(slug, text, tuple(values))


def _half_width(values: Sequence[float]) -> float:
    if len(values) < 2:
        return math.nan
    from scipy.special import stdtrit

    return float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))


__all__ = ["DIVERGENCES", "Cell", "Matrix", "Row", "committed", "run_cell", "swap_table", "tasks"]
