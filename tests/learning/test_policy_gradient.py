"""Score-function gradients against enumeration, baselines, group advantages and the clipped surrogate by hand."""

from __future__ import annotations

import pytest
import torch

from discrepancy.learning import MovingBaseline, clipped_surrogate, group_advantages, leave_one_out, score_function_loss

_REWARDS = torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=torch.float64)


def _exact_gradient(logits: torch.Tensor) -> torch.Tensor:
    logits = logits.clone().requires_grad_()
    (torch.softmax(logits, -1) @ _REWARDS).backward()
    return logits.grad


def _logits() -> torch.Tensor:
    return torch.tensor([0.1, 0.7, -0.4, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("baseline", [0.0, 0.8])
def test_the_surrogate_has_minus_the_gradient_of_the_expected_reward(baseline):
    logits = _logits().requires_grad_()
    log_p = torch.log_softmax(logits, -1)
    # Every outcome once, weighted by its probability: the expectation of the estimator, exactly.
    weights = 4 * log_p.exp().detach()
    score_function_loss(log_p, _REWARDS, baseline=baseline, weights=weights).backward()
    torch.testing.assert_close(-logits.grad, _exact_gradient(_logits()))


def test_samples_give_the_gradient_in_the_mean():
    logits = _logits().requires_grad_()
    draws = torch.multinomial(torch.softmax(_logits(), -1), 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    log_p = torch.log_softmax(logits, -1)[draws]
    rewards = _REWARDS[draws]
    score_function_loss(log_p, rewards, baseline=leave_one_out(rewards)).backward()
    torch.testing.assert_close(-logits.grad, _exact_gradient(_logits()), atol=0.006, rtol=0)


def test_leave_one_out_and_groups_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]])
    torch.testing.assert_close(leave_one_out(rewards)[0], torch.tensor([4.0, 3.5, 1.5]))
    found = group_advantages(rewards)
    torch.testing.assert_close(found[0], (rewards[0] - 3) / (rewards[0].std() + 1e-6))
    assert torch.equal(found[1], torch.zeros(3))
    torch.testing.assert_close(group_advantages(rewards, scale=False)[0], torch.tensor([-2.0, -1.0, 3.0]))
    with pytest.raises(ValueError, match="at least two"):
        leave_one_out(torch.ones(3, 1))
    with pytest.raises(ValueError, match="at least two"):
        group_advantages(torch.ones(1))


def test_the_surrogate_is_flat_beyond_its_clips():
    log_p = torch.log(torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    value = clipped_surrogate(log_p, torch.zeros(5), advantages, clip=(0.2, 0.3))
    torch.testing.assert_close(value, torch.tensor([1.3, -1.5, 0.5, -0.8, 1.1]))
    value.sum().backward()
    torch.testing.assert_close(log_p.grad, torch.tensor([0.0, -1.5, 0.5, 0.0, 1.1]))
    with pytest.raises(ValueError, match="clip"):
        clipped_surrogate(log_p, torch.zeros(5), advantages, clip=(0.0, 0.3))


def test_the_moving_baseline_forgets():
    baseline = MovingBaseline(window=3)
    assert baseline.value == 0.0
    baseline.update(torch.tensor([10.0, 1.0, 2.0, 3.0]))
    assert baseline.value == 2.0
    with pytest.raises(ValueError, match="not finite"):
        baseline.update(torch.tensor([torch.nan]))


def test_bad_rewards_are_located():
    with pytest.raises(ValueError, match=r"first at index \(1,\)"):
        score_function_loss(torch.zeros(2), torch.tensor([1.0, torch.inf]))
    with pytest.raises(ValueError, match="must be equal"):
        score_function_loss(torch.zeros(2), torch.zeros(3))
