"""Files far above the memory budget: what the process holds at its peak, against what it holds before it reads.

Minutes of reading, so that it runs with `make calibrate`; that such files are streamed at all is tested in test_profile_compare.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BUDGET = 0.1  # GiB
_WATCHED = """
import sys, threading, time, psutil
import scipy.special, datasketches, safetensors.numpy
import discrepancy.comparison.family, discrepancy.comparison.render.terminal
from discrepancy.cli import run
process = psutil.Process()
base = peak = process.memory_info().rss
def watch():
    global peak
    while True:
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
code = run(sys.argv[1:])
print(code, base, peak, file=sys.stderr)
"""


def write(path: Path, megabytes: int, seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    size, n = 0, 50_000
    with path.open("w", encoding="utf-8") as file:
        size += file.write("a,b,count,city,amount,flag\n")
        while size < megabytes * 2**20:
            columns = [
                (rng.normal(size=n) + shift).round(5).tolist(),
                rng.lognormal(size=n).round(5).tolist(),
                rng.poisson(5, n).tolist(),
                rng.choice(["Rome", "Oslo", "Lima"], n).tolist(),
                rng.gamma(2.0, 100.0, n).round(2).tolist(),
                rng.choice(["yes", "no"], n).tolist(),
            ]
            size += file.write("".join(f"{a},{b},{c},{d},{e},{f}\n" for a, b, c, d, e, f in zip(*columns, strict=True)))


def watched(*tokens: str) -> float:
    """The growth of resident memory over the run of a command, in GiB."""
    done = subprocess.run([sys.executable, "-c", _WATCHED, *tokens], capture_output=True, text=True, timeout=3_000, check=False)
    assert done.returncode == 0, done.stderr
    code, base, peak = map(int, done.stderr.split()[-3:])
    assert code == 0
    return (peak - base) / 2**30


@pytest.mark.calibration
@pytest.mark.timeout(3_600)
def test_three_hundred_megabytes_in_a_tenth_of_a_gibibyte(tmp_path: Path) -> None:
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    write(paths[0], 150, 1, 0.0)
    write(paths[1], 150, 2, 0.1)
    # The joint test's features and the interpreter's own heap do not shrink with the budget: half as much again is allowed.
    assert watched("compare", *map(str, paths), "--memory", str(BUDGET), "-q") < 1.5 * BUDGET
    target = str(tmp_path / "a.profile")
    assert watched("profile", str(paths[0]), "-o", target, "--memory", str(BUDGET), "-q") < 1.5 * BUDGET
    assert watched("compare", target, str(paths[1]), "--memory", str(BUDGET), "-q") < 1.5 * BUDGET
