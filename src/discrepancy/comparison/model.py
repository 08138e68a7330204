"""The nouns of a comparison: kinds, columns, tables side by side, units, options. Facts only, no statistics.

The flow is one way: reading makes a `TablePair`; units and statistics turn each `ColumnPair` into a `ColumnResult` and
the whole pair into a `JointResult`; the verdict step adds multiplicity; rendering reads the finished `ComparisonReport`.
NumPy throughout: a column is data at rest, not something to differentiate.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np


class Kind(enum.StrEnum):
    """What a column holds; it decides the statistics."""

    NUMERIC = "numeric"
    INTEGER = "integer"  # counts and amounts in whole numbers: distances between values mean something
    DATETIME = "datetime"  # seconds since the epoch, as float64
    CATEGORICAL = "categorical"
    CODE = "code"  # whole numbers that name levels (zip codes, class labels)
    BOOLEAN = "boolean"
    TEXT = "text"  # free text; compared through derived numeric columns (see ColumnPair.source)
    IDENTIFIER = "identifier"  # recognised and left out, with a word

    @property
    def ordered(self) -> bool:
        """Whether values are compared by a distance on the line (W1) and not by level shares (TV)."""
        return self in (Kind.NUMERIC, Kind.INTEGER, Kind.DATETIME)


@dataclass(frozen=True)
class Column:
    """One column of one table.

    `values`: float64 for ordered kinds (infinities allowed, NaN where missing); int64 codes into the pair's pooled `levels`
    for categorical, code and boolean (-1 where missing); `missing`: bool mask. Both have one entry a row.
    """

    values: np.ndarray
    missing: np.ndarray

    @property
    def rows(self) -> int:
        """How many rows, missing ones included."""
        return len(self.values)


@dataclass(frozen=True)
class ColumnPair:
    """One column in both tables, on one scale: same kind, same pooled levels, same unit.

    `levels`: the pooled level names in display order (None for ordered kinds). `unit`: in words, for display ("", "days",
    "share of rows"). `source`: the column that this one was derived from (text length of a text column), or None.
    `tested`: False for what is shown but not in the family (identifiers, equal constants, datetimes that move with time);
    `note` then says why.
    """

    name: str
    kind: Kind
    reference: Column
    current: Column
    levels: tuple[str, ...] | None = None
    unit: str = ""
    source: str | None = None
    tested: bool = True
    note: str | None = None


@dataclass(frozen=True)
class TablePair:
    """Two tables side by side, as read: their common columns, row weights, clusters, and what was left out and why."""

    columns: list[ColumnPair]
    rows_reference: int
    rows_current: int
    weights_reference: np.ndarray | None = None  # non-negative, any scale; None: equal
    weights_current: np.ndarray | None = None
    cluster_reference: np.ndarray | None = None  # int64 cluster id a row
    cluster_current: np.ndarray | None = None
    names: tuple[str, str] = ("reference", "current")
    left_out: dict[str, str] = field(default_factory=dict)  # column -> why ("only in reference", "identifier", ...)
    notes: list[str] = field(default_factory=list)  # one sentence each, for the report

    def column(self, name: str) -> ColumnPair:
        """The column of that name."""
        return next(c for c in self.columns if c.name == name)


@dataclass(frozen=True)
class Units:
    """Which rows move together under a permutation (COMPARE statistics, section 7).

    `reference`, `current`: unit id of each row, 0..count-1, or None when every row is a unit. `null` says how the null
    distribution is drawn. `kind` is for the report.
    """

    count_reference: int
    count_current: int
    reference: np.ndarray | None = None
    current: np.ndarray | None = None
    kind: Literal["rows", "clusters", "blocks", "groups"] = "rows"
    null: Literal["permutation", "multiplier"] = "permutation"
    block_length: int | None = None
    note: str | None = None


@dataclass(frozen=True)
class Options:
    """Everything that a user can set; the same names as on the command line and in the TOML."""

    level: float = 0.05
    correction: Literal["holm", "bh", "none"] = "holm"
    columns: tuple[str, ...] | None = None  # None: all common columns
    kinds: dict[str, Kind] = field(default_factory=dict)  # overrides of the detected kind
    by: str | None = None  # compare inside the groups of this column
    weights: str | None = None  # column of row weights
    frequency_weights: bool = False  # the weights count rows
    block: Literal["auto"] | int | None = None  # time order: rows in blocks of this many
    cluster: str | None = None  # column whose equal values move together
    delta: float | None = None  # minimum effect in size units; None: the documented defaults
    margin: float | None = None  # equivalence margin in size units; None: 0.10 ordered, 0.05 shares
    deltas: dict[str, float] = field(default_factory=dict)  # by column
    margins: dict[str, float] = field(default_factory=dict)
    permutations: int = 999
    sample: int | None = None  # uniform sample of this many rows a table
    seed: int = 0
    joint: Literal["mmd", "classifier", "none"] = "mmd"
    embedding: str | None = None  # a local sentence-embedding model for text columns
    memory: float = 1.0  # GiB that a comparison may hold

    def __post_init__(self) -> None:
        from discrepancy.comparison.errors import OptionError

        def need(holds: bool, name: str, rule: str) -> None:
            if not holds:
                raise OptionError(f"{name} must be {rule}, got {getattr(self, name)!r}")

        if self.columns is not None:
            need(not isinstance(self.columns, str), "columns", "a list of column names, not one text")
            object.__setattr__(self, "columns", tuple(self.columns))
        kinds: dict[str, Kind] = {}
        for name, kind in self.kinds.items():
            try:
                kinds[name] = Kind(kind)
            except ValueError:
                raise OptionError(f"the kind of {name!r} must be one of {', '.join(Kind)}, got {kind!r}") from None
        object.__setattr__(self, "kinds", kinds)
        need(0 < self.level < 1, "level", "between 0 and 1, both excluded")
        need(self.correction in ("holm", "bh", "none"), "correction", "'holm', 'bh' or 'none'")
        need(self.joint in ("mmd", "classifier", "none"), "joint", "'mmd', 'classifier' or 'none'")
        block = self.block is None or self.block == "auto" or (isinstance(self.block, int) and self.block >= 1)
        need(block, "block", "'auto' or a number of rows of at least 1")
        need(self.delta is None or 0 <= self.delta < math.inf, "delta", "at least 0")
        need(self.margin is None or 0 < self.margin < math.inf, "margin", "above 0")
        need(all(0 <= d < math.inf for d in self.deltas.values()), "deltas", "at least 0 for every column")
        need(all(0 < d < math.inf for d in self.margins.values()), "margins", "above 0 for every column")
        need(self.permutations >= 19, "permutations", "at least 19, the fewest that can reach a p-value of 0.05")
        need(self.sample is None or self.sample >= 1, "sample", "a number of rows of at least 1")
        need(self.seed >= 0, "seed", "a whole number of at least 0")
        need(0 < self.memory < math.inf, "memory", "a number of GiB above 0")


@dataclass(frozen=True)
class Member:
    """One statistic of a column's test: its value, the minimum effect that it must exceed, and its adjusted p-value."""

    name: str  # "W1", "A", "KS", "TV", "M", "S", "missing", "+inf", "-inf"
    value: float
    delta: float
    p_value: float | None


@dataclass(frozen=True)
class ColumnResult:
    """All that is known of one column (COMPARE statistics, section 9); None is what does not exist, never NaN.

    `p_adjusted`, `drift` and `verdict` are set by the verdict step, once all columns are known.
    """

    name: str
    kind: Kind
    unit: str
    tested: bool
    distance: float | None  # the plain plug-in distance, in the column's own units
    low: float | None
    high: float | None
    noise: float | None
    corrected: float | None
    scale: float | None
    size: float | None
    size_low: float | None
    size_high: float | None
    delta: float | None
    margin: float | None
    p_value: float | None
    p_any: float | None
    p_value_low: float | None
    p_value_high: float | None
    driver: str | None
    members: tuple[Member, ...]
    equivalent: bool | None
    small: bool | None
    units: tuple[int, int]
    n_eff: tuple[float, float]
    rows: tuple[int, int]
    missing: dict[str, Any]  # reference, current, low, high, p_value (shares)
    js: dict[str, float | None] | None = None  # Jensen-Shannon in nats with low, high (level kinds)
    p_adjusted: float | None = None
    drift: bool | None = None
    verdict: Literal["drift", "equivalent", "undecided", "left out"] | None = None
    note: str | None = None
    source: str | None = None
    summary: dict[str, Any] = field(default_factory=dict)  # for display: quantiles, densities, level shares, novel, vanished


@dataclass(frozen=True)
class JointResult:
    """The multivariate test (COMPARE statistics, section 6)."""

    p_value: float | None
    p_any: float | None
    p_value_low: float | None
    p_value_high: float | None
    distance: float | None  # MMD at kernel factor 0.7, in [0, sqrt 2]
    low: float | None
    high: float | None
    size: float | None
    members: tuple[Member, ...]
    driver: str | None
    pairs: tuple[dict[str, Any], ...] = ()  # {columns: [a, b], reference: r, current: r, change, p_value}
    shares: tuple[dict[str, Any], ...] = ()  # {column, share}: what carries the joint distance
    typical: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # "reference"/"current": {row, score, values}
    p_adjusted: float | None = None
    drift: bool | None = None
    verdict: Literal["drift", "undecided", "left out"] | None = None
    note: str | None = None
