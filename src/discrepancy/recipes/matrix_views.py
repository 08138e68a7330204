"""The swap table for eyes: in a terminal, as Markdown, and as a figure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from discrepancy.recipes.matrix import Cell, Matrix, Row

_ARROW = {"higher": "↑", "lower": "↓", "neither": ""}


def number(cell: Cell) -> str:
    """Mean and half width of a cell with as many digits as the half width supports: "61.2 ± 0.8"."""
    half = cell.half_width
    if not math.isfinite(half) or half == 0:
        return f"{cell.mean:.3g}"
    place = math.floor(math.log10(half))
    # One digit of the half width, two where the first is a 1 or a 2.
    digits = max(0, -place + (half < 3 * 10.0**place))
    if digits > 6:
        return f"{cell.mean:.3g} ± {half:.1g}"
    return f"{cell.mean:.{digits}f} ± {half:.{digits}f}"


def notes(matrix: Matrix) -> dict[str, int]:
    """The reasons for the cells without a number, numbered in the order of the table."""
    found: dict[str, int] = {}
    for cell in matrix.cells:
        reason = _reason(cell)
        if reason is not None:
            found.setdefault(reason, len(found) + 1)
    return found


def _reason(cell: Cell) -> str | None:
    if cell.failure is not None:
        return f"{cell.method} with {cell.divergence} failed, {cell.failure}"
    if cell.refusal is None:
        return None
    # The columns differ in the divergence that is named; the reason is the method's.
    return cell.refusal.split(", which ")[0]


LEGEND = (
    "Mean and half of the 95 % interval over seeds, the same seeds along a row. Bold: the best of its row; ≈: the seeds do not "
    "tell it from the best (paired interval). ↑ higher is better, ↓ lower. A number in brackets: why there is none."
)


def markdown(matrix: Matrix) -> str:
    """The table as Markdown, its notes below."""
    numbered = notes(matrix)
    head = ["method", "measures", *matrix.divergences]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in matrix.rows:
        texts = [_marked(matrix, row, matrix.cell(row.method, name), numbered, "**{}**") for name in matrix.divergences]
        lines.append("| " + " | ".join([f"`{row.method}`", f"{row.measures} {_ARROW[row.better]}".strip(), *texts]) + " |")
    lines += ["", LEGEND]
    lines += [f"{n}. {reason}." for reason, n in numbered.items()]
    return "\n".join(lines)


def _marked(matrix: Matrix, row: Row, cell: Cell, numbered: dict[str, int], bold: str) -> str:
    reason = _reason(cell)
    if reason is not None:
        return f"[{numbered[reason]}]"
    if cell is matrix.best(row):
        return bold.format(number(cell))
    return number(cell) + (" ≈" if cell.divergence in matrix.level_with_best(row) else "")


def terminal(matrix: Matrix, width: int) -> list[Any]:
    """Rich tables of at most `width` columns of characters, methods as rows, and the notes."""
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    numbered = notes(matrix)
    left = max(len(row.method) for row in matrix.rows) + 2
    cell_width = 3 + max(
        max(len(number(c)) + 2 for c in matrix.cells if c.values) if any(c.values for c in matrix.cells) else 4,
        max(map(len, matrix.divergences)),
    )
    at_once = max(1, (width - left - 2) // cell_width)
    shown: list[Any] = []
    for start in range(0, len(matrix.divergences), at_once):
        table = Table(show_lines=True, title_justify="left")
        table.add_column("method")
        names = matrix.divergences[start : start + at_once]
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        for row in matrix.rows:
            texts = []
            for name in names:
                cell = matrix.cell(row.method, name)
                text = escape(_marked(matrix, row, cell, numbered, "{}"))
                if cell is matrix.best(row):
                    text = f"[bold green]{text}[/]"
                elif cell.values and cell.divergence in matrix.level_with_best(row):
                    text = f"[green]{text}[/]"
                elif not cell.values:
                    text = f"[dim]{text}[/]"
                texts.append(text)
            table.add_row(f"[bold]{row.method}[/]\n[dim]{escape(row.measures)} {_ARROW[row.better]}[/]", *texts)
        shown.append(table)
    shown.append(Text(LEGEND.replace("Bold", "Bold green"), style="dim"))
    shown += [Text(f"[{n}] {reason}", style="dim") for reason, n in numbered.items()]
    return shown


def draw(matrix: Matrix, file: Path) -> None:
    """The table as a heat map: colour from the worst to the best of a row, the paper's own choice framed."""
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.patches import Rectangle

    from discrepancy._registry import parse

    rows, columns = len(matrix.rows), len(matrix.divergences)
    figure, axes = plt.subplots(figsize=(2.6 + 1.25 * columns, 1.2 + 0.62 * rows))
    shade = np.full((rows, columns), np.nan)
    for i, row in enumerate(matrix.rows):
        means = {c.divergence: c.mean for c in matrix.cells if c.method == row.method and c.values}
        low, high = (min(means.values()), max(means.values())) if means else (0.0, 0.0)
        for j, name in enumerate(matrix.divergences):
            if name in means and row.better != "neither":
                place = 0.5 if high == low else (means[name] - low) / (high - low)
                shade[i, j] = place if row.better == "higher" else 1 - place
    axes.imshow(shade, cmap="YlGn", vmin=-0.15, vmax=1.5, aspect="auto")
    for i, row in enumerate(matrix.rows):
        best = matrix.best(row)
        for j, name in enumerate(matrix.divergences):
            cell = matrix.cell(row.method, name)
            if cell.values:
                weight = "bold" if cell is best else "normal"
                axes.text(j, i, number(cell).replace(" ± ", "\n± "), ha="center", va="center", fontsize=8, fontweight=weight)
            else:
                text = "failed" if cell.failure else "not\nadmissible"
                axes.text(j, i, text, ha="center", va="center", fontsize=7, color="0.55")
            if repr(parse(name)) == row.default:
                axes.add_patch(Rectangle((j - 0.48, i - 0.46), 0.96, 0.92, fill=False, edgecolor="black", linewidth=1.4))
    axes.set_xticks(range(columns), [name.replace(":", "\n") for name in matrix.divergences], fontsize=8)
    axes.set_yticks(range(rows), [f"{row.method}\n{row.measures} {_ARROW[row.better]}" for row in matrix.rows], fontsize=7.5)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(
        f"colour: from the worst to the best of a row; bold: best; frame: the paper's choice; "
        f"mean ± 95 % over {matrix.seeds} seeds",
        fontsize=8,
    )
    figure.savefig(file, dpi=150, bbox_inches="tight")
    plt.close(figure)


__all__ = ["LEGEND", "draw", "markdown", "notes", "number", "terminal"]
