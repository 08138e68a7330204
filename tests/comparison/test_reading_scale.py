"""Size: estimates before reading, the memory of streaming, refusals with a remedy, processor time of usual and wide files."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from discrepancy.comparison.errors import DataError
from discrepancy.comparison.model import Options
from discrepancy.comparison.pairing import read_pair
from discrepancy.comparison.reading import estimate_bytes, iterate, read_table
from discrepancy.comparison.sampling import reservoir


def test_estimates_are_of_the_right_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "t.csv"
    np.savetxt(path, rng.normal(size=(50_000, 4)), delimiter=",", header="a,b,c,d", comments="", fmt="%.6f")
    table = read_table(path)
    held = sum(c.values.nbytes + c.missing.nbytes + 8 * c.rows for c in table.columns.values())
    assert held / 2 < estimate_bytes(path) < 4 * held


def test_large_files_are_refused_or_sampled(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "".join(f"{i},{i / 7}\n" for i in range(20_000)))
    with pytest.raises(DataError, match=r"t\.csv.*is allowed.*--sample"):
        read_pair(path, path, Options(memory=1e-4))
    pair = read_pair(path, path, Options(memory=1e-4, sample=500))
    assert (pair.rows_reference, pair.rows_current) == (500, 500)
    assert "uniform sample of 500 of its 20,000 rows" in pair.notes[0]


def test_chunks_take_the_memory_of_a_chunk(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    with gzip.open(path, "wt", compresslevel=1) as handle:
        handle.write("a,b,c\n")
        for start in range(0, 40_000, 1_000):
            handle.write("".join(f"{i}.25,word{i % 50},{i * 7919}\n" for i in range(start, start + 1_000)))
    peaks = []
    tracemalloc.start()
    try:
        for work in (
            lambda: sum(chunk.rows for chunk in iterate(path, rows=1_000)),
            lambda: reservoir(iterate(path, rows=1_000), 500, 0, "reference")[1],
            lambda: read_table(path).rows,
        ):
            tracemalloc.reset_peak()
            assert work() == 40_000
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    # The first two hold a chunk and a block of the file (1 MiB, and as much decoded), whatever the table's length.
    assert max(peaks[:2]) < 4e6 < 8e6 < peaks[2]


def test_a_usual_and_a_wide_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "t.csv"
    values = rng.normal(size=(5_000, 20))
    np.savetxt(path, values, delimiter=",", header=",".join(f"c{i}" for i in range(20)), comments="", fmt="%.4f")
    assert read_table(path).rows == 5_000
    wide = tmp_path / "w.csv"
    np.savetxt(wide, rng.normal(size=(5, 10_000)), delimiter=",", header=",".join(f"c{i}" for i in range(10_000)), comments="")
    pair = read_pair(wide, wide, Options())
    assert len(pair.columns) == 10_000
