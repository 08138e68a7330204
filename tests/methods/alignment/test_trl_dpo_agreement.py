"""The same log-probabilities through TRL's DPO trainer and through f_dpo_loss: value and gradient.

TRL's scores are f'(pi / ref) for generators with f'(1) = 0, as ours, so that scores agree and not only losses; the paper's table
leaves the constants out (its forward KL is -e^-z, TRL's and ours 1 - e^-z). TRL's alpha is our 1 - alpha: its
f'(t) = (t^(a - 1) - 1) / (a - 1) in t = pi / ref belongs to Alpha(1 - a) in our orientation.
"""

import collections
from types import SimpleNamespace

import pytest
import torch

from discrepancy.divergences import KL, Alpha, JensenShannon, ReverseKL
from discrepancy.methods.alignment import dpo_loss, f_dpo_loss

dpo_trainer = pytest.importorskip("trl.trainer.dpo_trainer")

CASES = {
    "reverse_kl": ReverseKL(),
    "forward_kl": KL(),
    "js_divergence": 2 * JensenShannon(),
}


class _Accelerator:
    device = torch.device("cpu")

    @staticmethod
    def gather(x):
        return x

    gather_for_metrics = gather


def _trl(name, coefficient, log_probs, reference, beta):
    """DPOTrainer._compute_loss on responses of given token log-probabilities (2 n, L), chosen first."""
    n, length = log_probs.shape
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False), accelerator=_Accelerator(), aux_loss_enabled=False, ld_alpha=None,
        precompute_ref_logps=True, f_divergence_type=name, f_alpha_divergence_coef=coefficient, loss_types=["sigmoid"],
        loss_weights=[1.0], beta=beta, label_smoothing=0.0, use_weighting=False, _total_train_tokens=0, _tp_size=1,
        _metrics={"eval": collections.defaultdict(list)}, ref_model=None,
    )  # fmt: skip
    mask = torch.ones(n, length + 1, dtype=torch.long)
    mask[:, 0] = 0
    ids = torch.zeros(n, length + 1, dtype=torch.long)
    still = torch.zeros(n, length, dtype=log_probs.dtype)

    def model(**_):
        return SimpleNamespace(log_probs=log_probs, entropy=still, mean_logits=still, is_top1=still.bool())

    inputs = {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": mask,
        "ref_chosen_logps": reference[: n // 2], "ref_rejected_logps": reference[n // 2 :],
    }  # fmt: skip
    return dpo_trainer.DPOTrainer._compute_loss(trainer, model, inputs, False), trainer._metrics["eval"]


def _case(dtype):
    generator = torch.Generator().manual_seed(0)
    log_probs = -torch.rand(16, 5, generator=generator, dtype=torch.float64).mul(3).to(dtype)
    reference = -torch.rand(16, generator=generator, dtype=torch.float64).mul(15).to(dtype)
    return log_probs.requires_grad_(), reference


def _ours(divergence, log_probs, reference, beta):
    z = log_probs.sum(-1)
    return f_dpo_loss(z[:8], z[8:], reference[:8], reference[8:], divergence, beta=beta, cap=20.0)


@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_in_double_precision(name, beta):
    log_probs, reference = _case(torch.float64)
    theirs, metrics = _trl(name, 0.5, log_probs, reference, beta)
    (wanted,) = torch.autograd.grad(theirs, log_probs)
    ours = _ours(CASES[name], log_probs, reference, beta)
    (found,) = torch.autograd.grad(ours.mean, log_probs)
    assert ours.mean.item() == pytest.approx(theirs.item(), abs=1e-6, rel=1e-9)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-9)
    # TRL logs beta log pi / ref whatever the divergence, so implicit rewards agree for reverse KL only.
    if name == "reverse_kl":
        assert float(ours.chosen_rewards.mean()) == pytest.approx(metrics["rewards/chosen"][0])
        assert ours.accuracy == pytest.approx(metrics["rewards/accuracies"][0])


@pytest.mark.parametrize("coefficient", [0.3, 0.5, 0.9])
def test_alpha_in_single_precision(coefficient):
    """TRL computes its alpha divergence in single or half precision only."""
    log_probs, reference = _case(torch.float32)
    theirs, _ = _trl("alpha_divergence", coefficient, log_probs, reference, 0.1)
    (wanted,) = torch.autograd.grad(theirs, log_probs)
    ours = _ours(Alpha(1 - coefficient), log_probs, reference, 0.1)
    (found,) = torch.autograd.grad(ours.mean, log_probs)
    assert ours.mean.item() == pytest.approx(theirs.item(), rel=2e-6)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_plain_dpo_is_trls_sigmoid_loss():
    log_probs, reference = _case(torch.float64)
    theirs, _ = _trl("reverse_kl", 0.5, log_probs, reference, 0.1)
    z = log_probs.sum(-1)
    assert float(dpo_loss(z[:8], z[8:], reference[:8], reference[8:]).mean.detach()) == pytest.approx(theirs.item(), abs=1e-12)
