"""DivMerge: coefficients that bring the merged model's outputs to each expert's, on a few unlabelled inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy.divergences import JensenShannon
from discrepancy.divergences.admission import Admission
from discrepancy.divergences.divergence import Divergence
from discrepancy.methods.merging.coefficients import Descent, Layer, LearnedMerge, Level, learn_coefficients
from discrepancy.methods.merging.predictions import Direct, Source, expert_predictions
from discrepancy.methods.merging.task_vectors import TaskVectors

ADMITS = Admission(method="DivMerge", kinds=(Divergence,), examples=("JensenShannon()", "KL()", "ReverseKL()"))


@dataclass(frozen=True)
class DivMerge:
    """min over Gamma of sum_t E_{x ~ X_t} D(M(. | x; theta_t) || M(. | x; theta_0 + sum_s Gamma_s tau_s)).

    P is the expert, Q the merged model; the paper's JS and KL are `JensenShannon()` and `KL()` as they are. `level` is
    `Layer()` (a coefficient a task and layer) or `Task()`; `source` says where outputs come from: `Direct()` for classifiers,
    `GreedyGeneration(...)` for causal language models, whose EXPERT writes the answers, once. Coefficients are free, of either
    sign. With D = 0 only at equality the minimum is 0 where one model answers as each expert on its own task
    (weight disentanglement). With inputs from another law than X_t the Jensen-Shannon objective is off by at most
    2 log 2 sum_t TV.
    The paper's algorithm box starts at 1 / n, its table of settings at 0.5: the latter is `Descent`'s default.
    Source: 2509.02108 (2026).
    """

    divergence: Divergence = field(default_factory=JensenShannon)
    level: Level = field(default_factory=Layer)
    source: Source = field(default_factory=Direct)
    descent: Descent = field(default_factory=Descent)
    references: ClassVar[tuple[str, ...]] = ("divmerge",)

    def __post_init__(self) -> None:
        """Raise TypeError for options of the wrong kind."""
        ADMITS.check(self.divergence)
        for name, kind in (("level", Level), ("source", Source), ("descent", Descent)):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(f"{name} must be a {kind.__name__} object, got {value!r}")

    def merge(self, vectors: TaskVectors, inputs: Any, *, generator: torch.Generator | None = None) -> LearnedMerge:
        """Learn the coefficients and merge.

        inputs: one entry an expert, a tensor (n, ...), a mapping of tensors, or a loader of either; no labels. Experts answer
        once; then each step is a forward and a backward pass of the merged model a task. Batches are drawn with `generator`.
        Raises TypeError where the base is no module, ValueError where inputs and experts differ in number.
        """
        tasks = expert_predictions(vectors, inputs, self.source)
        return learn_coefficients(
            vectors, tasks, lambda model, batch: batch.divergence(self.divergence, model),
            method=repr(self), level=self.level, descent=self.descent, generator=generator,
        )  # fmt: skip


@torch.no_grad()
def task_divergences(
    vectors: TaskVectors, tensors: Any, inputs: Any, divergence: Divergence, source: Source | None = None
) -> Tensor:
    """D_{X_t}(theta_t || model) of every task (n,), for a model given by its tensors (`MergedModel.tensors`): DivMerge's
    terms."""
    ADMITS.check(divergence)
    tasks = expert_predictions(vectors, inputs, Direct() if source is None else source)
    with vectors.evaluating():
        return torch.stack([_over_batches(divergence, vectors.bound(tensors), batches) for batches in tasks])


@torch.no_grad()
def divergence_matrix(vectors: TaskVectors, inputs: Any, divergence: Divergence, source: Source | None = None) -> Tensor:
    """D_{X_i}(theta_i || theta_j), (n, n): how far expert j's outputs are from expert i's on i's inputs; zero on the diagonal.

    It predicts how expert j does on task i. n^2 passes over the inputs. Arguments as in `DivMerge.merge`.
    """
    ADMITS.check(divergence)
    tasks = expert_predictions(vectors, inputs, Direct() if source is None else source)
    with vectors.evaluating():
        columns = []
        for j in range(len(vectors)):
            model = vectors.bound(vectors.expert(j))
            columns.append(torch.stack([_over_batches(divergence, model, batches) for batches in tasks]))
    return torch.stack(columns, 1)


def _over_batches(divergence: Divergence, model: Any, batches: list[Any]) -> Tensor:
    sizes = torch.tensor([float(len(b)) for b in batches], dtype=torch.float64)
    values = torch.stack([b.divergence(divergence, model).double() for b in batches])
    return (values * sizes.to(values)).sum() / sizes.sum()


def average_normalized_performance(merged: Any, experts: Any) -> float:
    """ANP, the mean over tasks of the merged model's performance over the expert's, both (n,) and higher the better.

    Raises ValueError where lengths differ or an expert's performance is not positive.
    """
    left, right = torch.as_tensor(merged, dtype=torch.float64), torch.as_tensor(experts, dtype=torch.float64)
    if left.shape != right.shape or left.ndim != 1 or len(left) == 0:
        raise ValueError(f"merged and experts must be (n,) of one length, got {tuple(left.shape)} and {tuple(right.shape)}")
    if not bool((right > 0).all()):
        raise ValueError(f"experts must have positive performance, got a smallest of {float(right.min()):.6g}")
    return float((left / right).mean())


__all__ = ["ADMITS", "DivMerge", "average_normalized_performance", "divergence_matrix", "task_divergences"]
