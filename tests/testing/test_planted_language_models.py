"""Tables that stand in for language models: their laws by hand."""

from __future__ import annotations

import pytest
import torch

from discrepancy.testing.ngram import CharacterNGram
from discrepancy.testing.planted_language_models import NoisyChannel, PlantedNoise


def test_planted_noise_mixes_the_program_with_the_bias() -> None:
    problem = PlantedNoise(3, tasks=20)
    tasks = torch.arange(20)
    ids = torch.cat([problem.standard_prompt(tasks), problem.programs], 1)
    laws = problem(ids)[:, 1:-1].exp()
    torch.testing.assert_close(laws.sum(-1), torch.ones(20, 6, dtype=torch.float64))
    noise = problem(torch.cat([problem.lame_prompt(20), problem.programs], 1))[:, :-1].exp()
    right = problem.programs.unsqueeze(-1)
    rate = torch.where(problem.hard, 0.65, 0.05)
    expected = (1 - rate) * 0.8 + rate * noise.gather(-1, right).squeeze(-1)
    torch.testing.assert_close(laws.gather(-1, right).squeeze(-1), expected.double(), atol=1e-7, rtol=0)
    assert torch.equal(PlantedNoise(3, tasks=20).bias, problem.bias)
    assert not torch.equal(problem(problem.wrong_prompt(1)), problem(problem.lame_prompt(1)))


def test_noisy_channel_reads_both_ways() -> None:
    channel = NoisyChannel(2, sharpness=0.5)
    x, y = channel.sentences(4)
    assert torch.equal(channel.inverse[y], x)
    forward = channel(torch.cat([channel.prompt(x), y], 1))[:, 6:-1].exp()
    torch.testing.assert_close(forward.sum(-1), torch.ones(4, 6, dtype=torch.float64))
    easy = int((channel.rates == 0.1).nonzero()[0])
    assert (forward[:, easy].argmax(-1) == y[:, easy]).all()
    ends = [torch.full((4, 1), t) for t in (channel.backward_token, channel.then_token)]
    backward = channel(torch.cat([ends[0], y[:, :2], ends[1], x], 1))[:, 3:-1].exp()
    found = backward.gather(-1, x.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found[:, :2], torch.full((4, 2), 0.5, dtype=torch.float64))
    torch.testing.assert_close(found[:, 2:], torch.full((4, 4), 1 / 30, dtype=torch.float64))  # nothing written there yet


def test_ngram_counts_with_absolute_discounting() -> None:
    # the text a b a c, twice: behind b always a; behind a, b and c once a text
    text = torch.tensor([0, 1, 0, 2])
    model = CharacterNGram([text, text], 4, order=2, discount=0.1)
    # without context: b twice, a twice, c twice (the first a is predicted by nothing)
    base = torch.tensor([1.9, 1.9, 1.9, 0.0], dtype=torch.float64) / 6 + 0.1 * 3 / 6 / 4
    torch.testing.assert_close(model.law(()), base)
    torch.testing.assert_close(model.law((1,)), torch.tensor([1.9, 0, 0, 0], dtype=torch.float64) / 2 + 0.1 * 1 / 2 * base)
    torch.testing.assert_close(model.law((0,)), torch.tensor([0, 1.9, 1.9, 0], dtype=torch.float64) / 4 + 0.1 * 2 / 4 * base)
    torch.testing.assert_close(model(text[None])[0, 1], model.law((1,)).log())
    torch.testing.assert_close(model.law((3,)), base)  # never seen: the shorter context
    drawn = [model.sample(text[:1], longest=5, end=2, generator=torch.Generator().manual_seed(s)).tolist() for s in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert all(2 not in d[:-1] for d in drawn)
    assert float(model.law((0,)).sum()) == pytest.approx(1.0)
