"""TOML options: every field, every refusal, and `init`'s file read back to the same comparison."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from discrepancy.comparison.config import load_config, options_from, write_config
from discrepancy.comparison.errors import OptionError
from discrepancy.comparison.model import Kind, Options
from discrepancy.comparison.pairing import read_pair

EVERY = """
level = 0.01
correction = "bh"
columns = ["a", "b"]
by = "g"
weights = "w"
frequency_weights = true
block = 24
cluster = "c"
delta = 0
margin = 0.2
permutations = 1999
sample = 1000
seed = 7
joint = "none"
embedding = "model"
memory = 2.5
[kinds]
a = "code"
[deltas]
a = 0.05
[margins]
b = 1
"""


def test_every_option_is_read(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text(EVERY)
    options = load_config(tmp_path / "d.toml")
    assert options == Options(
        level=0.01, correction="bh", columns=("a", "b"), kinds={"a": Kind.CODE}, by="g", weights="w", frequency_weights=True,
        block=24, cluster="c", delta=0, margin=0.2, deltas={"a": 0.05}, margins={"b": 1}, permutations=1999, sample=1000,
        seed=7, joint="none", embedding="model", memory=2.5,
    )  # fmt: skip
    assert set(tomllib.loads(EVERY)) == {f.name for f in fields(Options)}, "a new option needs a line here"
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n[tool.discrepancy]\nlevel = 0.01\nblock = 'auto'\n")
    assert load_config(tmp_path / "pyproject.toml") == Options(level=0.01, block="auto")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("levle = 0.05", r"unknown option 'levle' \(did you mean 'level'\?\); valid are level, correction"),
        ("level = '5 %'", "level must be a number, got '5 %'"),
        ("level = 2", "level must be between 0 and 1"),
        ("level = true", "level must be a number, got True"),
        ("columns = 'a'", "columns must be a list of column names"),
        ("columns = [1]", "columns must be a list of column names"),
        ("kinds = 'code'", "kinds must be a table"),
        ("[kinds]\na = 'real'", "the kind of 'a' must be one of numeric, integer"),
        ("[kinds]\na = 3", "the kind of 'a' must be one of"),
        ("[deltas]\na = 'big'", "deltas of 'a' must be a number"),
        ("[deltas]\na = -1", "deltas must be at least 0"),
        ("block = 'weekly'", "block must be a number of rows, or 'auto'"),
        ("block = true", "block must be a number of rows"),
        ("block = 0", "block must be"),
        ("seed = 1.5", "seed must be a whole number"),
        ("frequency_weights = 1", "frequency_weights must be true or false"),
        ("by = 3", "by must be a text"),
        ("correction = 'bonferroni'", "correction must be"),
        ("level 0.05", "is not TOML"),
        ("level = 0.05\nlevel = 0.1", "is not TOML"),
        ("[tool.other]\na = 1", r"no table \[tool.discrepancy\]"),
        ("[tool.discrepancy]\nlevle = 1", r"d\.toml \[tool.discrepancy\]: unknown option 'levle'"),
    ],
)
def test_bad_configurations(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "d.toml"
    path.write_text(text)
    with pytest.raises(OptionError, match=says) as caught:
        load_config(path)
    assert "d.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no such file"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "d.toml").write_bytes(b"level = '\xff'")
    with pytest.raises(OptionError, match="not UTF-8"):
        load_config(tmp_path / "d.toml")


def test_plain_values_are_taken_from_python_too() -> None:
    assert options_from({"columns": ["a"], "kinds": {"a": Kind.CODE}}) == Options(columns=("a",), kinds={"a": Kind.CODE})


def test_the_written_file_reads_back_to_the_same_comparison(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = 80
    table = {
        "plain": rng.normal(size=rows),
        'odd "name"\\ \t\x7f= é\n#': rng.integers(0, 9, rows),
        "a.b": np.array(["x", "y\nz", 'quote"'] * 27)[:rows],
        "zip": rng.integers(10_000, 10_009, rows),
        "flag": rng.integers(0, 2, rows) == 1,
        "when": rng.permutation(np.datetime64("2024-01-01") + np.arange(rows)),
        "key": [f"u{i}" for i in range(rows)],
        "remark": [f"Words in a row that make a sentence, {i} times over" for i in range(rows)],
        "same": ["c"] * rows,
        "none": [None] * rows,
    }
    pair = read_pair(table, table, Options())
    text = write_config(pair)
    (tmp_path / "d.toml").write_text(text, encoding="utf-8")
    options = load_config(tmp_path / "d.toml")
    assert set(options.kinds) == {name.strip() for name in table}
    assert options.kinds["key"] is Kind.IDENTIFIER
    assert options.kinds["remark"] is Kind.TEXT
    assert options.level == Options().level
    again = read_pair(table, table, options)
    assert [(c.name, c.kind, c.tested) for c in again.columns] == [(c.name, c.kind, c.tested) for c in pair.columns]
    assert set(again.left_out) == set(pair.left_out)
    # The commented lines are options too: switched on, the file is still valid.
    lines = [line[2:] if line.startswith("# ") and " = " in line and "..." not in line else line for line in text.splitlines()]
    switched = options_from(tomllib.loads("\n".join(lines)))
    assert switched.deltas["plain"] == 0.02
    assert switched.margins["zip"] == 0.05
    assert switched.sample == 1_000_000
