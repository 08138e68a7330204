"""Properties of the contrast of two laws, for any pair of them."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from discrepancy.methods.decoding.candidates import PlausibleSet
from discrepancy.methods.decoding.contrast import Contrast, Subtract
from discrepancy.methods.decoding.gates import Margin, NormalisedEntropy, StandardDeviation

_logits = st.lists(st.floats(-30, 30), min_size=5, max_size=5)


def _law(values: list[float]) -> Tensor:
    return torch.log_softmax(torch.tensor(values, dtype=torch.float64), -1)


@settings(max_examples=60, deadline=None)
@given(_logits, _logits, st.floats(0, 5), st.floats(0.01, 1))
def test_contrast_is_a_law_on_the_plausible_set(u: list[float], v: list[float], weight: float, share: float) -> None:
    p, q, plausible = _law(u), _law(v), PlausibleSet(share)
    found = Contrast(weight).log_probs(p, q, plausible)
    torch.testing.assert_close(found.exp().sum(), torch.ones((), dtype=torch.float64))
    assert torch.equal(found > -torch.inf, plausible.mask(p))
    # Ratios between plausible tokens are those of the power law.
    i, j = int(p.argmax()), int(found.argmax())
    expected = (1 + weight) * (p[i] - p[j]) - weight * (q[i] - q[j])
    torch.testing.assert_close(found[i] - found[j], expected, atol=1e-9, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(_logits, _logits, st.floats(0, 0.99))
def test_subtraction_inverts_mixing_and_raises_no_noise(u: list[float], v: list[float], rate: float) -> None:
    clean, q = _law(u), _law(v)
    mixed = torch.logaddexp(clean + torch.tensor(1 - rate).log(), q + torch.tensor(max(rate, 1e-300)).double().log())
    found = Subtract(rate).log_probs(mixed, q, PlausibleSet(1e-12)).exp()
    torch.testing.assert_close(found, clean.exp(), atol=1e-5 / (1 - rate), rtol=0)
    other = Subtract(rate).log_probs(clean, q, PlausibleSet(0.1)).exp()
    torch.testing.assert_close(other.sum(), torch.ones((), dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(_logits, st.floats(0, 1), st.floats(0, 1))
def test_gates_open_further_with_their_threshold(u: list[float], a: float, b: float) -> None:
    p, low, high = _law(u)[None], min(a, b), max(a, b)
    for gate in (StandardDeviation, Margin):
        assert bool(gate(low).opens(p, None)) <= bool(gate(high).opens(p, None))
    assert bool(NormalisedEntropy(low).opens(p, None)) >= bool(NormalisedEntropy(high).opens(p, None))
