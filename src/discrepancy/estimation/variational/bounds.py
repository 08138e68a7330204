"""The variational bounds by name: Donsker-Varadhan, NWJ, the Jensen-Shannon critic's, SMILE and InfoNCE."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from discrepancy._validate import fraction, positive
from discrepancy.divergences import Divergence, FDivergence, optimal_critic, variational_bound
from discrepancy.estimation.variational.bound import Held, VariationalBound, logistic_loss
from discrepancy.estimation.variational.critics import Critic, Separable
from discrepancy.estimation.variational.fitting import Loss


@dataclass(frozen=True)
class DonskerVaradhan(VariationalBound):
    """KL(P || Q) >= E_P[T] - log E_Q[e^T], trained as MINE is.

    The gradient of the logarithm is that of E_Q[e^T] over a moving average of E_Q[e^T] with rate `moving_average`, which
    takes away most of the bias of a batch's own mean. At n held-out draws the logarithm of a mean makes the value too large by
    about Var(e^T)/(2 n E[e^T]^2), hence no value much above log n can be believed. Takes KL and ReverseKL.
    Source: Donsker and Varadhan (1983); Belghazi et al. (2018).
    """

    moving_average: float = 0.1

    references: ClassVar[tuple[str, ...]] = ("donsker-varadhan-1983", "belghazi-2018")

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        fraction(self.moving_average, "moving_average")

    def _loss(self, f: FDivergence) -> Loss:
        remembered: list[Tensor] = []

        def loss(t_p: Tensor, t_q: Tensor) -> Tensor:
            log_mean = _log_mean_exp(t_q)
            seen = log_mean.detach()
            if remembered:
                rate = self.moving_average
                seen = torch.logaddexp(remembered.pop() + math.log1p(-rate), seen + math.log(rate))
            remembered.append(seen)
            return torch.exp(log_mean - seen) - t_p.mean()

        return loss

    def _held(self, f: FDivergence, t_p: Tensor, t_q: Tensor) -> Held:
        log_mean = _log_mean_exp(t_q)
        return Held(float(t_p.mean() - log_mean), t_p - t_p.mean(), -torch.expm1(t_q - log_mean))

    def _score(self, f: FDivergence, t_p: Tensor, t_q: Tensor) -> float:
        # A constant added to T changes nothing here, and is taken out before T is judged as a log ratio.
        log_mean = _log_mean_exp(t_q)
        return super()._score(f, t_p - log_mean, t_q - log_mean)


class _RatioBound(VariationalBound):
    """Bounds of any D_f through the critic u = log p/q: T = f'(e^u), which lies where the conjugate is finite."""

    def _held(self, f: FDivergence, t_p: Tensor, t_q: Tensor) -> Held:
        at_p, at_q = optimal_critic(f, t_p), f.conjugate(optimal_critic(f, t_q))
        return Held(float(at_p.mean() - at_q.mean()), at_p - at_p.mean(), at_q.mean() - at_q)

    def _takes_any(self) -> bool:
        return True


@dataclass(frozen=True)
class NWJ(_RatioBound):
    """D_f(P || Q) >= E_P[T] - E_Q[f*(T)] with T = f'(e^u), trained on the bound itself; for KL E_P[u] - E_Q[e^u] + 1.

    Unbiased for the bound of its critic at any number of draws, and of large variance, of the order e^KL. Takes any smooth
    `FDivergence`. Source: Nguyen, Wainwright and Jordan (2010); Nowozin, Cseke and Tomioka (2016).
    """

    references: ClassVar[tuple[str, ...]] = ("nguyen-wainwright-jordan-2010", "nowozin-2016")

    def _loss(self, f: FDivergence) -> Loss:
        def loss(t_p: Tensor, t_q: Tensor) -> Tensor:
            return -variational_bound(f, optimal_critic(f, t_p), optimal_critic(f, t_q).flatten())

        return loss

    def _admit(self, divergence: Divergence) -> FDivergence:
        if not isinstance(divergence, FDivergence):
            raise TypeError(f"NWJ() bounds an FDivergence such as KL() or JensenShannon(), got {divergence!r}")
        if not divergence.smooth:
            raise TypeError(f"{divergence!r} has no smooth critic to train on: take JensenShannonBound()")
        return divergence


@dataclass(frozen=True)
class JensenShannonBound(_RatioBound):
    """The same bound of D_f, with the critic trained by logistic regression of P against Q, whose optimum is u = log p/q.

    The training loss is bounded below and its gradients are tame whatever the divergence: what is lost in tightness at a
    given critic is gained in training. Takes any `FDivergence`, total variation too.
    Source: Hjelm et al. (2019) for the loss; Poole et al. (2019) for the bound at its critic.
    """

    references: ClassVar[tuple[str, ...]] = ("hjelm-2019", "poole-2019", "nguyen-wainwright-jordan-2010")

    def _loss(self, f: FDivergence) -> Loss:
        return logistic_loss

    def _admit(self, divergence: Divergence) -> FDivergence:
        if not isinstance(divergence, FDivergence):
            raise TypeError(f"JensenShannonBound() bounds an FDivergence such as KL() or JensenShannon(), got {divergence!r}")
        return divergence


@dataclass(frozen=True)
class SMILE(VariationalBound):
    """E_P[u] - log E_Q[clip(e^u, e^-clip, e^clip)] at the critic of the logistic loss: Donsker-Varadhan with a bounded variance.

    The clipped mean varies by no more than e^clip, at the price that the value is no bound: it may exceed the divergence where
    much of E_Q[e^u] lies beyond the clip: it has no interval. Takes KL and ReverseKL. Source: Song and Ermon (2020).
    """

    clip: float = 5.0

    references: ClassVar[tuple[str, ...]] = ("song-ermon-2020",)
    _bounds: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        positive(self.clip, "clip")

    def _loss(self, f: FDivergence) -> Loss:
        return logistic_loss

    def _held(self, f: FDivergence, t_p: Tensor, t_q: Tensor) -> Held:
        clipped = t_q.clamp(-self.clip, self.clip)
        log_mean = _log_mean_exp(clipped)
        return Held(float(t_p.mean() - log_mean), t_p - t_p.mean(), -torch.expm1(clipped - log_mean))


@dataclass(frozen=True)
class InfoNCE(VariationalBound):
    """E[log e^f(x, y) / mean_j e^f(x, y_j)], the mean over y and K draws y_j of its margin: at most log(K + 1).

    How well a row's own partner is told from K others. Low variance, and a value that says nothing once it comes near log(K + 1):
    the result then has no interval and a `SampleSizeWarning` is given. The default critic is separable, for which many
    negatives are cheap. For two samples P takes the place of the pairs and Q that of the margin. Takes KL and ReverseKL.
    Source: van den Oord, Li and Vinyals (2018); Poole et al. (2019).
    """

    critic: Critic | nn.Module = field(default_factory=Separable)
    negatives: int = 511

    references: ClassVar[tuple[str, ...]] = ("oord-2018", "poole-2019")

    def _loss(self, f: FDivergence) -> Loss:
        def loss(t_p: Tensor, t_q: Tensor) -> Tensor:
            return -_contrast(t_p, t_q)[0].mean()

        return loss

    def _held(self, f: FDivergence, t_p: Tensor, t_q: Tensor) -> Held:
        values, log_total = _contrast(t_p, t_q)
        k = t_q.shape[-1]
        if t_q.ndim == 1:
            # One set of negatives for all rows: the weight of y_j is e^{t_j} times the sum over rows of 1/total.
            by_q = -k * torch.exp(t_q + torch.logsumexp(-log_total, 0) - math.log(len(t_p)))
            return Held(float(values.mean()), values - values.mean(), by_q - by_q.mean())
        by_q = -k * torch.exp(t_q - log_total[:, None])
        by_q = by_q - by_q.mean()
        # A row's value holds its own draws already; what its y does to other rows is in the columns.
        return Held(float(values.mean()), values - values.mean() - by_q.mean(1), by_q)

    def _score(self, f: FDivergence, t_p: Tensor, t_q: Tensor) -> float:
        return self._held(f, t_p, t_q).value

    def _ceiling(self, rows: int) -> float:
        return math.log(min(self.negatives, rows - 1) + 1)


def _log_mean_exp(t: Tensor) -> Tensor:
    return torch.logsumexp(t.flatten(), 0) - math.log(t.numel())


def _contrast(t_p: Tensor, t_q: Tensor) -> tuple[Tensor, Tensor]:
    """log e^t_p / mean over it and its K negatives, and the log of their sum, a row."""
    log_total = torch.logaddexp(t_p, torch.logsumexp(t_q, -1))
    return t_p - log_total + math.log(t_q.shape[-1] + 1), log_total


__all__ = ["NWJ", "SMILE", "DonskerVaradhan", "InfoNCE", "JensenShannonBound"]
