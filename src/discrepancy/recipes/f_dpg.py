"""f-DPG: five divergences towards one target, exactly and from samples, and a character model that learns to write a letter.

strings   all 1,024 strings of length five over four symbols: a Markov chain is moved to its own law under a constraint that no
          chain can satisfy exactly, by exact gradients; the divergences differ in what they give up
sampled   the algorithm itself, 256 samples a step, Z estimated, against the exact optimum
letters   a small character model of the standard library's text, constrained to use the letter q within 20 characters

Reverse KL is infinite for a hard constraint: its target is the soft one, where a violation costs 10 nats.
"""

from __future__ import annotations

import math
import statistics
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from discrepancy.divergences import KL, ChiSquared, FDivergence, JensenShannon, ReverseKL, TotalVariation
from discrepancy.language_models import CausalPolicy, CharacterTokenizer, MarkovPolicy, fit_language_model, tiny_gpt2
from discrepancy.learning import Training
from discrepancy.methods.alignment.energy_based import BooleanScorer, EnergyBasedModel, RewardScorer
from discrepancy.methods.alignment.f_dpg import ADMITS, FDPG
from discrepancy.methods.alignment.importance import log_normaliser
from discrepancy.recipes.constrained_strings import allowed, exact_optimum, markov_base, targets, variances_left, violation
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check

_JS = 2 * JensenShannon()
_FIVE: dict[str, FDivergence] = {
    "KL": KL(),
    "reverse KL": ReverseKL(),
    "JS": _JS,
    "TV": TotalVariation(),
    "chi-squared": ChiSquared(),
}


def _exact_steps(setting: Setting) -> tuple[int, float]:
    return (200, 0.08) if setting.quick else (1500, 0.02)


def _strings(setting: Setting) -> Row:
    base = markov_base(setting.seed)
    strings = base.strings()
    goals = [t.log_score(strings) for t in targets(base)]
    row: Row = {}
    steps, rate = _exact_steps(setting)
    for name, divergence in _FIVE.items():
        policy = exact_optimum(base, goals[name == "reverse KL"], divergence, steps, rate)
        row[f"_policy {name}"] = policy
        with torch.no_grad():
            log_pi = policy.log_prob(strings)
            for metric, measured in _FIVE.items():
                row[f"{metric} of {name}"] = float(measured.from_logits(goals[metric == "reverse KL"], log_pi))
            row[f"satisfaction {name}"] = float(log_pi.exp()[allowed(strings)].sum())
            row[f"entropy {name}"] = float(-(log_pi.exp() * log_pi).sum())
        if name == "JS":
            row |= variances_left(policy, base, goals[0], _JS)
    with torch.no_grad():
        log_a = base.log_prob(strings)
        row["satisfaction base"] = float(log_a.exp()[allowed(strings)].sum())
        row["KL of base"] = float(KL().from_logits(goals[0], log_a))
    return row


def _divergence(setting: Setting) -> FDivergence:
    return ADMITS.check(setting.choice) if setting.choice is not None else _JS


def _sampled(setting: Setting, best: MarkovPolicy) -> Row:
    """The algorithm from samples, measured exactly; the optimum is that of exact gradients (`best`, for the paper's choice)."""
    base, divergence = markov_base(setting.seed), _divergence(setting)
    hard = math.isfinite(divergence.at_zero)
    target = targets(base)[0 if hard else 1]
    strings = base.strings()
    goal = target.log_score(strings)
    steps, rate = (150, 0.08) if setting.quick else (600, 0.04)
    if setting.choice is not None:
        best = exact_optimum(base, goal, divergence, *_exact_steps(setting))
    policy = MarkovPolicy(base.start.detach(), base.transition.detach(), base.length)
    training = Training(steps=steps, learning_rate=rate, final_share=0.02, record_every=max(1, steps // 10))
    method = FDPG(divergence=divergence, training=training, samples=256, warm_up=1024)
    result = method.tune(policy, target, generator=torch.Generator().manual_seed(1000 + setting.seed))
    with torch.no_grad():
        reached, optimum = (float(divergence.from_logits(goal, p.log_prob(strings))) for p in (policy, best))
    return {
        "sampled over exact": reached / optimum,
        "error of log Z": result.log_z[0] - float(torch.logsumexp(goal, 0)),
        "effective samples of 256": result.effective_sample_size,
    }


@cache
def _lettersmarkov_base(steps: int) -> tuple[Any, CharacterTokenizer]:
    from discrepancy.datasets import library_text

    text = library_text()
    tokenizer = CharacterTokenizer(text)
    model = tiny_gpt2(tokenizer.size, layers=2, width=64, heads=4, positions=32)
    fit_language_model(
        model, tokenizer.encode(text), steps=steps, batch=32, length=32, generator=torch.Generator().manual_seed(0)
    )
    return model, tokenizer


def _letters(setting: Setting) -> Row:
    import copy

    pretrained, tokenizer = _lettersmarkov_base(50 if setting.quick else 600)
    letter, prompt = int(tokenizer.encode("q")), tokenizer.encode("\n")
    base = CausalPolicy(pretrained, prompt, 20)
    policy = CausalPolicy(copy.deepcopy(pretrained), prompt, 20)
    divergence = _divergence(setting)

    def contains(x: Tensor) -> Tensor:
        return (x == letter).any(-1)

    scorer = BooleanScorer(contains) if math.isfinite(divergence.at_zero) else RewardScorer(lambda x: contains(x).double(), 0.2)
    target = EnergyBasedModel(base, (scorer,))
    generator = torch.Generator().manual_seed(2000 + setting.seed)
    n = 512 if setting.quick else 2048
    drawn = base.sample(n, generator)
    with torch.no_grad():
        log_a = base.log_prob(drawn)
    log_z = float(log_normaliser(target.log_score(drawn), log_a))
    before = float(contains(drawn).double().mean())
    steps, rate, size = (15, 1e-3, 96) if setting.quick else (60, 3e-4, 192)
    training = Training(steps=steps, learning_rate=rate, final_share=0.1, record_every=steps, gradient_clip=1.0)
    FDPG(divergence=divergence, training=training, samples=size, warm_up=512).tune(policy, target, generator=generator)
    after = policy.sample(n, generator)
    with torch.no_grad():
        log_r = target.log_score(after) - log_z - policy.log_prob(after)
    # (|t - 1| - (t - 1)) / 2 = max(0, 1 - t): the same expectation, and bounded.
    distance = TotalVariation().from_log_ratio(log_r, linear=-0.5)
    start = TotalVariation().from_log_ratio(target.log_score(drawn) - log_z - log_a, linear=-0.5)
    return {
        "letters: satisfaction before": before,
        "letters: satisfaction after": float(contains(after).double().mean()),
        "letters: TV before": float(start),
        "letters: TV after": float(distance),
        "letters: standard error of TV after": float(distance.standard_error or 0.0),
        "letters: a sample": tokenizer.decode(after[contains(after)][0]) if bool(contains(after).any()) else "",
    }


def measure(setting: Setting) -> Row:
    """The three parts for one seed."""
    row = _strings(setting)
    row |= _sampled(setting, row["_policy JS"])
    # A character model takes half a minute a seed: three of them.
    return row | (_letters(setting) if setting.quick or setting.seed < 3 else {})


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks; a quick run is judged by the same ones."""
    others = {m: [n for n in _FIVE if n != m] for m in _FIVE}
    own = [max(r[f"{m} of {m}"] / min(r[f"{m} of {n}"] for n in others[m]) for m in _FIVE) for r in rows]
    least = [r["satisfaction reverse KL"] - max(r[f"satisfaction {n}"] for n in others["reverse KL"]) for r in rows]
    narrow = [min(r[f"entropy {n}"] for n in others["reverse KL"]) - r["entropy reverse KL"] for r in rows]
    wide = [r["entropy KL"] - max(r[f"entropy {n}"] for n in ("JS", "TV", "reverse KL")) for r in rows]
    wider = [r["entropy chi-squared"] - r["entropy KL"] for r in rows]
    between = [
        min(r["satisfaction JS"] - r["satisfaction KL"], r["satisfaction reverse KL"] - r["satisfaction JS"]) for r in rows
    ]
    sampled = [r["sampled over exact"] for r in rows]
    cut = [1 - r["variance left by the baseline, halfway"] for r in rows]
    cut_start = [1 - r["variance left by the baseline, start"] for r in rows]
    written = [r for r in rows if "letters: TV after" in r]
    letters = [r["letters: satisfaction after"] / max(r["letters: satisfaction before"], 1e-9) for r in written]
    nearer = [r["letters: TV before"] - r["letters: TV after"] for r in written]
    return [
        check("own divergence over the best of the other four, worst of five", own, "<= 1.02 in every seed", max(own) <= 1.02),
        check("satisfaction of reverse KL above the next", least, "> 0 in every seed", min(least) > 0),
        check("entropy of reverse KL below the next", narrow, "> 0 in every seed", min(narrow) > 0),
        check("entropy of KL above JS, TV and reverse KL", wide, "> 0 in every seed", min(wide) > 0),
        check("entropy of chi-squared above KL's", wider, ">= 0: it covers more still", min(wider) >= -1e-3),
        check("JS between KL and reverse KL in satisfaction", between, "> 0 in every seed", min(between) > 0),
        check("sampled divergence over the exact optimum", sampled, "<= 1.1 in every seed", max(sampled) <= 1.1),
        check(
            "gradient variance cut by the baseline, halfway to the optimum",
            cut,
            ">= 0.3 in every seed",
            min(cut) >= 0.3,
        ),
        check("the same at the start", cut_start, ">= 0.3 in every seed", min(cut_start) >= 0.3),
        check("letters: satisfaction after over before", letters, ">= 2 in every seed", min(letters) >= 2),
        check("letters: fall of TV to the target", nearer, "> 0 in every seed", min(nearer) > 0),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """Satisfaction against entropy of the five, over seeds; each divergence's value relative to the best."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = dict(zip(_FIVE, ("#2563eb", "#dc2626", "#7c3aed", "#059669", "#f59e0b"), strict=True))
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for name in _FIVE:
        left.scatter(
            [r[f"entropy {name}"] for r in rows],
            [100 * r[f"satisfaction {name}"] for r in rows],
            color=colours[name],
            label=name,
            s=40,
        )
    left.set(xlabel="entropy (nats)", ylabel="strings that satisfy the constraint (%)", title="What each divergence gives up")
    left.legend(frameon=False)
    table = torch.tensor(
        [
            [statistics.fmean(math.log10(r[f"{m} of {n}"] / min(r[f"{m} of {k}"] for k in _FIVE)) for r in rows) for m in _FIVE]
            for n in _FIVE
        ]
    )
    right.imshow(table.clamp(0, 2), cmap="Blues", vmin=0, vmax=2)
    for i in range(len(_FIVE)):
        for j in range(len(_FIVE)):
            ratio = 10 ** float(table[i, j])
            text = f"{ratio:.2f}" if ratio < 100 else f"1e{float(table[i, j]):.0f}"
            right.text(j, i, text, ha="center", va="center", fontsize=9, color="white" if table[i, j] > 1 else "#111827")
    right.set_xticks(range(5), list(_FIVE), rotation=20)
    right.set_yticks(range(5), list(_FIVE))
    right.set(xlabel="measured by", ylabel="trained with", title="Value over the best of the five")
    left.spines[["top", "right"]].set_visible(False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _task(divergence: Any, seed: int) -> float:
    """Jensen-Shannon to the soft target after 120 sampled steps of 128, exactly, in nats."""
    base = markov_base(seed)
    target = EnergyBasedModel(targets(base)[1].base, (RewardScorer(violation, 1 / 4),))
    policy = MarkovPolicy(base.start.detach(), base.transition.detach(), base.length)
    training = Training(steps=120, learning_rate=0.06, final_share=0.05, record_every=120)
    # The least clip that leaves bounded divergences alone keeps chi-squared's rewards, squares of ratios, finite.
    method = FDPG(divergence=divergence, training=training, samples=128, warm_up=512, clip=100.0)
    method.tune(policy, target, generator=torch.Generator().manual_seed(seed))
    strings = policy.strings()
    with torch.no_grad():
        return float(JensenShannon().from_logits(target.log_score(strings), policy.log_prob(strings)))


RECIPE = Recipe(
    slug="f-dpg",
    measure=measure,
    judge=judge,
    draw=draw,
    seeds=(0, 1, 2, 3, 4),
    swaps=True,
    task=SwapTask(
        measures="Jensen-Shannon divergence to the target (nats)", better="lower", admits=ADMITS, run=_task, default=_JS
    ),
)
