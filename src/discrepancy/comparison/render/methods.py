"""What the numbers of a report mean and where they come from, in words for its reader, with citations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from discrepancy.comparison.report import ComparisonReport


@dataclass(frozen=True)
class Method:
    """One method: its name, what it does, and the keys of its sources."""

    name: str
    text: str
    references: tuple[str, ...]


_NULLS = {
    "rows": "rows are shuffled between the tables",
    "clusters": "whole clusters are shuffled between the tables",
    "blocks": "whole blocks of consecutive rows are shuffled between the tables",
    "groups": "random groups of rows, all of one size, are shuffled between the tables; every row takes part",
}


def methods(report: ComparisonReport) -> list[Method]:
    """The methods that this report used."""
    o = report.options
    null = _NULLS[report.units.kind]
    if report.units.null == "multiplier":
        null = "each table is resampled in itself by random weights, since permuting weighted rows would not be fair"
    found = [
        Method(
            "Distance and size",
            "Ordered columns: the first Wasserstein distance, the mean move of a value, in the column's own unit. Levels: total "
            "variation, the share of rows that would have to change level. Size is the distance without the upward bias of "
            "noise, over a scale that is the standard deviation for a normal column (Gini's mean difference); 1 for shares.",
            ("vallender-1974", "yitzhaki-2003"),
        ),
        Method(
            "Interval",
            "95 %: the lower end by inverting the test along the observed difference, the upper end from the linearised "
            "distance. It is one-sided where no change is plausible.",
            ("feldman-cousins-1998", "sommerfeld-munk-2018"),
        ),
        Method(
            "Test",
            "Several statistics of a column (distance, tails, cumulative share, rare levels, missingness) are combined by their "
            f"largest standardised excess over the minimum effect, against one null: {null}. Far tails use a Gaussian "
            "isoperimetric bound in place of more draws.",
            ("westfall-young-1993", "phipson-smyth-2010", "borell-1975"),
        ),
        Method(
            "Verdicts",
            "Drift: the corrected p-value is at most the level. Within the margin: the upper confidence limit is below the "
            "equivalence margin; this errs for at most 5 % of columns whose change is at the margin. Undecided is neither.",
            ("schuirmann-1987", "berger-1982"),
        ),
    ]
    if o.correction == "holm":
        found.append(Method("Many tests", "Holm's correction over columns, missingness and the joint test.", ("holm-1979",)))
    elif o.correction == "bh":
        text = "The Benjamini-Hochberg procedure over columns, missingness and the joint test."
        found.append(Method("Many tests", text, ("benjamini-hochberg-1995",)))
    if report.joints() and o.joint == "mmd":
        text = (
            "Kernel mean discrepancies of three widths on normal scores, together with the largest change of a correlation, in "
            "one test. Shares tell how much of the distance disappears without a column. Rows are examples and carry no p-value."
        )
        found.append(Method("Jointly", text, ("gretton-2012", "rahimi-recht-2007")))
    elif report.joints():
        text = "A classifier that tells the tables apart, judged on rows that it has not seen."
        found.append(Method("Jointly", text, ("lopez-paz-oquab-2017",)))
    if report.units.kind == "blocks":
        found.append(Method("Time order", "Block length from the autocorrelation of the columns.", ("politis-white-2004",)))
    return found


def citations(found: list[Method]) -> list[str]:
    """The sources of the methods, each once, as lines of a bibliography."""
    from discrepancy._registry import references

    known = references()
    return [str(known[key]) for key in dict.fromkeys(k for m in found for k in m.references)]
