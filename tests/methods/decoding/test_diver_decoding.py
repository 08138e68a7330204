"""Span-level verification: PMI against whole sequences, spans against a plain implementation, planted channels, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from discrepancy import EnergyDistance
from discrepancy.language_models import CharacterTokenizer, sequence_log_probs, tiny_gpt2
from discrepancy.methods.decoding.baselines import greedy
from discrepancy.methods.decoding.candidates import PlausibleSet
from discrepancy.methods.decoding.diver_decoding import Diver, diver_decoding, diver_generate, span_mean
from discrepancy.methods.decoding.embedding_score import DiscrepancyScore
from discrepancy.methods.decoding.pmi_sanity import pmi_sanity
from discrepancy.methods.decoding.spans import FixedSpan, LeftRisk, RightRisk
from discrepancy.methods.decoding.verification import (
    BackwardTemplate,
    PointwiseMutualInformation,
    TextMutualInformation,
    in_nats,
    per_token,
    share_of_surprise,
)
from discrepancy.testing.planted_language_models import NoisyChannel

pytest.importorskip("transformers")

TEMPLATE = BackwardTemplate(torch.tensor([1]), torch.tensor([2, 3]))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model():
    return tiny_gpt2(20, width=32, seed=3, positions=128)


def _ids(n: int, seed: int = 0) -> Tensor:
    return torch.randint(4, 20, (n,), generator=_generator(seed))


def _log_p_of_input(model: nn.Module, x: Tensor, y: Tensor, template: BackwardTemplate = TEMPLATE) -> float:
    head = torch.cat([template.before, y, template.between])
    ids = torch.cat([head, x])[None]
    labels = ids.clone()
    labels[:, : len(head)] = -100
    with torch.no_grad():
        return float(sequence_log_probs(model(ids).logits, labels))


@pytest.mark.parametrize("between", [torch.tensor([2, 3]), torch.tensor([], dtype=torch.long)], ids=["template", "bare"])
def test_pmi_is_that_of_whole_sequences_whatever_the_lengths(model, between) -> None:
    template = BackwardTemplate(torch.tensor([1]), between)
    x, prefix, spans = _ids(5), _ids(4, 1), [_ids(3, 2), _ids(1, 3), _ids(3, 4)[:0]]
    verifier = PointwiseMutualInformation(model, template)
    prior = _log_p_of_input(model, x, prefix, template)
    expected = [_log_p_of_input(model, x, torch.cat([prefix, s]), template) - prior for s in spans]
    torch.testing.assert_close(verifier(x, prefix, spans), torch.tensor(expected).double(), atol=2e-5, rtol=1e-5)
    assert float(verifier(x, prefix, spans)[2]) == pytest.approx(0.0, abs=1e-6)


def test_pmi_reads_a_growing_output_once(model) -> None:
    x, output = _ids(5), _ids(9, 1)
    scores, cost = PointwiseMutualInformation(model, TEMPLATE).begin(x)
    for known in (0, 2, 6, 1):  # the last is another output: begun afresh
        found = scores(output[:known], [output[known : known + 2], output[known : known + 3]])
        prior = _log_p_of_input(model, x, output[:known])
        expected = [_log_p_of_input(model, x, output[: known + n]) - prior for n in (2, 3)]
        torch.testing.assert_close(found, torch.tensor(expected).double(), atol=2e-5, rtol=1e-5)
    # before + prefix: 1, then 2 and 4 more, then 1 + 1 afresh; each time 3 rows of 3 + 2 + 5 tokens
    assert cost.tokens == (1 + 2 + 4 + 2) + 4 * 3 * 10


def test_scales_of_the_information(model) -> None:
    x, prefix, spans = _ids(5), _ids(4, 1), [_ids(2, 2)]
    nats, token, share = (
        float(PointwiseMutualInformation(model, TEMPLATE, s)(x, prefix, spans)) for s in (in_nats, per_token, share_of_surprise)
    )
    assert token == pytest.approx(nats / 5)
    assert share == pytest.approx(nats / -_log_p_of_input(model, x, prefix), rel=1e-5)


def _plain_diver(model, prompt: Tensor, x: Tensor, settings: Diver, limit: int, eos: int | None) -> list[int]:
    """Diver without caches, batches or lazy reading."""

    def law(ids: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.log_softmax(model(ids[None]).logits[0, -1], -1)

    written: list[int] = []
    while len(written) < limit and (eos is None or eos not in written):
        here = torch.cat([prompt, torch.tensor(written, dtype=torch.long)])
        log_p = law(here)
        first = settings.candidates.tokens(log_p).tolist()
        if len(first) == 1:
            written += first
            continue
        spans, risks = [[v] for v in first], [math.inf] * len(first)
        room = min(limit - len(written), settings.span.longest)
        for i, span in enumerate(spans):
            while len(span) < room and span[-1] != eos:
                following = law(torch.cat([here, torch.tensor(span)]))
                if len(settings.candidates.tokens(following)) > 1 and risks[i] == math.inf:
                    risks[i] = len(span)
                span.append(int(following.argmax()))
            if span[-1] == eos and risks[i] == math.inf:
                risks[i] = len(span) if isinstance(settings.span, RightRisk) else math.inf
        if isinstance(settings.span, LeftRisk):
            cut = min(risks)
        elif isinstance(settings.span, RightRisk):
            cut = max(risks)
        else:
            cut = settings.span.longest
        spans = [s[: int(min(cut, room))] for s in spans]
        bare = [torch.tensor([t for t in s if t != eos], dtype=torch.long) for s in spans]
        y = torch.tensor(written, dtype=torch.long)
        prior = _log_p_of_input(model, x, y)
        score = [
            float(log_p[v]) + settings.pmi_weight * (_log_p_of_input(model, x, torch.cat([y, s])) - prior)
            for v, s in zip(first, bare)
        ]
        written += spans[max(range(len(score)), key=score.__getitem__)]
    return written


@pytest.mark.parametrize("rule", [LeftRisk(6), RightRisk(6), FixedSpan(3)], ids=["left", "right", "fixed"])
@pytest.mark.parametrize("seed", range(3))
def test_decoding_equals_a_plain_implementation(rule, seed: int) -> None:
    # wide initial weights make laws that waver at some steps and not at others
    model = tiny_gpt2(20, width=32, seed=seed, positions=128, initializer_range=0.3)
    settings = Diver(PlausibleSet(0.3, most=3), rule, pmi_weight=2.0)
    prompt = _ids(5, seed)
    eos = 7
    verifier = PointwiseMutualInformation(model, TEMPLATE)
    found = diver_decoding(model, prompt, verifier=verifier, settings=settings, max_new_tokens=12, eos_token_id=eos)
    assert found.tokens.tolist() == _plain_diver(model, prompt, prompt, settings, 12, eos)
    assert 0 < len(found.steps) < 13
    for step in found.steps:
        assert len(step.tokens) == len(step.spans) == len(step.scores) > 1
        assert all(eos not in span[:-1] for span in step.spans)


def test_weight_zero_is_greedy_token_by_token() -> None:
    for seed in range(3):
        model = tiny_gpt2(20, width=32, seed=seed, positions=128, initializer_range=0.3)
        plain = greedy(model, _ids(5, seed)[None], max_new_tokens=15).responses[0]
        for rule in (LeftRisk(), RightRisk(), FixedSpan(4)):
            found = diver_decoding(
                model, _ids(5, seed), verifier=lambda *_: 1 / 0, settings=Diver(span=rule, pmi_weight=0.0), max_new_tokens=15
            )  # fmt: skip
            assert torch.equal(found.tokens, plain)
            assert found.verifier_tokens == 0


def test_a_uniform_model_takes_what_the_verifier_wants(model) -> None:
    wanted = [9, 4, 9, 4]

    class Uniform(nn.Module):
        def forward(self, input_ids: Tensor) -> Tensor:
            return torch.zeros(*input_ids.shape, 12)

    def verifier(x: Tensor, prefix: Tensor, spans) -> Tensor:
        return torch.stack([(torch.cat([prefix, s]) == torch.tensor(wanted[: len(prefix) + len(s)])).sum() for s in spans])

    settings = Diver(PlausibleSet(1.0), FixedSpan(1))
    assert diver_decoding(Uniform(), _ids(2), verifier=verifier, settings=settings, max_new_tokens=4).tokens.tolist() == wanted


def test_planted_channel_is_decoded_as_far_as_the_verifier_knows() -> None:
    accuracy = {}
    for sharpness in (0.6, 1 / 30):
        channel = NoisyChannel(1, sharpness=sharpness)
        x, y = channel.sentences(20)
        verifier = PointwiseMutualInformation(
            channel, BackwardTemplate(torch.tensor([channel.backward_token]), torch.tensor([channel.then_token]))
        )
        plain = greedy(channel, channel.prompt(x), max_new_tokens=6).responses
        made = [diver_decoding(channel, channel.prompt(a), verifier=verifier, x_ids=a, max_new_tokens=6) for a in x]
        tokens = torch.stack([m.tokens for m in made])
        accuracy[sharpness] = float((tokens == y).double().mean()) - float((plain == y).double().mean())
        if sharpness < 0.1:
            assert torch.equal(tokens, plain)
        sanity = pmi_sanity(verifier, list(zip(x, y)))
        gap = 6 * (math.log(sharpness) - math.log((1 - sharpness) / 29))  # less where two outputs share a token
        assert 0.7 * gap - 1e-9 <= float(sanity.gap.value) <= gap + 1e-9
        assert (sanity.test.p_value < 0.01) == (sharpness > 0.1)
    assert accuracy[0.6] >= 0.3


def test_sampling_follows_the_generator(model) -> None:
    def draw(seed: int) -> list[int]:
        verifier = PointwiseMutualInformation(model, TEMPLATE)
        settings = Diver(PlausibleSet(0.8), FixedSpan(1), temperature=1.0)
        return diver_decoding(
            model, _ids(5), verifier=verifier, settings=settings, max_new_tokens=10, generator=_generator(seed)
        ).tokens.tolist()  # fmt: skip

    assert draw(0) == draw(0)
    assert len({tuple(draw(s)) for s in range(4)}) > 1


def test_likelihood_of_the_whole_span_is_its_mean() -> None:
    rows = [torch.tensor([-1.0, -3.0]), torch.tensor([-1.5])]
    assert span_mean(rows).tolist() == [-2.0, -1.5]


def test_text_in_and_out_and_another_tokenizer(model) -> None:
    source, other = CharacterTokenizer("abcdefgh {}:"), CharacterTokenizer("hgfedcba :xyz")
    forward = tiny_gpt2(source.size, width=16, layers=1, seed=1)
    reader = tiny_gpt2(other.size, width=16, layers=1, seed=2)
    template = "y: {y} x: {x}"
    verifier = TextMutualInformation(reader, other, source, template)
    made = diver_generate(forward, source, "abc", verifier=verifier, max_new_tokens=6, settings=Diver(PlausibleSet(0.9, most=3)))
    assert made.text is not None
    x, y, s = source.encode("abc"), source.encode("de"), source.encode("f")
    parts = BackwardTemplate(other.encode("y: "), other.encode(" x: "))
    own = PointwiseMutualInformation(reader, parts)(other.encode("abc"), other.encode("de"), [other.encode("f")])
    torch.testing.assert_close(verifier(x, y, [s]), own, atol=1e-5, rtol=1e-5)
    same = diver_generate(forward, source, "abc", backward_template=template, max_new_tokens=6)
    assert same.cost > 1
    with pytest.raises(ValueError, match="does not give back"):
        verifier(source.encode("{"), y, [s])


def test_any_distance_of_embeddings_verifies(model) -> None:
    table = torch.eye(20)
    score = DiscrepancyScore(EnergyDistance(), lambda ids: table[ids])
    x = torch.tensor([5, 6, 7])
    found = score(x, x[:2], [torch.tensor([7]), torch.tensor([9]), x[:0]])
    assert float(found[0]) == 0.0
    assert float(found[1]) < 0
    assert diver_decoding(model, x, verifier=score, max_new_tokens=4).tokens.shape == (4,)


class _Seq2Seq(nn.Module):
    class config:
        is_encoder_decoder = True


def _run(m: nn.Module, **options):
    return diver_decoding(m, _ids(3), **({"verifier": PointwiseMutualInformation(m, TEMPLATE), "max_new_tokens": 3} | options))


_ODD = Diver(PlausibleSet(0.01), FixedSpan(1))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda m: PointwiseMutualInformation(_Seq2Seq(), TEMPLATE), ValueError, "encoder-decoder"),
        (lambda m: PointwiseMutualInformation(m, None), ValueError, "BackwardTemplate"),
        (lambda m: _run(m, x_ids=_ids(0)), ValueError, "x_ids must be"),
        (lambda m: PointwiseMutualInformation(m, TEMPLATE).begin(_ids(0)), ValueError, "PMI is undefined"),
        (lambda m: diver_generate(m, CharacterTokenizer("abc"), "", max_new_tokens=2), ValueError, "input is empty"),
        (lambda m: diver_decoding(m, _ids(0), verifier=lambda *a: a, max_new_tokens=3), ValueError, "prompt_ids must be"),
        (
            lambda m: _run(m, verifier=PointwiseMutualInformation(tiny_gpt2(21, width=16), TEMPLATE)),
            ValueError,
            "20 tokens and the verifier 21",
        ),
        (lambda m: _run(m, verifier="pmi"), TypeError, "verifier must be"),
        (lambda m: _run(m, verifier=lambda x, y, s: torch.zeros(1), settings=_ODD), ValueError, "must return 20 scores"),
        (lambda m: _run(m, verifier=lambda x, y, s: torch.zeros(20) / 0, settings=_ODD), ArithmeticError, "is NaN"),
        (lambda m: Diver(PlausibleSet(0.3, most=1)), ValueError, "most must be"),
        (lambda m: Diver(span="right"), TypeError, "LeftRisk"),
        (lambda m: Diver(0.3), TypeError, "PlausibleSet"),
        (lambda m: Diver(pmi_weight=-1.0), ValueError, "pmi_weight"),
        (lambda m: FixedSpan(0), ValueError, "n must be"),
        (lambda m: BackwardTemplate(_ids(0), _ids(1)), ValueError, "beginning-of-sequence"),
        (lambda m: BackwardTemplate.from_text("Input: {x}", CharacterTokenizer("Input: ")), ValueError, "must have {y}"),
        (lambda m: BackwardTemplate.from_text("{x} then {y}", CharacterTokenizer("then ")), ValueError, "end with {x}"),
        (lambda m: pmi_sanity(PointwiseMutualInformation(m, TEMPLATE), [(_ids(2), _ids(2))]), ValueError, "at least two pairs"),
        (lambda m: DiscrepancyScore(abs, abs), TypeError, "EnergyDistance"),
    ],
    ids=range(20),
)
def test_bad_input_is_named(model, call, error, match) -> None:
    with pytest.raises(error, match=match):
        call(model)
