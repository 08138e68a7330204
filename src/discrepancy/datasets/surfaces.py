"""Cortical surfaces as arrays of vertices and faces."""

from __future__ import annotations

import gzip
from typing import Literal

import numpy as np

from discrepancy.datasets.carriers import path

CorticalSurface = Literal["fsaverage5-pial", "fsaverage5-white", "fsaverage5-sphere", "conte69", "conte69-sphere"]


def cortex(which: CorticalSurface, hemisphere: Literal["left", "right"] = "left") -> tuple[np.ndarray, np.ndarray]:
    """The vertices (N, 3) in millimetres, float64, and faces (F, 3) of a cortical surface; normals point outward.

    fsaverage5 has 10,242 vertices (an icosphere's, split five times), vertex for vertex the same points of the cortex on its
    three surfaces; conte69 has 32,492 of another triangulation. Raises ValueError for an unknown name, `MissingCarrier` with
    the install line where the package is absent (reading needs nibabel, of the `data` extra).
    """
    from nibabel.gifti.gifti import GiftiImage

    file = path(f"{which}-{hemisphere}")
    raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    image = GiftiImage.from_bytes(raw)
    vertices = image.agg_data("pointset")
    faces = image.agg_data("triangle")
    return np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64)


__all__ = ["CorticalSurface", "cortex"]
