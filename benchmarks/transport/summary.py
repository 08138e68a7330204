"""From runs to a row of numbers: best times per seed, ratios against the best peer at equal error, memory."""

from __future__ import annotations

from statistics import median
from typing import Any

from transport.measure import Limits, Process
from transport.row import Row


def _set_against_bounds(row: Row, processes: list[Process]) -> None:
    """Where values and lower bounds are known, the error of a run is its excess over the best bound of its seed."""
    seeds = {seed for p in processes for seed in p.runs}
    for seed in seeds:
        runs = [run for p in processes for run in p.runs.get(seed, [])]
        bounds = [run["lower"] for run in runs if "lower" in run]
        if not bounds:
            continue
        for run in runs:
            excess = (run["value"] - max(bounds)) / max(abs(max(bounds)), 1e-300)
            run["error"] = max(run["error"], excess)


def _contender(process: Process, clock: str) -> dict[str, Any]:
    """What one contender did: by seed the best seconds, over all seeds medians."""
    found: dict[str, Any] = {"name": process.contender.name, "role": process.contender.role}
    if process.ended:
        found["ended"] = process.ended
    if not process.runs:
        return found
    by_seed = process.runs
    best = {seed: min(run[clock] for run in runs) for seed, runs in by_seed.items()}
    found |= {
        "seconds": median(best.values()),
        "seconds_by_seed": best,
        "error": max(run["error"] for runs in by_seed.values() for run in runs),
        "peak_mb": max(run["peak_mb"] for runs in by_seed.values() for run in runs),  # a kept workspace counts: once
        "setting": by_seed[max(by_seed)][-1]["setting"],
        "calls": sum(len(runs) for runs in by_seed.values()),
    }
    for key in ("iterations", "certified_gap", "value_error", "gradient_error"):
        seen = [run[key] for runs in by_seed.values() for run in runs if key in run]
        if seen:
            found[key] = median(seen)
    return found


def _against(peer: dict[str, Any], mine: dict[str, Any], row: Row, limit: float) -> dict[str, Any]:
    """The peer with its ratios: of seconds, median over the seeds, and of memory. `bound`: the ratio is at least this."""
    if peer.get("ended", "").startswith(">"):
        return peer | {"ratio": limit / mine["seconds"], "bound": True, "reached": True}
    if "seconds" not in peer:
        return peer
    both = [seed for seed in peer["seconds_by_seed"] if seed in mine["seconds_by_seed"]]
    ratios = [peer["seconds_by_seed"][seed] / mine["seconds_by_seed"][seed] for seed in both]
    return peer | {
        "ratio": median(ratios),
        "ratios": ratios,
        "bound": False,
        "memory_ratio": peer["peak_mb"] / max(mine["peak_mb"], 1.0),
        "reached": peer["error"] <= row.goal,
    }


def _short(row: Row, mine: dict[str, Any], best: dict[str, Any] | None) -> list[str]:
    """In what the row falls short of what it reaches for."""
    if "seconds" not in mine:
        return [f"not measured: {mine.get('ended', '')}"]
    found = []
    if mine["error"] > row.goal:
        found.append(f"our error {mine['error']:.1e}")
    if row.reach is not None and best is not None and best["ratio"] < row.reach:
        found.append(f"{best['ratio']:.2g}x of {row.reach:g}x")
    if row.memory_reach is not None and best is not None and best.get("memory_ratio", row.memory_reach) < row.memory_reach:
        found.append(f"memory {best['memory_ratio']:.2g}x of {row.memory_reach:g}x")
    if row.seconds_reach is not None and mine["seconds"] > row.seconds_reach:
        found.append(f"{mine['seconds']:.3g} s of {row.seconds_reach:g} s")
    if row.megabytes_reach is not None and mine["peak_mb"] > row.megabytes_reach:
        found.append(f"{mine['peak_mb']:.0f} MB of {row.megabytes_reach:g} MB")
    return found


def summary(row: Row, processes: list[Process], threads: int, limits: Limits) -> dict[str, Any]:
    """The row as JSON holds it. Seconds are those of the processor on one thread, of the wall on more."""
    _set_against_bounds(row, processes)
    clock = "processor" if threads == 1 else "wall"
    shown = [_contender(process, clock) for process in processes]
    mine = next(c for c in shown if c["role"] == "ours")
    if "seconds" in mine:
        shown = [_against(c, mine, row, limits.call) if c["role"] == "peer" else c for c in shown]
    reached = [c for c in shown if c.get("reached")]
    best = min(reached, key=lambda c: c["ratio"]) if reached else None
    return {
        "task": row.task,
        "name": row.name,
        "threads": threads,
        "clock": clock,
        "goal": row.goal,
        "error_is": row.error_is,
        "reach": row.reach,
        "memory_reach": row.memory_reach,
        "seconds_reach": row.seconds_reach,
        "megabytes_reach": row.megabytes_reach,
        "note": row.note,
        "best_peer": best["name"] if best is not None else None,
        "short": _short(row, mine, best),
        "contenders": shown,
    }


__all__ = ["summary"]
