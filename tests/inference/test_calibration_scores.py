"""Calibration scores against hand counts and torchmetrics."""

import math

import numpy as np
import pytest
import torch

from discrepancy.inference import (
    adaptive_calibration_error,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
)

PROBS = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1, 1])


def test_two_bins_by_hand():
    # All confidences, .9 .8 .7 .6, lie in the upper bin: mean .75, accuracy 3/4.
    assert expected_calibration_error(PROBS, LABELS, bins=2) == pytest.approx(0.0, abs=1e-15)
    # Bins of width 1/10: each prediction is alone; gaps .1, .8, .3, .4.
    assert expected_calibration_error(PROBS, LABELS, bins=10) == pytest.approx((0.1 + 0.8 + 0.3 + 0.4) / 4)
    # Two bins of two: {.6, .7} with accuracy 1 and {.8, .9} with accuracy 1/2.
    assert adaptive_calibration_error(PROBS, LABELS, bins=2) == pytest.approx((0.35 + 0.35) / 2)


def test_proper_scores_by_hand():
    assert brier_score(PROBS, LABELS) == pytest.approx(2 * (0.01 + 0.64 + 0.09 + 0.16) / 4)
    assert negative_log_likelihood(PROBS, LABELS) == pytest.approx(-math.log(0.9 * 0.2 * 0.7 * 0.6) / 4)
    assert negative_log_likelihood(torch.tensor([[1.0, 0.0]]), torch.tensor([1])) == math.inf


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_agrees_with_torchmetrics(bins):
    from torchmetrics.functional.classification import multiclass_calibration_error

    generator = torch.Generator().manual_seed(0)
    probs = torch.softmax(2 * torch.randn(500, 6, generator=generator), -1)
    labels = torch.randint(6, (500,), generator=generator)
    truth = multiclass_calibration_error(probs, labels, num_classes=6, n_bins=bins, norm="l1")
    assert expected_calibration_error(probs, labels, bins=bins) == pytest.approx(float(truth), abs=1e-6)


def test_brier_agrees_with_scikit_learn():
    from sklearn.metrics import brier_score_loss, log_loss

    p = np.random.default_rng(0).uniform(0.05, 0.95, 200)
    labels = (np.random.default_rng(1).uniform(size=200) < p).astype(int)
    probs = np.stack([1 - p, p], -1)
    assert brier_score(probs, labels) == pytest.approx(2 * brier_score_loss(labels, p))
    assert negative_log_likelihood(probs, labels) == pytest.approx(log_loss(labels, probs))


@pytest.mark.parametrize("score", [expected_calibration_error, adaptive_calibration_error])
def test_a_calibrated_classifier_scores_near_zero_and_a_certain_wrong_one_one(score):
    generator = torch.Generator().manual_seed(0)
    probs = torch.softmax(torch.randn(20_000, 5, generator=generator, dtype=torch.float64), -1)
    labels = torch.multinomial(probs, 1, generator=generator)[:, 0]
    assert score(probs, labels) < 0.02  # sqrt(bins / n) = 0.027 bounds the bias
    certain = torch.eye(3).repeat(10, 1)
    assert score(certain, (certain.argmax(-1) + 1) % 3) == pytest.approx(1.0)


@pytest.mark.parametrize("score", [expected_calibration_error, adaptive_calibration_error, brier_score, negative_log_likelihood])
def test_bad_input_is_refused(score):
    with pytest.raises(ValueError, match="must sum to 1"):
        score(2 * PROBS, LABELS)
    with pytest.raises(TypeError, match="integer type"):
        score(PROBS, LABELS.double())
    with pytest.raises(ValueError, match="lie in"):
        score(PROBS, LABELS + 1)
    with pytest.raises(ValueError, match="one class for each row"):
        score(PROBS, LABELS[:2])
    with pytest.raises(ValueError, match="n >= 1"):
        score(PROBS[:0], LABELS[:0])


def test_numbers_of_bins_are_checked():
    with pytest.raises(ValueError, match="fewer than the 15 bins"):
        adaptive_calibration_error(PROBS, LABELS)
    with pytest.raises(ValueError, match="bins must be"):
        expected_calibration_error(PROBS, LABELS, bins=0)
