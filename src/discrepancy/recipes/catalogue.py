"""The 90 papers and where each stands, read from the records and the committed findings. Loads no torch."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

Status = Literal["planned", "working", "held", "not held"]

_HERE = resources.files("discrepancy.recipes")


@dataclass(frozen=True)
class Paper:
    """A paper's record, and what its committed finding says."""

    slug: str
    title: str
    authors: str
    arxiv: str
    field: str
    year: int
    claim: str
    status: Status
    held: bool | None = None
    measured: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record that `discrepancy papers --json` prints."""
        names = ("slug", "title", "arxiv", "field", "status", "claim", "held", "measured")
        return {name: getattr(self, name) for name in names}


def finding(slug: str) -> dict[str, Any] | None:
    """The committed finding of a paper, with its `full` and `quick` runs, or None."""
    file = _HERE.joinpath("findings", f"{slug}.json")
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def has_recipe(slug: str) -> bool:
    """Whether the paper has a recipe to run."""
    return _HERE.joinpath(f"{slug.replace('-', '_')}.py").is_file()


@cache
def papers() -> tuple[Paper, ...]:
    """All papers, by slug. A paper is `working` when its recipe runs but no full finding is committed yet."""
    records = tomllib.loads(_HERE.joinpath("papers.toml").read_text(encoding="utf-8"))
    listed = []
    for slug, record in sorted(records.items()):
        full = (finding(slug) or {}).get("full")
        if full is not None:
            status: Status = "held" if full["held"] else "not held"
        else:
            status = "working" if has_recipe(slug) else "planned"
        listed.append(
            Paper(
                slug=slug,
                status=status,
                held=None if full is None else full["held"],
                measured=None if full is None else full["measured"],
                **record,
            )
        )
    return tuple(listed)


def paper(slug: str) -> Paper:
    """One paper; ValueError with the nearest slugs if there is none of that name."""
    found = next((p for p in papers() if p.slug == slug), None)
    if found is None:
        import difflib

        near = difflib.get_close_matches(slug, [p.slug for p in papers()], n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; `discrepancy papers` lists them"
        raise ValueError(f"no paper {slug!r}{hint}")
    return found
