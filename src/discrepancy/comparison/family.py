"""One family of tests: the columns and joint tests of a table, or of all groups of it, measured and decided together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from discrepancy.comparison.columns import Draws, compare_column
from discrepancy.comparison.joint import compare_joint
from discrepancy.comparison.model import ColumnPair, ColumnResult, JointResult, Options, TablePair, Units
from discrepancy.comparison.units import make_units
from discrepancy.comparison.verdict import Verdict, decide_groups, stops_early

Progress = Callable[[int, int, str], None]  # (done, total, what is being worked on)
Weights = tuple[np.ndarray | None, np.ndarray | None]


@dataclass
class _Part:
    """One table of the family with its units and what was measured in it so far."""

    table: TablePair
    units: Units
    draws: Draws
    columns: list[ColumnResult]
    joint: JointResult | None = None

    @property
    def weights(self) -> Weights:
        return self.table.weights_reference, self.table.weights_current

    def pair(self, name: str) -> ColumnPair:
        return self.table.column(name)


class Family:
    """The tests of one comparison, by group; a comparison without groups has the one group "".

    The columns of a part share their random subsets, and what a column draws for itself comes from its own stream (seed,
    column name): leaving a column or a group out changes no other p-value.
    """

    def __init__(self, tables: dict[str, TablePair], options: Options, progress: Progress | None = None) -> None:
        self.options = options
        self._progress = progress or (lambda done, total, what: None)
        self._parts = {
            group: _Part(table, make_units(table, options), Draws(options.seed), []) for group, table in tables.items()
        }
        tested = sum(pair.tested for part in self._parts.values() for pair in part.table.columns)
        self._early = stops_early(tested)

    def units(self, group: str) -> Units:
        """The units of a group, as they were made from its table."""
        return self._parts[group].units

    def measure(self) -> None:
        """Compute every column and joint test, without verdicts; `progress` hears of each."""
        done, total = 0, sum(len(part.table.columns) + 1 for part in self._parts.values())
        for group, part in self._parts.items():
            where = f"{group}: " if group else ""
            for pair in part.table.columns:
                self._progress(done, total, where + pair.name)
                part.columns.append(self._column(part, pair, None))
                done += 1
            self._progress(done, total, f"{where}joint distribution")
            part.joint = self._joint(part, None)
            done += 1
        self._progress(done, total, "verdict")

    def decide(self) -> dict[str, Verdict]:
        """The verdict on each group, all in one correction; tests whose verdict hangs on more permutations get them."""
        return decide_groups(
            {group: (part.columns, part.joint) for group, part in self._parts.items()},
            self.options,
            lambda group, name, draws: self._column(self._parts[group], self._parts[group].pair(name), draws),
            refine_joint=self._again,
        )

    def _column(self, part: _Part, pair: ColumnPair, permutations: int | None) -> ColumnResult:
        return compare_column(
            pair,
            part.units,
            self.options,
            weights=part.weights,
            permutations=permutations,
            draws=part.draws,
            early_stop=self._early and permutations is None,
        )

    def _joint(self, part: _Part, permutations: int | None) -> JointResult | None:
        return compare_joint(part.table, part.units, self.options, weights=part.weights, permutations=permutations)

    def _again(self, group: str, permutations: int) -> JointResult:
        part = self._parts[group]
        found = self._joint(part, permutations)
        return found if found is not None else part.joint  # type: ignore[return-value]  # only a joint test that ran is refined
