"""The on-policy trainer and its diagnostics: sources, masks, caches, levels, self-distillation, and what is refused."""

import math
import warnings

import pytest
import torch

from discrepancy.divergences import KL, Jeffreys, JensenShannon, ReverseKL
from discrepancy.language_models import generate, tiny_gpt2
from discrepancy.learning import Training
from discrepancy.methods.distillation.context_tables import ContextTable, exact_prefix_divergence
from discrepancy.methods.distillation.exposure_bias import exposure_bias
from discrepancy.methods.distillation.mixture_model import MixtureModel
from discrepancy.methods.distillation.on_policy_distillation import OnPolicyDistillation
from discrepancy.methods.distillation.prefix_gradient import Outcome, SequenceLevel
from discrepancy.methods.distillation.responses import chosen_log_probs, padded_prompts, padded_responses, response_logits
from discrepancy.methods.distillation.teacher_cache import TeacherCache
from discrepancy.methods.distillation.token_divergence import VocabularyWarning, token_divergence

SIZE, LENGTH = 4, 6


def _table(seed, order, scale=1.5):
    g = torch.Generator().manual_seed(seed)
    return ContextTable(scale * torch.randn((SIZE + 1) ** order, SIZE, generator=g), order).eval()


def _starts(n=32):
    return torch.full((n, 1), SIZE)


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def _exact(student, teacher, divergence, on_policy):
    with torch.no_grad():
        found = exact_prefix_divergence(student, teacher, divergence, size=SIZE, order=2, length=LENGTH, on_policy=on_policy)
    return float(found.mean())


def _training(steps=120, rate=0.05):
    return Training(steps=steps, learning_rate=rate, final_share=0.05)


@pytest.mark.parametrize("on_policy", [0.0, 0.5, 1.0])
def test_training_lowers_the_divergence_to_near_its_optimum(on_policy):
    teacher, student = _table(1, 2), _table(2, 1)
    divergence = JensenShannon()
    reference = _table(2, 1)
    optimiser = torch.optim.Adam(reference.parameters(), lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        exact_prefix_divergence(
            reference, teacher, divergence, size=SIZE, order=2, length=LENGTH, on_policy=on_policy
        ).mean().backward()
        optimiser.step()
    method = OnPolicyDistillation(
        divergence=divergence, on_policy=on_policy, training=_training(), batch=32, max_new_tokens=LENGTH
    )
    result = method.train(student, teacher, _starts(), generator=_seeded())
    assert result.on_policy_steps == pytest.approx(120 * on_policy, abs=20)
    assert _exact(student, teacher, divergence, on_policy) < 1.1 * _exact(reference, teacher, divergence, on_policy)


def test_sequence_level_beats_token_level_in_reverse_kl_of_sequences():
    teacher = _table(5, 2, scale=3.0)
    whole = {}
    for name, level in (("token", SequenceLevel(gamma=0.0)), ("sequence", SequenceLevel(gamma=1.0))):
        student = _table(2, 1)
        method = OnPolicyDistillation(
            divergence=ReverseKL(), on_policy=1.0, level=level, training=_training(300), batch=64, max_new_tokens=LENGTH
        )
        method.train(student, teacher, _starts(64), generator=_seeded())
        whole[name] = LENGTH * _exact(student, teacher, ReverseKL(), 1.0)
    assert whole["sequence"] < whole["token"]


def test_teacher_mixed_sampling_trains_too():
    teacher, student = _table(1, 2), _table(2, 1)
    before = _exact(student, teacher, ReverseKL(), 1.0)
    level = SequenceLevel(teacher_share=0.2)
    method = OnPolicyDistillation(
        divergence=ReverseKL(), on_policy=1.0, level=level, training=_training(), batch=32, max_new_tokens=LENGTH
    )
    method.train(student, teacher, _starts(), generator=_seeded())
    assert _exact(student, teacher, ReverseKL(), 1.0) < 0.6 * before


def test_mixture_is_the_mixture():
    teacher, student = _table(1, 2), _table(2, 1)
    ids = torch.tensor([[SIZE, 0, 1]])
    p = torch.softmax(MixtureModel(teacher, student, 0.2)(ids), -1)
    torch.testing.assert_close(p, 0.2 * torch.softmax(teacher(ids), -1) + 0.8 * torch.softmax(student(ids), -1))


def test_outcome_needs_no_teacher():
    student = _table(2, 1)

    def reward(responses, mask):
        return (responses == 0).double().mean(-1)

    method = OnPolicyDistillation(
        on_policy=1.0, level=Outcome(reward), training=_training(150, 0.1), batch=32, max_new_tokens=LENGTH
    )
    method.train(student, None, _starts(), generator=_seeded())
    drawn = generate(student, _starts(200), max_new_tokens=LENGTH, generator=_seeded()).responses
    assert float((drawn == 0).double().mean()) > 0.8


def test_first_loss_is_the_token_divergence_of_the_data():
    teacher, student = _table(1, 2), _table(2, 1)
    responses = torch.randint(SIZE, (5, LENGTH), generator=_seeded())
    prompts = padded_prompts(_starts(5), None)
    with torch.no_grad():
        expected = token_divergence(
            response_logits(student, prompts, responses),
            response_logits(teacher, prompts, responses),
            torch.ones(5, LENGTH, dtype=torch.bool),
            KL(),
        )
    method = OnPolicyDistillation(divergence=KL(), on_policy=0.0, training=_training(1), batch=5)
    assert method.train(student, teacher, _starts(5), responses).loss == pytest.approx(float(expected), rel=1e-6)


def test_ends_and_padding_do_not_count():
    teacher, student = _table(1, 2), _table(2, 1)
    ragged = [torch.tensor([0, 3]), torch.tensor([1, 2, 0, 3]), torch.tensor([1])]
    method = OnPolicyDistillation(divergence=KL(), on_policy=0.0, training=_training(1), batch=3, eos_token_id=3)
    loss = method.train(student, teacher, _starts(3), ragged).loss
    student = _table(2, 1)
    one_by_one = [
        OnPolicyDistillation(divergence=KL(), on_policy=0.0, training=_training(1), batch=1)
        .train(_table(2, 1), teacher, _starts(1), r.unsqueeze(0))
        .loss
        for r in ragged
    ]
    assert loss == pytest.approx(sum(one_by_one) / 3, rel=1e-5)
    behind = padded_responses(torch.tensor([[3, 0, 3], [0, 1, 2]]), None, 3)
    assert behind.mask.tolist() == [[True, False, False], [True, True, True]]


def test_left_padded_prompts_change_nothing():
    model = tiny_gpt2(8, layers=1, width=16, heads=2, positions=32)
    prompts = padded_prompts([torch.tensor([5, 6, 7]), torch.tensor([6])], 0)
    assert prompts.mask.tolist() == [[True, True, True], [False, False, True]]
    responses = torch.tensor([[1, 2], [3, 4]])
    both = response_logits(model, prompts, responses)
    alone = response_logits(model, padded_prompts(torch.tensor([[6]]), None), responses[1:])
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


def test_gpt2_pair_trains_on_policy_and_reports():
    teacher = tiny_gpt2(8, layers=2, width=16, heads=2, positions=16, seed=1)
    with torch.no_grad():
        teacher.lm_head.weight.mul_(20)
    student = tiny_gpt2(8, layers=1, width=16, heads=2, positions=16, seed=2)
    prompts = torch.tensor([[1], [2], [3], [4]])

    def report():
        return exposure_bias(student, teacher, prompts, samples=64, max_new_tokens=8, eos_token_id=0, generator=_seeded())

    before = report()
    method = OnPolicyDistillation(
        on_policy=0.5, training=Training(steps=40, learning_rate=3e-3), batch=4, max_new_tokens=8, eos_token_id=0
    )
    result = method.train(student, teacher, prompts, generator=_seeded())
    after = report()
    assert 10 <= result.on_policy_steps <= 30
    assert not student.training
    assert float(after.coverage) < float(before.coverage)
    frame = after.to_frame()
    assert list(frame["position"]) == list(range(1, 9))
    assert after.on_student.shape == (8,)


def test_same_seed_same_bits():
    def run():
        teacher, student = _table(1, 2), _table(2, 1)
        method = OnPolicyDistillation(training=_training(6), batch=4, max_new_tokens=LENGTH)
        method.train(student, teacher, _starts(8), generator=_seeded(3))
        return student.table.detach()

    assert torch.equal(run(), run())


def test_cache_saves_the_teacher_and_changes_nothing():
    class Counted(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.rows = inner, 0

        def forward(self, input_ids):
            self.rows += len(input_ids)
            return self.inner(input_ids)

    responses = torch.randint(SIZE, (6, LENGTH), generator=_seeded())
    tables = []
    for gib, most in ((0.0, 1 + 30), (1.0, 1 + 6), (3 * LENGTH * SIZE * 4 / 2**30, 1 + 6 + 4 * 3)):
        teacher, student = Counted(_table(1, 2)).eval(), _table(2, 1)
        method = OnPolicyDistillation(on_policy=0.0, training=_training(10), batch=3, cache=gib)
        method.train(student, teacher, _starts(6), responses, generator=_seeded(3))
        tables.append(student.table.detach())
        assert teacher.rows == most
    assert torch.equal(tables[0], tables[1])
    assert torch.equal(tables[0], tables[2])
    assert TeacherCache(0.0).kept == {}


def test_self_distillation_with_a_privileged_prompt():
    model = tiny_gpt2(8, layers=2, width=32, heads=2, positions=16, seed=1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(6)
    prompts, privileged = torch.tensor([[1], [2]]), torch.tensor([[5, 1], [5, 2]])
    import copy

    teacher = copy.deepcopy(model)

    def distance():
        responses = torch.tensor([[3, 4, 6], [6, 2, 1]])
        with torch.no_grad():
            mine = response_logits(model, padded_prompts(prompts, None), responses)
            theirs = response_logits(teacher, padded_prompts(privileged, None), responses)
        return float(KL().from_logits(theirs, mine).mean())

    before = distance()
    method = OnPolicyDistillation(
        divergence=KL(), on_policy=0.5, training=Training(steps=60, learning_rate=3e-3), batch=2, max_new_tokens=3
    )
    method.train(model, teacher, prompts, teacher_prompts=privileged, generator=_seeded())
    assert distance() < 0.5 * before
    # The model itself may be the teacher when its context differs.
    method.train(model, model, prompts, teacher_prompts=privileged, generator=_seeded())


def test_dropout_is_off_where_samples_are_scored():
    seen = []

    class Dropping(ContextTable):
        def forward(self, input_ids):
            seen.append(self.training)
            return super().forward(input_ids)

    table = _table(2, 1)
    for level, expected in ((SequenceLevel(), {False}), (None, {True, False})):
        student = Dropping(table.table, 1)
        seen.clear()
        options = {} if level is None else {"level": level}
        method = OnPolicyDistillation(on_policy=1.0, training=_training(1), batch=2, max_new_tokens=2, **options)
        method.train(student, _table(1, 2), _starts(2), generator=_seeded())
        # The first forward is the check of the vocabularies, before anything is drawn.
        assert set(seen[1:]) == expected
        assert student.training


def test_teacher_in_training_mode_is_noticed():
    teacher = _table(1, 2).train()
    with pytest.warns(UserWarning, match="teacher was in training mode"):
        OnPolicyDistillation(training=_training(1), batch=2, max_new_tokens=2).train(_table(2, 1), teacher, _starts(2))
    assert not teacher.training


def test_vocabularies_are_checked_before_any_work():
    student, teacher = tiny_gpt2(8, layers=1, width=16, heads=2), tiny_gpt2(12, layers=1, width=16, heads=2)
    method = OnPolicyDistillation(training=_training(1), batch=2, max_new_tokens=2)
    with pytest.raises(ValueError, match="student has a vocabulary of 8 and the teacher one of 12"):
        method.train(student, teacher, torch.tensor([[1], [2]]))
    padded = OnPolicyDistillation(training=_training(1), batch=2, max_new_tokens=2, vocabulary=8, on_policy=1.0)
    with pytest.warns(VocabularyWarning, match="cut to the 8 tokens"):
        padded.train(student, teacher, torch.tensor([[1], [2]]))
    # Sizes the other way round: the student's surplus tokens, however likely, are never drawn, and never reach the teacher.
    with torch.no_grad():
        teacher.transformer.wte.weight[8:] = 10 * teacher.transformer.wte.weight[:1].abs()
    with pytest.warns(VocabularyWarning):
        padded.train(teacher, student, torch.tensor([[1], [2]]), generator=_seeded())
    with pytest.warns(VocabularyWarning):
        report = exposure_bias(teacher, student, torch.tensor([[1]]), samples=64, max_new_tokens=4, vocabulary=8)
    assert math.isfinite(float(report.teacher_nll))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"on_policy": 1.5}, ValueError, r"on_policy must lie in \[0, 1\], got 1.5"),
        ({"divergence": "rkl"}, TypeError, "kind Divergence, got str"),
        ({"level": "token"}, TypeError, "level must be TokenLevel"),
        ({"level": Outcome(lambda r, m: r)}, ValueError, "Outcome needs on_policy=1, got 0.5"),
        ({"batch": 0}, ValueError, "batch"),
        ({"temperature": 0.0}, ValueError, "temperature must be positive"),
        ({"top_tokens": 0}, ValueError, "top_tokens"),
        ({"cache": -1.0}, ValueError, "cache must be at least 0"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        OnPolicyDistillation(**options)


def test_bad_data():
    method = OnPolicyDistillation(training=_training(1), batch=2, max_new_tokens=2)
    teacher, student = _table(1, 2), _table(2, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="no pad token: pass pad_token_id"):
            method.train(student, teacher, [torch.tensor([SIZE]), torch.tensor([SIZE, 1])])
        with pytest.raises(ValueError, match="2 prompts and 3 responses"):
            method.train(student, teacher, _starts(2), torch.zeros(3, 2, dtype=torch.long))
        with pytest.raises(ValueError, match="prompts must be integer"):
            method.train(student, teacher, torch.zeros(2, 2))
        with pytest.raises(ValueError, match=r"prompts\[1\] is empty"):
            method.train(student, teacher, [torch.tensor([1]), torch.tensor([], dtype=torch.long)])
        with pytest.raises(ValueError, match="same module"):
            method.train(student, student, _starts(2))
        cached = OnPolicyDistillation(training=_training(1), batch=2, max_new_tokens=2, cache=1.0)
        with pytest.raises(ValueError, match="changes with it"):
            cached.train(student, student, _starts(2), teacher_prompts=_starts(2))
        with pytest.raises(TypeError, match="teacher is None"):
            method.train(student, None, _starts(2))


def test_exposure_bias_against_exact_expectations():
    teacher, student = _table(1, 2), _table(2, 1)
    with torch.no_grad():
        exact = [
            exact_prefix_divergence(student, teacher, Jeffreys(), size=SIZE, order=2, length=LENGTH, on_policy=p).double()
            for p in (1.0, 0.0)
        ]
    found = exposure_bias(
        student, teacher, _starts(1), Jeffreys(), samples=6000, max_new_tokens=LENGTH, chunk=3000, generator=_seeded()
    )
    gap = float((exact[0] - exact[1]).mean())
    assert abs(float(found.gap) - gap) < 4 * float(found.gap.standard_error)
    torch.testing.assert_close(found.on_student.double(), exact[0], rtol=0.1, atol=0.05)
    assert found.accumulation == pytest.approx(float(exact[0].sum() / exact[1].sum()), rel=0.05)
    same = exposure_bias(teacher, teacher, _starts(1), KL(), samples=2000, max_new_tokens=LENGTH, generator=_seeded())
    assert float(same.gap) == 0
    # A model is its own coverage: entropy three times over.
    spread = 4 * math.hypot(float(same.coverage.standard_error), float(same.student_entropy.standard_error))
    assert abs(float(same.teacher_nll) - float(same.student_entropy)) < 1e-6
    assert abs(float(same.coverage) - float(same.student_entropy)) < spread


def test_response_log_probs_are_those_of_the_table():
    student = _table(2, 1)
    responses = torch.tensor([[0, 2]])
    found = chosen_log_probs(response_logits(student, padded_prompts(_starts(1), None), responses), responses)
    rows = torch.log_softmax(student.table, -1)
    torch.testing.assert_close(found, torch.stack([rows[SIZE, 0], rows[0, 2]]).unsqueeze(0))


def test_an_adapter_is_trained_and_nothing_else():
    peft = pytest.importorskip("peft")
    base = tiny_gpt2(8, layers=1, width=16, heads=2, positions=16, seed=1)
    student = peft.get_peft_model(base, peft.LoraConfig(target_modules=["c_attn"], r=2, fan_in_fan_out=True))
    before = {name: w.detach().clone() for name, w in student.named_parameters()}
    method = OnPolicyDistillation(
        on_policy=0.5, training=Training(steps=4, learning_rate=1e-2), batch=2, max_new_tokens=3, eos_token_id=0
    )
    teacher = tiny_gpt2(8, layers=1, width=16, heads=2, positions=16, seed=2)
    method.train(student, teacher, torch.tensor([[1], [2]]), generator=_seeded())
    moved = {name for name, w in student.named_parameters() if not torch.equal(w, before[name])}
    assert moved
    assert all("lora" in name for name in moved)
