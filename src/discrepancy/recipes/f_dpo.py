"""Direct preference optimisation under four leashes: exact optima, the trade-off of reward and diversity, and language models.

optimum    four answers with known rewards: a softmax policy trained on all pairs with soft labels, beside its closed form
trade-off  200 prompts x 12 answers, linear policies on 32 features, 20 preferences a prompt sampled from a planted reward;
           entropy and calibration at matched reward
tokens     a GPT-2 of two layers on characters of Python's documentation: the true continuation is preferred
adapter    SmolLM2-135M with a LoRA adapter, its own answers ranked by a rule (shorter wins); not in a quick run

Human preference text is not available here; the rule stands in for it.
"""

from __future__ import annotations

import math
import statistics
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._results import NumericalError
from discrepancy.datasets import library_text
from discrepancy.divergences import KL, Alpha, FDivergence, JensenShannon, ReverseKL
from discrepancy.inference.calibration import expected_calibration_error
from discrepancy.language_models import CharacterTokenizer, fit_language_model, tiny_gpt2
from discrepancy.learning import Training
from discrepancy.methods.alignment import FDPO, CategoricalPolicy, CausalResponses, PreferencePairs, regularised_optimum
from discrepancy.methods.alignment.f_dpo import ADMITS, implicit_reward
from discrepancy.methods.alignment.response_policy import response_log_probs
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check

_LEASHES: dict[str, FDivergence] = {
    "reverse KL": ReverseKL(),
    "forward KL": KL(),
    "JS": 2 * JensenShannon(),
    "alpha 0.5": Alpha(0.5),
}
_COMPARED = ("forward KL", "JS")
# The card's 0.03 to 1, with more between for the interpolation and 3 for forward KL to meet the others at equal reward.
_BETAS = (0.03, 0.1, 0.3, 0.55, 1.0, 1.75, 3.0)
_QUESTIONS = (
    "What is the capital of France?", "Name a fruit.", "What colour is the sky?", "Who wrote Hamlet?", "What is two plus three?",
    "Name a planet.", "What do bees make?", "Which animal barks?", "What is frozen water called?", "Name a metal.",
    "Where do fish live?", "What is the opposite of hot?", "Name a season.", "What do we breathe?", "How many legs has a spider?",
    "What is the largest ocean?", "Name a musical instrument.", "What is bread made of?", "Name a tree.", "What do cows eat?",
)  # fmt: skip
_PROMPTS, _ANSWERS, _FEATURES, _PAIRS = 200, 12, 32, 20


def _leashes(setting: Setting) -> dict[str, FDivergence]:
    """The paper's four, or reverse KL and the user's choice."""
    if setting.choice is None:
        return _LEASHES
    return {"reverse KL": ReverseKL(), repr(setting.choice): ADMITS.check(setting.choice)}


def _optimum(setting: Setting) -> Row:
    """The largest error of a trained policy on four answers, a leash."""
    reference = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    rewards = torch.tensor([0.0, 1.0, 0.5, 2.0], dtype=torch.float64)
    first, second = torch.combinations(torch.arange(4)).T
    pairs = PreferencePairs(
        torch.zeros(6, dtype=torch.long), first, second, label_noise=torch.sigmoid(rewards[second] - rewards[first])
    )
    row: Row = {}
    for name, leash in _leashes(setting).items():
        table = nn.Embedding(1, 4, dtype=torch.float64)
        with torch.no_grad():
            table.weight.copy_(reference.log())
        steps = 200 if setting.quick else 400
        training = Training(steps=steps, learning_rate=0.05, final_share=0.01, record_every=100)
        FDPO(leash, beta=1.0, batch=None, training=training).fit(CategoricalPolicy(table), pairs)
        found = torch.softmax(table.weight.detach()[0], -1)
        row[f"optimum error {name}"] = float((found - regularised_optimum(reference, rewards, leash)).abs().max())
    return row


class _Linear(nn.Module):
    """Logits linear in the features of (prompt, answer); a prompt is its index."""

    def __init__(self, features: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.features = features
        self.weights = nn.Parameter(weights.clone())

    def forward(self, prompts: Tensor) -> Tensor:
        return (self.features @ self.weights)[prompts]


class _Preferences:
    """A planted reward on features, a reference, and sampled Bradley-Terry preferences, half of them held out."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(1000 + seed)
        self.features = torch.randn(_PROMPTS, _ANSWERS, _FEATURES, generator=generator) / math.sqrt(_FEATURES)
        self.start = 1.5 * torch.randn(_FEATURES, generator=generator)
        self.reward = self.features @ (2 * torch.randn(_FEATURES, generator=generator))
        self.prompts = torch.arange(_PROMPTS)
        self.train, self.held_out = self._sampled(generator), self._sampled(generator)

    def _sampled(self, generator: torch.Generator) -> PreferencePairs:
        prompts = self.prompts.repeat_interleave(_PAIRS)
        first = torch.randint(_ANSWERS, prompts.shape, generator=generator)
        second = (first + torch.randint(1, _ANSWERS, prompts.shape, generator=generator)) % _ANSWERS
        margin = self.reward[prompts, first] - self.reward[prompts, second]
        wins = torch.rand(prompts.shape, generator=generator) < torch.sigmoid(margin)
        return PreferencePairs(prompts, torch.where(wins, first, second), torch.where(wins, second, first))

    def policy(self) -> CategoricalPolicy:
        return CategoricalPolicy(_Linear(self.features, self.start))

    def trained(self, leash: FDivergence, beta: float, steps: int) -> dict[str, float]:
        """Mean reward, entropy, KL to the reference and calibration error of the policy that a leash gives."""
        policy = self.policy()
        # Under reverse KL the weights have to move by something over beta, and Adam moves by the rate a step.
        training = Training(steps=steps, learning_rate=min(1.0, max(0.1, 0.1 / beta)), final_share=0.01, record_every=100)
        FDPO(leash, beta=beta, batch=None, training=training).fit(policy, self.train)
        with torch.no_grad():
            log_law, log_ref = policy.laws(self.prompts), self.policy().laws(self.prompts)
            implied = beta * implicit_reward(log_law - log_ref, leash)
        law = log_law.exp()
        held = self.held_out
        margin = implied[held.prompts, held.chosen[:, 0]] - implied[held.prompts, held.rejected[:, 0]]
        # Half of the pairs are shown with the loser first, so that the class to predict is not always the same.
        flip = torch.arange(len(held)) % 2
        chance = torch.sigmoid(torch.where(flip == 1, -margin, margin))
        return {
            "reward": float((law * self.reward).sum(-1).mean()),
            "entropy": float(-(law * log_law).sum(-1).mean()),
            "KL": float((law * (log_law - log_ref)).sum(-1).mean()),
            "ECE": expected_calibration_error(torch.stack([chance, 1 - chance], -1), flip),
        }


def _trade_off(setting: Setting) -> Row:
    """Curves over beta, and the entropy of each leash minus that of reverse KL at matched mean reward."""
    problem = _Preferences(setting.seed)
    leashes = _leashes(setting)
    steps = 60 if setting.quick else 200
    row: Row = {}
    for name, leash in leashes.items():
        found = [problem.trained(leash, beta, steps) for beta in _BETAS]
        for what in found[0]:
            row[f"{what} {name}"] = [f[what] for f in found]
    for name in leashes:
        if name != "reverse KL":
            for what in ("entropy", "ECE"):
                row[f"{what} gained {name}"] = _matched(row, name, what)
    if setting.choice is None:
        twins = {beta: problem.trained(Alpha(0.01), beta, steps)["reward"] for beta in (0.1, 1.0)}
        row["DPO limit"] = max(abs(r / row["reward reverse KL"][_BETAS.index(beta)] - 1) for beta, r in twins.items())
    return row


def _matched(row: Row, name: str, what: str) -> float:
    """The mean difference to reverse KL over the rewards that both reach, interpolated linearly.

    Below the beta of the largest reward a curve overfits its pairs and turns back: that part is left out.
    """
    import numpy as np

    curves = []
    for leash in (name, "reverse KL"):
        rewards, values = np.asarray(row[f"reward {leash}"]), np.asarray(row[f"{what} {leash}"])
        top = int(rewards.argmax())
        order = np.argsort(rewards[top:])
        curves.append((rewards[top:][order], values[top:][order]))
    low, high = max(c[0][0] for c in curves), min(c[0][-1] for c in curves)
    if high <= low:
        raise ValueError(f"{name} and reverse KL reach no common reward: widen the range of beta")
    grid = np.linspace(low, high, 50)
    return float(np.mean(np.interp(grid, *curves[0]) - np.interp(grid, *curves[1])))


def _tokens(setting: Setting) -> Row:
    """Mean loss of the last tenth of the steps over log 2, where it starts, for a small language model and each leash."""
    text = library_text()[:60_000]
    tokenizer = CharacterTokenizer(text)
    ids = tokenizer.encode(text)
    generator = torch.Generator().manual_seed(2000 + setting.seed)
    model = tiny_gpt2(tokenizer.size, seed=setting.seed)
    fit_language_model(model, ids, steps=20 if setting.quick else 60, generator=generator)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    places, elsewhere = torch.randint(len(ids) - 40, (2, 64, 1), generator=generator)
    prompt, answer = torch.arange(16), torch.arange(16, 28)
    pairs = PreferencePairs(ids[places + prompt], ids[places + answer], ids[elsewhere + answer])
    row: Row = {}
    for name, leash in _leashes(setting).items():
        model.load_state_dict(start)
        training = Training(steps=40 if setting.quick else 100, learning_rate=1e-3, record_every=1)
        found = FDPO(leash, beta=0.1, batch=16, training=training).fit(
            CausalResponses(model, max_new_tokens=12), pairs, generator=generator
        )
        losses = found.history["loss"]
        row[f"loss {name}"] = statistics.fmean(losses[-len(losses) // 10 :]) / math.log(2)
    return row


def _adapter() -> Row:
    """SmolLM2's own answers to questions, the shorter one preferred: accuracy on held-out questions before and after training."""
    from peft import LoraConfig, get_peft_model

    from discrepancy.datasets import smollm2

    base, tokenizer = smollm2()
    generator = torch.Generator().manual_seed(7000)
    end = int(tokenizer.eos_token_id)
    texts = [f"Question: {q}\nAnswer:" for q in _QUESTIONS]
    encoded = [tokenizer(text)["input_ids"] for text in texts]
    longest = max(map(len, encoded))
    prompts = torch.tensor([[end] * (longest - len(ids)) + ids for ids in encoded])
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", FutureWarning)  # between the two packages
        torch.manual_seed(7000)  # an adapter's weights are drawn from the default generator
        adapted = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], lora_dropout=0.0))
    policy = CausalResponses(adapted, max_new_tokens=14, eos_token_id=end, pad_token_id=end)
    answers = policy.sample(prompts, 4, generator=generator)
    lengths = torch.tensor(
        [[len(tokenizer.decode(a, skip_special_tokens=True).split("\n")[0]) for a in rows] for rows in answers.tolist()]
    )
    shortest, longest_answer = lengths.argmin(-1), lengths.argmax(-1)
    rows = (lengths.amin(-1) < lengths.amax(-1)).nonzero()[:, 0]
    chosen, rejected = answers[rows, shortest[rows]], answers[rows, longest_answer[rows]]
    pairs = PreferencePairs(prompts[rows], chosen, rejected).with_reference(policy)
    train, test = (_subset(pairs, part) for part in (slice(None, None, 2), slice(1, None, 2)))
    training = Training(steps=10, learning_rate=2e-3, record_every=1)
    fit = FDPO(ReverseKL(), beta=0.3, batch=4, training=training).fit(policy, train, generator=generator)
    with torch.no_grad():
        scored = response_log_probs(policy, test.prompts, test.responses)
    assert test.reference is not None
    gained = (scored - test.reference)[:, 0] - (scored - test.reference)[:, 1]
    return {
        "adapter accuracy": float((gained > 0).double().mean()),
        "adapter pairs": len(test),
        "adapter loss over log 2": statistics.fmean(fit.history["loss"][-3:]) / math.log(2),
    }


def _subset(pairs: PreferencePairs, part: slice) -> PreferencePairs:
    assert pairs.reference is not None
    return PreferencePairs(pairs.prompts[part], pairs.chosen[part], pairs.rejected[part], pairs.reference[part])


def measure(setting: Setting) -> Row:
    """All parts for one seed; the large model is trained once."""
    row = _optimum(setting) | _trade_off(setting) | _tokens(setting)
    if setting.seed == 0 and not setting.quick:
        row |= _adapter()
    return row


def _names(row: Row, prefix: str) -> list[str]:
    return [k.removeprefix(prefix) for k in row if k.startswith(prefix)]


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks, and what the abstract says of calibration, measured."""
    checks = []
    for name in _names(rows[0], "optimum error "):
        errors = [r[f"optimum error {name}"] for r in rows]
        checks.append(check(f"optimum under {name}: largest error", errors, "< 0.01", max(errors) < 0.01))
    for name in _names(rows[0], "entropy gained "):
        if name not in _COMPARED and name in _LEASHES:
            continue
        gained = [r[f"entropy gained {name}"] for r in rows]
        agree = max(sum(v > 0 for v in gained), sum(v < 0 for v in gained))
        enough = agree >= (4 if len(rows) >= 5 else len(rows))
        checks.append(check(f"entropy of {name} over reverse KL at matched reward", gained, "one sign in 4 of 5 seeds", enough))
    if "DPO limit" in rows[0]:
        limit = [r["DPO limit"] for r in rows]
        checks.append(check("alpha = 0.01: relative difference of reward to DPO's", limit, "<= 0.02", max(limit) <= 0.02))
    for name in _names(rows[0], "loss "):
        falls = [r[f"loss {name}"] for r in rows]
        checks.append(check(f"GPT-2 on characters: final loss under {name} over log 2", falls, "< 1", max(falls) < 1))
    for name in _names(rows[0], "ECE gained "):
        if name in _COMPARED:
            differs = [r[f"ECE gained {name}"] for r in rows]
            same = len({v > 0 for v in differs}) == 1
            checks.append(
                check(f"calibration error of {name} over reverse KL at matched reward", differs, "one sign in every seed", same)
            )
    if "adapter accuracy" in rows[0]:
        accuracy = [rows[0]["adapter accuracy"]]
        checks.append(check("SmolLM2 with LoRA: accuracy on held-out pairs", accuracy, "> 0.5", accuracy[0] > 0.5))
    return checks


def draw(rows: list[Row], file: Path) -> None:
    """Reward against entropy, KL and calibration error, a curve a leash."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = _names(rows[0], "KL ")
    colours = dict(zip(names, ("#6b7280", "#2563eb", "#dc2626", "#f59e0b"), strict=False))
    fig, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    labels = ("entropy of the policy (nats)", "KL(policy || reference) (nats)", "calibration error")
    for axis, what, label in zip(axes, ("entropy", "KL", "ECE"), labels, strict=True):
        for name in names:
            x = [statistics.fmean(r[f"{what} {name}"][i] for r in rows) for i in range(len(_BETAS))]
            y = [statistics.fmean(r[f"reward {name}"][i] for r in rows) for i in range(len(_BETAS))]
            axis.plot(x, y, "o-", color=colours[name], label=name, ms=4)
            if what == "entropy":
                for place in (0, len(_BETAS) - 1):
                    axis.annotate(
                        f"{_BETAS[place]:g}", (x[place], y[place]), fontsize=7, xytext=(4, 4), textcoords="offset points"
                    )
        axis.set(xlabel=label, ylabel="mean reward")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, title="leash, from beta 0.03 to 3", title_fontsize=8, fontsize=8)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _entropy_at_reward(divergence: Any, seed: int, wanted: float = 1.5) -> float:
    """The policy's entropy at a mean reward of `wanted`, by bisection in log beta and interpolation between the last two."""
    problem = _Preferences(seed)
    scale = float(divergence.curvature(torch.ones((), dtype=torch.float64)))

    def at(log_beta: float) -> dict[str, float]:
        return problem.trained(scaled, math.exp(log_beta), 60)

    scaled = (1 / scale) * divergence
    low, high = math.log(0.1), math.log(3.0)
    strong, weak = at(high), at(low)
    if weak["reward"] < wanted:
        low = math.log(0.01)
        weak = at(low)
    if not strong["reward"] < wanted < weak["reward"]:
        raise NumericalError(f"f-dpo: no beta in [0.01, 3] gives {divergence!r} a mean reward of {wanted:g}")
    for _ in range(4):
        middle = (low + high) / 2
        found = at(middle)
        if found["reward"] < wanted:
            high, strong = middle, found
        else:
            low, weak = middle, found
    share = (wanted - strong["reward"]) / (weak["reward"] - strong["reward"])
    return strong["entropy"] + share * (weak["entropy"] - strong["entropy"])


RECIPE = Recipe(
    slug="f-dpo",
    measure=measure,
    judge=judge,
    draw=draw,
    seeds=(0, 1, 2, 3, 4),
    swaps=True,
    task=SwapTask(
        measures="entropy of the policy (nats) at a mean reward of 1.5",
        better="higher",
        admits=ADMITS,
        run=_entropy_at_reward,
        default=ReverseKL(),
    ),
)
