"""On-policy distillation: exact chains, a character model pair, and a truncated SmolLM2.

chains   a teacher that remembers two symbols and a student that remembers one, trained by exact expectations behind the
         teacher's prefixes or the student's own, under three divergences
letters  a small GPT-2 of the standard library's text and a student a tenth of its size: 100 steps on the text alone, or half of
         them on the student's own samples; the exposure-bias gap of the two
smollm2  SmolLM2-135M as the teacher of its own first six layers, a few steps: the divergence on held-out prompts before and after
"""

from __future__ import annotations

import copy
import statistics
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from discrepancy.divergences import KL, Divergence, JensenShannon, ReverseKL
from discrepancy.language_models import CharacterTokenizer, fit_language_model, tiny_gpt2
from discrepancy.learning import Training
from discrepancy.methods.distillation.exposure_bias import exposure_bias
from discrepancy.methods.distillation.on_policy_distillation import ADMITS, OnPolicyDistillation
from discrepancy.methods.distillation.responses import padded_prompts, response_logits
from discrepancy.methods.distillation.token_divergence import token_divergence
from discrepancy.recipes.memory_chains import LENGTH, SIZE, chain_student, chain_teacher, judged, trained_exactly
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check

_THREE: dict[str, Divergence] = {"KL": KL(), "JS": JensenShannon(), "reverse KL": ReverseKL()}


def _chains(setting: Setting) -> Row:
    teacher = chain_teacher(setting.seed)
    steps, rate = (120, 0.1) if setting.quick else (400, 0.05)
    row: Row = {}
    for name, divergence in _THREE.items():
        for where in ("off", "on"):
            student = trained_exactly(teacher, divergence, where == "on", steps, rate)
            row |= {f"{k}, {where} {name}": v for k, v in judged(teacher, student).items()}
    return row


@cache
def _text() -> tuple[Tensor, CharacterTokenizer]:
    from discrepancy.datasets import library_text

    text = library_text()
    tokenizer = CharacterTokenizer(text)
    return tokenizer.encode(text), tokenizer


@cache
def _text_models(quick: bool) -> tuple[Any, Any]:
    """The teacher, and a student warmed up on the text."""
    ids, tokenizer = _text()
    split = len(ids) * 9 // 10
    teacher = tiny_gpt2(tokenizer.size, layers=3, width=96, heads=4, positions=64, seed=0)
    student = tiny_gpt2(tokenizer.size, layers=1, width=48, heads=4, positions=64, seed=1)
    for model, steps, seed in ((teacher, 40 if quick else 300, 0), (student, 40 if quick else 150, 1)):
        fit_language_model(model, ids[:split], steps=steps, batch=32, length=48, generator=torch.Generator().manual_seed(seed))
    return teacher, student


def _letters(setting: Setting) -> Row:
    teacher, warm = _text_models(setting.quick)
    ids, _ = _text()
    split, prompt, length = len(ids) * 9 // 10, 8, 16 if setting.quick else 32
    divergence = ADMITS.check(setting.choice) if setting.choice is not None else JensenShannon()
    generator = torch.Generator().manual_seed(3000 + setting.seed)
    starts = torch.randint(split - prompt - length, (1024, 1), generator=generator)
    windows = ids[starts + torch.arange(prompt + length)]
    held_out = ids[torch.randint(split, len(ids) - prompt, (64, 1), generator=generator) + torch.arange(prompt)]
    steps = 10 if setting.quick else 100
    row: Row = {}
    for name, share in (("before", None), ("off", 0.0), ("on", 0.5)):
        student = copy.deepcopy(warm)
        if share is not None:
            training = Training(steps=steps, learning_rate=1e-3, final_share=0.1, gradient_clip=1.0, record_every=1)
            method = OnPolicyDistillation(
                divergence=divergence, on_policy=share, training=training, batch=32, max_new_tokens=length
            )
            result = method.train(
                student,
                teacher,
                windows[:, :prompt],
                windows[:, prompt:],
                generator=torch.Generator().manual_seed(4000 + setting.seed),
            )
            row[f"letters: worst loss {name}"] = max(result.history["loss"])
        found = exposure_bias(
            student,
            teacher,
            held_out,
            divergence,
            samples=128 if setting.quick else 512,
            max_new_tokens=length,
            chunk=256,
            generator=torch.Generator().manual_seed(5000 + setting.seed),
        )
        row |= {
            f"letters: gap {name}": float(found.gap),
            f"letters: standard error of the gap {name}": float(found.gap.standard_error or 0.0),
            f"letters: accumulation {name}": found.accumulation,
            f"letters: on own prefixes {name}": float(found.on_student.mean()),
            f"letters: teacher NLL {name}": float(found.teacher_nll),
            f"letters: entropy {name}": float(found.student_entropy),
            f"letters: coverage {name}": float(found.coverage),
            f"_positions {name}": (found.on_student.tolist(), found.on_teacher.tolist()),
        }
    return row


def _smollm2(setting: Setting) -> Row:
    """Twelve steps of four short sequences; one seed, since a step takes seconds."""
    from discrepancy.datasets import library_text, smollm2

    teacher, tokenizer = smollm2()
    student = copy.deepcopy(teacher)
    student.model.layers = student.model.layers[:6]
    student.config.num_hidden_layers = 6
    lines = [line.strip() for line in library_text().splitlines() if len(line.strip()) > 60]
    generator = torch.Generator().manual_seed(setting.seed)
    order = torch.randperm(len(lines), generator=generator).tolist()
    tokens = (tokenizer(lines[i])["input_ids"][:8] for i in order)
    # A ruler of dashes is one token.
    ids = torch.tensor(list(islice((t for t in tokens if len(t) == 8), 48)))
    prompts, held_out = ids[:40], ids[40:]
    with torch.no_grad():
        from discrepancy.language_models import generate

        answers = generate(teacher, held_out, max_new_tokens=16, generator=generator).responses
    mask = torch.ones_like(answers, dtype=torch.bool)
    rows = padded_prompts(held_out, None)

    def distance() -> dict[str, float]:
        with torch.no_grad():
            mine, theirs = response_logits(student, rows, answers), response_logits(teacher, rows, answers)
            return {name: float(token_divergence(mine, theirs, mask, d)) for name, d in _THREE.items()}

    before = distance()
    training = Training(steps=12, learning_rate=2e-4, final_share=0.5, warm_up=2, gradient_clip=1.0, record_every=1)
    method = OnPolicyDistillation(divergence=JensenShannon(), on_policy=0.5, training=training, batch=4, max_new_tokens=12)
    method.train(student, teacher, prompts, generator=generator)
    after = distance()
    return {f"smollm2: {k} before": v for k, v in before.items()} | {f"smollm2: {k} after": v for k, v in after.items()}


def measure(setting: Setting) -> Row:
    """The chains and the letters for one seed; SmolLM2 in the first seed of a full run."""
    row = _chains(setting) | (_letters(setting) if setting.quick or setting.seed < 3 else {})
    if setting.seed == 0 and not setting.quick:
        row |= _smollm2(setting)
    return row


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks; a quick run records the letters and does not judge them: ten steps show no gap."""

    def differences(first: str, second: str) -> list[float]:
        return [r[first] - r[second] for r in rows]

    checks = []
    for name in ("reverse KL", "JS"):
        gain = differences(f"own reverse KL, off {name}", f"own reverse KL, on {name}")
        checks.append(
            check(f"chains, {name}: reverse KL on own prefixes, off minus on", gain, "mean > 0", statistics.fmean(gain) > 0)
        )
    for where in ("off", "on"):
        steps = [
            min(
                r[f"teacher NLL, {where} KL"] - r[f"teacher NLL, {where} JS"],
                r[f"teacher NLL, {where} JS"] - r[f"teacher NLL, {where} reverse KL"],
            )
            for r in rows
        ]
        cover = [
            min(
                r[f"coverage, {where} JS"] - r[f"coverage, {where} KL"],
                r[f"coverage, {where} reverse KL"] - r[f"coverage, {where} JS"],
            )
            for r in rows
        ]
        checks += [
            check(f"chains, {where}-policy: least step of teacher NLL, KL > JS > reverse KL", steps, "mean > 0",
                  statistics.fmean(steps) > 0),
            check(f"chains, {where}-policy: least step of coverage loss, reverse KL > JS > KL", cover, "mean > 0",
                  statistics.fmean(cover) > 0),
        ]  # fmt: skip
    same = [abs(v) for v in differences("coverage, on KL", "coverage, off KL")]
    checks.append(check("chains, KL: on- against off-policy coverage", same, "mean <= 0.01", statistics.fmean(same) <= 0.01))
    letters = [r for r in rows if "letters: gap on" in r]
    if letters and not quick:
        gap = [r["letters: gap off"] - r["letters: gap on"] for r in letters]
        checks.append(check("letters: exposure-bias gap (JS), off minus on", gap, "mean > 0", statistics.fmean(gap) > 0))
    real = [r["smollm2: JS after"] / r["smollm2: JS before"] for r in rows if "smollm2: JS after" in r]
    if real:
        checks.append(check("SmolLM2's first six layers: held-out JS after over before", real, "< 1", max(real) < 1))
    return checks


def draw(rows: list[Row], file: Path) -> None:
    """Quality against coverage of the six chain students, and the exposure bias by position."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = {"KL": "#2563eb", "JS": "#7c3aed", "reverse KL": "#dc2626"}
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for name, colour in colours.items():
        points = {
            where: [statistics.fmean(r[f"{what}, {where} {name}"] for r in rows) for what in ("coverage", "teacher NLL")]
            for where in ("off", "on")
        }
        left.plot(*zip(*points.values(), strict=True), "-", color=colour, lw=1)
        left.plot(*points["off"], "o", color=colour, mfc="white", label=f"{name}, teacher's prefixes")
        left.plot(*points["on"], "o", color=colour, label=f"{name}, own prefixes")
    left.set(
        xlabel="KL behind the teacher's prefixes (coverage lost, nats a token)",
        ylabel="-log teacher of student samples (nats a token)",
        title="Chains: what is gained in quality is lost in coverage",
    )
    shown = [r for r in rows if "_positions on" in r]
    colour_of = {"before": ("#9ca3af", "before"), "off": ("#f59e0b", "on the text"), "on": ("#059669", "half on own samples")}
    for name, (colour, label) in colour_of.items():
        curves = [torch.tensor(r[f"_positions {name}"][0]) - torch.tensor(r[f"_positions {name}"][1]) for r in shown]
        mean = torch.stack(curves).mean(0)
        right.plot(range(1, len(mean) + 1), mean, color=colour, label=label)
    right.axhline(0, color="#111827", lw=0.8)
    right.set(
        xlabel="position",
        ylabel="JS on own minus on teacher's prefixes (nats)",
        title="Letters: exposure bias by position",
    )
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _task(divergence: Any, seed: int) -> float:
    """The trainer itself on the chains, all batches the student's own samples; -log T of student samples, exactly."""
    teacher, student = chain_teacher(seed), chain_student()
    method = OnPolicyDistillation(
        divergence=divergence,
        on_policy=1.0,
        training=Training(steps=80, learning_rate=0.1, final_share=0.1, record_every=80),
        batch=48,
        max_new_tokens=LENGTH,
    )
    starts = torch.full((48, 1), SIZE)
    method.train(student, teacher, starts, generator=torch.Generator().manual_seed(seed))
    return judged(teacher, student)["teacher NLL"]


RECIPE = Recipe(
    slug="on-policy-distillation",
    measure=measure,
    judge=judge,
    draw=draw,
    seeds=(0, 1, 2, 3, 4),
    swaps=True,
    needs=("smollm2",),
    task=SwapTask(
        measures="-log teacher of student samples (nats a token)",
        better="lower",
        admits=ADMITS,
        run=_task,
        default=JensenShannon(),
    ),
)
