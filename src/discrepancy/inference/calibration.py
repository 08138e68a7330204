"""Is a classifier's confidence its accuracy: calibration errors, the Brier score and the log score of class probabilities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import as_tensor, weights, whole_number


def _checked(probs: Any, labels: Any) -> tuple[Tensor, Tensor]:
    probs = as_tensor(probs, "probs").detach()
    if probs.ndim != 2 or len(probs) == 0:
        raise ValueError(f"probs must have shape (n, classes) with n >= 1, got {tuple(probs.shape)}")
    probs = weights(probs, probs.shape, "probs", like=probs)
    labels = torch.as_tensor(labels, device=probs.device)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be class indices of an integer type, got {labels.dtype}")
    if labels.shape != probs.shape[:1]:
        raise ValueError(f"labels must have shape ({len(probs)},), one class for each row of probs, got {tuple(labels.shape)}")
    labels = labels.long()
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= probs.shape[1]:
        raise ValueError(f"labels must lie in [0, {probs.shape[1] - 1}], got values from {low} to {high}")
    return probs, labels


def _gap(confidence: Tensor, correct: Tensor, group: Tensor, groups: int) -> float:
    """sum_g n_g / n |accuracy_g - mean confidence_g|."""
    excess = torch.zeros(groups, dtype=confidence.dtype, device=confidence.device)
    return float(excess.index_add_(0, group, correct - confidence).abs().sum() / len(confidence))


def expected_calibration_error(probs: Any, labels: Any, *, bins: int = 15) -> float:
    """ECE = sum_b n_b / n |accuracy_b - mean confidence_b| over `bins` bins of equal width of the largest probability.

    probs (n, classes), labels (n,) class indices; a value in [0, 1], 0 for a calibrated classifier in the limit. Bins are
    closed on the left, the last one on both sides. Biased upward, by about sqrt(bins / n); it depends on the number of bins and
    on the accuracy, so compare at similar accuracy and beside the log score. O(n classes).
    Raises ValueError or TypeError for what are not probabilities and classes. Guo et al. 2017.
    """
    whole_number(bins, 1, "bins")
    probs, labels = _checked(probs, labels)
    confidence, choice = probs.max(-1)
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype, device=confidence.device)[1:-1].contiguous()
    group = torch.bucketize(confidence.contiguous(), edges, right=True)
    return _gap(confidence, (choice == labels).to(confidence.dtype), group, bins)


def adaptive_calibration_error(probs: Any, labels: Any, *, bins: int = 15) -> float:
    """The calibration error over `bins` bins of equally many predictions, ordered by the largest probability.

    probs (n, classes), labels (n,); no bin is empty, wherever the confidences lie. Ties are kept in the order of the rows.
    O(n classes + n log n). Raises as `expected_calibration_error`, and ValueError for fewer rows than bins. Nguyen and
    O'Connor 2015.
    """
    whole_number(bins, 1, "bins")
    probs, labels = _checked(probs, labels)
    n = len(probs)
    if n < bins:
        raise ValueError(f"probs has {n} rows, fewer than the {bins} bins: use at most {n}")
    confidence, choice = probs.max(-1)
    group = torch.empty(n, dtype=torch.long, device=probs.device)
    group[torch.argsort(confidence, stable=True)] = torch.arange(n, device=probs.device) * bins // n
    return _gap(confidence, (choice == labels).to(confidence.dtype), group, bins)


def brier_score(probs: Any, labels: Any) -> float:
    """The mean of sum_c (p_c - 1{c = label})^2, in [0, 2]; proper: least in expectation at the true probabilities. O(n classes).

    Raises as `expected_calibration_error`. Brier 1950.
    """
    probs, labels = _checked(probs, labels)
    truth = torch.nn.functional.one_hot(labels, probs.shape[1]).to(probs.dtype)
    return float((probs - truth).square().sum(-1).mean())


def negative_log_likelihood(probs: Any, labels: Any) -> float:
    """The mean of -log p_label in nats, inf where a label had probability zero; proper. O(n).

    Raises as `expected_calibration_error`.
    """
    probs, labels = _checked(probs, labels)
    return float(-probs.gather(1, labels[:, None]).log().mean())


__all__ = ["adaptive_calibration_error", "brier_score", "expected_calibration_error", "negative_log_likelihood"]
