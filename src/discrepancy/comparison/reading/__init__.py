"""Reading: everything from a path or a frame to raw columns, whole, in chunks, or only measured."""

from __future__ import annotations

from discrepancy.comparison.reading.read import estimate_bytes, is_path, iterate, read_table, source_name
from discrepancy.comparison.reading.sources import Files, locate
from discrepancy.comparison.reading.table import RawColumn, RawTable

__all__ = ["Files", "RawColumn", "RawTable", "estimate_bytes", "is_path", "iterate", "locate", "read_table", "source_name"]
