"""Mutual information by difference from a law of known information: for nearest neighbours in more than a few dimensions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import generator_or_default, whole_number
from discrepancy.estimation.information import InformationMethod
from discrepancy.estimation.ksg import KSG, varying
from discrepancy.estimation.student_copula import StudentCopula


@dataclass(frozen=True)
class ReferencedInformation:
    """I_ref + I_hat(data) - mean of I_hat(draws from the reference), with a Student copula fitted to the data as the reference.

    A neighbour estimator smooths: in ten dimensions a thousand rows show half of the information. It smooths a similar law
    similarly, and that law's information is known exactly, so that the difference estimates only what the data have beyond it.
    Where the copula is Student or Gaussian, whatever the margins, the smoothing bias cancels; for others it is reduced, and a
    value below the truth remains likely where the dependence is unlike that of any ellipse (a spiral). No bound on what is left
    is known, hence no interval. With fewer than 2 (d1 + d2) rows the correlations are not known well enough, and the value is
    that of the bare method. As invariant as the `method` and its margins are.

    draws: samples of the reference, of the data's size; they cost the method's time each, and their noise adds to the estimate's.
    Raises ValueError for draws < 1, TypeError for a method that does not estimate mutual information, and as the method does.
    """

    method: InformationMethod = field(default_factory=KSG)
    draws: int = 2

    references = ("arellano-valle-2013", "demarta-mcneil-2005", "kraskov-2004")

    def __post_init__(self) -> None:
        whole_number(self.draws, 1, "draws")
        if not isinstance(self.method, InformationMethod) or isinstance(self.method, type):
            raise TypeError(f"method must be an estimator object such as KSG(), got {self.method!r}")

    @torch.no_grad()
    def mutual_information(
        self, x: Tensor, y: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """I(X; Y) from paired rows x (n, d1), y (n, d2); the reference's draws come from `generator`."""
        found = self.method.mutual_information(x, y, level=level, generator=generator)
        (left, right), _ = varying([x.double(), y.double()])
        width = left.shape[1] + right.shape[1]
        if min(left.shape[1], right.shape[1]) == 0:
            return found
        if len(x) < 2 * width:
            few = f"{len(x)} rows are too few for a reference in {width} dimensions: the value is the bare estimator's"
            return replace(found, note="; ".join(filter(None, (found.note, few))))
        source = generator_or_default(generator)
        reference = StudentCopula.fit(left, right)
        shown = []
        for _ in range(self.draws):
            drawn = (s.to(x.device) for s in reference.draw(len(left), source))
            shown.append(float(self.method.mutual_information(*drawn, level=level, generator=generator)))
        correction = reference.mutual_information - sum(shown) / len(shown)
        label = "Gaussian" if reference.degrees == torch.inf else f"Student, nu = {reference.degrees:.3g},"
        return replace(
            found,
            value=float(found) + correction,
            standard_error=None,
            low=None,
            high=None,
            level=None,
            method=f"{found.method}, beside a {label} copula of {reference.mutual_information:.3g} nats",
            note="; ".join([f"no interval: {_LEFT}", *_remarks(found)]),
        )


_LEFT = "the smoothing bias beyond that of the reference copula is not known"


def _remarks(found: Estimate) -> list[str]:
    """What the method had to say beyond its own want of an interval."""
    return [part for part in (found.note or "").split("; ") if part and not part.startswith("no interval")]


__all__ = ["ReferencedInformation"]
