"""Mutual information of discrete data from the shares of their values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from discrepancy._results import Estimate


@dataclass(frozen=True)
class PlugIn:
    """Information of discrete data from relative frequencies, each row of x, y, z one value, with Miller and Madow's correction.

    I(X; Y) = H(X) + H(Y) - H(X, Y) and I(X; Y | Z) = H(X, Z) + H(Y, Z) - H(X, Y, Z) - H(Z), in nats, where the entropy of K
    observed values is that of their shares plus (K - 1) / (2 n). `correction` False leaves that term out. What bias remains is of
    second order in the number of values over n. The interval is that of the delta method, value +- z sd(log ratio) / sqrt(n);
    at independence it is wider than need be. There is none where cells average fewer than five rows.
    Time O(n log n), memory O(n).
    """

    correction: bool = True

    references = ("miller-1955",)

    @torch.no_grad()
    def mutual_information(
        self, x: Tensor, y: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """I(X; Y) from paired rows x (n, d1), y (n, d2). `generator` is accepted and not used."""
        return self._estimate([(x,), (y,)], [(x, y)], level)

    @torch.no_grad()
    def conditional_mutual_information(
        self, x: Tensor, y: Tensor, z: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """I(X; Y | Z) from paired rows x (n, d1), y (n, d2), z (n, d3). `generator` is accepted and not used."""
        return self._estimate([(x, z), (y, z)], [(x, y, z), (z,)], level)

    def _estimate(self, added: Sequence[Sequence[Tensor]], taken: Sequence[Sequence[Tensor]], level: float) -> Estimate:
        n = len(added[0][0])
        terms, correction, cells = torch.zeros(n, dtype=torch.float64), 0.0, 0
        for sign, groups in ((1.0, added), (-1.0, taken)):
            for columns in groups:
                surprise, observed = _surprise(columns)
                terms += sign * surprise
                correction += sign * (observed - 1) / (2 * n)
                cells = max(cells, observed)
        value = float(terms.mean()) + (correction if self.correction else 0.0)
        method = f"plug-in, {cells} cells" + (", Miller-Madow" if self.correction else "")
        if n < 5 * cells:
            note = f"no interval: {cells} observed cells have fewer than five of {n} rows each; the value is biased upwards"
            return Estimate(value, None, None, None, None, method, note)
        error = float(terms.std()) / math.sqrt(n)
        half = NormalDist().inv_cdf(0.5 + level / 2) * error
        return Estimate(value, error, value - half, value + half, level, method)


def _surprise(columns: Sequence[Tensor]) -> tuple[Tensor, int]:
    """-log share of each row's value (n,), and how many values there are."""
    codes = [torch.unique(c, dim=0, return_inverse=True)[1] for c in columns]
    _, inverse, counts = torch.unique(torch.stack(codes, 1), dim=0, return_inverse=True, return_counts=True)
    return -torch.log(counts[inverse].double() / len(inverse)), len(counts)


__all__ = ["PlugIn"]
