"""The table: every row in order."""

from __future__ import annotations

from collections.abc import Iterator

from transport.row import Row

from structured import averages, gaussians, gromov, sorting


def all_rows() -> Iterator[Row]:
    """The rows in the order of the table."""
    yield from sorting.sliced_rows()
    yield from sorting.line_rows()
    yield from gaussians.rows()
    yield from averages.rows()
    yield from gromov.rows()


__all__ = ["all_rows"]
