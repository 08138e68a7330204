"""Divergences of logits beside plain torch, F.kl_div, TRL and torchmetrics: seconds, peak memory, error.   make bench-divergences

python benchmarks/bench_divergences.py [--rows PATTERN] [--quick] [--dry] [--list]

--rows takes a regular expression, searched in "task: divergence". --quick takes small instances and writes nothing, --dry
writes nothing. Each contender works through a task in a fresh process of its own, in turns with the others.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from logits.contenders import CONTENDERS, DIVERGENCES
from logits.tasks import TASKS, Task

_RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "numpy", "numba", "trl", "torchmetrics")

_HEADING = """# Divergences of logits, side by side

Written by `make bench-divergences` ({machine}). Value and gradient in the student's logits (for vectors: in q). Each contender
works in a process of its own; seconds are the processor's, the best of several, and with two threads the clock's; compilation is
left out for all. *ratio* is the fastest peer's time over ours. Memory is the largest resident set of a call, less what the
process held before beyond the inputs, over the size of the two inputs: 1.5 is the inputs and one gradient. *error* is the largest
relative error of value and gradient against float64 formulas that use none of our code, on the first rows.

- plain: the formula on `log_softmax`, as one writes it
- F.kl_div: `torch.nn.functional.kl_div(..., log_target=True)`
- TRL: `GKDTrainer.generalized_jsd_loss`
- torchmetrics: its functional form on probabilities
"""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _machine() -> dict[str, str]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {"processor": models[0].split(":")[1].strip(), "python": platform.python_version()} | {
        n: _version(n) for n in _PACKAGES
    }


def _measure(task: Task, contender: str, names: list[str], quick: bool) -> dict[str, Any]:
    """The contender's numbers for the named divergences, from a fresh process; a failure is a line of the table."""
    threads = str(task.threads)
    flags = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), threads)
    asked = json.dumps({"task": task.name, "contender": contender, "divergences": names, "quick": quick})
    command = [sys.executable, str(Path(__file__).parent / "logits" / "worker.py"), asked]
    done = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True, check=False)
    if done.returncode:
        return {name: {"failed": done.stderr.strip().splitlines()[-1][:200] if done.stderr else "killed"} for name in names}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _ratio(found: dict[str, Any]) -> float | None:
    peers = [row["seconds"] for name, row in found.items() if name != "discrepancy" and "seconds" in row]
    ours = found["discrepancy"].get("seconds")
    return min(peers) / ours if peers and ours else None


def _markdown(rows: list[dict[str, Any]]) -> str:
    words = ", ".join(f"{name} {value}" for name, value in _machine().items())
    lines = [_HEADING.format(machine=words)]
    for task in dict.fromkeys(row["task"] for row in rows):
        lines += [f"\n## {task}\n", "| divergence | contender | ms | ratio | memory | error |", "|---|---|---|---|---|---|"]
        for row in (r for r in rows if r["task"] == task):
            for name, numbers in row["contenders"].items():
                if "failed" in numbers:
                    lines.append(f"| {row['divergence']} | {name} | {numbers['failed']} | | | |")
                    continue
                ratio = f"**{row['ratio']:.1f}**" if name == "discrepancy" and row["ratio"] else ""
                memory = "" if numbers["memory"] is None else f"{numbers['memory']:.2f}"
                label = row["divergence"] if name == "discrepancy" else ""
                lines.append(
                    f"| {label} | {name} | {1e3 * numbers['seconds']:.4g} | {ratio} | {memory} | {numbers['error']:.1e} |"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="", help="regular expression in 'task: divergence'")
    parser.add_argument("--quick", action="store_true", help="small instances, nothing written")
    parser.add_argument("--dry", action="store_true", help="nothing written")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    options = parser.parse_args()
    file = _RESULTS / "divergences.json"
    stored = json.loads(file.read_text())["rows"] if file.exists() else []
    order = [(task.name, name) for task in TASKS for name in task.divergences or DIVERGENCES]
    for task in TASKS:
        names = [n for n in task.divergences or DIVERGENCES if re.search(options.rows, f"{task.name}: {n}")]
        if options.list:
            print("\n".join(f"{task.name}: {n}" for n in names))
            continue
        if not names:
            continue
        able = {
            c: [n for n in names if n in knows]
            for c, knows in CONTENDERS.items()
            if task.contenders is None or c in task.contenders
        }
        found = {c: _measure(task, c, wanted, options.quick) for c, wanted in able.items() if wanted}
        for name in names:
            row: dict[str, Any] = {
                "task": task.name,
                "divergence": name,
                "contenders": {c: r[name] for c, r in found.items() if name in r},
            }
            row["ratio"] = _ratio(row["contenders"])
            stored = [r for r in stored if (r["task"], r["divergence"]) != (task.name, name)] + [row]
            print(json.dumps(row), flush=True)
        if not (options.quick or options.dry):
            kept = sorted(
                (r for r in stored if (r["task"], r["divergence"]) in order),
                key=lambda r: order.index((r["task"], r["divergence"])),
            )
            file.write_text(json.dumps({"machine": _machine(), "rows": kept}, indent=1) + "\n")
            (_RESULTS / "divergences.md").write_text(_markdown(kept))


if __name__ == "__main__":
    main()
