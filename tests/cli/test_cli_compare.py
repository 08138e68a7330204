"""`discrepancy compare` and `init` as a user's shell runs them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from discrepancy.cli import main
from discrepancy.cli.failures import CONDITION
from discrepancy.comparison.config import load_config
from discrepancy.comparison.document import schema

COMMAND = [sys.executable, "-m", "discrepancy.cli"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """A reference, one that drifted, one that did not."""
    folder = tmp_path_factory.mktemp("data")
    paths = []
    for name, seed, shift in (("before.csv", 1, 0.0), ("after.csv", 2, 0.5), ("same.csv", 3, 0.0)):
        rng = np.random.default_rng(seed)
        with (folder / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["temperature", "city", "zip, code"])
            for _ in range(600):
                writer.writerow([f"{rng.normal() + shift:.4f}", rng.choice(["Rome", "Oslo"]), rng.integers(1, 5)])
        paths.append(str(folder / name))
    return paths[0], paths[1], paths[2]


def code_of(*tokens: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(tokens)
    return int(stop.value.code or 0)


def test_the_table_on_the_screen(files: tuple[str, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("compare", files[0], files[1]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "Drift in 1 of 3 columns: temperature" in said.out
    assert "at most 5 % (Holm)" in said.out
    assert "\x1b" not in said.out


def test_fail_on_drift(files: tuple[str, str, str]) -> None:
    assert code_of("compare", files[0], files[1], "--fail-on-drift", "--quiet") == CONDITION
    assert code_of("compare", files[0], files[2], "--fail-on-drift", "--quiet") == 0


def test_quiet_prints_nothing_but_errors(files: tuple[str, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("compare", files[0], files[1], "-q") == 0
    assert capsys.readouterr() == ("", "")
    assert code_of("compare", files[0], "nowhere.csv", "-q") == 3
    assert "nowhere.csv" in capsys.readouterr().err


def test_all_outputs_at_once(files: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = {name: tmp_path / f"report.{name}" for name in ("json", "html", "md", "csv")}
    tokens = ["--json", out["json"], "--html", out["html"], "--markdown", out["md"], "--csv", out["csv"]]
    assert code_of("compare", files[0], files[1], *map(str, tokens)) == 0
    document = json.loads(out["json"].read_text(encoding="utf-8"))
    jsonschema.validate(document, schema())
    assert document["drift"] is True
    assert out["html"].read_text(encoding="utf-8").startswith("<!doctype html>")
    assert out["md"].read_text(encoding="utf-8").startswith("## Drift in 1 of 3")
    assert len(list(csv.DictReader(out["csv"].open(encoding="utf-8")))) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in out.values())


def test_a_document_on_standard_output_stands_alone(files: tuple[str, str, str]) -> None:
    done = subprocess.run(
        [*COMMAND, "compare", files[0], files[1], "--json", "-"], capture_output=True, text=True, timeout=120, check=True
    )
    document = json.loads(done.stdout)
    assert document["columns"][0]["name"] == "temperature"
    assert done.stderr == ""


def test_standard_input(files: tuple[str, str, str]) -> None:
    with open(files[1], "rb") as file:
        done = subprocess.run(
            [*COMMAND, "compare", files[0], "-", "--json", "-"],
            stdin=file,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    plain = subprocess.run(
        [*COMMAND, "compare", files[0], files[1], "--json", "-"], capture_output=True, text=True, timeout=120, check=True
    )
    through, direct = json.loads(done.stdout), json.loads(plain.stdout)
    assert through["columns"] == direct["columns"]


def test_options_reach_the_comparison(files: tuple[str, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    tokens = ["--columns", 'city,"zip, code"', "--kind", "zip, code=code", "--level", "0.01", "--correction", "bh", "--seed", "5"]
    tokens += ["--joint", "none", "--permutations", "199", "--delta", "0", "--margin", "0.2"]
    assert code_of("compare", files[0], files[1], "--json", "-", *tokens) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(c["name"], c["kind"]) for c in document["columns"]] == [("city", "categorical"), ("zip, code", "code")]
    assert (document["level"], document["correction"], document["seed"]) == (0.01, "bh", 5)
    assert document["joint"]["verdict"] == "left out"
    assert document["columns"][0]["margin"] == 0.2
    assert document["options"]["delta"] == 0
    assert document["options"]["permutations"] == 199


def test_init_writes_what_compare_reads(files: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "discrepancy.toml"
    assert code_of("init", files[0], files[1], "-o", str(target)) == 0
    assert str(target) in capsys.readouterr().out
    assert load_config(target).kinds["temperature"] == "numeric"
    before = target.read_text()
    assert code_of("init", files[0], "-o", str(target)) == 2
    assert target.read_text() == before
    target.write_text(before.replace("level = 0.05", "level = 0.2"))
    assert code_of("compare", files[0], files[1], "--config", str(target), "--json", "-") == 0
    capsys.readouterr()
    assert code_of("compare", files[0], files[1], "--config", str(target), "--json", "-", "--seed", "3") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["level"], document["seed"]) == (0.2, 3)
    assert code_of("compare", files[0], files[1], "--config", str(target), "--json", "-", "--level", "0.1") == 0
    assert json.loads(capsys.readouterr().out)["level"] == 0.1


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("schema") == 0
    assert json.loads(capsys.readouterr().out) == schema()


@pytest.mark.parametrize(
    ("tokens", "code"),
    [(["--by", "nowhere"], 3), (["--columns", "nowhere"], 3), (["--weights", "nowhere"], 2), (["--kind", "nowhere=code"], 2)],
)
def test_names_that_the_data_lack(
    files: tuple[str, str, str], tokens: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found = code_of("compare", files[0], files[1], *tokens)
    said = capsys.readouterr().err
    assert "nowhere" in said
    assert said.count("\n") == 1
    assert found == code


def test_progress_goes_to_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from discrepancy.cli.progress import bar

    with bar() as step:
        assert step is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("discrepancy.cli.progress._PATIENCE", -1.0)
    with bar(quiet=True) as step:
        assert step is None
    with bar() as step:
        assert step is not None
        step(1, 3, "a [red]name[/red]")
    assert capsys.readouterr().out == ""
