"""The swap table on planted tasks whose numbers are known, its views, and the committed one."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from discrepancy import KL, FDivergence, NumericalError
from discrepancy.cli import run
from discrepancy.cli.matrix import _split
from discrepancy.divergences.admission import BARRIER_IN_Q, SMOOTH, Admission
from discrepancy.recipes import matrix as engine
from discrepancy.recipes.matrix import Cell, Matrix, Row, swap_table
from discrepancy.recipes.matrix_views import draw, markdown, notes, number
from discrepancy.recipes.runner import SwapTask

_SMOOTH_ONES = Admission("planted", (FDivergence,), (SMOOTH,))
_BY_NAME = {"KL": (3.0, 3.2, 3.1), "ReverseKL": (2.9, 3.3, 3.2), "ChiSquared": (1.0, 1.2, 1.1)}


def _measured(divergence, seed):
    if type(divergence).__name__ == "JensenShannon":
        raise NumericalError("training step 3: the loss is nan")
    return _BY_NAME[type(divergence).__name__][seed]


@pytest.fixture
def planted(monkeypatch):
    def recipe(slug):
        if slug == "plain":
            return SimpleNamespace(task=None)
        return SimpleNamespace(task=SwapTask("score", "lower" if slug == "falls" else "higher", _SMOOTH_ONES, _measured, KL()))

    monkeypatch.setattr(engine, "recipe", recipe)
    monkeypatch.setattr(engine, "tasks", lambda: {"rises": recipe("rises").task, "falls": recipe("falls").task})


_COLUMNS = ("kl", "reverse-kl", "chi-squared", "total-variation", "jensen-shannon")


def test_cells_hold_numbers_refusals_and_failures(planted):
    table = swap_table(["rises", "falls"], _COLUMNS, seeds=3)
    assert table.cell("rises", "kl").values == (3.0, 3.2, 3.1)
    assert "twice differentiable" in table.cell("rises", "total-variation").refusal
    assert table.cell("falls", "jensen-shannon").failure == "seed 0: training step 3: the loss is nan"
    assert Matrix.from_dict(json.loads(json.dumps(table.to_dict()))) == table


def test_new_rows_join_a_table(planted):
    both = swap_table(["rises", "falls"], _COLUMNS, seeds=3)
    falls, rises = (swap_table([name], _COLUMNS, seeds=3) for name in ("falls", "rises"))
    joined = falls.joined(rises)
    assert [row.method for row in joined.rows] == ["falls", "rises"]
    assert {(c.method, c.divergence, c.values) for c in joined.cells} == {(c.method, c.divergence, c.values) for c in both.cells}
    spoilt = Matrix(rises.rows, rises.divergences, 3, tuple(Cell("rises", d, (0.0, 0.0, 0.0)) for d in _COLUMNS))
    assert joined.joined(spoilt).joined(rises) == joined
    with pytest.raises(ValueError, match="same"):
        falls.joined(swap_table(["rises"], ["kl"], seeds=3))


def test_the_best_depends_on_the_direction_and_ties_are_paired(planted):
    table = swap_table(["rises", "falls"], _COLUMNS, seeds=3)
    rises, falls = table.rows
    assert table.best(rises).divergence == "reverse-kl"
    assert table.best(falls).divergence == "chi-squared"
    # ReverseKL - KL is (-.1, .1, .1): its interval has zero in it; ChiSquared is two away in every seed.
    assert table.level_with_best(rises) == {"reverse-kl", "kl"}
    assert table.level_with_best(falls) == {"chi-squared"}
    neither = Matrix((Row("rises", "score", "neither", "KL()"),), table.divergences, 3, table.cells)
    assert neither.best(neither.rows[0]) is None
    assert neither.level_with_best(neither.rows[0]) == frozenset()


def test_intervals_are_those_of_student():
    # t(2, .975) = 4.3027; the standard deviation of 3, 3.2, 3.1 is .1.
    cell = Cell("m", "kl", (3.0, 3.2, 3.1))
    assert cell.half_width == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)
    assert number(cell) == "3.10 ± 0.25"
    assert number(Cell("m", "kl", (61.23, 61.31))) == "61.3 ± 0.5"
    assert number(Cell("m", "kl", (0.5,))) == "0.5"
    assert number(Cell("m", "kl", (120.0, 180.0, 90.0))) == "130 ± 114"


def test_wrong_input_is_refused_before_any_run(planted):
    with pytest.raises(ValueError, match="takes no divergence to swap"):
        swap_table(["plain"], ["kl"])
    with pytest.raises(ValueError, match="unknown name"):
        swap_table(["rises"], ["kullback"])
    with pytest.raises(ValueError, match="named twice"):
        swap_table(["rises"], ["kl", "kl"])
    with pytest.raises(ValueError, match="seeds"):
        swap_table(["rises"], ["kl"], seeds=0)
    with pytest.raises(ValueError, match="at least one method"):
        swap_table([], ["kl"])


def test_markdown_marks_the_best_and_numbers_the_reasons(planted):
    table = swap_table(["rises"], _COLUMNS, seeds=3)
    text = markdown(table)
    row = next(line for line in text.splitlines() if line.startswith("| `rises`"))
    cells = [c.strip() for c in row.strip("|").split("|")]
    assert cells[1] == "score ↑"
    assert cells[2].endswith("≈")
    assert cells[3].startswith("**")
    assert "≈" not in cells[4]
    assert (cells[5], cells[6]) == ("[1]", "[2]")
    assert len(notes(table)) == 2
    assert "1. planted needs a twice differentiable generator." in text


def test_the_command_runs_writes_and_exits_by_failures(planted, tmp_path, capsys):
    file, figure = tmp_path / "table.json", tmp_path / "table.png"
    what = ["--methods", "rises,falls", "--divergences", "kl", "reverse-kl", "--seeds", "3"]
    code = run(["matrix", *what, "--json", str(file), "--figure", str(figure)])
    assert code == 0
    assert len(json.loads(file.read_text())["cells"]) == 4
    assert figure.stat().st_size > 5_000
    shown = capsys.readouterr().out
    assert "rises" in shown
    assert "3.10 ± 0.25" in shown
    assert run(["matrix", "--methods", "rises", "--divergences", "jensen-shannon", "--seeds", "1", "--quiet"]) == 1


def test_commas_separate_names_and_options():
    assert _split(["kl,alpha:a=0.5,reverse-kl"]) == ["kl", "alpha:a=0.5", "reverse-kl"]
    assert _split(["alpha-beta:alpha=1,beta=2,kl", "le-cam"]) == ["alpha-beta:alpha=1,beta=2", "kl", "le-cam"]
    assert Admission("m", (FDivergence,), (BARRIER_IN_Q,)).refusal(KL) is not None


def test_admission_names_the_class_the_reason_and_what_else():
    from discrepancy import MMD, ChiSquared, NeymanChiSquared, TotalVariation

    needs = Admission("f_dpo", (FDivergence,), (BARRIER_IN_Q,))
    assert needs.check(ChiSquared()) == ChiSquared()
    with pytest.raises(TypeError, match=r"f_dpo needs a generator whose slope.*TotalVariation.*try KL"):
        needs.check(TotalVariation())
    with pytest.raises(TypeError, match="NeymanChiSquared"):
        needs.check(NeymanChiSquared())
    with pytest.raises(TypeError, match="object of kind FDivergence, got MMD"):
        needs.check(MMD())
    with pytest.raises(TypeError, match=r"the class KL itself: write KL\(\)"):
        needs.check(KL)


def test_the_figure_draws_a_row_without_numbers(tmp_path):
    rows = (Row("a", "score", "higher", "KL()"), Row("b", "score", "neither", "KL()"))
    cells = (
        Cell("a", "kl", (1.0, 2.0)),
        Cell("a", "le-cam", refusal="no"),
        Cell("b", "kl", failure="x"),
        Cell("b", "le-cam", (1.0,)),
    )
    draw(Matrix(rows, ("kl", "le-cam"), 2, cells), tmp_path / "small.png")
    assert (tmp_path / "small.png").stat().st_size > 3_000
