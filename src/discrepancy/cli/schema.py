"""`discrepancy schema`: the JSON Schema of the report's document."""

from __future__ import annotations

from importlib import resources

from discrepancy.cli.output import emit


def schema() -> int:
    """Print the JSON Schema (draft 2020-12) that every --json document of compare obeys."""
    emit(resources.files("discrepancy.comparison").joinpath("schema.json").read_text(encoding="utf-8"))
    return 0
