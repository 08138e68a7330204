"""The record itself: bands, targets, concurrent-safe merging and the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def writer(record: Any, tmp_path: Path) -> Any:
    return type(record)(tmp_path)


def test_size_is_held_inside_the_exact_band(writer: Any) -> None:
    # 99 % band of Bin(1000, 0.05): 33 to 69
    assert writer.size("g", "in", rejections=69, draws=1000)["held"]
    assert not writer.size("g", "over", rejections=70, draws=1000)["held"]
    assert not writer.size("g", "under", rejections=32, draws=1000)["held"]
    assert writer.size("g", "careful", rejections=2, draws=1000, conservative=True)["held"]
    assert not writer.size("g", "liberal", rejections=70, draws=1000, conservative=True)["held"]


def test_coverage_counts_both_ends(writer: Any) -> None:
    cell = writer.coverage("g", "c", draws=1000, missed_low=40, missed_high=20, seed=7)
    assert cell["rate"] == 0.94
    assert cell["held"]
    assert cell["seed"] == 7
    assert not writer.coverage("g", "c", draws=1000, missed_low=80, missed_high=20)["held"]


def test_cells_are_merged_and_shown(writer: Any, tmp_path: Path) -> None:
    writer.size("b", "second", rejections=50, draws=1000)
    writer.size("a", "first", rejections=50, draws=1000, note="say why")
    writer.power("b", "planted", rejections=900, draws=1000)
    assert set(json.loads((tmp_path / "b.json").read_text())["cells"]) == {"second", "planted"}
    shown = (tmp_path / "README.md").read_text()
    assert shown.index("## a") < shown.index("## b")
    assert "| first. say why | 1000 | 0.050 | 0.033 to 0.069 | yes |" in shown
    assert "| planted | 1000 | 0.900 | - | - |" in shown
