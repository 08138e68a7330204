"""Feature matching: the plain baseline of every method on features, with a discrepancy of samples or squared differences."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from discrepancy._kinds import Discrepancy
from discrepancy._validate import generator_or_default
from discrepancy.networks.linear import linear


def feature_pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Student features (b, d_S) and detached teacher features (b, d_T) of the same samples, checked.

    Raises TypeError for what are no floating tensors, ValueError for other ranks (with the pooling that would make two) and for
    batches of different size.
    """
    for name, value in (("student features", student), ("teacher features", teacher)):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f"{name} must be a floating tensor (b, d), got {getattr(value, 'dtype', type(value).__name__)}")
        if value.ndim != 2:
            pooled = f": pool them first, features.flatten(2).mean(-1) gives (b, {value.shape[1]})" if value.ndim > 2 else ""
            raise ValueError(f"{name} must have shape (b, d), got {tuple(value.shape)}{pooled}")
    if len(student) != len(teacher):
        raise ValueError(f"student and teacher features must be of the same samples, got {len(student)} and {len(teacher)}")
    return student, teacher.detach()


class FeatureMatching(nn.Module):
    """The mean squared difference of projection(student) and teacher, |W h_i - t_i|^2 / d_T: FitNet's hint loss.

    discrepancy: any `Discrepancy` instead, D(projection(student), teacher), which compares the two as sets and does not know
    which sample is which. The projection, one linear layer from d_S to d_T, is trained with the student and thrown away.
    No gradient reaches the teacher. Raises as `feature_pair`; TypeError for what is no discrepancy.
    """

    references: ClassVar[tuple[str, ...]] = ("romero-2015",)

    def __init__(
        self,
        student_width: int,
        teacher_width: int,
        discrepancy: Discrepancy | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if discrepancy is not None and not isinstance(discrepancy, Discrepancy):
            raise TypeError(f"discrepancy must be a Discrepancy such as SinkhornDivergence(), got {discrepancy!r}")
        self.discrepancy = discrepancy
        self.projection = linear(student_width, teacher_width, generator=generator_or_default(generator))

    def forward(self, student: Tensor, teacher: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss of a batch of features (b, d_S) and (b, d_T)."""
        u, v = feature_pair(student, teacher)
        wanted = self.projection.in_features, self.projection.out_features
        if (u.shape[1], v.shape[1]) != wanted:
            raise ValueError(
                f"features have {u.shape[1]} and {v.shape[1]} columns, the loss was made for {wanted[0]} and {wanted[1]}"
            )
        projected = self.projection(u.to(self.projection.weight.dtype))
        if self.discrepancy is None:
            return F.mse_loss(projected, v.to(projected.dtype))
        return self.discrepancy(projected, v.to(projected.dtype), generator=generator)


__all__ = ["FeatureMatching", "feature_pair"]
