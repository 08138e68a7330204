"""The renderings: they show what the report says, and nothing that came in a cell is run or read as markup."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from reports import column, grouped, hostile, joint, ordered_data, report

from discrepancy.comparison import facts
from discrepancy.comparison.model import Kind
from discrepancy.comparison.render import svg
from discrepancy.comparison.render.table_csv import inert
from discrepancy.comparison.render.terminal import show


class Elements(HTMLParser):
    """Every tag, attribute and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def nasty():
    """A report whose every text is hostile."""
    bad = hostile()
    numbers = column(bad, unit=bad, note=bad, source=bad, driver=bad)
    levels = column(bad, kind=Kind.CATEGORICAL)
    levels.summary["levels"][0]["level"] = bad
    both = joint(
        note=bad,
        pairs=({"columns": [bad, bad], "reference": 0.1, "current": 0.5, "p_value": 0.01},),
        shares=({"column": bad, "share": 1.0},),
        typical={"reference": [], "current": [{"row": 0, "score": 1.0, "values": {bad: bad}}]},
    )
    return report(numbers, levels, joint=both, names=(bad, bad), notes=(bad,), left_out={bad: bad}, error_rate=bad)


@pytest.mark.parametrize("make", [report, grouped, nasty])
def test_the_page_is_self_contained(make) -> None:
    page = make().to_html()
    page.encode("utf-8")
    elements = Elements(page)
    for tag, name, value in elements.attributes:
        if name in ("src", "href", "action", "data", "srcset", "poster"):
            assert value.startswith(("#", "data:,")), (tag, name, value)
        assert not name.startswith("on"), (tag, name)
    assert elements.tags.count("script") == 1
    assert not {"img", "iframe", "object", "embed", "base", "form"} & set(elements.tags)
    assert any(value.startswith("default-src 'none'") for _, name, value in elements.attributes if name == "content")
    assert not re.search(r"url\(|@import|https?://", page.split("<script>")[0])


def test_hostile_names_stay_text() -> None:
    page = nasty().to_html()
    assert "<img" not in page
    assert "onerror=alert(1)&gt;" in page
    assert "{{7*7}}" in "".join(Elements(page).texts)
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_the_verdict_comes_first() -> None:
    elements = Elements(report().to_html())
    text = " ".join(" ".join(elements.texts).split())
    assert "h1" in elements.tags
    assert text.index("Drift in 3 of 5 columns: temperature, payment and recorded", 60) < text.index("Columns")
    for needed in ("If nothing changed by more than delta", "0.0002", "What carries the joint difference", "Holm", "Sture Holm"):
        assert needed in text


def test_a_hundred_columns_stay_below_a_megabyte() -> None:
    many = [column(f"column_{k}", kind=Kind.CATEGORICAL if k % 3 else Kind.NUMERIC) for k in range(100)]
    assert len(report(*many).to_html().encode()) < 1_000_000


def test_ten_thousand_columns_become_a_table_with_a_word() -> None:
    one = column(verdict="undecided")
    many = [replace(one, name=f"column_{k}") for k in range(10_000)]
    page = report(*many, drift=False).to_html()
    assert len(page.encode()) < 12_000_000
    assert "Figures are drawn for the 120 columns that rank first." in page
    assert page.count('<details class="card') == 120
    assert page.count("<tr data-tone") == 10_000


def test_the_notebook_view_is_short_and_escaped() -> None:
    view = nasty()._repr_html_()
    assert "<img" not in view
    assert "<script" not in view
    assert "Drift in 2 of 2 columns" in view


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "＝1", "|x", "%x", "\n=1"])
def test_formulas_are_inert_in_csv(cell: str) -> None:
    assert inert(cell).startswith("'")


def test_csv_reads_back_and_runs_nothing() -> None:
    rows = list(csv.DictReader(io.StringIO(nasty().to_csv())))
    assert len(rows) == 2
    for row in rows:
        for name, value in row.items():
            assert not value or value[0] not in "=+@\t\r", (name, value)
    first = next(csv.DictReader(io.StringIO(report().to_csv())))
    assert (first["column"], first["drift"], first["size"]) == ("temperature", "true", "0.31")
    assert float(first["distance"]) == report().columns[0].distance


def test_markdown_keeps_its_table_whatever_the_names() -> None:
    text = nasty().to_markdown()
    text.encode("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    body = rows[2:4]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in body] == [7, 7]
    assert "<img" not in text
    assert "\n# h" not in text
    assert "| temperature | 🔴 drift |" in report().to_markdown()


def test_a_file_gets_plain_text_and_no_escape_codes(tmp_path) -> None:
    file = tmp_path / "out.txt"
    with file.open("w", encoding="utf-8") as out:
        show(nasty(), out)
        show(report(), out)
    text = file.read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert "Drift in 3 of 5 columns: temperature, payment and recorded" in text
    assert "new: wallet 7.92 %" in text


def test_a_terminal_gets_colours_unless_told_not_to(monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain, asked = Terminal(), Terminal(), Terminal()
    show(report(), coloured)
    show(report(), plain, color=False)
    monkeypatch.setenv("NO_COLOR", "1")
    show(report(), asked)
    assert "\x1b[1;31m" in coloured.getvalue()
    assert "31m" not in plain.getvalue()
    assert "31m" not in asked.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160])
def test_a_narrow_terminal_breaks_no_word_and_no_number(monkeypatch, width: int) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(width))
    out = Terminal()
    show(report(), out, color=False)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    words = set(re.findall(r"\S+", " ".join(lines)))
    assert {"temperature", "undecided", "size"} <= words
    if width >= 80:
        assert any("column" in line and "verdict" in line and "p, corrected" in line for line in lines)
    else:
        assert any(line.startswith("temperature  ● drift") for line in lines)


def test_a_reader_that_leaves_early_is_reported_as_such() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        show(report(), Closed())


def test_figures_of_constants_and_empty_columns_do_not_fail() -> None:
    summary = ordered_data()
    summary["histogram"] = None
    for side in ("reference", "current"):
        summary[side] = {"count": 0, "mean": None, "sd": None, "min": None, "max": None, "quantiles": []}
    empty = column(summary=summary, distance=None, low=None, high=None, size=None)
    constant = ordered_data((3.0, 3.0), (1e-300, 1e-300))
    assert "<details" in report(empty, column("c", summary=constant)).to_html()


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2e-9, 4e-9), (1e12, 1.0001e12), (2.0, 2.0), (-1e308, 1e308)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    marks = svg.ticks(low, high)
    assert 1 <= len(marks) <= 6
    slack = 1e-9 * max(abs(low), abs(high))
    assert all(low - slack <= v <= high + slack for v in marks)


def test_the_density_is_drawn_to_scale() -> None:
    seen = facts.ordered(column(summary=ordered_data((0.0, 0.0), (1.0, 1.0))))
    assert seen is not None
    figure = svg.density(seen)
    assert figure is not None
    tops = []
    for letter in "ab":
        path = re.search(rf'<path class="{letter}" d="M(\d+) (\d+)l([^"]*)"', figure)
        assert path is not None
        y, least = int(path[2]), 10**6
        steps = path[3].split(" ")
        for dy in steps[1::2]:
            y += int(dy)
            least = min(least, y)
        assert y == 118, "the outline ends on the axis"
        tops.append(least)
    assert min(tops) == 14, "the highest bin reaches the top"
