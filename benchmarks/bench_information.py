"""Mutual information on forty laws of known truth, beside the benchmark's own estimators.   make bench-information

python benchmarks/bench_information.py [--tasks RE] [--contenders RE] [--rows N ...] [--seeds N] [--again] [--dry] [--list]

The laws are those of `benchmark-mi` (Czyz et al., 2023, arXiv 2306.11078). What results/information.json already holds is not
computed again unless --again is given; the table is written anew after each run. --dry writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
import warnings
from pathlib import Path
from typing import Any

# Before JAX starts: one thread, like everyone else here.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

from information.contenders import CONTENDERS, Contender
from information.table import write

Key = tuple[str, int, int, str]
_FILE = Path(__file__).parent / "results" / "information.json"


def _measured(contender: Contender, x: Any, y: Any, seed: int) -> dict[str, Any]:
    """Value, interval and processor seconds, or the line that it failed with."""
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer: dict[str, Any] = dict(contender.run(x, y, seed))
    except Exception as error:  # a failure is a result of a benchmark
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:160]}
    answer["seconds"] = round(time.process_time() - start, 3)
    if answer.get("high") == float("inf"):
        answer["high"] = None  # a one-sided interval; JSON has no infinity
    return answer if answer["value"] == answer["value"] else {"failed": "NaN"}


def _stored() -> dict[Key, dict[str, Any]]:
    rows = json.loads(_FILE.read_text()) if _FILE.exists() else []
    return {(r["task"], r["n"], r["seed"], r["contender"]): r for r in rows}


def _store(found: dict[Key, dict[str, Any]]) -> None:
    """Read again before writing: a second run of other contenders may have added rows meanwhile."""
    rows = _stored() | found
    _FILE.write_text("[\n" + ",\n".join(json.dumps(rows[key]) for key in sorted(rows)) + "\n]\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="", help="regular expression searched in the task's name")
    parser.add_argument("--contenders", default="", help="regular expression searched in 'library: estimator'")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000], help="sample sizes")
    parser.add_argument("--seeds", type=int, default=3, help="samples of a task for estimators that train no network")
    parser.add_argument("--trained-seeds", type=int, default=1, help="the same for those that do")
    parser.add_argument("--again", action="store_true", help="compute what is stored already")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    parser.add_argument("--list", action="store_true", help="name tasks and contenders and stop")
    options = parser.parse_args()

    import bmi

    tasks = {name: task for name, task in bmi.benchmark.BENCHMARK_TASKS.items() if re.search(options.tasks, name)}
    contenders = [c for c in CONTENDERS if re.search(options.contenders, f"{c.whose}: {c.name}")]
    if options.list:
        print(*(f"{name}: {task.name}, {task.mutual_information:.4f} nats" for name, task in tasks.items()), sep="\n")
        print(*(f"{c.whose}: {c.name}" for c in contenders), sep="\n")
        return
    known = _stored()
    for n in options.rows:
        for seed in range(max(options.seeds, options.trained_seeds)):
            for name, task in tasks.items():
                waiting = [
                    c
                    for c in contenders
                    if seed < (options.trained_seeds if c.trained else options.seeds)
                    and (options.again or (name, n, seed, c.name) not in known)
                ]
                if not waiting:
                    continue
                x, y = task.sample(n, seed)
                found = {}
                for contender in waiting:
                    about = {"task": name, "title": task.name, "truth": float(task.mutual_information)}
                    row = about | {"n": n, "seed": seed, "contender": contender.name} | _measured(contender, x, y, seed)
                    found[name, n, seed, contender.name] = row
                    print(json.dumps(row), flush=True)
                if not options.dry:
                    _store(found)
    if not options.dry:
        write(list(_stored().values()), _FILE.with_suffix(".md"))


if __name__ == "__main__":
    main()
