"""Cortical surfaces are read from GIFTI files, compressed or not; the catalogue's own files, of tier 2, are not needed."""

import gzip

import numpy as np
import pytest
from nibabel.gifti import GiftiDataArray, GiftiImage

from discrepancy import datasets
from discrepancy.datasets import surfaces

VERTICES = np.array([[0.0, 0, 0], [1.5, 0, 0], [0, -2.25, 0], [0, 0, 3]], dtype=np.float32)
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], dtype=np.int32)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_gifti_surface_is_read(tmp_path, monkeypatch, compressed):
    image = GiftiImage()
    image.add_gifti_data_array(GiftiDataArray(VERTICES, intent="NIFTI_INTENT_POINTSET"))
    image.add_gifti_data_array(GiftiDataArray(FACES, intent="NIFTI_INTENT_TRIANGLE"))
    raw = image.to_bytes()
    file = tmp_path / ("surface.gii.gz" if compressed else "surface.gii")
    file.write_bytes(gzip.compress(raw) if compressed else raw)
    asked = []
    monkeypatch.setattr(surfaces, "path", lambda name: asked.append(name) or file)
    vertices, faces = datasets.cortex("fsaverage5-white", "right")
    assert asked == ["fsaverage5-white-right"]
    assert vertices.dtype == np.float64
    assert faces.dtype == np.int64
    assert np.array_equal(vertices, VERTICES)
    assert np.array_equal(faces, FACES)


@pytest.mark.parametrize("which", ["fsaverage5-pial", "fsaverage5-white", "fsaverage5-sphere", "conte69", "conte69-sphere"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_every_surface_has_its_row(which, side):
    record = datasets.catalogue()[f"{which}-{side}"]
    assert record.tier == 2
    assert record.rows == (10_242 if "fsaverage5" in which else 32_492)


def test_unknown_surfaces_list_the_known():
    with pytest.raises(ValueError, match=r"unknown data set 'fsaverage-left'; known are .*fsaverage5-pial-left"):
        datasets.cortex("fsaverage")
