"""The table of the rows, and why a row is where it is when a peer is faster."""

from __future__ import annotations

from typing import Any

# Rows in which a peer is faster at equal error, by words in the row's name that must all be there: what the time goes into.
_REASONS: dict[tuple[str, ...], str] = {
    ("Gaussian kernel", "float32"): "Ours computes and sums in float64 whatever the input: the errors that the rounding of "
    "float32 products leaves are a hundred times larger.",
    ("Sinkhorn divergence with gradient",): "GeomLoss at its default takes about ten sweeps and returns what it has, with the "
    "error shown; ours certifies its marginals, and its loosest setting is still far more accurate than that.",
    (
        "KL by",
    ): "The textbook formula returns a number. Ours also looks up whose neighbour each point is, for the interval, and by "
    "default subtracts a Gaussian reference, which lowers the error at a given n.",
}

_HEADING = """# Side by side with peers

Written by `make bench`: all contenders of a row run in turn in one process, on one thread ({machine}).
Times are processor seconds: on one thread the wall time of an idle machine.

*ratio* is the peer's best time over ours: above 1 we are faster. Ours is the fastest of our contenders whose error is no larger
than the peer's (errors at the level of rounding count as equal); a ratio in brackets compares with our most accurate contender
where the peer is still more accurate. *error* is relative, of the value and of the gradient, against a float64 reference that
uses none of the contenders; *peak* is the growth of resident memory during a call.
"""


def reasons(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the reason for a ratio below one, where there is one."""
    slower = any(not c["ours"] and c["ratio"] < 1 for c in row["contenders"])
    found = [text for words, text in _REASONS.items() if all(w in row["case"] for w in words)] if slower else []
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
