"""The report in a real browser: quiet console, no network, sorting, filtering, both colour schemes, print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reports import column, grouped, hostile, joint, report

from discrepancy.comparison.model import Kind
from discrepancy.comparison.report import ComparisonReport

pytestmark = pytest.mark.browser


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Any:
    """A function that opens a report and fails the test for any message or request."""
    pages: list[Any] = []
    complaints: list[str] = []

    def go(what: ComparisonReport, **context: Any) -> Any:
        file = tmp_path / f"report{len(pages)}.html"
        file.write_text(what.to_html(), encoding="utf-8")
        page = browser.new_page(viewport={"width": 1280, "height": 800}, **context)
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("request", lambda r: None if r.url == file.as_uri() else complaints.append(f"request: {r.url}"))
        page.on("dialog", lambda dialog: (complaints.append("dialog"), dialog.dismiss()))
        page.goto(file.as_uri())
        pages.append(page)
        return page

    yield go
    for page in pages:
        page.close()
    assert complaints == []


Visit = Callable[..., Any]


def many(n: int = 100) -> ComparisonReport:
    verdicts = ["drift", "equivalent", "undecided", "undecided"]
    kinds = [Kind.NUMERIC, Kind.CATEGORICAL, Kind.INTEGER, Kind.DATETIME]
    return report(*[column(f"column_{k}", kind=kinds[k % 4], verdict=verdicts[k % 3], size=(k * 37 % n) / n) for k in range(n)])


def names(page: Any) -> list[str]:
    """The names in the table's visible rows, from the top."""
    return page.eval_on_selector_all("#columns tbody tr:not([hidden]) th a", "cells => cells.map(c => c.textContent)")


def test_the_first_screen_holds_the_verdict(visit: Visit) -> None:
    page = visit(report())
    title = page.locator("h1")
    assert title.inner_text().startswith("Drift in 3 of 5 columns: temperature")
    assert title.bounding_box()["y"] < 200
    assert page.locator(".tally").bounding_box()["y"] < 400
    assert page.locator(".movers").bounding_box()["y"] < 600


def test_a_hundred_columns(visit: Visit) -> None:
    what = many()
    assert len(what.to_html().encode()) < 1_000_000
    assert len(names(visit(what))) == 100


def test_sorting_by_pointer_and_by_keyboard(visit: Visit) -> None:
    page = visit(many(40))
    head = page.locator("#columns thead th", has_text="size").first
    button = head.locator("button")
    button.click()
    assert head.get_attribute("aria-sort") == "descending"
    sizes = [float(s) for s in page.eval_on_selector_all("#columns tbody tr", "rows => rows.map(r => r.cells[4].dataset.key)")]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 30
    button.focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    sizes = [float(s) for s in page.eval_on_selector_all("#columns tbody tr", "rows => rows.map(r => r.cells[4].dataset.key)")]
    assert sizes == sorted(sizes)
    assert page.locator('#columns [aria-sort="ascending"], #columns [aria-sort="descending"]').count() == 1
    page.locator("#columns thead button", has_text="column").click()
    assert names(page)[:3] == ["column_0", "column_1", "column_2"]
    assert names(page)[-1] == "column_39"


def test_empty_cells_stay_last(visit: Visit) -> None:
    page = visit(report())
    button = page.locator("#columns thead button", has_text="p, corrected")
    for _ in range(2):
        button.click()
        assert names(page)[-1] == "id"


def test_filtering_by_name_and_by_verdict(visit: Visit) -> None:
    page = visit(many(30))
    page.fill("#find", "COLUMN_2")
    assert set(names(page)) == {"column_2", *(f"column_{k}" for k in range(20, 30))}
    assert page.locator("#found").inner_text() == "11 of 30"
    assert page.locator("details.card:visible").count() == 11
    page.locator(".chip[data-tone=drift]").click()
    assert set(names(page)) == {"column_21", "column_24", "column_27"}
    page.locator("#find").press("Escape")
    assert len(names(page)) == 10
    page.locator(".chip[data-tone=drift]").click()
    assert len(names(page)) == 30


def test_a_name_opens_its_card(visit: Visit) -> None:
    page = visit(report())
    card = page.locator("details.card", has_text="rain").first
    assert card.get_attribute("open") is None
    page.locator("#columns a", has_text="rain").click()
    assert card.get_attribute("open") is not None
    page.wait_for_function(
        "id => { const r = document.getElementById(id).getBoundingClientRect(); return r.top >= 0 && r.top < innerHeight }",
        arg=card.get_attribute("id"),
    )


def luminance(page: Any, selector: str, what: str) -> float:
    red, green, blue = page.eval_on_selector(
        selector, "(e, what) => getComputedStyle(e)[what].match(/[\\d.]+/g).slice(0, 3).map(Number)", what
    )
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red / 255, green / 255, blue / 255)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(page: Any, selector: str, ground: str = "body") -> float:
    pair = sorted((luminance(page, selector, "color"), luminance(page, ground, "backgroundColor")))
    return (pair[1] + 0.05) / (pair[0] + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_are_readable(visit: Visit, scheme: str) -> None:
    page = visit(report(column("a", small=True), *report().columns), color_scheme=scheme)
    assert (luminance(page, "body", "backgroundColor") > 0.5) == (scheme == "light")
    assert contrast(page, "h1", ".hero") > 12
    for selector in (".hero .soft", ".v.drift", ".v.small", ".v.equivalent", ".v.undecided", "#columns tbody small"):
        assert contrast(page, selector, ".hero") > 4.5, selector


def test_the_theme_button_overrides_the_system(visit: Visit) -> None:
    page = visit(report(), color_scheme="light")
    button = page.locator("#theme")
    button.click()
    assert button.inner_text() == "Theme: light"
    button.click()
    assert button.inner_text() == "Theme: dark"
    assert luminance(page, "body", "backgroundColor") < 0.2
    button.click()
    assert button.inner_text() == "Theme: system"
    assert luminance(page, "body", "backgroundColor") > 0.5


def test_print_is_light_and_without_controls(visit: Visit) -> None:
    page = visit(many(30), color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert luminance(page, "body", "backgroundColor") > 0.9
    assert page.locator("#tools").is_hidden()
    assert page.locator("#theme").is_hidden()
    assert page.locator("details.card[open]").first.is_visible()
    page.set_viewport_size({"width": 690, "height": 1000})  # A4 within its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 690
    assert len(page.pdf()) > 10_000


def test_a_phone_does_not_scroll_sideways(visit: Visit) -> None:
    page = visit(report())
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_hostile_names_do_nothing(visit: Visit) -> None:
    bad = hostile()
    levels = column(bad, kind=Kind.CATEGORICAL)
    levels.summary["levels"][0]["level"] = bad
    both = joint(
        typical={"reference": [], "current": [{"row": 0, "score": 1.0, "values": {bad: bad}}]},
        shares=({"column": bad, "share": 1.0},),
    )
    page = visit(report(levels, joint=both, names=(bad, bad), notes=(bad,), left_out={bad: bad}))
    assert page.locator("img").count() == 0
    assert page.evaluate("document.scripts.length") == 1


def test_groups(visit: Visit) -> None:
    page = visit(grouped())
    page.fill("#find", "north")
    assert names(page) == ["temperature", "wind"]


def test_without_scripts_the_report_still_reads(visit: Visit) -> None:
    page = visit(report(), java_script_enabled=False)
    assert page.locator("#columns tbody tr").count() == 6
    assert page.locator("#tools").is_hidden()
