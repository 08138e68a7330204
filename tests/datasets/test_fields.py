"""Gridded fields: read from files of the carriers' layout, written here."""

import numpy as np
import pytest

from discrepancy import datasets
from discrepancy.datasets import fields


def test_winter_height_is_sorted_through_the_atlantic(tmp_path, monkeypatch):
    from scipy.io import netcdf_file

    values = np.arange(2 * 3 * 4, dtype=float).reshape(2, 1, 3, 4)
    file = tmp_path / "height.nc"
    with netcdf_file(file, "w") as out:
        for name, size in (("time", 2), ("pressure", 1), ("latitude", 3), ("longitude", 4)):
            out.createDimension(name, size)
        for name, dims, data in (
            ("time", ("time",), (np.array([1948.0, 1949.0]) - 1) * 365.2425 * 24 + 24),
            ("latitude", ("latitude",), [20.0, 50.0, 80.0]),
            ("longitude", ("longitude",), [0.0, 10.0, 340.0, 350.0]),
            ("z", ("time", "pressure", "latitude", "longitude"), values),
        ):
            out.createVariable(name, "f8", dims)[:] = data
    monkeypatch.setattr(fields, "path", lambda name: file)
    found = fields.winter_height()
    assert found.longitude.tolist() == [-20, -10, 0, 10]
    assert found.years.tolist() == [1948, 1949]
    assert np.array_equal(found.values, values[:, 0][:, :, [2, 3, 0, 1]])
    assert found.unit == "m"


def test_air_temperature_counts_years_of_360_days(tmp_path, monkeypatch):
    import h5py

    file = tmp_path / "air.nc"
    values = np.arange(2 * 2 * 3, dtype=np.float32).reshape(2, 2, 3)
    with h5py.File(file, "w") as out:
        out["air_temperature"] = values
        out["time"] = (np.array([1860.4, 1861.4]) - 1970) * 360 * 24
        out["latitude"], out["longitude"] = np.array([15.0, 20.0]), np.array([225.0, 230.0, 235.0])
    asked = []
    monkeypatch.setattr(fields, "path", lambda name: asked.append(name) or file)
    found = fields.air_temperature("E1")
    assert asked == ["air-temperature-e1"]
    assert found.years.tolist() == [1860, 1861]
    assert np.array_equal(found.values, values)
    assert found.values.dtype == np.float64
    with pytest.raises(ValueError, match="'A1B' or 'E1'"):
        fields.air_temperature("B2")


def test_carriers_are_on_record():
    for name in ("air-temperature-a1b", "air-temperature-e1", "winter-height"):
        assert datasets.catalogue()[name].tier == 2
        assert "--no-deps" in datasets.catalogue()[name].install
