import copy
import warnings
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from discrepancy import KL, ChiSquared, CustomDivergence, JensenShannon, ReverseKL, TotalVariation
from discrepancy.language_models import generate, tiny_gpt2
from discrepancy.methods.merging import (
    AdaMerging,
    Descent,
    Direct,
    DivMerge,
    EmptyGenerationWarning,
    GreedyDecoding,
    GreedyGeneration,
    Layer,
    Level,
    Task,
    TaskVectors,
    average_normalized_performance,
    divergence_matrix,
    task_divergences,
)
from discrepancy.methods.merging.coefficients import combined
from discrepancy.methods.merging.predictions import expert_predictions

QUICK = Descent(epochs=60, batch=64, learning_rate=0.05)


def linear_family(tasks=2, seed=0):
    """A linear classifier; expert t changes only what input block t does: their sum answers as each of them on its own block."""
    generator = torch.Generator().manual_seed(seed)
    base = nn.Sequential(nn.Linear(4 * tasks, 3))
    with torch.no_grad():
        for w in base.parameters():
            w.copy_(0.1 * torch.randn(w.shape, generator=generator))
        base[0].bias.zero_()
    experts, inputs = [], []
    for t in range(tasks):
        expert = copy.deepcopy(base)
        block = slice(4 * t, 4 * t + 4)
        with torch.no_grad():
            expert[0].weight[:, block] += 2 * torch.randn(3, 4, generator=generator)
        experts.append(expert)
        x = torch.zeros(64, 4 * tasks)
        x[:, block] = torch.randn(64, 4, generator=generator)
        inputs.append(x)
    return TaskVectors(base, experts), inputs


@pytest.mark.parametrize(
    "divergence",
    [JensenShannon(), KL(), ReverseKL(), 2 * JensenShannon() + KL(), ReverseKL().reversed()],
    ids=["js", "kl", "reverse", "sum", "reversed"],
)
@pytest.mark.parametrize("level", [Task(), Layer()], ids=["task", "layer"])
def test_disentangled_experts_are_all_recovered(divergence, level):
    vectors, inputs = linear_family()
    found = DivMerge(divergence, level=level, descent=Descent(70, 64, 0.1)).merge(vectors, inputs)
    torch.testing.assert_close(found.coefficients, torch.ones_like(found.coefficients), atol=0.02, rtol=0)
    assert found.objective < 1e-3
    assert float(task_divergences(vectors, found.tensors, inputs, JensenShannon()).max()) < 1e-4


def test_one_expert_gets_one():
    vectors, inputs = linear_family(tasks=1)
    found = DivMerge(descent=QUICK).merge(vectors, inputs)
    assert float(found.coefficients.min()) == pytest.approx(1, abs=0.05)


def test_the_objective_is_the_sum_over_tasks_of_expert_first_divergences():
    vectors, inputs = linear_family()
    once = Descent(epochs=1, batch=64, learning_rate=1e-9)
    x = [t.clone() for t in inputs]
    middle = vectors.model(vectors.moved({k: 0.5 * u.sum(0) for k, u in vectors.updates.items()}))
    for f in (KL(), ReverseKL(), JensenShannon(), TotalVariation(), ChiSquared()):
        with torch.no_grad():
            p = [vectors.model(vectors.expert(t))(x[t]).double().softmax(-1) for t in range(2)]
            q = [middle(x[t]).double().softmax(-1) for t in range(2)]
        expected = sum(float(f.from_probs(p[t], q[t]).mean()) for t in range(2))
        assert DivMerge(f, descent=once).merge(vectors, inputs).objective == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("top_k", [None, 2], ids=["all", "two-and-rest"])
@pytest.mark.parametrize("divergence", [JensenShannon(), KL(), ReverseKL()], ids=["js", "kl", "reverse"])
def test_the_slope_in_the_coefficients_is_that_of_finite_differences(divergence, top_k):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 5)).double()
    experts = [{k: v + 0.5 * torch.randn_like(v) for k, v in base.state_dict().items()} for _ in range(2)]
    vectors = TaskVectors(base, experts)
    tasks = expert_predictions(vectors, [torch.randn(7, 5, dtype=torch.float64) for _ in range(2)], Direct(top_k))
    places = {k: int(k[0] == "2") for k in vectors.names}

    def objective(gamma):
        model = vectors.bound(vectors.moved(combined(vectors, gamma, places)))
        return sum(task[0].divergence(divergence, model) for task in tasks)

    gamma = torch.tensor([[0.3, 0.6], [0.5, -0.2]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(objective, gamma, eps=1e-6, atol=1e-7)


def test_a_user_s_own_divergence_does_as_the_built_in_one():
    vectors, inputs = linear_family()
    mine = CustomDivergence(lambda t: t * torch.log(t) - t + 1)
    a = DivMerge(mine, descent=Descent(5, 64, 0.05)).merge(vectors, inputs)
    b = DivMerge(KL(), descent=Descent(5, 64, 0.05)).merge(vectors, inputs)
    torch.testing.assert_close(a.coefficients, b.coefficients, rtol=1e-3, atol=1e-4)


def test_seeds_are_exact_and_batches_random():
    vectors, inputs = linear_family()
    small = DivMerge(descent=Descent(2, 8, 0.05))
    runs = [small.merge(vectors, inputs, generator=torch.Generator().manual_seed(s)).coefficients for s in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert len(small.merge(vectors, inputs).history["loss"]) == 2 * 8


def test_a_loader_is_as_good_as_a_tensor():
    vectors, inputs = linear_family()
    loaders = [[x[:40], x[40:]] for x in inputs]
    found = DivMerge(descent=QUICK).merge(vectors, loaders)
    assert float((found.coefficients - 1).abs().max()) < 0.1


def test_levels_group_by_block_or_module():
    layer = Layer()
    assert layer.group("transformer.h.0.attn.c_attn.weight") == "transformer.h.0"
    assert layer.group("transformer.h.11.mlp.bias") == "transformer.h.11"
    assert layer.group("transformer.wte.weight") == "transformer.wte"
    assert layer.group("0.weight") == layer.group("0.bias") == "0"
    assert layer.group("scale") == "scale"
    assert Task().group("anything") == Task().group("else")
    vectors, inputs = linear_family()
    found = DivMerge(descent=Descent(1, 64, 0.01, start=None)).merge(vectors, inputs)
    assert found.groups == ("0",)
    assert found.coefficients.shape == (2, 1)
    assert found.to_dict()["groups"] == ["0"]


def test_a_level_of_one_s_own():
    @dataclass(frozen=True)
    class WeightsAndBiases(Level):
        def group(self, name):
            return name.rsplit(".", 1)[-1]

    vectors, inputs = linear_family()
    found = DivMerge(level=WeightsAndBiases(), descent=QUICK).merge(vectors, inputs)
    assert found.groups == ("weight", "bias")
    weight = 0.5 * vectors.updates["0.weight"].sum(0)
    expected = torch.tensordot(found.coefficients[:, 0].float(), vectors.updates["0.weight"], 1)
    torch.testing.assert_close(found.update["0.weight"], expected)
    assert not torch.allclose(expected, weight)


def test_the_model_runs_in_evaluation_mode_and_modes_come_back():
    base = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.9), nn.Linear(4, 3))
    base[0].eval()
    expert = copy.deepcopy(base)
    with torch.no_grad():
        expert[2].weight += 1
    vectors = TaskVectors(base, [expert])
    before = {k: v.clone() for k, v in base.state_dict().items()}
    merge = DivMerge(descent=Descent(2, 8, 0.01))
    runs = [merge.merge(vectors, [torch.ones(8, 4)]).objective for _ in range(2)]
    assert runs[0] == runs[1]
    assert [m.training for m in base] == [False, True, True]
    assert all(torch.equal(v, before[k]) for k, v in base.state_dict().items())
    assert all(w.grad is None for w in base.parameters())


def test_divergence_matrix_is_zero_on_the_diagonal_and_expert_first():
    vectors, inputs = linear_family()
    found = divergence_matrix(vectors, inputs, KL())
    assert float(found.diagonal().abs().max()) < 1e-6
    p, q = (vectors.model(vectors.expert(t))(inputs[0]).double().softmax(-1) for t in (0, 1))
    expected = (p * (p / q).log()).sum(-1).mean()
    torch.testing.assert_close(found[0, 1], expected.detach(), rtol=1e-4, atol=1e-5)


def test_average_normalized_performance():
    assert average_normalized_performance([0.5, 0.9], [1.0, 0.9]) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="one length"):
        average_normalized_performance([0.5], [1.0, 0.9])
    with pytest.raises(ValueError, match="positive"):
        average_normalized_performance([0.5], [0.0])


def test_entropy_falls_under_adamerging_and_weighs_no_expert():
    vectors, inputs = linear_family()
    found = AdaMerging(descent=Descent(40, 64, 0.05, 0.3)).merge(vectors, inputs)
    assert found.history["loss"][-1] < 0.8 * found.history["loss"][0]
    model = vectors.model(vectors.moved({k: 0.3 * u.sum(0) for k, u in vectors.updates.items()}))
    p = [model(x).detach().softmax(-1) for x in inputs]
    expected = sum(float(-(q * q.log()).sum(-1).mean()) for q in p)
    assert found.history["loss"][0] == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def language():
    base = tiny_gpt2(13, width=16, heads=2, layers=1, positions=32)
    experts = []
    for seed in (1, 2):
        expert = copy.deepcopy(base)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            for w in expert.parameters():
                w += (0.4 if w.ndim == 2 else 0.0) * torch.randn(w.shape, generator=generator)
        experts.append(expert)
    return base, experts


def test_language_models_are_compared_along_the_expert_s_own_greedy_answers(language):
    base, experts = language
    vectors = TaskVectors(base, experts)
    prompts = torch.randint(0, 13, (5, 4), generator=torch.Generator().manual_seed(0))
    made = generate(experts[0], prompts, max_new_tokens=6, temperature=0)
    with torch.no_grad():
        left = experts[0](made.sequences).logits[:, 3:-1].double().log_softmax(-1)
        right = base(made.sequences).logits[:, 3:-1].double().log_softmax(-1)
    expected = (left.exp() * (left - right)).sum(-1).mean()
    zero = {k: torch.zeros_like(v) for k, v in vectors.base.items()}
    source = GreedyGeneration(max_new_tokens=6)
    found = task_divergences(vectors, vectors.moved(zero), [prompts, prompts], KL(), source)
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-6)


def test_answers_end_at_the_end_token_and_padding_does_not_count(language):
    base, experts = language
    vectors = TaskVectors(base, experts)
    prompts = torch.randint(0, 13, (6, 4), generator=torch.Generator().manual_seed(0))
    answers = generate(experts[0], prompts, max_new_tokens=6, temperature=0).responses
    end = int(answers[0, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGenerationWarning)
        made = expert_predictions(vectors, [prompts, prompts], GreedyGeneration(6, eos_token_id=end))[0][0]
    for row, answer in zip(made.mask, answers[answers[:, 0] != end], strict=True):
        where = (answer == end).nonzero()
        stop = int(where[0, 0]) + 1 if len(where) else 6
        mask = torch.arange(made.mask.shape[1]) < stop
        assert torch.equal(row, mask)
    everything = answers[:, 0].unique().tolist()
    with pytest.warns(EmptyGenerationWarning, match="left out"):
        expert_predictions(vectors, [prompts, prompts], GreedyGeneration(6, eos_token_id=everything[0]))
    alone = prompts[answers[:, 0] == everything[0]]
    with pytest.warns(EmptyGenerationWarning), pytest.raises(ValueError, match="ends every answer at once"):
        expert_predictions(vectors, [alone, prompts], GreedyGeneration(6, eos_token_id=everything[0]))


def test_left_padding_changes_nothing(language):
    base, experts = language
    vectors = TaskVectors(base, experts)
    prompts = torch.randint(0, 13, (3, 4), generator=torch.Generator().manual_seed(0))
    padded = {
        "input_ids": torch.cat([torch.zeros(3, 2, dtype=torch.long), prompts], 1),
        "attention_mask": torch.ones(3, 6, dtype=torch.long),
    }
    padded["attention_mask"][:, :2] = 0
    source = GreedyGeneration(max_new_tokens=5)
    a = expert_predictions(vectors, [prompts] * 2, source)
    b = expert_predictions(vectors, [padded] * 2, source)
    torch.testing.assert_close(a[0][0].logits, b[0][0].logits, rtol=1e-4, atol=1e-4)
    model = vectors.bound(vectors.moved({}))
    torch.testing.assert_close(a[1][0].divergence(KL(), model), b[1][0].divergence(KL(), model), rtol=1e-4, atol=1e-6)


def test_top_k_and_the_rest_bound_the_divergence_from_below(language):
    base, experts = language
    vectors = TaskVectors(base, experts)
    prompts = torch.randint(0, 13, (4, 4), generator=torch.Generator().manual_seed(0))
    values = [
        task_divergences(vectors, vectors.moved({}), [prompts] * 2, JensenShannon(), GreedyGeneration(5, top_k=k))
        for k in (1, 3, 8, 11)
    ]
    exact = task_divergences(vectors, vectors.moved({}), [prompts] * 2, JensenShannon(), GreedyGeneration(5))
    for low, high in zip(values, [*values[1:], exact], strict=True):
        assert bool((low <= high + 1e-6).all())
    assert expert_predictions(vectors, [prompts] * 2, GreedyGeneration(5, top_k=3))[0][0].logits.values.shape == (4, 5, 3)


def test_language_model_coefficients_are_learned(language):
    base, experts = language
    vectors = TaskVectors(base, [experts[0]])
    prompts = torch.randint(0, 13, (8, 4), generator=torch.Generator().manual_seed(0))
    found = DivMerge(level=Task(), source=GreedyGeneration(6, top_k=5), descent=Descent(40, 8, 0.05)).merge(vectors, [prompts])
    assert float(found.coefficients) == pytest.approx(1, abs=0.1)
    merged = found.model()
    assert merged.lm_head.weight is merged.transformer.wte.weight


def test_text_given_as_it_is_is_masked_by_its_attention(language):
    base, experts = language
    vectors = TaskVectors(base, experts)
    ids = torch.randint(0, 13, (3, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 6, dtype=torch.long)
    mask[1, 3:] = 0
    text = {"input_ids": ids, "attention_mask": mask}
    found = expert_predictions(vectors, [text, text], Direct())[0][0]
    values = torch.arange(18.0).reshape(3, 6)
    assert float(found.mean(values)) == pytest.approx((2.5 + 7 + 14.5) / 3)
    empty = {"input_ids": ids, "attention_mask": torch.zeros_like(mask)}
    with pytest.raises(ValueError, match="keeps none"):
        task_divergences(vectors, vectors.moved({}), [empty, text], KL())


@pytest.fixture(scope="module")
def translators():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 15, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
    config = transformers.T5Config(**sizes, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    torch.manual_seed(0)
    base = transformers.T5ForConditionalGeneration(config).eval()
    expert = copy.deepcopy(base)
    with torch.no_grad():
        for w in expert.parameters():
            w += (0.5 if w.ndim == 2 else 0.0) * torch.randn(w.shape)
    return base, expert


def test_encoder_decoders_answer_as_their_own_greedy_search(translators):
    base, expert = translators
    vectors = TaskVectors(base, [expert])
    ids = torch.randint(2, 15, (4, 5), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    made = expert_predictions(vectors, [inputs], GreedyDecoding(6))[0][0]
    reference = expert.generate(**inputs, max_new_tokens=6, do_sample=False, num_beams=1)
    length = min(made.inputs["decoder_input_ids"].shape[1], reference.shape[1] - 1)
    assert torch.equal(
        made.inputs["decoder_input_ids"][:, :length][made.mask[:, :length]], reference[:, :length][made.mask[:, :length]]
    )
    with torch.no_grad():
        again = expert(**inputs, decoder_input_ids=made.inputs["decoder_input_ids"]).logits.log_softmax(-1)
    torch.testing.assert_close(made.logits.log_softmax(-1), again, rtol=1e-4, atol=1e-4)
    assert float(task_divergences(vectors, vectors.expert(0), [inputs], KL(), GreedyDecoding(6))) == pytest.approx(0, abs=1e-6)
    found = DivMerge(level=Task(), source=GreedyDecoding(6, top_k=6), descent=Descent(40, 4, 0.05)).merge(vectors, [inputs])
    assert float(found.coefficients) == pytest.approx(1, abs=0.15)


def test_half_precision_models_and_inputs_are_merged_in_single():
    vectors, inputs = linear_family()
    half = copy.deepcopy(vectors.module).bfloat16()
    experts = [vectors.model(vectors.expert(i)) for i in range(2)]
    coarse = TaskVectors(half, experts)
    found = DivMerge(descent=Descent(30, 64, 0.1)).merge(coarse, [x.bfloat16() for x in inputs])
    assert float((found.coefficients - 1).abs().max()) < 0.1
    assert found.model()[0].weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda v, x: GreedyDecoding(0), ValueError, "max_new_tokens"),
        (lambda v, x: DivMerge(source=GreedyDecoding(3)).merge(v, x), TypeError, "encoder-decoder"),
        (lambda v, x: DivMerge(KL), TypeError, r"write KL\(\)"),
        (lambda v, x: DivMerge("js"), TypeError, "got str"),
        (lambda v, x: DivMerge(level="layer"), TypeError, "level must be a Level object"),
        (lambda v, x: DivMerge(source=3), TypeError, "source must be"),
        (lambda v, x: Descent(epochs=0), ValueError, "epochs"),
        (lambda v, x: Descent(learning_rate=0.0), ValueError, "learning_rate"),
        (lambda v, x: Descent(start=float("nan")), ValueError, "start"),
        (lambda v, x: GreedyGeneration(0), ValueError, "max_new_tokens"),
        (lambda v, x: Direct(top_k=0), ValueError, "top_k"),
        (lambda v, x: DivMerge().merge(v, x[:1]), ValueError, r"one entry for each of the 2 expert\(s\), got 1"),
        (lambda v, x: DivMerge().merge(v, x[0]), ValueError, "one Tensor"),
        (lambda v, x: DivMerge().merge(v, [x[0], []]), ValueError, r"inputs\[1\] has no inputs"),
        (lambda v, x: DivMerge().merge(v, [x[0], [(x[1], x[1])]]), TypeError, "inputs only"),
        (lambda v, x: DivMerge().merge(v, [x[0], 3]), TypeError, "a loader"),
        (lambda v, x: DivMerge().merge(v, [x[0], {"a": x[0], "b": x[0][:3]}]), ValueError, "differ in length"),
    ],
)
def test_bad_input(make, error, words):
    vectors, inputs = linear_family()
    with pytest.raises(error, match=words):
        make(vectors, inputs)


def test_tensors_alone_cannot_be_run():
    vectors, inputs = linear_family()
    states = TaskVectors(vectors.module.state_dict(), [vectors.expert(0), vectors.expert(1)])
    with pytest.raises(TypeError, match="give TaskVectors the base as"):
        DivMerge().merge(states, inputs)
