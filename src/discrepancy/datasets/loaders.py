"""Data sets as arrays and as plain tables."""

from __future__ import annotations

import csv
import gzip
import io
from typing import Literal

import numpy as np

from discrepancy.datasets.carriers import path


def digits(which: Literal["digits", "mnist-5k"] = "digits") -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits as (images (n, pixels) in [0, 1], classes (n,)); `which` names the set in the catalogue."""
    with gzip.open(path(which), "rt") as file:
        data = np.loadtxt(file, delimiter=",")
    top = 16.0 if which == "digits" else 255.0
    return data[:, :-1] / top, data[:, -1].astype(np.int64)


def table(name: str) -> list[dict[str, str]]:
    """A csv data set as a list of rows, each cell as the text that is in the file."""
    file = path(name)
    raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    return list(csv.DictReader(io.StringIO(raw.decode("utf-8"))))
