"""A law as a finite mixture of components that can be paired with those of another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily, MultivariateNormal, Normal

from discrepancy.divergences.closed_form import find_closed_form
from discrepancy.divergences.closed_form.gaussian import gaussian_parameters
from discrepancy.divergences.closed_form.integrals import log_power_integral
from discrepancy.divergences.divergence import Divergence


def reshaped(law: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The law with every parameter passed through `change`, which adds or takes batch dimensions in front."""
    if isinstance(law, Independent):
        return Independent(reshaped(law.base_dist, change), law.reinterpreted_batch_ndims)
    names = list(law.arg_constraints)
    # Of alternative parameters (probs or logits) the one that the law was built from.
    names = [name for name in names if name in vars(law)] or names
    return type(law)(**{name: change(getattr(law, name)) for name in names}, validate_args=False)


@dataclass(frozen=True)
class Components:
    """weights (K,) and a distribution of batch shape (K,)."""

    weights: Tensor
    law: Any

    @staticmethod
    def of(law: Any, name: str) -> Components:
        """The components of a mixture; any other law is a mixture of itself alone. Raises TypeError or ValueError for batches."""
        if not isinstance(law, Distribution):
            raise TypeError(f"{name} must be a torch.distributions object, got {type(law).__name__}")
        if law.batch_shape != torch.Size(()):
            raise ValueError(f"{name} must be a single law, got the batch shape {tuple(law.batch_shape)}: loop over them")
        if isinstance(law, MixtureSameFamily):
            return Components(law.mixture_distribution.probs.detach(), law.component_distribution)
        alone = reshaped(law, lambda t: t.unsqueeze(0))
        return Components(torch.ones(1, dtype=next(iter(_tensors(law))).dtype), alone)

    def across(self, other: Components) -> tuple[Any, Any]:
        """The two laws as batches (K, 1) and (1, L)."""
        return reshaped(self.law, lambda t: t.unsqueeze(1)), reshaped(other.law, lambda t: t.unsqueeze(0))

    def divergences(self, divergence: Divergence, other: Components) -> Tensor | None:
        """The divergence of each component from each of the other's, (K, L), or None without a closed form."""
        value = find_closed_form(divergence, *self.across(other))
        return None if value is None else value.detach()

    def log_products(self, other: Components) -> Tensor | None:
        """log of the integrals of the products of densities, (K, L), or None without a closed form."""
        value = log_power_integral(*self.across(other), 1.0, 1.0)
        return None if value is None else value.detach()

    def entropies(self) -> Tensor | None:
        """The differential entropies (K,), or None where torch has no formula."""
        try:
            return self.law.entropy().detach()
        except NotImplementedError:
            return None

    def gaussian(self) -> tuple[Tensor, Tensor] | None:
        """Means (K, d) and Cholesky factors (K, d, d) of Gaussian components, else None."""
        if not isinstance(self.law, Normal | MultivariateNormal | Independent):
            return None
        return gaussian_parameters(self.law)


def _tensors(law: Any) -> list[Tensor]:
    base = law.base_dist if isinstance(law, Independent) else law
    return [getattr(base, name) for name in base.arg_constraints if isinstance(getattr(base, name), Tensor)]


__all__ = ["Components", "reshaped"]
