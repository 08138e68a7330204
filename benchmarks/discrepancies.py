"""Every peer beside us in one process on one thread: times as ratios, errors, peak memory.   make bench

python benchmarks/discrepancies.py [--quick] [--only WORD] [--budget SECONDS]: --quick takes small samples and writes nothing,
--only measures the rows whose name contains the word and writes them into the committed table in place of the old ones.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
from pathlib import Path

for _pool in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_pool] = "1"  # before the libraries start their pools

import torch
from side_by_side import entropic, kernels, line, memory, neighbors, sliced
from side_by_side.measure import measure, summary
from side_by_side.table import markdown, reasons

_RESULT = Path(__file__).parent / "results" / "discrepancies.json"
_PACKAGES = ("torch", "numpy", "scipy", "numba", "POT", "geomloss", "dcor", "scikit-learn")


def _machine() -> dict[str, str]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"processor": models[0].split(":")[1].strip(), "python": platform.python_version(), "threads": "1"} | versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small samples, nothing written")
    parser.add_argument("--only", default="", help="only the rows whose name contains this")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of repeats a row, for all contenders together")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for module in (line, sliced, kernels, entropic, neighbors, memory):
        cases = module.cases(options.quick)
        for case in cases:
            if options.only.lower() not in case.name.lower():
                continue
            load = os.getloadavg()[0]
            rows.append(summary(case, measure(case, options.budget)) | {"load": load})
            print(markdown([reasons(rows[-1])], heading=False), flush=True)
    if options.quick:
        return
    if options.only:
        fresh = {row["case"]: row for row in rows}
        old = json.loads(_RESULT.read_text())["rows"]
        known = {row["case"] for row in old}
        rows = [fresh.get(row["case"], row) for row in old] + [row for row in rows if row["case"] not in known]
    rows = [reasons(row) for row in rows]
    _RESULT.write_text(json.dumps({"machine": _machine(), "rows": rows}, indent=1) + "\n")
    words = ", ".join(itertools.starmap("{} {}".format, _machine().items()))
    _RESULT.with_suffix(".md").write_text(markdown(rows, heading=True, machine=words))


if __name__ == "__main__":
    main()
