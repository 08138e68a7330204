"""Transport solvers beside their peers at equal error, on one thread and two.   make bench-transport

python benchmarks/bench_transport.py [--rows PATTERN] [--threads 1,2] [--seeds N] [--limit SECONDS] [--quick] [--dry] [--long]

--rows takes a regular expression, searched in "task: name" (--list names them). --quick takes small instances and writes nothing,
--dry writes nothing. --long adds the rows of n = 1,000,000. What takes longer than --limit seconds says so. Each row is written
when it is done, in place of the old one of its name and number of threads.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

_RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "numpy", "scipy", "numba", "POT", "wasserstein", "lapx", "regot", "geomloss", "ott-jax", "jax")
_POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def _machine() -> dict[str, str]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"processor": models[0].split(":")[1].strip(), "python": platform.python_version()} | versions


def _store(row: dict[str, Any], order: list[str], limit: float) -> None:
    """Put the row in the committed tables, in place of the one of the same name and threads."""
    from transport.table import for_readme, markdown

    file = _RESULTS / "transport.json"
    with (_RESULTS / "transport.md").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = json.loads(file.read_text())["rows"] if file.exists() else []
        key = (row["task"], row["name"], row["threads"])
        rows = [r for r in rows if (r["task"], r["name"], r["threads"]) != key and f"{r['task']}: {r['name']}" in order] + [row]
        rows.sort(key=lambda r: (order.index(f"{r['task']}: {r['name']}"), r["threads"]))
        file.write_text(json.dumps({"machine": _machine(), "rows": rows}, indent=1) + "\n")
        words = ", ".join(f"{name} {value}" for name, value in _machine().items())
        (_RESULTS / "transport.md").write_text(markdown(rows, words, limit))
        (_RESULTS / "transport_summary.md").write_text(for_readme(rows))


def _measure(options: argparse.Namespace, threads: int) -> None:
    """All chosen rows in this process, whose pools the environment has sized."""
    from transport.measure import Limits, measured
    from transport.rows import all_rows
    from transport.summary import summary
    from transport.table import lines

    rows = list(all_rows())
    order = [f"{row.task}: {row.name}" for row in rows]
    for row in rows:
        if (
            not re.search(options.rows, f"{row.task}: {row.name}")
            or (row.long and not options.long)
            or threads not in row.threads
        ):
            continue
        limits = Limits(row.limit or options.limit)
        # On two threads one seed: the clock on the wall is for orders of magnitude, the ratios above are of three.
        seeds = options.seeds or (1 if options.quick or threads > 1 else row.seeds)
        found = summary(row, measured(row, quick=options.quick, threads=threads, limits=limits, seeds=seeds), threads, limits)
        print(lines(found), flush=True)
        if not (options.quick or options.dry):
            _store(found, order, options.limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="", help="regular expression in 'task: name'")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, with commas")
    parser.add_argument("--quick", action="store_true", help="small instances, one seed, nothing written")
    parser.add_argument("--dry", action="store_true", help="nothing written")
    parser.add_argument("--long", action="store_true", help="also the rows that take minutes each")
    parser.add_argument("--seeds", type=int, default=0, help="seeds a row (the row's own number: 3, or 1 for the largest)")
    parser.add_argument("--limit", type=float, default=20.0, help="processor seconds that one call of a peer may take")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    options = parser.parse_args()
    if options.list:
        from transport.rows import all_rows

        for row in all_rows():
            print(f"{row.task}: {row.name}")
        return
    counts = [int(count) for count in options.threads.split(",")]
    if len(counts) == 1 and os.environ.get("OMP_NUM_THREADS") == str(counts[0]):
        _measure(options, counts[0])
        return
    for count in counts:  # pools are sized when libraries load: a process for each number
        given = [argument for argument in sys.argv[1:] if not argument.startswith("--threads")]
        if "--threads" in sys.argv:
            given.remove(options.threads)
        sizes = dict.fromkeys(_POOLS, str(count))
        flags = {} if count > 1 else {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
        command = [sys.executable, __file__, *given, f"--threads={count}"]
        subprocess.run(command, env=os.environ | sizes | flags, check=True)


if __name__ == "__main__":
    main()
