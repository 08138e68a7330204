"""Nash mirror prox on random intransitive games, beside mirror descent, Nash-MD and extragradient, exact and sampled.

exact     P = sigmoid(3 (A - A^T)), A uniform on [-1, 1], 10 or 100 answers, Dirichlet reference, three leashes: the rate that is
          proven, its independence of the number of answers, and what the others reach with as many preference queries
sampled   a softmax policy of 10 answers trained by policy gradients on 256 comparisons a step
tokens    rock, paper and scissors as single tokens of a two-layer GPT-2 that starts far from its uniform reference, by
          self-play and by policy gradients without a leash
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._results import ConvergenceWarning
from discrepancy.divergences import FDivergence, ReverseKL
from discrepancy.language_models import tiny_gpt2
from discrepancy.learning import Training
from discrepancy.methods.alignment import (
    GRPO,
    CategoricalPolicy,
    CausalResponses,
    NashMirrorProx,
    NashResult,
    exploitability,
    extragradient,
    mirror_descent,
    nash_md,
    nash_mirror_prox,
)
from discrepancy.methods.alignment.nash_mirror_prox import ADMITS
from discrepancy.methods.alignment.response_policy import snapshot
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check

_SIZES = (10, 100)
_BETAS = (0.01, 0.05, 0.2)
_ROUNDS = 200  # of two queries each


def _game(size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Preferences (n, n) and reference (n,)."""
    generator = torch.Generator().manual_seed(100 * size + seed)
    a = 2 * torch.rand(size, size, generator=generator, dtype=torch.float64) - 1
    # Exponential variables over their sum are uniform on the simplex.
    reference = -torch.log1p(-torch.rand(size, generator=generator, dtype=torch.float64))
    return torch.sigmoid(3 * (a - a.T)), reference / reference.sum()


def _kl(p: Tensor, q: Tensor) -> float:
    return float(ReverseKL().from_probs(q, p))


def _limited(solver: Any, *arguments: Any, **options: Any) -> NashResult:
    """A run of a given length: that it stops there is the point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return solver(*arguments, **options)


def _exact(setting: Setting) -> Row:
    row: Row = {}
    for size in _SIZES:
        preferences, reference = _game(size, setting.seed)
        for beta in _BETAS:
            game = (preferences, reference)
            solved = _limited(nash_mirror_prox, *game, beta=beta, iterations=20_000, tolerance=1e-14, record=True)
            assert solved.path is not None
            distance = [_kl(solved.policy, p) for p in solved.path]
            name = f"n {size} beta {beta:g}"
            row[f"certificate {name}"] = solved.exploitability
            bound = [distance[0] * (1 + 2 * beta) ** -k for k in range(len(distance))]
            last = min(_ROUNDS, len(distance) - 1)
            row[f"excess {name}"] = max(distance[k] - bound[k] for k in range(10, last + 1))
            row[f"rounds {name}"] = next(k for k, d in enumerate(distance) if d <= 1e-6)
            if beta == _BETAS[0]:
                row[f"KL mirror prox {name}"] = distance[_ROUNDS]
                for other, rounds in ((mirror_descent, 2 * _ROUNDS), (nash_md, 2 * _ROUNDS), (extragradient, _ROUNDS)):
                    path = _limited(other, *game, beta=beta, iterations=rounds, tolerance=1e-14, record=True).path
                    assert path is not None
                    row[f"KL {other.__name__} {name}"] = _kl(solved.policy, path[-1])
                    if size == _SIZES[0]:
                        stride = 20 * len(path) // (2 * _ROUNDS)
                        row[f"_path {other.__name__}"] = [_kl(solved.policy, p) for p in path[::stride]]
                if size == _SIZES[0]:
                    row["_path nash_mirror_prox"] = distance[: _ROUNDS + 1 : 10]
                    row["_path bound"] = bound[: _ROUNDS + 1 : 10]
    return row


def _other_leash(divergence: FDivergence, setting: Setting) -> Row:
    """Another leash: exploitability in its own game after 60 rounds."""
    preferences, reference = _game(10, setting.seed)
    found = _limited(nash_mirror_prox, preferences, reference, beta=0.2, divergence=divergence, iterations=60, tolerance=1e-12)
    return {"choice": repr(divergence), "exploitability of the choice": found.exploitability}


def _sampled(setting: Setting) -> Row:
    """Exploitability of a trained softmax policy, from the reference on."""
    preferences, reference = _game(10, setting.seed)
    table = nn.Embedding(1, 10)
    with torch.no_grad():
        table.weight.copy_(reference.log().float())
    single = preferences.float()
    curve: list[float] = []

    def observe() -> float:
        law = torch.softmax(table.weight.detach()[0].double(), -1)
        curve.append(exploitability(law, preferences, reference, beta=0.2))
        return curve[-1]

    observe()
    method = NashMirrorProx(
        beta=0.2,
        iterations=6 if setting.quick else 20,
        group=256,
        inner=Training(steps=20, learning_rate=0.1, final_share=0.1, record_every=20),
    )
    method.fit(
        CategoricalPolicy(table),
        torch.zeros(1, dtype=torch.long),
        lambda _, a, b: single[a[..., 0], b[..., 0]],
        observe=observe,
        generator=torch.Generator().manual_seed(8000 + setting.seed),
    )
    return {"sampled exploitability": curve[-1], "sampled at the reference": curve[0]}


def _beats(_: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Tokens 1, 2, 3: each beats the one before, around the circle; token 0, the prompt, loses to all."""
    a, b = first[..., 0], second[..., 0]
    wins = torch.where(a == b, 0.5, torch.where((a - b) % 3 == 1, 1.0, 0.0))
    return torch.where((a == 0) & (b == 0), 0.5, torch.where(a == 0, 0.0, torch.where(b == 0, 1.0, wins)))


def _tokens(setting: Setting) -> Row:
    """The largest distance from uniform at the end of self-play, and along the last half of training without a leash."""
    model = tiny_gpt2(4, positions=4, seed=setting.seed)
    policy = CausalResponses(model, max_new_tokens=1)
    prompt = torch.zeros(1, 1, dtype=torch.long)
    answers = torch.arange(1, 4).reshape(1, 3, 1)

    def law() -> Tensor:
        with torch.no_grad():
            return policy.log_probs(prompt, answers)[0][0, :, 0].exp()

    def imitate(target: Tensor) -> list[Tensor]:
        def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            return -(target * policy.log_probs(prompt, answers)[0][0, :, 0]).sum(), {}

        Training(steps=80, learning_rate=3e-3, final_share=0.01).run(model.parameters(), step)
        return snapshot(policy)

    uniform = imitate(torch.full((3,), 1 / 3))
    imitate(torch.tensor([0.7, 0.2, 0.1]))
    skewed = {k: v.clone() for k, v in model.state_dict().items()}
    generator = torch.Generator().manual_seed(9000 + setting.seed)
    inner = Training(steps=10, learning_rate=1e-3, final_share=0.3, record_every=10)
    path = [float((law() - 1 / 3).abs().max())]
    NashMirrorProx(beta=0.2, iterations=8 if setting.quick else 15, group=64, inner=inner).fit(
        policy,
        prompt,
        _beats,
        reference=uniform,
        observe=lambda: path.append(float((law() - 1 / 3).abs().max())) or path[-1],
        generator=generator,
    )
    model.load_state_dict(skewed)
    alone = [path[0]]

    def against_itself(prompts: Tensor, responses: Tensor) -> Tensor:
        alone.append(float((law() - 1 / 3).abs().max()))
        return _beats(prompts, responses, policy.sample(prompts, responses.shape[1], generator=generator))

    steps = 80 if setting.quick else 300
    free = Training(steps=steps, learning_rate=1e-3, final_share=1.0, record_every=steps)
    GRPO(group=64, prompts=1, training=free).fit(policy, prompt, against_itself, generator=generator)
    return {
        "tokens self-play": path[-1],
        "tokens without a leash": max(alone[len(alone) // 2 :]),
        "_tokens self-play": path,
        "_tokens without a leash": alone,
    }


def measure(setting: Setting) -> Row:
    """All parts for one seed."""
    row = _exact(setting) | _sampled(setting) | _tokens(setting)
    if setting.choice is not None:
        row |= _other_leash(ADMITS.check(setting.choice), setting)
    return row


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks."""
    names = [f"n {size} beta {beta:g}" for size in _SIZES for beta in _BETAS]
    worst = [max(r[f"certificate {n}"] for n in names) for r in rows]
    excess = [max(r[f"excess {n}"] for n in names) for r in rows]
    small = f"n {_SIZES[0]} beta {_BETAS[0]:g}"
    prox, descent = ([r[f"KL {name} {small}"] for r in rows] for name in ("mirror prox", "mirror_descent"))
    ratios = []
    for r in rows:
        rounds = [[r[f"rounds n {size} beta {beta:g}"] for size in _SIZES] for beta in _BETAS]
        ratios.append(max(max(pair) / min(pair) for pair in rounds))
    sampled, played, alone = (
        [r[k] for r in rows] for k in ("sampled exploitability", "tokens self-play", "tokens without a leash")
    )
    checks = [
        check("exploitability of the reference solutions", worst, "< 1e-12", max(worst) < 1e-12),
        check("largest KL to the equilibrium above its bound, rounds 10 to 200", excess, "<= 1e-12", max(excess) <= 1e-12),
        check("beta 0.01, n 10, 400 queries: KL of mirror prox", prox, "< 0.001 in every seed", max(prox) < 1e-3),
        check("beta 0.01, n 10, 400 queries: KL of mirror descent", descent, "> 0.1 in every seed", min(descent) > 0.1),
        check("rounds to KL 1e-6, n 100 against n 10", ratios, "< 2 in every seed and leash", max(ratios) < 2),
        check("sampled: exploitability at the end", sampled, "< 0.01", max(sampled) < 0.01),
        check("tokens: largest distance from uniform by self-play", played, "<= 0.1", max(played) <= 0.1),
        check("tokens: the same without a leash, later half", alone, "> 0.3", min(alone) > 0.3),
    ]
    if "choice" in rows[0]:
        left = [r["exploitability of the choice"] for r in rows]
        checks.append(check(f"{rows[0]['choice']}: exploitability after 60 rounds", left, "< 1e-4", max(left) < 1e-4))
    return checks


def draw(rows: list[Row], file: Path) -> None:
    """KL to the equilibrium against preference queries, and rock, paper, scissors."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    colours = {"nash_mirror_prox": "#2563eb", "mirror_descent": "#dc2626", "nash_md": "#f59e0b", "extragradient": "#10b981"}
    for name, colour in colours.items():
        for r in rows:
            path = r[f"_path {name}"]
            x = [2 * _ROUNDS * i / (len(path) - 1) for i in range(len(path))]
            left.semilogy(x, path, color=colour, lw=1.2, alpha=0.7, label=name.replace("_", " ") if r is rows[0] else None)
    bound = rows[0]["_path bound"]
    left.semilogy([20 * i for i in range(len(bound))], bound, "k:", label="bound, first seed")
    left.set(xlabel="preference queries", ylabel="KL(equilibrium || policy)", title="10 answers, beta = 0.01")
    for r in rows:
        for key, colour, name in (("self-play", "#2563eb", "mirror prox"), ("without a leash", "#dc2626", "no leash")):
            path = r[f"_tokens {key}"]
            x = [i / max(1, len(path) - 1) for i in range(len(path))]
            right.plot(x, path, color=colour, lw=1.2, alpha=0.7, label=name if r is rows[0] else None)
    right.set(xlabel="share of the training", ylabel="largest distance from uniform", title="GPT-2 plays rock, paper, scissors")
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _reached(divergence: Any, seed: int) -> float:
    """Decimal logarithm of the exploitability after ten rounds; the leash is scaled to f''(1) = 1."""
    preferences, reference = _game(10, seed)
    leash = (1 / float(divergence.curvature(torch.ones((), dtype=torch.float64)))) * divergence
    found = _limited(nash_mirror_prox, preferences, reference, beta=0.2, divergence=leash, iterations=10, tolerance=1e-15)
    return math.log10(max(found.exploitability, 1e-16))


RECIPE = Recipe(
    slug="nash-mirror-prox",
    measure=measure,
    judge=judge,
    draw=draw,
    seeds=(0, 1, 2, 3, 4),
    swaps=True,
    task=SwapTask(
        measures="log10 of the exploitability after ten rounds of a game of ten answers",
        better="lower",
        admits=ADMITS,
        run=_reached,
        default=ReverseKL(),
    ),
)
