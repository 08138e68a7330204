"""Selective contrastive decoding on planted noise, on a small trained model (equalities), and on SmolLM2 with few-shot tasks."""

from __future__ import annotations

import statistics
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from discrepancy.datasets import library_text
from discrepancy.divergences import JensenShannon
from discrepancy.language_models import CharacterTokenizer, fit_language_model, tiny_gpt2
from discrepancy.methods.decoding.baselines import greedy
from discrepancy.methods.decoding.contrast import Contrast, Subtract
from discrepancy.methods.decoding.gates import Always, DivergenceGate, StandardDeviation
from discrepancy.methods.decoding.text import encode, strip_examples
from discrepancy.methods.decoding.uscd import ADMITS, USCD, contrastive_generate, second_prompt_divergence, uscd
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check
from discrepancy.testing.planted_language_models import PlantedNoise

_THRESHOLDS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

# Instruction, examples, and two questions with their answers: two or three examples each, answers of a word or two.
_TASKS: tuple[tuple[str, tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]], ...] = (
    ("Give the opposite.", (("hot", "cold"), ("up", "down"), ("fast", "slow")), (("big", "small"), ("open", "closed"))),
    ("Write in capitals.", (("dog", "DOG"), ("tree", "TREE"), ("red", "RED")), (("cat", "CAT"), ("blue", "BLUE"))),
    ("Give the plural.", (("cat", "cats"), ("box", "boxes"), ("baby", "babies")), (("dog", "dogs"), ("fox", "foxes"))),
    ("Add.", (("2 + 3", "5"), ("1 + 6", "7"), ("4 + 4", "8")), (("3 + 4", "7"), ("5 + 1", "6"))),
    ("Name the next number.", (("3", "4"), ("7", "8"), ("11", "12")), (("5", "6"), ("20", "21"))),
    ("Name the capital.", (("France", "Paris"), ("Japan", "Tokyo")), (("Italy", "Rome"), ("Spain", "Madrid"))),
    ("Use the past tense.", (("walk", "walked"), ("go", "went"), ("see", "saw")), (("play", "played"), ("eat", "ate"))),
    ("Give the first letter.", (("house", "h"), ("apple", "a"), ("zebra", "z")), (("table", "t"), ("lemon", "l"))),
    ("Repeat the last word.", (("red blue", "blue"), ("one two", "two")), (("cat dog", "dog"), ("salt tea", "tea"))),
    ("Swap the words.", (("red blue", "blue red"), ("one two", "two one")), (("cat dog", "dog cat"), ("tea milk", "milk tea"))),
    ("Name the next day.", (("Monday", "Tuesday"), ("Friday", "Saturday")), (("Tuesday", "Wednesday"), ("Sunday", "Monday"))),
    ("Subtract.", (("9 - 4", "5"), ("6 - 1", "5"), ("8 - 6", "2")), (("7 - 3", "4"), ("5 - 2", "3"))),
)  # fmt: skip


def _planted(setting: Setting) -> Row:
    """Exact match of whole programs, in shares, and how often the second prompt was needed."""
    problem = PlantedNoise(setting.seed)
    tasks = torch.arange(len(problem.programs))
    prompts, lame = problem.standard_prompt(tasks), problem.lame_prompt(len(tasks))

    def exact(responses: Tensor) -> float:
        return float((responses == problem.programs).all(-1).double().mean())

    plain = greedy(problem, prompts, max_new_tokens=6)
    row: Row = {"exact greedy": exact(plain.responses)}
    arms = {
        "uscd": (USCD(), lame),
        "always": (USCD(gate=Always()), lame),
        "subtract": (USCD(mode=Subtract(0.65)), lame),
        "wrong lame prompt": (USCD(), problem.wrong_prompt(len(tasks))),
        "threshold 0": (USCD(gate=StandardDeviation(0.0)), lame),
    }
    if setting.choice is not None:  # a gate by this divergence instead, open on two steps of five
        arms["uscd"] = (USCD(gate=DivergenceGate(setting.choice, _threshold(problem, setting.choice, 0.4))), lame)  # type: ignore[arg-type]
    for name, (settings, second) in arms.items():
        made = uscd(problem, prompts, second, settings=settings, max_new_tokens=6)
        row[f"exact {name}"] = exact(made.generation.responses)
        row[f"open {name}"] = made.record.share_open
        if name == "threshold 0":
            row["tokens unlike greedy at threshold 0"] = int((made.generation.sequences != plain.sequences).sum())
    row["bits between the prompts"] = statistics.fmean(
        float(second_prompt_divergence(problem, prompts[k], lame[0], problem.programs[k]).value) for k in range(20)
    )
    if setting.seed < 3:
        for t in _THRESHOLDS:
            made = uscd(problem, prompts, lame, settings=USCD(gate=StandardDeviation(t)), max_new_tokens=6)
            row[f"_sweep {t}"] = (exact(made.generation.responses), made.record.share_open)
    return row


def _threshold(problem: PlantedNoise, divergence: Any, share: float) -> float:
    """The value that the divergence stays below on `share` of the steps of 60 programs read from their solutions."""
    tasks = torch.arange(60)
    laws = []
    for prompt in (problem.standard_prompt(tasks), problem.lame_prompt(60)):
        ids = torch.cat([prompt, problem.programs[:60]], 1)
        laws.append(problem(ids)[:, prompt.shape[1] - 1 : -1].flatten(0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an infinite value is far from the noise
        values = divergence.from_logits(*laws).sort().values
    return float(values[int(share * len(values))].clamp(0, 1e300))


def _small_model(setting: Setting) -> Row:
    """How many tokens break an equality that must hold, on a model of characters trained for a moment."""
    text = library_text()[:60_000]
    tokenizer = CharacterTokenizer(text + "0123456789>='\n")
    model = tiny_gpt2(tokenizer.size, positions=256, seed=setting.seed)
    generator = torch.Generator().manual_seed(setting.seed)
    history = fit_language_model(model, tokenizer.encode(text), steps=25 if setting.quick else 300, batch=8, generator=generator)
    broken, bits = 0, []
    length = 12 if setting.quick else 40
    for name, body in (("double", "2 * x"), ("half", "x / 2"), ("square", "x * x")):
        prompt = f"The function {name} returns {body}.\n\n>>> {name}(2)\n4\n>>> {name}(4)\n8\n\nIt is"
        ids, lame = (encode(tokenizer, t)[None] for t in (prompt, strip_examples(prompt)))
        plain = greedy(model, ids, max_new_tokens=length)
        for settings, second in (
            (USCD(gate=StandardDeviation(0.0)), lame),
            (USCD(gate=Always(), mode=Contrast(0.0)), lame),
            (USCD(gate=Always(), mode=Subtract(0.0)), lame),
        ):
            made = uscd(model, ids, second, settings=settings, max_new_tokens=length)
            broken += int((made.generation.sequences != plain.sequences).sum())
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=False, pad_token_id=0,
            logits_processor=[USCD(gate=Always()).processor(model, lame)],
        )  # fmt: skip
        ours = uscd(model, ids, lame, settings=USCD(gate=Always()), max_new_tokens=length)
        broken += int((theirs != ours.generation.sequences).sum())
        bits.append(float(second_prompt_divergence(model, ids[0], lame[0], plain.responses[0]).value))
    return {"equalities broken": broken, "small model's loss": history["loss"][-1], "small model's bits": statistics.fmean(bits)}


def _smollm(_: Setting) -> Row:
    """Right answers of SmolLM2 on the short tasks: greedy, selective and always-open contrast."""
    from discrepancy.datasets import smollm2

    model, tokenizer = smollm2()
    newline = int(encode(tokenizer, "\n")[-1])
    right: dict[str, list[bool]] = {"greedy": [], "uscd": [], "always": []}
    opened, bits = [], []
    for instruction, examples, questions in _TASKS:
        shown = "".join(f"Input: {a}\nOutput: {b}\n" for a, b in examples)
        for question, answer in questions:
            asked = f"Input: {question}\nOutput:"
            prompt, lame = f"{instruction}\n{shown}{asked}", f"{instruction}\n{asked}"
            for name, settings in (
                ("greedy", USCD(gate=StandardDeviation(0.0))), ("uscd", USCD()), ("always", USCD(gate=Always())),
            ):  # fmt: skip
                made = contrastive_generate(
                    model, tokenizer, prompt, lame, settings=settings, max_new_tokens=5, eos_token_id=newline
                )  # fmt: skip
                right[name].append((made.text or "").strip().split("\n")[0].strip(" .") == answer)
                if name == "uscd":
                    opened.append(made.record.share_open)
            ids = [encode(tokenizer, t, special=True) for t in (prompt, lame, " " + answer)]
            bits.append(float(second_prompt_divergence(model, *ids).value))
    row: Row = {f"SmolLM2 {name}": statistics.fmean(values) for name, values in right.items()}
    gains = [float(a) - float(b) for a, b in zip(right["uscd"], right["greedy"])]
    return row | {
        "_gains": gains,
        "SmolLM2 gain low": statistics.fmean(gains) - 1.96 * statistics.stdev(gains) / len(gains) ** 0.5,
        "SmolLM2 gain high": statistics.fmean(gains) + 1.96 * statistics.stdev(gains) / len(gains) ** 0.5,
        "SmolLM2 steps open": statistics.fmean(opened),
        "SmolLM2 bits": statistics.fmean(bits),
        "SmolLM2 tasks": len(gains),
    }


def measure(setting: Setting) -> Row:
    """Planted noise for every seed; the trained model for the first three, SmolLM2 for the first, in full runs."""
    row = _planted(setting)
    if setting.seed == 0 or (setting.seed < 3 and not setting.quick):
        row |= _small_model(setting)
    if setting.seed == 0 and not setting.quick:
        row |= _smollm(setting)
    return row


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks."""

    def column(name: str) -> list[float]:
        return [r[name] for r in rows if name in r]

    gain = [100 * (r["exact uscd"] - r["exact greedy"]) for r in rows]
    behind = [100 * (r["exact always"] - r["exact uscd"]) for r in rows]
    worse = [100 * (r["exact wrong lame prompt"] - r["exact greedy"]) for r in rows]
    unlike, broken = column("tokens unlike greedy at threshold 0"), column("equalities broken")
    known, mean = column("exact subtract"), statistics.fmean
    found = [
        check("points of exact match gained over greedy", gain, ">= 12", mean(gain) >= 12),
        check("points behind contrast at every step", behind, "<= 1", mean(behind) <= 1),
        check("share of steps that need the lame prompt", column("open uscd"), "<= 0.5", max(column("open uscd")) <= 0.5),
        check("exact match of subtraction at the known rate", known, ">= 0.95", mean(known) >= 0.95),
        check("points gained with a wrong lame prompt", worse, "< 0", max(worse) < 0),
        check("tokens unlike greedy at threshold 0", unlike, "= 0", max(unlike) == 0),
        check("equalities broken on a trained model, in tokens", broken, "= 0", max(broken) == 0),
    ]  # fmt: skip
    if not quick:
        first = rows[0]
        held = first["SmolLM2 gain high"] >= 0
        name = "SmolLM2: exact match gained over greedy, 24 few-shot tasks"
        gained = mean(first["_gains"])
        found.append(
            Check(name, "not below 0 by its interval", gained, first["SmolLM2 gain low"], first["SmolLM2 gain high"], held)
        )  # fmt: skip
    return found


def draw(rows: list[Row], file: Path) -> None:
    """Exact match by method, and what the gate's threshold buys."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = ("greedy", "uscd", "always", "subtract", "wrong lame prompt")
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    for k, name in enumerate(names):
        values = [100 * r[f"exact {name}"] for r in rows]
        left.bar(k, statistics.fmean(values), color="0.85" if name == "greedy" else "tab:blue", alpha=0.8)
        left.plot([k] * len(values), values, ".k", ms=4)
    left.set_xticks(range(len(names)), [n.replace(" lame ", "\nlame ") for n in names])
    left.set_ylabel("programs right, %")
    left.set_title("Planted noise, a dot a seed")
    swept = [r for r in rows if f"_sweep {_THRESHOLDS[0]}" in r]
    for k, (label, scale) in enumerate((("programs right", 100), ("steps that need the lame prompt", 100))):
        means = [scale * statistics.fmean(r[f"_sweep {t}"][k] for r in swept) for t in _THRESHOLDS]
        right.plot(_THRESHOLDS, means, "o-", label=label)
    right.set_xlabel("threshold of the gate on sqrt(V) std(p)")
    right.set_ylabel("%")
    right.set_ylim(-3, 103)
    right.legend()
    right.set_title("What the gate's threshold buys")
    fig.tight_layout()
    fig.savefig(file, dpi=130)
    plt.close(fig)


@cache
def _problem(seed: int) -> PlantedNoise:
    return PlantedNoise(1000 + seed)


def swap(divergence: Any, seed: int) -> float:
    """Exact match in % where the gate opens on the quarter of steps in which p is nearest to the noise, by this divergence."""
    problem = _problem(seed)
    settings = USCD(gate=DivergenceGate(divergence, _threshold(problem, divergence, 0.25)))
    tasks = torch.arange(60, 200)  # the threshold was set on the first sixty
    made = uscd(problem, problem.standard_prompt(tasks), problem.lame_prompt(len(tasks)), settings=settings, max_new_tokens=6)
    return 100 * float((made.generation.responses == problem.programs[tasks]).all(-1).double().mean())


TASK = SwapTask(
    measures="programs right in %, the gate open on a quarter of the steps",
    better="higher",
    admits=ADMITS,
    run=swap,
    default=JensenShannon(),
)
RECIPE = Recipe("uscd", measure, judge, draw, seeds=tuple(range(10)), quick_seeds=(0, 1), swaps=True, task=TASK)
