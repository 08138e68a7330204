"""`discrepancy profile` as a user's shell runs it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from discrepancy.cli import main
from discrepancy.comparison.profile import load_profile


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("data")
    for name, seed, shift in (("before.csv", 1, 0.0), ("after.csv", 2, 0.5), ("same.csv", 3, 0.0)):
        rng = np.random.default_rng(seed)
        with (where / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["temperature", "city"])
            for _ in range(800):
                writer.writerow([f"{rng.normal() + shift:.4f}", rng.choice(["Rome", "Oslo"])])
    return where


def code_of(*tokens: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(token) for token in tokens])
    return int(stop.value.code or 0)


def test_make_compare_merge(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ref, same, both = (tmp_path / f"{name}.profile" for name in ("ref", "same", "both"))
    assert code_of("profile", folder / "before.csv", "-o", ref) == 0
    assert "800 rows, 2 columns" in capsys.readouterr().out
    assert code_of("compare", ref, folder / "after.csv", "--fail-on-drift") == 1
    assert "temperature" in capsys.readouterr().out
    assert code_of("compare", ref, folder / "same.csv", "--fail-on-drift", "-q") == 0
    assert code_of("profile", folder / "same.csv", "--like", ref, "-o", same, "-q") == 0
    assert code_of("profile", "merge", ref, same, "-o", both, "-q") == 0
    assert load_profile(both).rows == 1_600
    assert code_of("profile", ref, same, "-o", both, "-q") == 0
    capsys.readouterr()
    out = tmp_path / "report.json"
    assert code_of("compare", both, folder / "after.csv", "-q", "--json", out) == 0
    document = json.loads(out.read_text(encoding="utf-8"))
    assert document["reference"] == {"name": "both.profile", "rows": 1_600}
    assert {c["name"] for c in document["columns"] if c["drift"]} == {"temperature"}
    assert capsys.readouterr() == ("", "")


def test_standard_input_and_columns(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "piped.profile"
    command = [
        sys.executable,
        "-m",
        "discrepancy.cli",
        "profile",
        "-",
        "-o",
        str(target),
        "--columns",
        "city",
        "--kind",
        "city=code",
    ]
    with (folder / "before.csv").open("rb") as data:
        done = subprocess.run(command, stdin=data, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = load_profile(target)
    assert [(c.name, c.kind.value) for c in found.columns] == [("city", "code")]
    assert found.rows == 800


def test_refusals(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = folder / "before.csv", folder / "after.csv"
    target = tmp_path / "out.profile"
    broken = tmp_path / "broken.profile"
    broken.write_bytes(b"PK\x03\x04")
    for code, words, tokens in (
        (2, "takes one data set", ["profile", before, after, "-o", target]),
        (2, "binary file", ["profile", before, "-o", "-"]),
        (2, "takes a data set", ["profile", "-o", target]),
        (3, "does not exist", ["profile", folder / "nothing.csv", "-o", target]),
        (3, "no such folder", ["profile", before, "-o", tmp_path / "nowhere" / "out.profile"]),
        (3, "is not a profile", ["compare", broken, after]),
        (3, "is not a profile", ["profile", before, "--like", broken, "-o", target]),
        (3, "is not a profile", ["profile", "merge", broken, broken, "-o", target]),
        (2, "--kind", ["profile", before, "--like", broken, "--kind", "city=code", "-o", target]),
        (2, "memory must be", ["profile", before, "--memory", "0", "-o", target]),
    ):
        assert code_of(*tokens) == code, tokens
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1
    assert not target.exists()
    assert not list(tmp_path.glob(".*"))
