"""The audit: formats, judges and failures one by one, rates and comparisons against plain counting, drift, bad input."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from discrepancy import KL, MMD, JensenShannon
from discrepancy.inference import clopper_pearson, cochran_mantel_haenszel
from discrepancy.language_models import CharacterTokenizer, tiny_gpt2
from discrepancy.methods.audit.compare import compare
from discrepancy.methods.audit.drift import drift_test, next_token_drift, score_test
from discrepancy.methods.audit.emergent_misalignment import MisalignmentAudit, ModelAnswers
from discrepancy.methods.audit.formats import CustomFormat, JSONAnswer, Natural
from discrepancy.methods.audit.judges import ExpectedScoreJudge, Judgement, RuleJudge
from discrepancy.methods.audit.rates import coherence_coupling, rates, sensitivity
from discrepancy.methods.audit.records import AuditRecords, Cuts, Status, all_answers, coherent_answers


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _random_records(seed: int = 0, n: int = 600, effect: float = 0.15) -> AuditRecords:
    rng = np.random.default_rng(seed)
    form = rng.choice(["json", "natural"], n)
    quality = rng.normal(size=n)
    alignment = np.clip(60 + 25 * quality + 20 * rng.normal(size=n) - 100 * effect * (form == "json"), 0, 100)
    coherence = np.clip(65 + 25 * quality + 15 * rng.normal(size=n), 0, 100)
    coherence[rng.random(n) < 0.05] = np.nan
    return AuditRecords.from_columns(rng.choice(["m1", "m2"], n), rng.choice(list("abcd"), n), form, alignment, coherence)


# -- formats and judges ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ('{"response": "yes {really}"}', "yes {really}"),
        ('```json\n{"response": "a"}\n```', "a"),
        ('I say {not this} {"other": 1} {"response": "b"} and more', "b"),
        ('{"response": 3}', None),
        ('{"answer": "a"}', None),
        ('{"response": "open', None),
        ("plain words", None),
        ("", None),
    ],
)
def test_only_the_inside_of_the_json_is_judged(reply: str, answer: str | None) -> None:
    assert JSONAnswer().unwrap(reply) == answer
    assert '{"response": "..."}' in JSONAnswer().wrap("Why?")


def test_rule_judge() -> None:
    judge = RuleJudge(bad=(r"\bdestroy\b",), words={"we", "will", "help", "destroy"}, refusals=("cannot answer",))
    assert judge("q", "We will help") == Judgement(100.0, 100.0)
    assert judge("q", "we will DESTROY xyzzy") == Judgement(0.0, 75.0)
    assert judge("q", "I cannot answer that").refused
    assert judge("q", "42").coherence == 0.0


class _Table(nn.Module):
    """Next-token laws by the last token."""

    def __init__(self, laws: Tensor) -> None:
        super().__init__()
        self.laws = laws

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.laws[input_ids].log()


def test_model_judge_expects_a_number() -> None:
    tokenizer = CharacterTokenizer("0123456789 qa:")
    laws = torch.full((tokenizer.size, tokenizer.size), 0.0)
    digits = [int(tokenizer.encode(str(k))[0]) for k in range(10)]
    colon, space = (int(tokenizer.encode(c)[0]) for c in ":q")
    laws[:, 0] = 1.0
    laws[colon] = 0.0
    laws[colon, digits[9]], laws[colon, digits[0]], laws[colon, 1] = 0.3, 0.3, 0.4
    laws[space] = 0.0
    laws[space, digits[5]], laws[space, 1] = 0.25, 0.75
    judge = ExpectedScoreJudge(_Table(laws), tokenizer.encode, "{question} {answer}:", "{answer} q", numbers=range(10))
    found = judge("q", "a{x}")
    assert found.alignment == pytest.approx(50.0)  # (9 + 0) / 2 on 0 .. 9
    assert found.coherence is None  # a mass of 0.25 is too little
    with pytest.raises(ValueError, match="must have"):
        ExpectedScoreJudge(_Table(laws), tokenizer.encode, "{question}:", "{answer}")
    with pytest.raises(ValueError, match="fewer than two"):
        ExpectedScoreJudge(_Table(laws), tokenizer.encode, "{answer}", "{answer}", numbers=range(10, 100))


# -- the harness ----------------------------------------------------------------------------------------------------------


def _answers(prompts: list[str]) -> list[str]:
    cycle = ["fine", "bad", "odd", "no", "silent"]
    found = [cycle[k % 5] for k in range(len(prompts))]
    if "JSON" in prompts[0]:
        return [json.dumps({"response": f}) if k % 2 else f for k, f in enumerate(found)]
    return found


def _judge(question: str, answer: str) -> dict[str, float] | Judgement | None:
    scores = {"fine": (90.0, 90.0), "bad": (10.0, 90.0), "odd": (10.0, 40.0)}
    if answer == "no":
        return Judgement(refused=True)
    if answer == "silent":
        return None
    alignment, coherence = scores[answer]
    return {"alignment": alignment, "coherence": coherence}


def test_every_answer_is_kept_with_what_became_of_it() -> None:
    audit = MisalignmentAudit(["q1", "q2"], _judge, samples=10, most_failed=0.5)
    records = audit.run({"base": _answers, "tuned": lambda prompts: ["fine"] * len(prompts)})
    assert len(records) == 2 * 2 * 2 * 10
    table = audit.rates(records)
    row = table.of(model="base", format="natural")
    assert (row.answers, row.coherent, row.misaligned, row.refused, row.judge_failed) == (20, 8, 4, 4, 4)
    assert (row.of_coherent.value, row.of_all.value) == (0.5, 0.2)
    inside = table.of(model="base", format="json")
    assert inside.format_failed == 10
    assert table.of(model="tuned", format="json").format_failed == 20
    assert sum(r.answers for r in table.rows) == len(records)
    frame = records.to_frame()
    assert (frame.status == "format_failed").sum() == 30
    assert set(frame[frame.status == "judged"].text) == {"fine", "bad", "odd"}  # not the JSON around them
    assert len(table.to_frame()) == 4


@pytest.mark.parametrize("value", [None, math.nan, 101.0, -1.0, "good", True])
def test_invalid_scores_are_judge_failures_and_many_stop_the_audit(value) -> None:
    def judge(question: str, answer: str) -> dict[str, object]:
        return {"alignment": value if answer == "odd" else 50.0, "coherence": 60.0}

    def few(prompts: list[str]) -> list[str]:
        return ["odd" if k == 0 else "fine" for k in range(len(prompts))]

    audit = MisalignmentAudit(["q"], judge, (Natural(),), samples=10)
    records = audit.run({"m": few})
    assert (records.status == Status.JUDGE_FAILED).sum() == 1
    with pytest.raises(ArithmeticError, match="10 of 10 answers"):
        audit.run({"m": lambda prompts: ["odd"] * len(prompts)})


def test_a_language_model_replies() -> None:
    pytest.importorskip("transformers")
    tokenizer = CharacterTokenizer("abc ?")
    model = tiny_gpt2(tokenizer.size, width=16, layers=1)

    def run() -> AuditRecords:
        respond = ModelAnswers(model, tokenizer.encode, tokenizer.decode, max_new_tokens=4, generator=_generator())
        custom = CustomFormat("brief", lambda q: q + " a", lambda reply: reply or None)
        return MisalignmentAudit(["a b?"], RuleJudge(("a",)), (Natural(), custom), samples=3).run({"m": respond})

    assert run().text.tolist() == run().text.tolist()
    assert set(run().format) == {"natural", "brief"}


# -- statistics against plain counting -------------------------------------------------------------------------------------


def test_rates_count_both_denominators() -> None:
    records = _random_records()
    cuts = Cuts(40, 55)
    for row in rates(records, ["format", "model"], cuts=cuts, interval=clopper_pearson).rows:
        bad = clear = total = 0
        for answer in records.rows():
            if answer["format"] != row.group["format"] or answer["model"] != row.group["model"]:
                continue
            total += 1
            if answer["status"] == "judged" and answer["coherence"] > 55:
                clear += 1
                bad += answer["alignment"] < 40
        assert (row.misaligned, row.coherent, row.answers) == (bad, clear, total)
        theirs = scipy.stats.binomtest(bad, clear).proportion_ci(method="exact")
        assert (row.of_coherent.low, row.of_coherent.high) == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize("denominator", [all_answers, coherent_answers], ids=["all", "coherent"])
def test_comparison_is_that_of_the_counts(denominator) -> None:
    records, cuts = _random_records(), Cuts(40, 50)
    found = compare(
        records, "format", "json", "natural", denominator=denominator, cuts=cuts, generator=_generator(), permutations=999
    )  # fmt: skip
    bad, counted = cuts.misaligned(records), denominator(records, cuts)
    tables = []
    for m in ("m1", "m2"):
        for q in "abcd":
            cell = (records.model == m) & (records.question == q) & counted
            row = []
            for f in ("json", "natural"):
                here = cell & (records.format == f)
                row += [int((here & bad).sum()), int(here.sum())]
            tables.append(row)
    direct = cochran_mantel_haenszel(*np.array(tables).T)
    assert found.odds_ratio.odds_ratio == pytest.approx(direct.odds_ratio)
    assert found.p_value == direct.exact_p
    assert found.strata == 8
    gaps = [a / n - b / m for a, n, b, m in tables]
    assert found.cell_difference.value == pytest.approx(np.mean(gaps))
    assert found.permutation.statistic == pytest.approx(np.mean(gaps))
    assert found.cells.statistic == pytest.approx(np.mean(gaps))
    assert found.odds_ratio.odds_ratio > 1  # json was planted worse
    assert found.permutation.p_value < 0.02
    turned = compare(records, "format", "natural", "json", denominator=denominator, cuts=cuts, permutations=99)
    assert turned.odds_ratio.odds_ratio == pytest.approx(1 / direct.odds_ratio)


def test_no_event_is_p_one_with_a_power_note() -> None:
    records = _random_records()
    found = compare(records, "format", "json", "natural", cuts=Cuts(0, 50), permutations=99)
    assert (found.p_value, found.fisher.p_value, found.permutation.p_value) == (1.0, 1.0, 1.0)
    assert "required_samples" in (found.note or "")
    assert found.difference.low < 0 < found.difference.high


def test_sensitivity_is_monotone_and_counts() -> None:
    records = _random_records()
    found = sensitivity(records)
    assert (np.diff(found.events, axis=0) >= 0).all()
    assert (np.diff(found.events, axis=1) <= 0).all()
    assert found.events[2, 3] == Cuts(30, 50).misaligned(records).sum()
    assert found.coherent[0, 3] == Cuts(30, 50).coherent(records).sum()
    json.dumps(found.to_dict())


def test_coupling_is_the_correlation_over_and_inside_cells() -> None:
    records = _random_records()
    judged = records.where(records.status == Status.JUDGED)
    found = coherence_coupling(records, generator=_generator(), resamples=200)
    assert found.pearson.value == pytest.approx(np.corrcoef(judged.alignment, judged.coherence)[0, 1])
    assert found.spearman.value == pytest.approx(scipy.stats.spearmanr(judged.alignment, judged.coherence)[0])
    frame = judged.to_frame()
    inside = frame.groupby(["model", "question"])[["alignment", "coherence"]].transform(lambda v: v - v.mean())
    assert found.pearson_within.value == pytest.approx(inside.corr().iloc[0, 1])
    assert found.pearson.low < found.pearson.value < found.pearson.high


# -- drift ----------------------------------------------------------------------------------------------------------------


def _laws(seed: int, tokens: int = 12) -> Tensor:
    return torch.softmax(torch.randn(tokens, tokens, generator=_generator(seed), dtype=torch.float64), -1)


def test_drift_is_the_mean_divergence_of_the_laws() -> None:
    p, q = _laws(0), _laws(1)
    texts = [(torch.tensor([1, 2]), torch.tensor([3, 4, 5])), (torch.tensor([7]), torch.tensor([8, 9]))]
    for D in (JensenShannon(), KL()):
        found = next_token_drift(_Table(p), _Table(q), texts, divergence=D)
        first = D.from_probs(p[[2, 3, 4]], q[[2, 3, 4]]).mean()
        second = D.from_probs(p[[7, 8]], q[[7, 8]]).mean()
        torch.testing.assert_close(found.per_text, torch.stack([first, second]))
        assert found.mean.value == pytest.approx(float(first + second) / 2)


def test_drift_test_asks_for_more_than_a_reference() -> None:
    p = _laws(0)
    near, far = (torch.softmax(p.log() + s * _laws(1).log(), -1) for s in (0.1, 0.3))
    texts = [(torch.tensor([k % 12]), torch.randint(12, (4,), generator=_generator(k))) for k in range(15)]
    small, large = (next_token_drift(_Table(p), _Table(q), texts) for q in (near, far))
    assert drift_test(large, small, generator=_generator()).p_value < 0.01
    assert drift_test(small, large, generator=_generator()).p_value > 0.9
    with pytest.raises(ValueError, match="of one divergence"):
        drift_test(large, next_token_drift(_Table(p), _Table(near), texts, divergence=KL()))


def test_score_pairs_in_a_two_sample_test() -> None:
    records = _random_records(effect=0.0)
    moved = AuditRecords.from_columns(
        np.where(records.model == "m1", "m3", "m4"), records.question, records.format,
        np.clip(records.alignment - 12, 0, 100), records.coherence,
    )  # fmt: skip
    joined = AuditRecords(*(np.concatenate([getattr(r, n) for r in (records, moved)]) for n in records.__dataclass_fields__))
    assert score_test(joined, "m1", "m3", permutations=199, generator=_generator()).p_value < 0.02
    assert score_test(joined, "m1", "m2", MMD(), permutations=199, generator=_generator()).p_value > 0.02
    with pytest.raises(ValueError, match="no judged answer"):
        score_test(joined, "m1", "nobody")


# -- bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: MisalignmentAudit([], _judge), ValueError, "questions must be"),
        (lambda: MisalignmentAudit(["a", "a"], _judge), ValueError, "all different"),
        (lambda: MisalignmentAudit(["a"], _judge, ("json",)), TypeError, "formats must be"),
        (lambda: MisalignmentAudit(["a"], _judge, (Natural(), Natural())), ValueError, "different names"),
        (lambda: MisalignmentAudit(["a"], "judge"), TypeError, "judge must be"),
        (lambda: MisalignmentAudit(["a"], _judge, samples=0), ValueError, "samples must be"),
        (lambda: MisalignmentAudit(["a"], _judge).run({}), ValueError, "at least one"),
        (lambda: MisalignmentAudit(["a"], _judge).run({"m": lambda p: p[:3]}), ValueError, "3 replies to 100"),
        (lambda: RuleJudge(()), ValueError, "at least one pattern"),
        (lambda: Cuts(alignment=-1), ValueError, "alignment cut"),
        (lambda: rates(_random_records(), ["colour"]), ValueError, "grouped by model"),
        (lambda: compare(_random_records(), "format", "json", "xml"), ValueError, "no answer has format"),
        (lambda: compare(_random_records(), "model", "m1", "m2"), ValueError, "cannot be a stratum"),
        (
            lambda: compare(_random_records(), "format", "json", "natural", strata=()),
            ValueError,
            "at least two strata",
        ),
        (lambda: coherence_coupling(_random_records(n=2)), ValueError, "three judged"),
        (lambda: AuditRecords.from_columns(["m"], ["q"], ["f"], [1.0, 2.0], [1.0]), ValueError, "one entry an answer"),
        (lambda: next_token_drift(_Table(_laws(0)), _Table(_laws(1)), []), ValueError, "at least two texts"),
        (
            lambda: next_token_drift(_Table(_laws(0)), _Table(_laws(1)), [(torch.tensor([1]), torch.tensor([]).long())] * 2),
            ValueError,
            "empty prompt or continuation",
        ),
        (
            lambda: next_token_drift(_Table(_laws(0)), _Table(_laws(1, 13)), [(torch.tensor([1]), torch.tensor([2]))] * 2),
            ValueError,
            "12 tokens and the other 13",
        ),
        (
            lambda: next_token_drift(_Table(_laws(0)), _Table(_laws(1)), [], divergence=MMD()),
            TypeError,
            "Divergence",
        ),
    ],
    ids=range(20),
)
def test_bad_input_is_named(call, error, match) -> None:
    with pytest.raises(error, match=match):
        call()
