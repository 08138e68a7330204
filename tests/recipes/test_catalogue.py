"""The 90 papers, and the machinery that every recipe shares."""

import json
import math

import pytest

from discrepancy.recipes import catalogue, runner


def test_all_ninety_are_listed_with_an_honest_status():
    listed = catalogue.papers()
    assert len(listed) == 90
    for p in listed:
        assert p.title
        assert p.claim.endswith(".")
        assert p.year >= 2015
        has_finding = (catalogue.finding(p.slug) or {}).get("full") is not None
        assert (p.status in ("held", "not held")) == has_finding
        assert (p.status == "planned") == (not catalogue.has_recipe(p.slug))


def test_an_unknown_slug_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean monge-gap"):
        catalogue.paper("monge-gab")


def test_a_check_carries_the_t_interval_over_seeds():
    c = runner.check("x", [1.0, 2.0, 3.0], "<= 3", True)
    # t quantile with 2 degrees of freedom: 4.302653; standard error 1 / sqrt 3
    assert c.measured == 2.0
    assert c.high - c.measured == pytest.approx(4.302652730 / math.sqrt(3), rel=1e-9)
    assert runner.check("x", [1.0], "", True).to_dict()["low"] is None


def _finding(held, value):
    from discrepancy import Finding

    rows = [{"name": "x", "bound": "< 1", "held": held, "measured": value, "low": None, "high": None}]
    return Finding("monge-gap", "c", held, "m", {"checks": rows}, [], False)


def test_a_contradiction_needs_a_flip_and_a_move(monkeypatch):
    before = {"full": {"numbers": {"checks": _finding(True, 0.9).numbers["checks"]}}}
    monkeypatch.setattr(runner, "committed_finding", lambda slug: before)
    assert runner.contradiction(_finding(True, 0.1)) is None
    assert runner.contradiction(_finding(False, 1.01)) is None
    assert "was 0.9 and held" in runner.contradiction(_finding(False, 5.0))


@pytest.mark.parametrize("p", [p for p in catalogue.papers() if catalogue.has_recipe(p.slug)], ids=lambda p: p.slug)
def test_recipes_and_findings_agree_on_their_checks(p):
    recipe = runner.recipe(p.slug)
    assert recipe.slug == p.slug
    kept = catalogue.finding(p.slug)
    assert kept is not None, f"{p.slug} has a recipe but no committed finding"
    for run in kept.values():
        assert run["held"] == all(c["held"] for c in run["numbers"]["checks"])
        json.dumps(run, allow_nan=False)


def test_planned_papers_have_no_recipe_to_run():
    with pytest.raises(ValueError, match="is planned"):
        runner.recipe("deep-xva")
