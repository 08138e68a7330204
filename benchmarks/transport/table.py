"""The tables: every row with its best peer, and below it all contenders; and the few lines that README takes."""

from __future__ import annotations

from typing import Any

# Why a row falls short, by words that must all be in its task and name.
REASONS: dict[tuple[str, ...], str] = {
    ("exact", "n = 100,"): "A call costs 1.5 to 2.5 ms of checks, tensors and certificate before and after 0.4 ms of solving.",
    ("exact", "n = 300,"): "The same fixed cost of a call; on a cost matrix the solver itself is level with the peers.",
    ("exact", "n = 1,000,"): "SciPy's and lapx's assignment is strong on uniform squares that fit the cache.",
    ("exact", "n = 2,000, d = 32"): "SciPy's assignment is the best peer here; against POT and wasserstein it is met.",
    ("exact", "random weights", "d = 32"): "Pivots, not pricing, take the time in high dimension: every round is a tree walk.",
    ("exact", "clusters", "d = 10"): "No box pruning above four dimensions.",
    ("epsilon 0.1",): "POT needs some ten cheap sweeps of a kept kernel; a Newton pass takes one exponential a pair.",
    ("divergence", "n = 256, d = 64"): "OTT, compiled for this shape, is the best peer; GeomLoss does not reach the error.",
    ("unbalanced",): "Full passes of 2 ms each, for a certified error, are what is left.",
}

_HEADING = """# Transport, side by side with peers

Written by `make bench-transport` ({machine}). Each contender runs in its own process, in turns with the others; compilation is
left out for all. On one thread seconds are the processor's (the wall time of an idle machine), on two the wall's. *ratio* is
the best peer's time over ours, the median of the seeds, the peer at its fastest setting that reaches the row's error; "> 40"
says that no peer ended within {limit:.0f} seconds. *peak* is the growth of resident memory during a call. Errors are measured
in float64 from what each contender returned, by the same code for all. Points are given in the rows on exact transport and
divergences, so that the peers' cost matrix is timed; cost matrices in the others.
"""


def _seconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def _ratio(value: float, bound: bool) -> str:
    return f"{'> ' if bound else ''}{value:.2g}x" if value < 100 else f"{'> ' if bound else ''}{value:.0f}x"


def _reached_for(row: dict[str, Any]) -> str:
    wanted = []
    if row["reach"] is not None:
        wanted.append(f"{row['reach']:g}x")
    if row["memory_reach"] is not None:
        wanted.append(f"memory 1/{row['memory_reach']:g}")
    if row["seconds_reach"] is not None:
        wanted.append(f"{row['seconds_reach']:g} s")
    if row["megabytes_reach"] is not None:
        wanted.append(f"{row['megabytes_reach']:g} MB")
    return ", ".join(wanted) or "finishes, gap shown"


def reason(row: dict[str, Any]) -> str:
    """In what a row falls short, with the reason where one is known; its note otherwise."""
    if not row["short"]:
        return row["note"]
    words = f"{row['task']} {row['name']}"
    known = [text for keys, text in REASONS.items() if all(key in words for key in keys)]
    return " ".join(["Falls short: " + ", ".join(row["short"]) + ".", *known])


def _named(row: dict[str, Any], role: str) -> dict[str, Any] | None:
    name = row["best_peer"] if role == "peer" else None
    return next((c for c in row["contenders"] if c["role"] == role and name in (None, c["name"])), None)


def _line(row: dict[str, Any]) -> str:
    mine = _named(row, "ours")
    peer = _named(row, "peer") if row["best_peer"] else None
    assert mine is not None
    if "seconds" not in mine:
        return f"|{row['name']}|{row['threads']}|||||{_reached_for(row)}||{reason(row)}|"
    ratio = _ratio(peer["ratio"], peer["bound"]) if peer is not None else ""
    theirs = "" if peer is None else peer.get("ended") or _seconds(peer["seconds"])
    memory = f"{mine['peak_mb']:.0f}" + (f" / {peer['peak_mb']:.0f}" if peer is not None and "peak_mb" in peer else "")
    errors = f"{max(mine['error'], 0):.0e}" + (f" / {max(peer['error'], 0):.0e}" if peer is not None and "error" in peer else "")
    cells = (
        row["name"],
        str(row["threads"]),
        row["best_peer"] or "nobody",
        theirs,
        _seconds(mine["seconds"]),
        ratio,
        _reached_for(row),
        f"{memory} MB, {errors}",
        reason(row),
    )
    return "|" + "|".join(cells) + "|"


def _detail(row: dict[str, Any]) -> list[str]:
    out = [f"### {row['task']}: {row['name']}, {row['threads']} thread(s)", ""]
    out += [f"| | seconds | {row['error_is']} | peak MB | ratio | setting, iterations |", "|---|---|---|---|---|---|"]
    for c in row["contenders"]:
        if "seconds" not in c:
            out.append(f"|{c['name']}|{c.get('ended', '')}|||{_ratio(c['ratio'], True) if 'ratio' in c else ''}||")
            continue
        ratio = _ratio(c["ratio"], c["bound"]) if "ratio" in c else ""
        remarks = [str(c["setting"])] if c.get("setting") is not None else []
        remarks += [f"{c['iterations']:.0f} iterations"] if "iterations" in c else []
        remarks += [c["ended"]] if "ended" in c else []
        ratio = ratio if c.get("reached", True) else f"({ratio}: error not reached)"
        out.append(
            f"|{c['name']}|{_seconds(c['seconds'])}|{max(c['error'], 0):.1e}|{c['peak_mb']:.0f}|{ratio}|{', '.join(remarks)}|"
        )
    return [*out, ""]


def markdown(rows: list[dict[str, Any]], machine: str, limit: float, heading: str = _HEADING) -> str:
    """The whole document, under a heading with places for machine and limit."""
    out = [heading.format(machine=machine, limit=limit)]
    for task in dict.fromkeys(row["task"] for row in rows):
        out += [f"## {task}", ""]
        out += ["| | threads | best peer | peer | ours | ratio | reach for | peak and error, ours / peer | |", "|" + "---|" * 9]
        out += [_line(row) for row in rows if row["task"] == task]
        out.append("")
    out += ["## All contenders", ""]
    for row in rows:
        out += _detail(row)
    return "\n".join(out)


def lines(row: dict[str, Any]) -> str:
    """One row with all contenders, for the terminal."""
    return "\n".join([*_detail(row), *([reason(row), ""] if reason(row) else [])])


def for_readme(rows: list[dict[str, Any]], what: str = "Transport", name: str = "transport") -> str:
    """One line a task: on how many rows we are faster, and the range of the ratios, on one thread."""
    out = [
        f"**{what}** (`make bench-{name}`, [all rows](benchmarks/results/{name}.md)): best peer's time over ours at",
        "equal error, one thread.",
        "",
        "| | rows | ratio, least - median - largest | peers |",
        "|---|---|---|---|",
    ]
    single = [row for row in rows if row["threads"] == 1 and row["best_peer"]]
    for task in dict.fromkeys(row["task"] for row in single):
        best = [c for row in single if row["task"] == task for c in row["contenders"] if c["name"] == row["best_peer"]]
        ratios = sorted((c["ratio"], c["bound"]) for c in best if "ratio" in c)
        if ratios:
            three = " - ".join(_ratio(*ratios[k]) for k in (0, len(ratios) // 2, -1))
            peers = ", ".join(dict.fromkeys(c["name"] for c in best))
            out.append(f"| {task} | {len(ratios)} | {three} | {peers} |")
    behind = [f"{row['task']}: {row['name']}" for row in single if row["short"]]
    if behind:
        out += ["", f"Short of what the table reaches for, reasons there: {'; '.join(behind)}."]
    return "\n".join(out) + "\n"


__all__ = ["REASONS", "for_readme", "lines", "markdown", "reason"]
