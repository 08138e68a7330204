"""The record of a calibration run: each cell goes to docs/calibration/<group>.json, and the tables are made from those."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from discrepancy.inference import binomial_band

FOLDER = Path(__file__).parents[2] / "docs" / "calibration"
BAND_CONFIDENCE = 0.99
COVERAGE_TARGET = (0.93, 0.97)  # of a nominal 95 % interval


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer at a time: pytest runs several processes, and their cells share a file."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, text: str) -> None:
    """Beside, then rename: an interrupted run leaves the old file."""
    beside = path.with_suffix(path.suffix + ".new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


class Record:
    """Writes cells; every method returns the cell, whose `held` a test may assert.

    A cell is named by its group (the file) and a sentence that says what was drawn. Seeds belong in the numbers that a
    test passes on, so that a reader can draw the same data.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder

    def size(
        self,
        group: str,
        cell: str,
        *,
        rejections: int,
        draws: int,
        level: float = 0.05,
        conservative: bool = False,
        note: str = "",
        **numbers: Any,
    ) -> dict[str, Any]:
        """A rejection rate under the null; held if inside the exact 99 % binomial band of the level.

        conservative=True holds whatever lies below the upper end: for tests that are valid and known not to be exact.
        """
        low, high = binomial_band(draws, level, BAND_CONFIDENCE)
        held = rejections <= high and (conservative or rejections >= low)
        entry = {
            "kind": "size",
            "draws": draws,
            "rejections": rejections,
            "rate": rejections / draws,
            "level": level,
            "band": [low / draws, high / draws],
            "band_confidence": BAND_CONFIDENCE,
            "conservative": conservative,
            "held": bool(held),
            "note": note,
            **numbers,
        }
        return self._store(group, cell, entry)

    def coverage(
        self,
        group: str,
        cell: str,
        *,
        draws: int,
        missed_low: int,
        missed_high: int,
        level: float = 0.95,
        target: tuple[float, float] = COVERAGE_TARGET,
        note: str = "",
        **numbers: Any,
    ) -> dict[str, Any]:
        """How often an interval holds a known truth; held if the rate lies within the target, ends included.

        missed_low counts intervals that lie wholly above the truth (the lower end is too high), missed_high those below.
        A cell that states another target than 93-97 % says why in its note.
        """
        covered = draws - missed_low - missed_high
        entry = {
            "kind": "coverage",
            "draws": draws,
            "covered": covered,
            "rate": covered / draws,
            "missed_low": missed_low,
            "missed_high": missed_high,
            "level": level,
            "target": list(target),
            "held": target[0] <= covered / draws <= target[1],
            "note": note,
            **numbers,
        }
        return self._store(group, cell, entry)

    def power(
        self, group: str, cell: str, *, rejections: int, draws: int, level: float = 0.05, note: str = "", **numbers: Any
    ) -> dict[str, Any]:
        """A rejection rate under a planted difference; nothing is promised, so nothing is held."""
        entry = {"kind": "power", "draws": draws, "rejections": rejections, "rate": rejections / draws, "level": level}
        return self._store(group, cell, {**entry, "held": None, "note": note, **numbers})

    def _store(self, group: str, cell: str, entry: dict[str, Any]) -> dict[str, Any]:
        with _locked(self.folder):
            path = self.folder / f"{group}.json"
            known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"group": group, "cells": {}}
            known["cells"][cell] = entry
            known["cells"] = dict(sorted(known["cells"].items()))
            _write(path, json.dumps(known, indent=1, ensure_ascii=False) + "\n")
            _write(self.folder / "README.md", table(self.folder))
        return entry


def table(folder: Path) -> str:
    """The findings of all groups as Markdown tables."""
    lines = [
        "# Calibration",
        "",
        "Written by `make calibrate`; do not edit. Size: share of null data sets that a test at the stated level rejects, held",
        "if inside the exact 99 % binomial band (`at most` where a test is valid and conservative by construction). Coverage:",
        "share of intervals that hold the known truth, with the shares that lie above and below it, held if inside the target.",
        "Power is for information.",
    ]
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        lines += ["", f"## {found['group']}", "", "| cell | draws | rate | expected | held |", "|---|---|---|---|---|"]
        for name, entry in found["cells"].items():
            rate, expected = f"{entry['rate']:.3f}", "-"
            if entry["kind"] == "size":
                low, high = entry["band"]
                expected = f"at most {high:.3f}" if entry["conservative"] else f"{low:.3f} to {high:.3f}"
            elif entry["kind"] == "coverage":
                above, below = entry["missed_low"] / entry["draws"], entry["missed_high"] / entry["draws"]
                rate += f" (above {above:.3f}, below {below:.3f})"
                expected = f"{entry['target'][0]:.2f} to {entry['target'][1]:.2f}"
            held = {True: "yes", False: "**no**", None: "-"}[entry["held"]]
            note = f". {entry['note']}" if entry["note"] else ""
            lines.append(f"| {name}{note} | {entry['draws']} | {rate} | {expected} | {held} |")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def record() -> Record:
    """Where a calibration test leaves its numbers."""
    return Record()
