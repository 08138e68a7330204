"""Contrast of two laws: the rules in closed form, and the processor against a second prompt read from scratch."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from discrepancy import KL, JensenShannon, TotalVariation
from discrepancy.language_models import CharacterTokenizer, generate, logits_of, tiny_gpt2
from discrepancy.methods.decoding.baselines import contrastive_decoding, greedy
from discrepancy.methods.decoding.candidates import PlausibleSet
from discrepancy.methods.decoding.contrast import Contrast, Subtract
from discrepancy.methods.decoding.dual_prompt import ContrastiveProcessor
from discrepancy.methods.decoding.gates import (
    Always,
    CallableGate,
    DivergenceGate,
    Margin,
    NormalisedEntropy,
    StandardDeviation,
)
from discrepancy.methods.decoding.text import strip_examples
from discrepancy.methods.decoding.uscd import USCD, contrastive_generate, second_prompt_divergence, uscd
from discrepancy.testing.planted_language_models import PlantedNoise

transformers = pytest.importorskip("transformers")

P = torch.tensor([0.5, 0.3, 0.16, 0.04], dtype=torch.float64)
Q = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model():
    return tiny_gpt2(20, width=32, seed=3, positions=64)


def _ids(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randint(1, 20, (rows, columns), generator=_generator(seed))


# -- rules in closed form ------------------------------------------------------------------------------------------------


def test_contrast_is_the_power_law_on_the_plausible_set() -> None:
    found = Contrast(0.5).log_probs(P.log(), Q.log(), PlausibleSet(0.1)).exp()
    weights = [0.5**1.5 / 0.7**0.5, 0.3**1.5 / 0.1**0.5, 0.16**1.5 / 0.1**0.5]  # 0.04 < 0.1 * 0.5 is out
    expected = torch.tensor([*(w / sum(weights) for w in weights), 0.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    assert int(found.argmax()) == 1  # though p prefers token 0


def test_contrast_of_weight_zero_is_the_law_cut() -> None:
    found = Contrast(0.0).log_probs(P.log(), torch.tensor([-math.inf, 0.0, -math.inf, -math.inf]), PlausibleSet(0.1))
    torch.testing.assert_close(found.exp()[:3], P[:3] / P[:3].sum())


def test_contrast_where_the_second_law_is_zero_is_the_limit() -> None:
    zero = torch.tensor([0.9, 0.0, 0.0, 0.1], dtype=torch.float64)
    tiny = torch.tensor([0.9, 1e-300, 1e-300, 0.1], dtype=torch.float64)
    exact, near = (Contrast(0.5).log_probs(P.log(), q.log(), PlausibleSet(0.1)).exp() for q in (zero, tiny))
    torch.testing.assert_close(exact, near, atol=1e-12, rtol=0)
    assert not bool(torch.isnan(exact).any())


def test_subtract_inverts_a_mixture() -> None:
    clean, rate = torch.tensor([0.1, 0.6, 0.3, 0.0], dtype=torch.float64), 0.65
    mixed = (1 - rate) * clean + rate * Q
    found = Subtract(rate).log_probs(mixed.log(), Q.log(), PlausibleSet(0.01)).exp()
    torch.testing.assert_close(found, clean, atol=1e-12, rtol=0)
    over = Subtract(0.9).log_probs(P.log(), Q.log(), PlausibleSet(0.01)).exp()
    expected = (P - 0.9 * Q).clamp_min(0)
    torch.testing.assert_close(over, expected / expected.sum())
    torch.testing.assert_close(Subtract(0.0).log_probs(P.log(), Q.log(), PlausibleSet(0.01)).exp(), P)


@pytest.mark.parametrize("mode", [Contrast(0.5), Subtract(0.5)], ids=["contrast", "subtract"])
def test_extreme_logits_give_laws(mode) -> None:
    u = torch.tensor([[1e4, 0.0, -1e4, -math.inf], [-1e4, -1e4, -1e4, 0.0], [0.0, -math.inf, -math.inf, -math.inf]])
    for v in (u, u.flip(-1), u.flip(0)):
        found = mode.log_probs(torch.log_softmax(u, -1), torch.log_softmax(v, -1), PlausibleSet(0.1))
        torch.testing.assert_close(found.exp().sum(-1), torch.ones(3))


def test_plausible_set_takes_ties_and_orders() -> None:
    log_p = torch.tensor([0.2, 0.4, 0.0, 0.4]).log()
    assert PlausibleSet(0.5).tokens(log_p).tolist() == [1, 3, 0]
    assert PlausibleSet(0.5, most=2).tokens(log_p).tolist() == [1, 3]
    assert PlausibleSet(1.0).mask(log_p).tolist() == [False, True, False, True]


def test_gates_in_closed_form() -> None:
    uniform, certain = torch.full((4,), 0.25).log(), torch.tensor([1.0, 0.0, 0.0, 0.0]).log()
    laws = torch.stack([uniform.double(), certain.double(), P.log()])
    spread = (4 * float(P.var(correction=0))) ** 0.5
    entropy = -float((P * P.log()).sum()) / math.log(4)
    for gate, edge in ((StandardDeviation, spread), (Margin, 0.2)):
        assert gate(edge + 1e-9).opens(laws, None).tolist() == [True, False, True]
        assert gate(edge - 1e-9).opens(laws, None).tolist() == [True, False, False]
    assert NormalisedEntropy(entropy - 1e-9).opens(laws, None).tolist() == [True, False, True]
    assert NormalisedEntropy(entropy + 1e-9).opens(laws, None).tolist() == [True, False, False]
    assert not StandardDeviation(0.0).opens(laws, None).any()
    mixed = (P + Q) / 2
    js = float((P * (P / mixed).log()).sum() + (Q * (Q / mixed).log()).sum()) / 2
    for D, edge in ((JensenShannon(), js), (KL(), float((P * (P / Q).log()).sum()))):
        assert DivergenceGate(D, edge + 1e-9).opens(P.log()[None], Q.log()[None]).all()
        assert not DivergenceGate(D, edge - 1e-9).opens(P.log()[None], Q.log()[None]).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an infinite divergence is an answer: closed
        assert not DivergenceGate(KL(), 5.0).opens(P.log()[None], certain.double()[None]).any()


# -- the processor on a model with a cache --------------------------------------------------------------------------------


class _Checked(ContrastiveProcessor):
    """At every open step the law behind the second prompt equals the one read from scratch, row by row and without padding."""

    checked = 0

    def _second_law(self, log_p: Tensor) -> Tensor:
        found = super()._second_law(log_p)
        second = self.second
        assert second._seen is not None
        copies = len(second._seen) // len(second.prompt_ids)
        for row, tokens in enumerate(second._seen):
            prompt = second.prompt_ids[row // copies][second.mask[row // copies]]
            whole = torch.cat([prompt, tokens[second._start :]])
            with torch.no_grad():
                plain = torch.log_softmax(logits_of(second.model, whole[None])[0, -1], -1)
            torch.testing.assert_close(found[row], plain, atol=2e-5, rtol=1e-4)
            self.checked += 1
        return found


class _Sometimes(CallableGate):
    """Opens at the third, fourth and seventh step, so that several tokens wait to be read."""

    needs_second = False

    def __init__(self) -> None:
        object.__setattr__(self, "step", 0)

    def opens(self, log_p: Tensor, log_q: Tensor | None) -> Tensor:
        object.__setattr__(self, "step", self.step + 1)
        return torch.full((len(log_p),), self.step in (3, 4, 7))


_LAME = torch.tensor([[0, 0, 5, 7], [1, 2, 3, 4]])
_LAME_MASK = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])


@pytest.mark.parametrize("gate", [Always(), _Sometimes()], ids=["always", "sometimes"])
def test_lazy_padded_cache_equals_reading_from_scratch(model, gate) -> None:
    processor = _Checked(model, _LAME, _LAME_MASK, gate=gate)
    made = generate(model, _ids(2, 5), max_new_tokens=8, temperature=0.0, processors=(processor,))
    assert made.responses.shape == (2, 8)
    assert processor.checked == (16 if isinstance(gate, Always) else 6)
    assert processor.record.calls == (8 if isinstance(gate, Always) else 3)


@pytest.mark.parametrize("options", [{"num_beams": 4}, {"num_beams": 3, "num_return_sequences": 3}], ids=["beams", "three-back"])
def test_beam_search_takes_the_cache_along(model, options) -> None:
    processor = _Checked(model, _LAME, _LAME_MASK, gate=Always())
    ids = _ids(2, 5)
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, pad_token_id=0,
        logits_processor=[processor], **options,
    )  # fmt: skip
    assert made.shape[1] == 11
    assert processor.checked > 0


def test_huggingface_generation_equals_ours(model) -> None:
    ids = _ids(2, 5)
    theirs = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=0,
        logits_processor=[ContrastiveProcessor(model, _LAME, _LAME_MASK, gate=Always())],
    )  # fmt: skip
    ours = uscd(model, ids, _LAME, lame_mask=_LAME_MASK, settings=USCD(gate=Always()), max_new_tokens=8)
    torch.testing.assert_close(theirs, ours.generation.sequences)
    plain = greedy(model, ids, max_new_tokens=8)
    assert not torch.equal(plain.sequences, ours.generation.sequences)
    mass = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=True, num_return_sequences=5, pad_token_id=0,
        logits_processor=[_Checked(model, _LAME, _LAME_MASK, gate=Always())],
    )  # fmt: skip
    assert mass.shape == (10, 8)


def test_threshold_zero_is_the_models_own_decoding_bit_for_bit(model) -> None:
    ids = _ids(3, 6)
    closed = USCD(gate=StandardDeviation(0.0))
    for temperature in (0.0, 1.0):
        plain = generate(model, ids, max_new_tokens=10, temperature=temperature, generator=_generator())
        found = uscd(
            model, ids, _ids(3, 2, 9), settings=closed, max_new_tokens=10, temperature=temperature, generator=_generator()
        )
        assert torch.equal(plain.sequences, found.generation.sequences)
        assert found.record.calls == 0
    scores = torch.randn(3, 20)
    processor = closed.processor(model, _ids(3, 2, 9))
    assert processor(ids, scores) is scores


def test_weight_zero_and_an_identical_prompt_are_greedy(model) -> None:
    ids = _ids(2, 6)
    plain = greedy(model, ids, max_new_tokens=8).sequences
    none = USCD(gate=Always(), mode=Contrast(0.0))
    assert torch.equal(plain, uscd(model, ids, _LAME, lame_mask=_LAME_MASK, settings=none, max_new_tokens=8).generation.sequences)
    with pytest.warns(UserWarning, match="the prompt itself"):
        same = uscd(model, ids, ids, settings=USCD(gate=Always()), max_new_tokens=8)
    assert torch.equal(plain, same.generation.sequences)


def test_a_batch_is_its_rows_and_padding_does_not_matter(model) -> None:
    prompts, settings = _ids(2, 6), USCD(gate=Always())
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    both = uscd(
        model, prompts, _LAME, attention_mask=mask, lame_mask=_LAME_MASK, settings=settings, max_new_tokens=7
    ).generation.responses  # fmt: skip
    for row in range(2):
        alone = uscd(
            model,
            prompts[row][mask[row].bool()][None],
            _LAME[row][_LAME_MASK[row].bool()][None],
            settings=settings,
            max_new_tokens=7,
        )
        assert torch.equal(alone.generation.responses[0], both[row])


def test_one_processor_serves_generation_after_generation(model) -> None:
    processor = _Checked(model, _ids(1, 3, 5), gate=Always())
    first = generate(model, _ids(1, 6), max_new_tokens=5, temperature=0.0, processors=(processor,)).sequences
    again = generate(model, _ids(1, 6), max_new_tokens=5, temperature=0.0, processors=(processor,)).sequences
    assert torch.equal(first, again)
    longer = generate(model, _ids(1, 12, 4), max_new_tokens=3, temperature=0.0, processors=(processor,))
    assert longer.responses.shape == (1, 3)
    processor.reset()
    assert processor.record.steps == 0


def test_half_precision_and_training_mode(model) -> None:
    half = tiny_gpt2(20, width=32, seed=3, positions=64).bfloat16()
    half.train()
    made = uscd(half, _ids(1, 5), _ids(1, 2, 7), settings=USCD(gate=Always()), max_new_tokens=4)
    assert made.generation.responses.shape == (1, 4)
    assert half.training


def test_an_adapter_is_read_through_its_cache(model) -> None:
    peft = pytest.importorskip("peft")
    base = tiny_gpt2(20, width=32, seed=3, positions=64)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    adapted = peft.get_peft_model(base, config).eval()
    made = uscd(adapted, _ids(1, 5), _ids(1, 2, 7), settings=USCD(gate=Always()), max_new_tokens=4)
    plain = uscd(model, _ids(1, 5), _ids(1, 2, 7), settings=USCD(gate=Always()), max_new_tokens=4)
    assert torch.equal(made.generation.sequences, plain.generation.sequences)  # a fresh adapter changes nothing
    assert made.record.tokens == plain.record.tokens == 2 + 3


def test_contrast_with_a_smaller_model(model) -> None:
    amateur = tiny_gpt2(20, width=16, layers=1, seed=5, positions=64)
    ids = _ids(1, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = contrastive_decoding(model, ids, amateur=amateur, weight=1.0, max_new_tokens=1)
    p, q = (torch.log_softmax(logits_of(m, ids)[0, -1], -1) for m in (model, amateur))
    score = (2 * p - q).masked_fill(p < p.max() + math.log(0.1), -math.inf)
    assert int(found.generation.responses[0, 0]) == int(score.argmax())
    assert found.record.share_open == 1.0


# -- planted noise --------------------------------------------------------------------------------------------------------


def test_planted_noise_is_taken_out() -> None:
    problem = PlantedNoise(0, tasks=60)
    prompts, lame = problem.standard_prompt(torch.arange(60)), problem.lame_prompt(60)

    def exact(made) -> float:
        return float((made.responses == problem.programs).all(-1).double().mean())

    plain = exact(greedy(problem, prompts, max_new_tokens=6))
    found = uscd(problem, prompts, lame, max_new_tokens=6)
    assert plain < 0.95
    assert exact(found.generation) >= plain + 0.1
    assert found.record.share_open == pytest.approx(float(problem.hard.double().mean()), abs=0.02)
    wrong = uscd(problem, prompts, problem.wrong_prompt(60), max_new_tokens=6)
    assert exact(wrong.generation) < plain
    near = USCD(gate=DivergenceGate(TotalVariation(), 0.5))
    assert exact(uscd(problem, prompts, lame, settings=near, max_new_tokens=6).generation) > plain


def test_divergence_between_the_prompts_in_bits() -> None:
    problem = PlantedNoise(1, tasks=5)
    prompt, program = problem.standard_prompt(torch.tensor([2]))[0], problem.programs[2]
    found = second_prompt_divergence(problem, prompt, problem.lame_prompt(1)[0], program)
    values = []
    for t in range(6):
        p = problem._laws(torch.cat([prompt, program[:t]])[None])[0]
        q = problem._laws(torch.cat([problem.lame_prompt(1)[0], program[:t]])[None])[0]
        values.append(float(JensenShannon().from_probs(p, q)) / math.log(2))
    assert found.value == pytest.approx(sum(values) / 6)
    kl = second_prompt_divergence(problem, prompt, problem.lame_prompt(1)[0], program, divergence=KL().skewed(0.5), base=math.e)
    assert float(kl.value) > 0


# -- text -----------------------------------------------------------------------------------------------------------------

_PROMPT = '''def double(x: int) -> int:
    """Twice a number.

    >>> double(2)
    4
    >>> double(0)
    0

    Example:
        double(5) gives 10
    """
assert double(1) == 2
double(3) == 6
'''


def test_examples_are_stripped_and_the_task_stays() -> None:
    assert strip_examples(_PROMPT) == 'def double(x: int) -> int:\n    """Twice a number.\n\n\n    """\n'
    plain = 'def f(a):\n    """Adds one.\n\n    Returns: a + 1"""\n'
    assert strip_examples(plain) == plain
    sections = "Examples:\nin 1 out 2\n\nin 2 out 3\nTask:\nin 5"
    assert strip_examples(sections) == "Task:\nin 5"


def test_text_goes_through_the_tokenizer() -> None:
    tokenizer = CharacterTokenizer(_PROMPT)
    small = tiny_gpt2(tokenizer.size, width=16, layers=1, positions=400)
    made = contrastive_generate(small, tokenizer, _PROMPT, max_new_tokens=5, settings=USCD(gate=Always()))
    assert made.record.tokens == len(strip_examples(_PROMPT)) + 4
    assert made.text is not None
    assert len(made.text) <= 5


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda m: Contrast(-0.1), ValueError, "weight must be at least 0"),
        (lambda m: Subtract(1.0), ValueError, "rate of noise"),
        (lambda m: PlausibleSet(0.0), ValueError, "plausible share"),
        (lambda m: PlausibleSet(1.5), ValueError, "plausible share"),
        (lambda m: PlausibleSet(0.5, most=1), ValueError, "most must be"),
        (lambda m: StandardDeviation(-1.0), ValueError, "threshold"),
        (lambda m: DivergenceGate(KL, 0.1), TypeError, "write KL"),
        (lambda m: DivergenceGate("js", 0.1), TypeError, "Divergence, got str"),
        (lambda m: ContrastiveProcessor(m, _LAME, gate="std"), TypeError, "gate must be a Gate"),
        (lambda m: ContrastiveProcessor(m, _LAME, mode=0.5), TypeError, "Contrast"),
        (lambda m: ContrastiveProcessor(m, _LAME, plausible=0.1), TypeError, "PlausibleSet"),
        (lambda m: ContrastiveProcessor(m, torch.zeros(1, 0, dtype=torch.long)), ValueError, "give bos_token_id"),
        (lambda m: ContrastiveProcessor(m, _LAME, _LAME_MASK.flip(1)), ValueError, "padded on the left"),
        (lambda m: ContrastiveProcessor(m, _LAME, _LAME_MASK[:, :2]), ValueError, "its mask"),
        (lambda m: ContrastiveProcessor(m, _LAME[0]), ValueError, r"token indices \(P, L\)"),
        (lambda m: ContrastiveProcessor(m, _LAME)(_ids(3, 4), torch.randn(3, 20)), ValueError, "3 sequences"),
        (
            lambda m: ContrastiveProcessor(m, _LAME, gate=Always())(_ids(2, 4), torch.randn(2, 21)),
            ValueError,
            "21 tokens and the second prompt's model 20",
        ),
        (
            lambda m: ContrastiveProcessor(m, _LAME, gate=lambda p, q: p.sum(-1))(_ids(2, 4), torch.randn(2, 20)),
            TypeError,
            "gate must return a boolean tensor",
        ),
        (lambda m: contrastive_decoding(m, _LAME, max_new_tokens=2), ValueError, "amateur"),
        (lambda m: contrastive_generate(m, CharacterTokenizer("ab"), "", max_new_tokens=2), ValueError, "prompt is empty"),
        (lambda m: second_prompt_divergence(m, _LAME[0], _LAME[1], _LAME[0][:0]), ValueError, "continuation_ids"),
    ],
    ids=range(21),
)
def test_bad_input_is_named(model, call, error, match) -> None:
    with pytest.raises(error, match=match):
        call(model)


def test_an_empty_lame_prompt_is_the_beginning_token(model) -> None:
    empty = torch.zeros(2, 0, dtype=torch.long)
    found = ContrastiveProcessor(model, empty, gate=Always(), bos_token_id=4)(
        _ids(2, 4), torch.randn(2, 20, generator=_generator())
    )
    named = ContrastiveProcessor(model, torch.full((2, 1), 4), gate=Always())(
        _ids(2, 4), torch.randn(2, 20, generator=_generator())
    )
    torch.testing.assert_close(found, named)


def test_tokens_that_an_earlier_rule_forbade_stay_forbidden(model) -> None:
    scores = torch.randn(2, 20, generator=_generator()).masked_fill(torch.arange(20) > 4, -math.inf)
    for mode in (Contrast(2.0), Subtract(0.9)):
        for gate in (Always(), NormalisedEntropy(0.1), DivergenceGate(KL(), 100.0), DivergenceGate(JensenShannon(), 1.0)):
            found = ContrastiveProcessor(model, _LAME, _LAME_MASK, mode=mode, gate=gate)(_ids(2, 4), scores.bfloat16())
            assert (found[:, 5:] == -math.inf).all()
            assert not torch.isnan(found).any()
            torch.testing.assert_close(torch.softmax(found.float(), -1).sum(-1), torch.ones(2))


def test_a_callable_gate_sees_both_laws(model) -> None:
    seen = []

    def gate(p: Tensor, q: Tensor) -> Tensor:
        seen.append((p, q))
        return torch.tensor([True, False])

    scores = torch.randn(2, 20, generator=_generator())
    found = ContrastiveProcessor(model, _LAME, _LAME_MASK, gate=gate)(_ids(2, 4), scores)
    torch.testing.assert_close(seen[0][0], torch.softmax(scores, -1))
    assert torch.equal(found[1], scores[1])
    assert not torch.equal(found[0], scores[0])
