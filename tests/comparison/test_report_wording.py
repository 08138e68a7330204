"""The words of a verdict: what the title claims is what the columns say, and odd cases are worded honestly."""

from __future__ import annotations

import math

import pytest
from reports import column, grouped, joint, level_data, ordered_data, report

from discrepancy.comparison import wording
from discrepancy.comparison.model import Kind, Member
from discrepancy.comparison.render import numbers


def test_drift_names_the_largest_first() -> None:
    head = wording.headline(
        report(column("small_one", size=0.2), column("large_one", size=0.9), column("calm", verdict="equivalent"))
    )
    assert head.tone == "drift"
    assert head.title == "Drift in 2 of 3 columns: large_one and small_one"
    assert "1 shown to be within the margin" in head.detail


def test_drift_that_is_small_is_worded_as_both() -> None:
    found = report(column("a", small=True), joint=joint(drift=False, verdict="undecided"))
    assert wording.tone(found.columns[0]) == "small"
    assert wording.headline(found).title.startswith("Drift, and shown to be small, in 1 of 1 column: a")
    assert "drift, and shown to be small" in found.to_markdown()
    mixed = wording.headline(report(column("a", small=True), column("b")))
    assert mixed.tone == "drift"
    assert "small" not in mixed.title


def test_no_drift_tells_shown_from_undecided() -> None:
    quiet = {"drift": False, "joint": None}
    shown = wording.headline(report(column("a", verdict="equivalent"), **quiet))
    assert shown.tone == "equivalent"
    assert shown.title.startswith("No drift: ")
    half = wording.headline(report(column("a", verdict="equivalent"), column("b", verdict="undecided"), **quiet))
    assert half.tone == "undecided"
    assert "1 of 2 columns shown to be within their margin" in half.title
    none = wording.headline(report(column("b", verdict="undecided"), **quiet))
    assert none.title == "No drift found; the one column is not shown to be within its margin"
    two = wording.headline(report(column("a", verdict="undecided"), column("b", verdict="undecided"), **quiet))
    assert two.title == "No drift found; none of 2 columns shown to be within its margin"
    nothing = wording.headline(report(column("id", kind=Kind.IDENTIFIER, verdict=None, summary={}), **quiet))
    assert nothing.title == "Nothing could be tested"


def test_joint_drift_alone_is_drift() -> None:
    head = wording.headline(report(column("a", verdict="undecided"), drift=True, joint=joint()))
    assert head.tone == "drift"
    assert "in no column by itself" in head.title


def test_groups_are_named() -> None:
    assert "temperature (north)" in wording.headline(grouped()).title


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (column(driver="missing", missing={"reference": 0.01, "current": 0.12}), "missing 1 % → 12 %"),
        (column(summary=ordered_data((5.0, 8.0))), "median 4.94 → 8.04"),
        (column(kind=Kind.CATEGORICAL), "card 52 % → 41 %; new: wallet 7.92 %"),
        (column(kind=Kind.CATEGORICAL, driver="S"), "new: wallet 7.92 %; gone: cheque 0.2 %"),
        (column(driver="+inf", members=(Member("+inf", 0.03, 0.01, 0.01),)), "share of +infinity moved by 3 % of rows"),
        (column(kind=Kind.DATETIME, unit="s", summary=ordered_data((1.5e9, 1.5e9 + 7200), (10.0, 10.0))), "median +2 hours"),
        (column("id", kind=Kind.IDENTIFIER, verdict=None, summary={}), "as many levels as rows"),
        (column(summary={}), numbers.NONE),
    ],
)
def test_what_changed(given: wording.ColumnResult, said: str) -> None:
    assert said in wording.what_changed(given)


def test_equal_medians_fall_back_to_spread() -> None:
    summary = ordered_data((5.0, 5.0), (1.0, 2.0))
    for side in ("reference", "current"):
        summary[side]["quantiles"][summary["probabilities"].index(0.5)] = 5.0
    assert wording.what_changed(column(summary=summary)).startswith("spread × 2")


def test_more_new_levels_are_counted() -> None:
    summary = level_data()
    summary["novel_count"] = 7
    assert "(and 6 more)" in wording.what_changed(column(kind=Kind.CATEGORICAL, summary=summary))


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0.0, "0"), (1.0, "1"), (123456.7, "123,457"), (0.012345, "0.0123"), (-2.5, "−2.5"), (1.23e12, "1.23e12"),
        (9.99e-7, "9.99e−7"), (0.1 + 0.2, "0.3"), (99.96, "100"), (999.6, "1,000"), (math.inf, "∞"), (-math.inf, "−∞"),
        (math.nan, "–"), (None, "–"),
        (5e-324, "4.94e−324"),
    ],
)  # fmt: skip
def test_figures(x: float | None, text: str) -> None:
    assert numbers.figures(x) == text


@pytest.mark.parametrize(
    ("x", "text"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.123, "12.3 %"), (1e-6, "<0.01 %"), (0.9999, ">99.9 %"), (0.0035, "0.35 %"), (None, "–")],
)
def test_shares(x: float | None, text: str) -> None:
    assert numbers.share(x) == text


@pytest.mark.parametrize(
    ("p", "text"), [(0.0, "<0.0001"), (0.00023, "0.0002"), (0.032, "0.032"), (0.5, "0.50"), (1.0, "1"), (None, "–")]
)
def test_p_values_are_never_zero(p: float | None, text: str) -> None:
    assert numbers.p_value(p) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 seconds"),
        (0.002, "2 milliseconds"),
        (90.0, "1.5 minutes"),
        (7200.0, "2 hours"),
        (40 * 86400.0, "40 days"),
        (4e9, "127 years"),
    ],
)
def test_spans_of_time(seconds: float, text: str) -> None:
    assert numbers.quantity(seconds, "s") == text


def test_an_interval_has_one_unit() -> None:
    assert numbers.interval(3600.0, 5 * 86400.0, "s") == "0.0417 to 5 days"
    assert numbers.interval(0.02, 0.31, "share of rows") == "2 to 31 %"
    assert numbers.interval(None, None) == "–"


@pytest.mark.parametrize(
    ("t", "text"), [(0.0, "1970-01-01"), (-86400.0 * 365, "1969-01-01"), (1e18, "1.00e18 s"), (3661.0, "1970-01-01 01:01")]
)
def test_moments(t: float, text: str) -> None:
    assert numbers.moment(t) in (text, text.replace("1.00e18", "1e18"))


def test_names_lose_what_could_repaint_a_terminal() -> None:
    shown = numbers.printable("a\x1b[2Jb\u202ec\ud800d\ne")
    assert shown == "a\\x1b[2Jb\\u202ec\\ud800d e"
    assert len(numbers.printable("x" * 1000, 10)) == 11
