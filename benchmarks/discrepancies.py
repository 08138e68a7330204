"""Every peer beside us in one process on one thread: times as ratios, errors, peak memory.   make bench

python benchmarks/discrepancies.py [--quick] [--family NAME ...] [--budget SECONDS]: --quick takes small samples and writes
nothing; --family measures these families only. Each row is written when it is done, in place of the old one of its name.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

from side_by_side import entropic, kernels, line, memory, neighbors, sliced
from side_by_side.measure import measure, summary
from side_by_side.table import markdown, reasons

_RESULT = Path(__file__).parent / "results" / "discrepancies.json"
_FAMILIES = {
    "line": line,
    "sliced": sliced,
    "kernels": kernels,
    "entropic": entropic,
    "neighbors": neighbors,
    "memory": memory,
}
_PACKAGES = ("torch", "numpy", "scipy", "numba", "POT", "geomloss", "dcor", "scikit-learn")


def _machine() -> dict[str, str]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"processor": models[0].split(":")[1].strip(), "python": platform.python_version(), "threads": "1"} | versions


def _store(row: dict[str, Any]) -> None:
    """Put the row in the committed table, in place of the one of the same name; runs of several families do not collide."""
    with _RESULT.with_suffix(".md").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = json.loads(_RESULT.read_text())["rows"] if _RESULT.exists() else []
        rows = sorted([r for r in rows if r["case"] != row["case"]] + [row], key=lambda r: r["place"])
        _RESULT.write_text(json.dumps({"machine": _machine(), "rows": rows}, indent=1) + "\n")
        words = ", ".join(f"{name} {value}" for name, value in _machine().items())
        _RESULT.with_suffix(".md").write_text(markdown(rows, heading=True, machine=words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small samples, nothing written")
    parser.add_argument("--family", nargs="*", default=list(_FAMILIES), choices=list(_FAMILIES), help="only these")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of repeats a row, for all contenders together")
    options = parser.parse_args()
    for family in options.family:
        for k, case in enumerate(_FAMILIES[family].cases(options.quick)):
            place = [list(_FAMILIES).index(family), k]
            row = reasons(summary(case, measure(case, options.budget)) | {"place": place})
            print(markdown([row], heading=False), flush=True)
            if not options.quick:
                _store(row)


if __name__ == "__main__":
    main()
