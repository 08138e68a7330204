"""`ComparisonReport`: everything that one comparison found, frozen, and the doors to its renderings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from discrepancy.comparison.model import ColumnResult, JointResult, Options


@dataclass(frozen=True)
class GroupReport:
    """One group of `--by`: its value, its rows in both tables, its columns and joint test.

    The groups share one family with each other, so a group's drift already counts all of them.
    """

    value: str
    rows: tuple[int, int]
    columns: tuple[ColumnResult, ...]
    joint: JointResult | None = None
    notes: tuple[str, ...] = ()

    @property
    def drift(self) -> bool:
        """Whether anything in this group was flagged."""
        return any(c.drift for c in self.columns) or bool(self.joint and self.joint.drift)


@dataclass(frozen=True)
class UnitFacts:
    """What moved together under the null ("rows", "clusters", "blocks", "groups"), how many a table, and how it was drawn."""

    kind: str = "rows"
    count: tuple[int, int] = (0, 0)
    null: str = "permutation"
    block_length: int | None = None


@dataclass(frozen=True, repr=False)
class ComparisonReport:
    """Two data sets compared: a verdict for every column, one for the joint distribution, and their common error rate.

    `drift` is any rejection in the one family of columns (missingness included) and joint test; `error_rate` says in a
    sentence what that family controls. With `options.by` the families of all groups are one: `groups` holds them, and
    `columns` is empty. `left_out` maps columns that were not compared to the reason. `to_dict()` is the JSON document of
    `comparison/schema.json`, the same for the same seed; `seconds` is kept out of it for that reason.
    """

    names: tuple[str, str]
    rows: tuple[int, int]
    options: Options
    columns: tuple[ColumnResult, ...]
    joint: JointResult | None
    drift: bool
    error_rate: str
    version: str
    groups: tuple[GroupReport, ...] = ()
    units: UnitFacts = field(default_factory=UnitFacts)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float | None = None

    @property
    def level(self) -> float:
        """The level of the family."""
        return self.options.level

    @property
    def correction(self) -> str:
        """How many tests were accounted for: "holm", "bh" or "none"."""
        return self.options.correction

    @property
    def seed(self) -> int:
        """The seed that repeats this report exactly."""
        return self.options.seed

    def everything(self) -> list[tuple[str | None, ColumnResult]]:
        """(group, column) of every column result, in the order of the data; group is None without `by`."""
        rows: list[tuple[str | None, ColumnResult]] = [(None, c) for c in self.columns]
        for group in self.groups:
            rows += [(group.value, c) for c in group.columns]
        return rows

    def joints(self) -> list[tuple[str | None, JointResult]]:
        """(group, joint test) of every joint test that was run."""
        found: list[tuple[str | None, JointResult]] = [] if self.joint is None else [(None, self.joint)]
        return found + [(g.value, g.joint) for g in self.groups if g.joint is not None]

    def column(self, name: str) -> ColumnResult:
        """The result of a column by name; KeyError lists the columns there are. With `by`, ask the group."""
        for c in self.columns:
            if c.name == name:
                return c
        known = ", ".join(c.name for c in self.columns[:20]) or "none (see .groups)"
        raise KeyError(f"no column {name!r} was compared; there are {known}")

    def __repr__(self) -> str:
        from discrepancy.comparison.wording import headline

        return f"ComparisonReport({headline(self).title})"

    def to_dict(self) -> dict[str, Any]:
        """The JSON document (schema version 1): plain numbers, strings, lists; None for what does not exist, never NaN."""
        from discrepancy.comparison.document import document

        return document(self)

    def to_json(self, *, indent: int | None = 2) -> str:
        """`to_dict()` as text, UTF-8 characters as they are, with no NaN or Infinity."""
        import json

        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=indent)

    def to_markdown(self) -> str:
        """The verdict and the tables in GitHub's Markdown; names and cells are escaped."""
        from discrepancy.comparison.render.markdown import markdown

        return markdown(self)

    def to_html(self) -> str:
        """One self-contained page: no network, inline styles, scripts and figures; names and cells are escaped."""
        from discrepancy.comparison.render.html import html

        return html(self)

    def to_csv(self) -> str:
        """One line a column, with cells that a spreadsheet would run as formulas made inert."""
        from discrepancy.comparison.render.table_csv import table_csv

        return table_csv(self)

    def show(self) -> None:
        """Print the verdict and the table; colours on a terminal, plain text elsewhere."""
        from discrepancy.comparison.render.terminal import show

        show(self)

    def _repr_html_(self) -> str:
        from discrepancy.comparison.render.html import fragment

        return fragment(self)
