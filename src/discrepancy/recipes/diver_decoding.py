"""Span-level verification on planted noisy channels, on a model trained to reverse strings, and on SmolLM2 with keywords."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy.language_models import logits_of, tiny_gpt2
from discrepancy.learning import Training
from discrepancy.methods.decoding.baselines import greedy
from discrepancy.methods.decoding.diver_decoding import Diver, diver_decoding
from discrepancy.methods.decoding.embedding_score import DiscrepancyScore
from discrepancy.methods.decoding.pmi_sanity import pmi_sanity
from discrepancy.methods.decoding.spans import FixedSpan, LeftRisk
from discrepancy.methods.decoding.text import decode, encode
from discrepancy.methods.decoding.verification import BackwardTemplate, PointwiseMutualInformation, per_token
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, check
from discrepancy.testing.planted_language_models import NoisyChannel

_SHARPNESS = (0.6, 0.1, 0.05, 1 / 30)

# Words that a sentence must have.
_KEYWORDS = (
    ("dog", "park", "ball"), ("cook", "soup", "kitchen"), ("teacher", "book", "school"), ("boat", "river", "fish"),
    ("winter", "snow", "coat"), ("farmer", "horse", "field"), ("music", "piano", "concert"), ("train", "city", "ticket"),
)  # fmt: skip


def _channel(setting: Setting) -> Row:
    """Token accuracy on planted channels, by what the verifier knows."""
    row: Row = {}
    count = 15 if setting.quick else 25
    for b in _SHARPNESS:
        channel = NoisyChannel(setting.seed, sharpness=b)
        x, y = channel.sentences(count)
        plain = greedy(channel, channel.prompt(x), max_new_tokens=6).responses
        parts = (torch.tensor([t]) for t in (channel.backward_token, channel.then_token))
        pmi = PointwiseMutualInformation(channel, BackwardTemplate(*parts))
        arms = {"": Diver()}
        if b == 0.6:
            arms["weight 0 "] = Diver(pmi_weight=0.0)
        if b == 0.1 and setting.seed < 3:
            arms |= {"left ": Diver(span=LeftRisk())}
            arms |= {"one token ": Diver(span=FixedSpan(1)), "six tokens ": Diver(span=FixedSpan(6))}
        for arm, settings in arms.items():
            verifier = pmi
            if setting.choice is not None:  # a distance is no number of nats: it needs a weight of its own to be heard
                verifier, settings = _embedded(setting.choice, channel), replace(settings, pmi_weight=30 * settings.pmi_weight)
            made = [
                diver_decoding(channel, channel.prompt(a), verifier=verifier, settings=settings, x_ids=a, max_new_tokens=6)
                for a in x
            ]
            tokens = torch.stack([m.tokens for m in made])
            row[f"accuracy {arm}b={b:.2g}"] = float((tokens == y).double().mean())
            row[f"_unlike {arm}b={b:.2g}"] = int((tokens != plain).sum())
            if not arm and b == 0.6:
                row["divergence steps a token"] = sum(len(m.steps) for m in made) / tokens.numel()
        row[f"accuracy greedy b={b:.2g}"] = float((plain == y).double().mean())
        if b in (0.6, _SHARPNESS[-1]):
            row[f"PMI gap b={b:.2g}"] = float(pmi_sanity(pmi, list(zip(x[:15], y[:15]))).gap.value)
    return row


def _embedded(D: Any, channel: NoisyChannel) -> DiscrepancyScore:
    """Another verifier: the distance between the input and the output carried back, both as one-hot points."""
    eye = torch.eye(channel.vocabulary, dtype=torch.float64)
    return DiscrepancyScore(D, lambda ids: eye[ids], lambda ids: eye[channel.inverse[ids]])


_LETTERS, _LENGTH = 12, 6
_FORWARD, _BACKWARD, _THEN = _LETTERS, _LETTERS + 1, _LETTERS + 2


def _reversals(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Lines [forward] x [then] reversed x, and [backward] y [then] its source, with the labels of what is to be learnt.

    A tenth of the letters behind [then] is random. Nine lines of ten run backward, where y is cut to any length, as it is when
    Diver asks in the middle of an output.
    """
    n, L = count, _LENGTH
    source = torch.randint(_LETTERS, (n, L), generator=generator)
    noise = torch.rand(n, L, generator=generator) < 0.1
    noisy = torch.where(noise, torch.randint(_LETTERS, (n, L), generator=generator), source.flip(-1))
    forward = torch.rand(n, 1, generator=generator) < 0.1
    known = torch.where(forward, L, torch.randint(1, L + 1, (n, 1), generator=generator))
    shown, answer = torch.where(forward, source, noisy), torch.where(forward, noisy, source)
    column = torch.arange(2 * L + 2).expand(n, -1)
    letters = torch.where(
        column <= known, shown.gather(1, (column - 1).clamp(0, L - 1)), answer.gather(1, (column - known - 2).clamp(0, L - 1))
    )
    ids = torch.where(column == known + 1, _THEN, letters)
    ids[:, :1] = torch.where(forward, _FORWARD, _BACKWARD)
    asked = (column > known + 1) & (column < known + 2 + L)
    return ids, torch.where(asked, ids, -100)


def _trained(setting: Setting) -> Row:
    """A small model that reverses strings, stopped where greedy decoding is right on 40 to 90 % of other strings."""
    generator = torch.Generator().manual_seed(500 + setting.seed)
    model = tiny_gpt2(_LETTERS + 3, width=96, positions=2 * _LENGTH + 2, seed=setting.seed)

    def strings(count: int) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.randint(_LETTERS, (count, _LENGTH), generator=generator)
        head, then = (torch.full((count, 1), t) for t in (_FORWARD, _THEN))
        return x, x.flip(-1), torch.cat([head, x, then], 1)

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        ids, labels = _reversals(64, generator)
        logits = logits_of(model, ids)[:, :-1]
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100), {}

    def right(responses: Tensor, y: Tensor) -> float:
        return float((responses == y).all(-1).double().mean())

    _, watched, prompts = strings(150)
    steps, reached = 0, 0.0
    while reached < 0.5 and steps < 1500:
        Training(steps=10, learning_rate=2e-3, final_share=1.0).run(model.parameters(), step)
        steps += 10
        reached = right(greedy(model, prompts, max_new_tokens=_LENGTH).responses, watched)
    x, y, prompts = strings(50 if setting.quick else 200)
    pmi = PointwiseMutualInformation(model, BackwardTemplate(torch.tensor([_BACKWARD]), torch.tensor([_THEN])))
    made = [diver_decoding(model, p, verifier=pmi, x_ids=a, max_new_tokens=_LENGTH) for p, a in zip(prompts, x)]
    return {
        "reversed by greedy": right(greedy(model, prompts, max_new_tokens=_LENGTH).responses, y),
        "reversed by Diver": right(torch.stack([m.tokens for m in made]), y),
        "steps trained": steps,
        "tokens read over greedy's": statistics.fmean(m.cost for m in made),
        "divergence steps a letter": sum(len(m.steps) for m in made) / y.numel(),
    }


def _smollm(_: Setting) -> Row:
    """Keywords that a sentence of SmolLM2 has, greedy and with the model as its own verifier."""
    from discrepancy.datasets import smollm2

    model, tokenizer = smollm2()
    backward = BackwardTemplate.from_text("Sentence: {y}\nThe three keywords of this sentence are: {x}", tokenizer)
    pmi = PointwiseMutualInformation(model, backward, scale=per_token)
    settings = Diver(span=LeftRisk(4), pmi_weight=1.0)
    newline = int(encode(tokenizer, "\n")[-1])
    shares: dict[str, list[float]] = {"greedy": [], "Diver": []}
    cost, pairs = [], []
    for words in _KEYWORDS:
        prompt = f"Write one short sentence with the words: {', '.join(words)}.\nSentence:"
        ids, x = encode(tokenizer, prompt), encode(tokenizer, ", ".join(words))
        plain = greedy(model, ids[None], max_new_tokens=14, eos_token_id=newline).responses[0]
        made = diver_decoding(
            model, ids, verifier=pmi, x_ids=x, settings=settings, max_new_tokens=14, eos_token_id=newline
        )  # fmt: skip
        for name, tokens in (("greedy", plain), ("Diver", made.tokens)):
            text = decode(tokenizer, tokens).lower()
            shares[name].append(statistics.fmean(float(w in text) for w in words))
        cost.append(made.cost)
        pairs.append((x, plain))
    gains = [b - a for a, b in zip(shares["greedy"], shares["Diver"])]
    half = 1.96 * statistics.stdev(gains) / len(gains) ** 0.5
    sane = pmi_sanity(pmi, pairs)
    return {
        "SmolLM2 keywords greedy": statistics.fmean(shares["greedy"]),
        "SmolLM2 keywords Diver": statistics.fmean(shares["Diver"]),
        "SmolLM2 gain": statistics.fmean(gains),
        "SmolLM2 gain low": statistics.fmean(gains) - half,
        "SmolLM2 gain high": statistics.fmean(gains) + half,
        "SmolLM2 tokens read over greedy's": statistics.fmean(cost),
        "SmolLM2 PMI gap, nats a token": float(sane.gap.value),
        "SmolLM2 PMI gap positive": sane.share,
    }


def measure(setting: Setting) -> Row:
    """Channels for every seed; trained reversal for the first three; SmolLM2 for the first, in full runs."""
    row = _channel(setting)
    if setting.seed == 0 or (setting.seed < 3 and not setting.quick):
        row |= _trained(setting)
    if setting.seed == 0 and not setting.quick:
        row |= _smollm(setting)
    return row


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks."""

    def column(name: str) -> list[float]:
        return [r[name] for r in rows if name in r]

    def gain(b: str) -> list[float]:
        return [100 * (r[f"accuracy b={b}"] - r[f"accuracy greedy b={b}"]) for r in rows]

    mean = statistics.fmean
    sharp, dull = gain("0.6"), gain("0.05")
    blind, zero = column("_unlike b=0.033"), column("_unlike weight 0 b=0.6")
    trained = [100 * (r["reversed by Diver"] - r["reversed by greedy"]) for r in rows if "reversed by Diver" in r]
    start = [100 * v for v in column("reversed by greedy")]
    found = [
        check("points of token accuracy over greedy, verifier 0.6", sharp, ">= 30", mean(sharp) >= 30),
        check("the same, verifier 0.05", dull, "> 5", mean(dull) > 5),
        check("tokens unlike greedy with a verifier that knows nothing", blind, "= 0", max(blind) == 0),
        check("tokens unlike greedy with weight 0", zero, "= 0", max(zero) == 0),
        check("strings reversed by greedy at the checkpoint, %", start, "in [40, 90]", 40 <= mean(start) <= 90),
        check("points of exact match over greedy, trained model", trained, ">= 0", min(trained) >= 0),
    ]
    if not quick:
        first = rows[0]
        low, high = first["SmolLM2 gain low"], first["SmolLM2 gain high"]
        name = "SmolLM2: share of keywords gained over greedy, 8 prompts"
        found.append(Check(name, "not below 0 by its interval", first["SmolLM2 gain"], low, high, high >= 0))
    return found


def draw(rows: list[Row], file: Path) -> None:
    """Accuracy by what the verifier knows, and by the rule that ends spans."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    for name, label in (("greedy ", "greedy"), ("", "Diver")):
        values = [[100 * r[f"accuracy {name}b={b:.2g}"] for r in rows] for b in _SHARPNESS]
        left.plot(range(len(_SHARPNESS)), [statistics.fmean(v) for v in values], "o-", label=label)
        for k, v in enumerate(values):
            left.plot([k] * len(v), v, ".k", ms=3, alpha=0.5)
    left.set_xticks(range(len(_SHARPNESS)), ["0.6", "0.1", "0.05", "1/30: nothing"])
    left.set_xlabel("what the verifier gives to the right input token")
    left.set_ylabel("tokens right, %")
    left.legend()
    left.set_title("Noisy channel, a dot a seed")
    rules = {"greedy": "greedy ", "latest risk": "", "earliest risk": "left "}
    rules |= {"one token": "one token ", "six tokens": "six tokens "}
    for k, name in enumerate(rules.values()):
        values = [100 * r[f"accuracy {name}b=0.1"] for r in rows if f"accuracy {name}b=0.1" in r]
        right.bar(k, statistics.fmean(values), color="0.85" if k == 0 else "tab:blue", alpha=0.8)
        right.plot([k] * len(values), values, ".k", ms=4)
    right.set_xticks(range(len(rules)), rules)
    right.set_title("Where spans end, verifier 0.1")
    fig.tight_layout()
    fig.savefig(file, dpi=130)
    plt.close(fig)


RECIPE = Recipe("diver-decoding", measure, judge, draw, seeds=tuple(range(10)), quick_seeds=(0, 1), swaps=True)
