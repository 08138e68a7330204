"""The table of the rows, and why a row is where it is when a peer is faster."""

from __future__ import annotations

from typing import Any

# Rows in which a peer is faster at equal error, by a part of the row's name: what the time goes into.
_REASONS: dict[str, str] = {}

_HEADING = """# Side by side with peers

Written by `make bench`: all contenders of a row run in turn in one process, on one thread ({machine}).
Times are processor seconds: on one thread the wall time of an idle machine.
*ratio* is the peer's best time over ours: above 1 we are faster. Ours is the fastest of our contenders whose error is no larger
than the peer's (errors at the level of rounding count as equal); a ratio in brackets compares with our most accurate contender
where the peer is still more accurate. *error* is relative, of the value and of the gradient, against a float64 reference that uses none of the contenders;
*peak* is the growth of resident memory during a call.
"""


def reasons(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the reason for a ratio below one, where there is one."""
    slower = any(not c["ours"] and c["ratio"] < 1 for c in row["contenders"])
    found = [text for part, text in _REASONS.items() if part in row["case"]] if slower else []
    return row | {"reason": row["reason"] or " ".join(found)}


def _seconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def markdown(rows: list[dict[str, Any]], *, heading: bool, machine: str = "") -> str:
    """One table a row, contenders below each other."""
    out = [_HEADING.format(machine=machine)] if heading else []
    for row in rows:
        out.append(f"## {row['case']}\n\n| | best | median | {row['error_is']} | peak MB | ratio |\n|---|---|---|---|---|---|")
        for c in row["contenders"]:
            ratio = "" if c["ours"] else f"{c['ratio']:.2f}" if c["equal_error"] else f"({c['ratio']:.2f})"
            cells = (
                c["name"],
                _seconds(c["best_s"]),
                _seconds(c["median_s"]),
                ", ".join(f"{e:.1e}" for e in c["errors"]),
                f"{c['peak_mb']:.0f}",
                ratio,
            )
            out.append("|" + "|".join(cells) + "|")
        if row["reason"]:
            out.append(f"\n{row['reason']}")
        out.append("")
    return "\n".join(out)
