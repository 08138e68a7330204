"""papers, cite, data and reproduce as a user runs them."""

import json

import pytest

from discrepancy.cli import run
from discrepancy.cli.failures import CONDITION, DATA, USAGE, guarded


def test_papers_json_has_ninety_records_with_the_promised_keys(capfd):
    assert run(["papers", "--json"]) == 0
    records = json.loads(capfd.readouterr().out)
    assert len(records) == 90
    assert all(set(r) == {"slug", "title", "arxiv", "field", "status", "claim", "held", "measured"} for r in records)


def test_papers_filters_and_prints_markdown(capfd):
    run(["papers", "--markdown", "--field", "finance"])
    out = capfd.readouterr().out
    assert out.count("\n") == 3
    assert "`deep-xva`" in out


def test_plain_lines_when_piped(capfd):
    run(["papers", "--status", "planned"])
    lines = capfd.readouterr().out.splitlines()
    assert all(line.count("\t") == 3 for line in lines)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["papers", "--field", "cooking"], "no field 'cooking'"),
        (["papers", "--json", "--markdown"], "choose one"),
        (["cite", "nonsense"], "no paper"),
        (["reproduce"], "name one paper"),
        (["reproduce", "deep-xva"], "is planned"),
        (["reproduce", "--all", "--jobs", "0"], "--jobs must be at least 1"),
        (["reproduce", "monge-gab"], "did you mean monge-gap"),
        (["data", "nonsense"], "unknown data set"),
    ],
)
def test_usage_errors_are_one_sentence(tokens, words, capfd):
    assert guarded(lambda: run(tokens)) == USAGE
    err = capfd.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_cite_prints_bibtex(capfd):
    run(["cite", "monge-gap"])
    assert capfd.readouterr().out.startswith("@article{monge-gap,")


def test_data_is_listed_and_exported(capfd, tmp_path):
    run(["data"])
    assert "seattle-weather" in capfd.readouterr().out
    run(["data", "penguins", "-o", str(tmp_path / "p.csv")])
    assert (tmp_path / "p.csv").read_text().startswith("species,island")


def test_a_missing_data_package_is_exit_3(monkeypatch, capfd):
    from discrepancy.datasets import carriers

    carriers.path.cache_clear()
    monkeypatch.setattr(carriers.DataSet, "located", lambda self: None)
    assert guarded(lambda: run(["reproduce", "sliced-control-variates", "--quick"])) == DATA
    assert "pip install" in capfd.readouterr().err
    carriers.path.cache_clear()


def test_check_fails_only_on_a_contradiction(monkeypatch, capfd, tmp_path):
    from discrepancy import Finding
    from discrepancy.recipes import runner

    def fake(slug, **options):
        row = {"name": "x", "bound": "< 1", "held": False, "measured": 5.0, "low": None, "high": None}
        return Finding(slug, "c", False, "m", {"checks": [row]}, [], options["quick"])

    monkeypatch.setattr(runner, "reproduce", fake)
    monkeypatch.setattr(runner, "committed_finding", lambda slug: None)
    assert run(["reproduce", "monge-gap", "--check"]) == 0
    assert run(["reproduce", "monge-gap", "--json", str(tmp_path / "f.json")]) == CONDITION
    record = json.loads((tmp_path / "f.json").read_text())
    assert record["status"] == "not held"
    assert record["per_seed"] == []


def test_recipes_in_processes_of_their_own_report_their_errors(tmp_path):
    from discrepancy.cli.reproduce import _each

    options = {"quick": True, "check": False, "choice": None, "output": tmp_path, "quiet": True}
    with pytest.raises(ValueError, match="no paper 'nonsense'"):
        list(_each(["nonsense", "gibberish"], 2, options))
