"""Sliced, Gaussian and Gromov transport and barycenters beside their peers at equal error, on one thread.   make bench-structured

python benchmarks/bench_structured.py [--rows PATTERN] [--seeds N] [--limit SECONDS] [--quick] [--dry] [--long] [--list]

--rows takes a regular expression, searched in "task: name". --quick takes small instances and writes nothing, --dry writes
nothing. --long adds the rows of a billion keys. What takes longer than --limit seconds says so. Each row is written when it is
done, in place of the old one of its name; contenders run in processes of their own: one that fails is a line of the table.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.metadata
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

_RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "numpy", "scipy", "numba", "POT", "ott-jax", "jax", "pyriemann", "geomstats")
_ONE = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
_FLAGS = _ONE | {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "GEOMSTATS_BACKEND": "numpy"}

_HEADING = """# Structured transport, side by side with peers

Written by `make bench-structured` ({machine}). Each contender runs in its own process, in turns with the others, on one thread;
seconds are the processor's; compilation is left out for all. *ratio* is the best peer's time over ours, the peer at its fastest
setting that reaches the row's error; "> 40" says that no peer ended within the limit of {limit:.0f} seconds (some rows have a
longer one). Errors are measured in float64 from what each contender returned, by the same code for all, against references that
use none of our code. What stands under a row as "bare sort" sorts the keys and does nothing else.
"""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _machine() -> dict[str, str]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    versions = {name: _version(name) for name in _PACKAGES}
    return {"processor": models[0].split(":")[1].strip(), "python": platform.python_version()} | versions


def _store(row: dict[str, Any], order: list[str], limit: float) -> None:
    """Put the row in the committed tables, in place of the one of the same name."""
    from transport.table import for_readme, markdown

    file = _RESULTS / "structured.json"
    with (_RESULTS / "structured.md").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = json.loads(file.read_text())["rows"] if file.exists() else []
        rows = [r for r in rows if r["name"] != row["name"] and f"{r['task']}: {r['name']}" in order] + [row]
        rows.sort(key=lambda r: order.index(f"{r['task']}: {r['name']}"))
        file.write_text(json.dumps({"machine": _machine(), "rows": rows}, indent=1, default=lambda number: number.item()) + "\n")
        words = ", ".join(f"{name} {value}" for name, value in _machine().items())
        (_RESULTS / "structured.md").write_text(markdown(rows, words, limit, heading=_HEADING))
        (_RESULTS / "structured_summary.md").write_text(for_readme(rows, "Slices, Gaussians, barycenters, Gromov", "structured"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="", help="regular expression in 'task: name'")
    parser.add_argument("--quick", action="store_true", help="small instances, one seed, nothing written")
    parser.add_argument("--dry", action="store_true", help="nothing written")
    parser.add_argument("--long", action="store_true", help="also the rows that take minutes each")
    parser.add_argument("--seeds", type=int, default=0, help="seeds a row (the row's own number)")
    parser.add_argument("--limit", type=float, default=30.0, help="processor seconds that one call of a contender may take")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in _FLAGS.items()):  # pools are sized when libraries load
        os.execve(sys.executable, [sys.executable, __file__, *sys.argv[1:]], os.environ | _FLAGS)
    from structured.rows import all_rows
    from transport.measure import Limits, measured
    from transport.summary import summary
    from transport.table import lines

    rows = list(all_rows())
    order = [f"{row.task}: {row.name}" for row in rows]
    if options.list:
        print("\n".join(order))
        return
    for row, title in zip(rows, order, strict=True):
        if not re.search(options.rows, title) or (row.long and not (options.long or options.quick)):
            continue
        limits = Limits(row.limit or options.limit)
        seeds = options.seeds or (1 if options.quick else row.seeds)
        found = summary(row, measured(row, quick=options.quick, threads=1, limits=limits, seeds=seeds), 1, limits)
        print(lines(found), flush=True)
        if not (options.quick or options.dry):
            _store(found, order, options.limit)


if __name__ == "__main__":
    main()
