"""The tables of `bench_information.py`: accuracy by estimator, and by law beside the best peer."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from information.contenders import CONTENDERS

Row = dict[str, Any]
_EQUAL = 0.02  # nats: what a second sample of the same size moves most values by

_HEADING = """# Mutual information, forty laws of known truth

Written by `make bench-information`; nats. Laws, truths and the contenders marked benchmark-mi are those of that package (Czyz et
al., 2023, arXiv 2306.11078), all with their defaults. *error* is the mean distance from the truth over laws and samples, *worst*
the largest over the laws of its mean over samples; *coverage* the share of 95 % intervals that hold the truth, of those given
(those of the variational bounds are one-sided, from below); *seconds* the median of the processor's. Estimators that train a
network saw fewer samples of each law than the others.
"""
_SUMMARY = """**Mutual information** (`make bench-information`, [all rows](benchmarks/results/information.md)): the forty laws of
benchmark-mi (Czyz et al., 2023), one to fifty dimensions a side, in nats. *error* is the mean distance from the truth over laws,
*worst* the largest of a law, *coverage* that of the 95 % intervals given, *seconds* the processor's median. All with defaults.
"""


def _by(rows: Iterable[Row], key: str) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def _error(rows: list[Row]) -> float:
    return statistics.fmean(abs(r["value"] - r["truth"]) for r in rows)


def _short(error: float, digits: int) -> str:
    return f"{error:.{digits}f}" if error < 100 else f"{error:.1e}"


def _summary(rows: list[Row]) -> list[str]:
    lines = ["| estimator | library | laws | error | worst | coverage | seconds |", "|---|---|---|---|---|---|---|"]
    groups = _by(rows, "contender")
    for contender in CONTENDERS:
        done = [r for r in groups.get(contender.name, []) if "failed" not in r]
        if not done:
            continue
        laws = _by(done, "task")
        given = [r for r in done if r["low"] is not None]
        held = sum(r["low"] <= r["truth"] and (r["high"] is None or r["truth"] <= r["high"]) for r in given)
        coverage = f"{held / len(given):.2f} of {len(given)}" if given else ""
        errors = [_error(law) for law in laws.values()]
        mean, worst = _short(statistics.fmean(errors), 3), _short(max(errors), 2)
        seconds = statistics.median(r["seconds"] for r in done)
        lines.append(f"| {contender.name} | {contender.whose} | {len(laws)} | {mean} | {worst} | {coverage} | {seconds:.2g} |")
    return lines


def _laws(rows: list[Row]) -> tuple[list[str], dict[str, int]]:
    """A line a law, and on how many laws each of our estimators is as accurate as the best peer, or more."""
    ours = [c.name for c in CONTENDERS if c.whose == "discrepancy" and any(r["contender"] == c.name for r in rows)]
    peers = {c.name for c in CONTENDERS if c.whose != "discrepancy"}
    lines = [
        "| law | truth | " + " | ".join(ours) + " | best peer |",
        "|---|---|" + "---|" * len(ours) + "---|",
    ]
    level = dict.fromkeys(ours, 0)
    for same in _by(rows, "task").values():
        done = _by((r for r in same if "failed" not in r), "contender")
        rivals = {name: _error(done[name]) for name in peers & done.keys()}
        best = min(rivals, key=lambda name: rivals[name], default=None)
        cells = []
        for name in ours:
            if name not in done:
                cells.append("")
                continue
            value = statistics.fmean(r["value"] for r in done[name])
            good = best is None or _error(done[name]) <= rivals[best] + _EQUAL
            level[name] += good
            cells.append(f"**{value:.2f}**" if good else f"{value:.2f}")
        rival = "" if best is None else f"{statistics.fmean(r['value'] for r in done[best]):.2f} ({best})"
        lines.append(f"| {same[0]['title']} | {same[0]['truth']:.2f} | " + " | ".join(cells) + f" | {rival} |")
    return lines, level


def write(rows: list[Row], file: Path) -> None:
    """The tables of all stored rows as Markdown, and the summary for the README beside them."""
    text = [_HEADING]
    for n, same in sorted(_by(rows, "n").items()):
        laws, level = _laws(same)
        counts = ", ".join(f"{name} on {count}" for name, count in level.items())
        text += [f"## n = {n:,}\n", *_summary(same), ""]
        text += [
            f"Mean values by law. Bold: at most {_EQUAL} nats farther from the truth than the best peer on that law, whichever "
            f"that is (it is chosen with hindsight, law by law). That is {counts}.\n",
            *laws,
            "",
        ]
    file.write_text("\n".join(text))
    short = [_SUMMARY]
    for n, same in sorted(_by(rows, "n").items()):
        short += [f"n = {n:,}:\n", *_summary(same), ""]
    file.with_name("information_summary.md").write_text("\n".join(short))


__all__ = ["write"]
