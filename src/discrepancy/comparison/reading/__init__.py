"""Reading: everything from a path or a frame to raw columns, whole, in chunks, or only measured."""

from __future__ import annotations

from discrepancy.comparison.reading.read import estimate_bytes, iterate, read_table, source_name
from discrepancy.comparison.reading.table import RawColumn, RawTable

__all__ = ["RawColumn", "RawTable", "estimate_bytes", "iterate", "read_table", "source_name"]
