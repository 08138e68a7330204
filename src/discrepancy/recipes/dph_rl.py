"""Diversity under reinforcement learning: rehearsing what the initial policy can do, beside no leash and a KL leash.

bandit   96 prompts x 40 answers, four correct ones each; a network of one hidden layer starts with 20 % of its mass on the
         correct answers of even prompts and 95 % of odd ones (pre-sampling finds these mastered); 64 prompts are trained on
tokens   a GPT-2 of two layers writes two digits whose sum is asked for, checked by a verifier; no reference model is kept

Rehearsal takes 64 draws for each mastered prompt, not the paper's one: here an answer is a single token, and one draw shows one
of the four modes. Coefficients are the card's pilot's: 1 for forward KL, 3 for Jensen-Shannon, 0.02 and 0.2 for reverse KL.
"""

from __future__ import annotations

import copy
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from discrepancy.divergences import KL, FDivergence, JensenShannon, ReverseKL
from discrepancy.language_models import CharacterTokenizer, tiny_gpt2
from discrepancy.learning import Training
from discrepancy.methods.alignment import (
    DPHRL,
    GRPO,
    CategoricalPolicy,
    CausalResponses,
    DivergencePenalty,
    PresampleSplit,
    pass_at_k,
    presample_split,
)
from discrepancy.methods.alignment.dph_rl import ADMITS
from discrepancy.methods.alignment.response_policy import ResponsePolicy
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check

_PROMPTS, _TRAINED, _FEATURES, _ANSWERS, _CORRECT = 96, 64, 16, 40, 4
_KEPT = 0.01  # a correct answer counts as a mode kept with at least this probability
_MEASURES = ("train pass@1", "OOD pass@1", "OOD pass@16", "modes")


class _Bandit:
    """Prompts, their correct answers, and a network pre-trained to a planted law."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(3000 + seed)
        self.prompts = torch.randn(_PROMPTS, _FEATURES, generator=generator)
        order = torch.rand(_PROMPTS, _ANSWERS, generator=generator).argsort(-1)
        self.correct = order[:, :_CORRECT]
        odd = (torch.arange(_PROMPTS) % 2).unsqueeze(-1).bool()
        shares = torch.where(odd, torch.tensor([0.4, 0.3, 0.2, 0.1]) * 0.95, torch.tensor([0.6, 0.2, 0.1, 0.1]) * 0.2)
        draws = np.random.default_rng(seed).dirichlet([0.3] * (_ANSWERS - _CORRECT), _PROMPTS)
        wrong = torch.from_numpy(draws).float() * (1 - shares.sum(-1, keepdim=True))
        law = torch.zeros(_PROMPTS, _ANSWERS).scatter(-1, order, torch.cat([shares, wrong], -1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = nn.Sequential(nn.Linear(_FEATURES, 64), nn.Tanh(), nn.Linear(64, _ANSWERS))
        Training(steps=2000, learning_rate=1e-2, final_share=0.01, record_every=500).run(
            network.parameters(), lambda _: (-(law * torch.log_softmax(network(self.prompts), -1)).sum(-1).mean(), {})
        )
        self.start = network
        self.trained = self.prompts[:_TRAINED]

    def policy(self) -> CategoricalPolicy:
        """A policy at the pre-trained weights."""
        return CategoricalPolicy(copy.deepcopy(self.start))

    def reward(self, prompts: Tensor, responses: Tensor) -> Tensor:
        """One for a correct answer."""
        which = (prompts.unsqueeze(1) == self.prompts).all(-1).long().argmax(-1)
        return (responses == self.correct[which].unsqueeze(1)).any(-1).double()

    def split(self, seed: int, rehearsals: int = 64) -> PresampleSplit:
        """Pre-sampling by the initial policy on the prompts trained on."""
        generator = torch.Generator().manual_seed(4000 + seed)
        return presample_split(self.policy(), self.trained, self.reward, rehearsals=rehearsals, generator=generator)

    @torch.no_grad()
    def scores(self, policy: CategoricalPolicy, mastered: Tensor) -> dict[str, float]:
        """Exact pass@1 and pass@16, and the mean number of correct answers kept on mastered prompts."""
        right = policy.laws(self.prompts).exp().double().gather(-1, self.correct)
        chance = right.sum(-1).clamp(max=1)
        unseen = chance[_TRAINED:]
        values = (chance[:_TRAINED].mean(), unseen.mean(), (1 - (1 - unseen) ** 16).mean())
        modes = (right[:_TRAINED][mastered] >= _KEPT).double().sum(-1).mean()
        return dict(zip(_MEASURES, map(float, (*values, modes)), strict=True))


def _search(steps: int, penalty: DivergencePenalty | None = None) -> GRPO:
    training = Training(steps=steps, learning_rate=3e-3, final_share=1.0, record_every=50)
    return GRPO(group=8, prompts=32, penalty=penalty, training=training)


def _rehearsed(setting: Setting) -> dict[str, DPHRL]:
    search = _search(200 if setting.quick else 400)
    if setting.choice is not None:
        choice = ADMITS.check(setting.choice)
        return {f"rehearsal {choice!r}": DPHRL(choice, _strength(choice), 0.0, search=search)}
    return {
        "DPH-F": DPHRL(KL(), 1.0, -1.0, search=search),
        "DPH-F centred": DPHRL(KL(), 1.0, 0.0, search=search),
        "DPH-JS": DPHRL(2 * JensenShannon(), 3.0, 0.0, search=search),
    }


def _strength(divergence: FDivergence) -> float:
    """1 / f''(1): all divergences are then the same to second order."""
    return 1 / float(divergence.curvature(torch.ones((), dtype=torch.float64))) if divergence.smooth else 1.0


def _bandit(setting: Setting) -> Row:
    problem = _Bandit(setting.seed)
    split = problem.split(setting.seed)
    mastered = split.mastered
    steps = 200 if setting.quick else 400
    row: Row = {"mastered": int(mastered.sum()), "rehearsed": split.rehearsed}
    runs: dict[str, Any] = {"base": None, "none": _search(steps), "none, explored only": _search(steps)}
    for weight in () if setting.choice is not None else (0.02, 0.2):
        runs[f"reverse KL {weight:g}"] = _search(steps, DivergencePenalty(ReverseKL(), weight))
    for name, method in (runs | _rehearsed(setting)).items():
        policy, generator = problem.policy(), torch.Generator().manual_seed(5000 + setting.seed)
        if isinstance(method, DPHRL):
            method.fit(policy, split, problem.reward, generator=generator)
        elif method is not None:
            prompts = split.explore if name == "none, explored only" else problem.trained
            reference = problem.policy() if method.penalty is not None else None
            method.fit(policy, prompts, problem.reward, reference=reference, generator=generator)
        for what, value in problem.scores(policy, mastered).items():
            row[f"{what} {name}"] = value
    return row


class _Sums:
    """ "7=" is to be answered with two digits whose sum is 7: up to ten right answers, checked by a verifier."""

    def __init__(self) -> None:
        self.tokenizer = CharacterTokenizer("0123456789=")
        self.prompts = torch.stack([self.tokenizer.encode(f"{n}=") for n in range(10)])
        first = self.tokenizer.encode("0")
        self.zero = int(first[0])

    def verify(self, prompts: Tensor, responses: Tensor) -> Tensor:
        """One where both tokens are digits and their sum is asked for."""
        digits, target = responses - self.zero, prompts[:, :1] - self.zero
        valid = ((digits >= 0) & (digits <= 9)).all(-1)
        return (valid & (digits.sum(-1) == target)).double()

    def answers(self) -> tuple[Tensor, Tensor]:
        """All (prompt, right answer) pairs as token sequences (55, 4) and how often each is shown in pre-training."""
        rows = [self.tokenizer.encode(f"{n}={a}{n - a}") for n in range(10) for a in range(n + 1)]
        wrong = [self.tokenizer.encode(f"{n}={a}{(n - a + 3) % 10}") for n in range(10) for a in range(n + 1)]
        # Small sums are mastered at the start, large ones are not.
        weight = [0.97 if n < 5 else 0.3 for n in range(10) for _ in range(n + 1)]
        weights = torch.tensor(weight + [1 - w for w in weight])
        count = torch.tensor([n + 1.0 for n in range(10) for _ in range(n + 1)]).repeat(2)
        return torch.stack(rows + wrong), weights / count


def _tokens(setting: Setting) -> Row:
    sums = _Sums()
    model = tiny_gpt2(sums.tokenizer.size, seed=setting.seed, positions=8)
    policy: ResponsePolicy = CausalResponses(model, max_new_tokens=2)
    sequences, weights = sums.answers()

    def imitate(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        log_probs, _mask = policy.log_probs(sequences[:, :2], sequences[:, 2:].unsqueeze(1))
        return -(weights * log_probs.sum((-1, -2))).sum() / weights.sum(), {}

    Training(steps=100 if setting.quick else 200, learning_rate=3e-3).run(model.parameters(), imitate)
    generator = torch.Generator().manual_seed(6000 + setting.seed)
    split = presample_split(policy, sums.prompts, sums.verify, k=16, threshold=0.75, rehearsals=16, generator=generator)
    training = Training(steps=15 if setting.quick else 50, learning_rate=5e-4, record_every=1)
    method = DPHRL(KL(), 0.05, search=GRPO(group=8, prompts=8, training=training))
    if setting.choice is not None:
        choice = ADMITS.check(setting.choice)
        method = DPHRL(choice, 0.05 * _strength(choice), 0.0, search=method.search)
    before = _right(policy, sums, generator)
    found = method.fit(policy, split, sums.verify, generator=generator)
    after = _right(policy, sums, generator)
    finite = all(map(math.isfinite, found.history["loss"]))
    return {
        "tokens mastered": int(split.mastered.sum()),
        "tokens finite": float(finite),
        "tokens gained pass@1": after[0] - before[0],
        "tokens gained pass@8": after[1] - before[1],
    }


def _right(policy: ResponsePolicy, sums: _Sums, generator: torch.Generator) -> tuple[float, float]:
    """Pass@1 and pass@8 over all prompts, from 64 answers each."""
    responses = policy.sample(sums.prompts, 64, generator=generator)
    right = sums.verify(sums.prompts, responses).sum(-1).long()
    return float(pass_at_k(64, right, 1).mean()), float(pass_at_k(64, right, 8).mean())


def measure(setting: Setting) -> Row:
    """Both parts for one seed."""
    return _bandit(setting) | _tokens(setting)


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks, and the reverse KL leash with a large coefficient beside them."""

    def values(what: str, name: str) -> list[float]:
        return [r[f"{what} {name}"] for r in rows]

    def gained(what: str, name: str) -> list[float]:
        return [a - b for a, b in zip(values(what, name), values(what, "none"), strict=True)]

    def mean(numbers: list[float]) -> float:
        return statistics.fmean(numbers)

    kept = [k.removeprefix("modes ") for k in rows[0] if k.startswith(("modes DPH", "modes rehearsal"))]
    kept = [name for name in kept if name != "DPH-F centred"]  # ours, reported beside the paper's
    none = values("modes", "none")
    checks = [check("modes kept of 4 without a divergence", none, "mean <= 2.5", mean(none) <= 2.5)]
    for name in kept:
        modes, first = values("modes", name), values("train pass@1", name)
        checks.append(check(f"modes kept of 4 by {name}", modes, "mean >= 3.8", mean(modes) >= 3.8))
        for what, bound in (("OOD pass@16", 0.015), ("OOD pass@1", 0.01)):
            more = gained(what, name)
            checks.append(check(f"{what} of {name} over none", more, f"mean >= {bound:g}", mean(more) >= bound))
        checks.append(check(f"train pass@1 of {name}", first, "mean >= 0.93", mean(first) >= 0.93))
    if "modes reverse KL 0.2" in rows[0]:
        tuned = values("modes", "reverse KL 0.2")
        checks.append(check("modes kept of 4 by reverse KL with coefficient 0.2", tuned, "mean >= 3.5", mean(tuned) >= 3.5))
    finite, more = [r["tokens finite"] for r in rows], [r["tokens gained pass@1"] for r in rows]
    checks.append(check("GPT-2 on sums: losses finite", finite, "1 in every seed", min(finite) == 1))
    checks.append(check("GPT-2 on sums: pass@1 gained", more, "mean > 0", mean(more) > 0))
    return checks


def draw(rows: list[Row], file: Path) -> None:
    """Modes kept, and pass@16 on unseen prompts against pass@1 on trained ones."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [k.removeprefix("modes ") for k in rows[0] if k.startswith("modes ")]
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    palette = ["#111827", "#9ca3af", "#d1d5db", "#fbbf24", "#f59e0b", "#2563eb", "#60a5fa", "#dc2626"]
    for i, name in enumerate(names):
        modes = [r[f"modes {name}"] for r in rows]
        left.barh(i, statistics.fmean(modes), color=palette[i % len(palette)], height=0.7)
        left.plot(modes, [i] * len(modes), ".", color="black", ms=4)
        x, y = ([r[f"{what} {name}"] for r in rows] for what in ("train pass@1", "OOD pass@16"))
        right.plot(x, y, ".", color=palette[i % len(palette)], alpha=0.5)
        right.plot(statistics.fmean(x), statistics.fmean(y), "o", color=palette[i % len(palette)], label=name)
    left.set(yticks=range(len(names)), yticklabels=names, xlabel="correct answers kept, of 4, on mastered prompts", xlim=(0, 4.1))
    left.invert_yaxis()
    right.set(xlabel="pass@1 on trained prompts", ylabel="pass@16 on unseen prompts")
    right.legend(frameon=False, fontsize=8)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _share_kept(divergence: Any, seed: int) -> float:
    """What is left of the correct answer that lost most, in per cent of its initial probability, mean over mastered prompts.

    The coefficient is 0.1 / f''(1): with the recipe's coefficients every divergence keeps all modes.
    """
    problem = _Bandit(seed)
    split = problem.split(seed)
    policy = problem.policy()
    DPHRL(divergence, 0.1 * _strength(divergence), 0.0, search=_search(200)).fit(
        policy, split, problem.reward, generator=torch.Generator().manual_seed(5000 + seed)
    )
    with torch.no_grad():
        change = policy.laws(problem.prompts) - problem.policy().laws(problem.prompts)
    return 100 * float(change.gather(-1, problem.correct)[:_TRAINED][split.mastered].amin(-1).exp().mean())


RECIPE = Recipe(
    slug="dph-rl",
    measure=measure,
    judge=judge,
    draw=draw,
    seeds=(0, 1, 2, 3, 4),
    swaps=True,
    task=SwapTask(
        measures="what the correct answer that lost most keeps of its probability (%)",
        better="higher",
        admits=ADMITS,
        run=_share_kept,
        default=KL(),
    ),
)
