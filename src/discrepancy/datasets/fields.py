"""Gridded fields of climate models and reanalyses, read from netCDF files without the packages that carry them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from discrepancy._results import Result
from discrepancy.datasets.carriers import path


@dataclass(frozen=True, repr=False)
class GriddedFields(Result):
    """Fields on a regular grid: `values` (time, latitude, longitude) in `unit`, `years` (time,), `latitude` and `longitude` in
    degrees, as float64 arrays, and what they are in `title`."""

    title: str
    unit: str
    values: np.ndarray = field(repr=False)
    years: np.ndarray = field(repr=False)
    latitude: np.ndarray = field(repr=False)
    longitude: np.ndarray = field(repr=False)


def air_temperature(scenario: Literal["A1B", "E1"] = "A1B") -> GriddedFields:
    """Annual mean air temperature at 1.5 m over North America, 1860-2099, 37 x 49 cells, from a climate model (kelvin).

    The two scenarios agree until 1999; then emissions rise (A1B) or are cut (E1). 240 fields of 1.8 MB, read in a few
    milliseconds. Needs h5py, and the package that carries the file: raises ImportError or `MissingCarrier` with the install
    line; ValueError for another scenario.
    """
    if scenario not in ("A1B", "E1"):
        raise ValueError(f"scenario must be 'A1B' or 'E1', got {scenario!r}")
    file = path(f"air-temperature-{scenario.lower()}")
    try:
        import h5py
    except ImportError:
        raise ImportError('reading netCDF-4 needs h5py: pip install "h5py>=3"') from None
    with h5py.File(file) as data:
        # hours since 1970-01-01 in a calendar of 360 days
        years = 1970 + np.asarray(data["time"], dtype=np.float64) / (24 * 360)
        return GriddedFields(
            f"air temperature, scenario {scenario}",
            "K",
            np.asarray(data["air_temperature"], dtype=np.float64),
            np.floor(years),
            np.asarray(data["latitude"], dtype=np.float64),
            np.asarray(data["longitude"], dtype=np.float64),
        )


def winter_height() -> GriddedFields:
    """Mean height of the 500 hPa surface over the North Atlantic and Europe in 65 winters (December-February), 29 x 49 cells (m).

    Longitudes run from -180 to 180 through the Atlantic. Raises `MissingCarrier` with the install line.
    """
    from scipy.io import netcdf_file

    with netcdf_file(path("winter-height"), mmap=False) as data:
        # hours since the year 1; the middle of the winter names its January's year
        days = np.array(data.variables["time"][:], dtype=np.float64) / 24
        longitude = np.array(data.variables["longitude"][:], dtype=np.float64)
        turned = (longitude + 180) % 360 - 180
        order = np.argsort(turned)
        return GriddedFields(
            "height of the 500 hPa surface, winter means",
            "m",
            np.array(data.variables["z"][:, 0], dtype=np.float64)[:, :, order],
            np.floor(1 + days / 365.2425),
            np.array(data.variables["latitude"][:], dtype=np.float64),
            turned[order],
        )


__all__ = ["GriddedFields", "air_temperature", "winter_height"]
