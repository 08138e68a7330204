"""Blood cells: where the carrier is installed, shapes and kinds; the wrong word is named."""

from __future__ import annotations

import numpy as np
import pytest

from discrepancy.datasets import catalogue
from discrepancy.datasets.cells import blood_cells


def test_cells_with_their_kinds() -> None:
    pytest.importorskip("h5py")
    if catalogue()["pbmc"].located() is None:
        pytest.skip("its carrier, scanpy, is not installed")
    components, kinds = blood_cells()
    genes, again = blood_cells("genes")
    assert components.shape == (700, 50)
    assert genes.shape == (700, 765)
    assert components.dtype == genes.dtype == np.float64
    assert (kinds == again).all()
    # The components are projections of these very values: their variances fall, and B cells differ from monocytes.
    assert (np.diff(components.var(0)[:5]) < 0).all()
    b, m = (components[kinds == name].mean(0) for name in ("CD19+ B", "CD14+ Monocyte"))
    assert np.linalg.norm(b - m) > 5


def test_the_wrong_word_is_named() -> None:
    with pytest.raises(ValueError, match="components"):
        blood_cells("proteins")  # type: ignore[arg-type]
