"""`discrepancy cite`: BibTeX for what one used."""

from __future__ import annotations

from discrepancy.cli.output import emit


def cite(*subjects: str) -> None:
    """Print the BibTeX entries of papers, registered names or bibliography keys.

    Parameters
    ----------
    subjects
        Slugs of papers (monge-gap), registered names (mmd), or keys of the bibliography; none prints the list of keys.
    """
    from discrepancy._registry import cite as entries
    from discrepancy._registry import names, references

    if subjects:
        emit(entries(*subjects))
        return
    emit("\n".join(sorted({*references(), *names()})))
