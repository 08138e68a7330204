"""The sandwich rule: each step trains the widest network on the task, and the narrowest and some others on what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from discrepancy._validate import generator_or_default, whole_number
from discrepancy.methods.distillation.slimmable import set_width
from discrepancy.methods.distillation.training import Epochs

# Label smoothing of the widest network's cross-entropy.
SMOOTHED = partial(F.cross_entropy, label_smoothing=0.1)
_CLIPPED = Epochs(gradient_clip=1.0)


@dataclass(frozen=True)
class Sandwich:
    """Widest by `task(logits, target)`, then the narrowest and `others` more by `distillation(student, teacher, target)`.

    Dropout is on for the widest only. `widths` are the shares of units, of which the others are drawn, between the narrowest and
    the widest (from all of them where there are none between). The teacher is the widest network's logits of the same step, held
    fixed. With `distillation=None` the narrower ones learn the task alone. Raises ValueError for fewer than two widths, or shares
    out of (0, 1].
    """

    distillation: Callable[..., Tensor] | None
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    others: int = 2
    task: Callable[[Tensor, Tensor], Tensor] = SMOOTHED

    def __post_init__(self) -> None:
        """Check the widths."""
        if len(set(self.widths)) < 2:
            raise ValueError(f"widths must hold at least two different shares, got {self.widths!r}")
        if not all(0 < share <= 1 for share in self.widths):
            raise ValueError(f"widths must lie in (0, 1], got {self.widths!r}")
        whole_number(self.others, 0, "others")

    def drawn(self, generator: torch.Generator | None = None) -> list[float]:
        """The widths of one step after the widest: the narrowest, and `others` drawn with equal chances."""
        ordered = sorted(set(self.widths))
        between = ordered[1:-1] or ordered
        picks = torch.randint(len(between), (self.others,), generator=generator_or_default(generator))
        return [ordered[0], *(between[int(k)] for k in picks)]

    def loss(
        self, supernet: nn.Module, x: Tensor, target: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of one step's losses, and the parts "widest", "narrowest" and "others" (their mean).

        The widest width is set afterwards.
        """
        set_width(supernet, max(self.widths))
        widest = supernet(x)
        parts = [self.task(widest, target)]
        teacher = widest.detach()
        # Dropout regularises the widest network only: what the narrower ones lack is capacity.
        dropouts = [m for m in supernet.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.training]
        for module in dropouts:
            module.eval()
        for share in self.drawn(generator):
            set_width(supernet, share)
            logits = supernet(x)
            parts.append(self.task(logits, target) if self.distillation is None else self.distillation(logits, teacher, target))
        for module in dropouts:
            module.train()
        set_width(supernet, max(self.widths))
        terms = {"widest": parts[0].detach(), "narrowest": parts[1].detach()}
        if self.others:
            terms["others"] = torch.stack(parts[2:]).mean().detach()
        return torch.stack(parts).sum(), terms

    def fit(
        self,
        supernet: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        *,
        epochs: Epochs = _CLIPPED,
        generator: torch.Generator | None = None,
    ) -> dict[str, list[float]]:
        """Train a supernet on shuffled batches; gradients are clipped at norm 1 by default, as this loss needs.

        Returns the record of the parts. Raises ValueError for lengths that differ, NumericalError if a loss or a gradient is not
        finite.
        """
        if len(inputs) != len(targets):
            raise ValueError(f"there are {len(inputs)} inputs and {len(targets)} targets: one for each")
        source = generator_or_default(generator)
        modules = [supernet]
        if isinstance(self.distillation, nn.Module):
            modules.append(self.distillation)
        return epochs.minimise(
            modules,
            lambda rows: self.loss(supernet, inputs[rows], targets[rows], generator=source),
            len(inputs),
            generator=source,
        )


__all__ = ["SMOOTHED", "Sandwich"]
