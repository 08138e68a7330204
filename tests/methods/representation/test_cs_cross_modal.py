"""Cross-modal alignment: each scheme by hand, every kind of divergence, duplicates, extreme logits, bad input, training."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from discrepancy import KL, MMD, CauchySchwarz, CustomDivergence, JensenShannon, ReverseKL, SlicedWasserstein, TotalVariation
from discrepancy.divergences import GeneralizedCauchySchwarz, GeneralizedJensenShannon
from discrepancy.learning import Training
from discrepancy.methods.representation.cs_cross_modal import CrossModalAligner, CrossModalLoss, Scheme, cross_modal_loss
from discrepancy.networks import MLP


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def three(size: int = 6) -> dict[str, torch.Tensor]:
    return {name: normal(size, 4, seed=k) for k, name in enumerate(("text", "audio", "image"))}


def rows(a: torch.Tensor, b: torch.Tensor, temperature: float) -> torch.Tensor:
    return (F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / temperature).softmax(-1)


def gcs(*laws: torch.Tensor) -> torch.Tensor:
    """The definition, row by row."""
    m = len(laws)
    product = torch.stack(laws).prod(0).sum(-1)
    norms = torch.stack([(p**m).sum(-1) ** (1 / m) for p in laws]).prod(0)
    return -(product / norms).log().mean()


def test_two_modalities_by_hand() -> None:
    z = {"a": normal(5, 3, seed=1), "b": normal(5, 3, seed=2)}
    target = torch.eye(5, dtype=torch.float64)
    forth, back = rows(z["a"], z["b"], 0.1), rows(z["b"], z["a"], 0.1)
    for scheme in Scheme:
        value = CrossModalLoss(temperature=0.1, scheme=scheme)(z)
        assert float(value) == pytest.approx(float(gcs(forth, target) + gcs(back, target)), rel=1e-9)
    assert float(CrossModalLoss(CauchySchwarz(), temperature=0.1)(z)) == pytest.approx(2 * float(value), rel=1e-9)


def test_three_modalities_by_hand_and_the_number_of_laws() -> None:
    z = three()
    t, a, i = z.values()
    target = torch.eye(6, dtype=torch.float64)

    def P(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return rows(u, v, 0.2)

    forward, reverse = gcs(P(t, a), P(t, i), P(a, i), target), gcs(P(a, t), P(i, t), P(i, a), target)
    assert float(CrossModalLoss(temperature=0.2)(z)) == pytest.approx(float(forward + reverse), rel=1e-9)
    ring = gcs(P(t, a), P(a, i), P(i, t), target) + gcs(P(a, t), P(i, a), P(t, i), target)
    assert float(CrossModalLoss(temperature=0.2, scheme=Scheme.RING)(z)) == pytest.approx(float(ring), rel=1e-9)
    pairs = sum(float(gcs(P(u, v), target)) for u, v in permutations((t, a, i), 2))
    assert float(CrossModalLoss(temperature=0.2, scheme=Scheme.PAIRWISE)(z)) == pytest.approx(pairs, rel=1e-9)
    assert [len(s) for s in Scheme.BIDIRECTIONAL.sets(5)] == [10, 10]
    assert [len(s) for s in Scheme.RING.sets(5)] == [5, 5]


def test_kl_without_labels_is_infonce() -> None:
    z = three()
    value = CrossModalLoss(KL(), temperature=0.3, scheme=Scheme.PAIRWISE)(z)
    logits = [F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / 0.3 for a, b in permutations(z.values(), 2)]
    assert float(value) == pytest.approx(sum(float(F.cross_entropy(u, torch.arange(6))) for u in logits), rel=1e-9)


def test_labels_share_the_target() -> None:
    z, labels = three(), torch.tensor([0, 1, 0, 2, 1, 0])
    target = (labels[:, None] == labels).double()
    t, a, i = z.values()
    forward = gcs(rows(t, a, 0.2), rows(t, i, 0.2), rows(a, i, 0.2), target)
    found = CrossModalLoss(temperature=0.2).terms(z, labels)
    assert float(found.parts[0]) == pytest.approx(float(forward), rel=1e-9)
    target = target / target.sum(1, keepdim=True)
    smooth = [KL().from_probs(target, rows(a, b, 0.2)).mean() for a, b in permutations(z.values(), 2)]
    assert float(CrossModalLoss(KL(), temperature=0.2)(z, labels.tolist())) == pytest.approx(float(sum(smooth)), rel=1e-9)


DIVERGENCES = [
    GeneralizedCauchySchwarz(),
    GeneralizedJensenShannon(),
    CauchySchwarz(),
    JensenShannon(),
    TotalVariation(),
    KL() + 2 * JensenShannon(),
    KL().skewed(0.2),
    CustomDivergence(lambda t: (t - 1) ** 2 / (t + 1)),
    MMD(biased=True),
    SlicedWasserstein(),
]


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=lambda D: type(D).__name__)
def test_any_kind_of_divergence_falls_when_trained(divergence) -> None:
    z = {name: v.clone().requires_grad_() for name, v in three(8).items()}
    loss = CrossModalLoss(divergence, temperature=0.3)
    adam = torch.optim.Adam(z.values(), lr=0.05)
    values = []
    for _ in range(40):
        adam.zero_grad()
        value = loss(z, generator=torch.Generator().manual_seed(0))
        value.backward()
        adam.step()
        values.append(float(value.detach()))
    assert values[-1] < values[0]
    assert all(math.isfinite(v) for v in values)


@pytest.mark.parametrize("temperature", [1e-4, 0.02, 50.0])
def test_gradients_stay_finite_at_extreme_temperatures(temperature: float) -> None:
    z = {name: v.float().requires_grad_() for name, v in three().items()}
    for D in (GeneralizedCauchySchwarz(), KL()):
        value = CrossModalLoss(D, temperature=temperature)(z)
        assert bool(torch.isfinite(value))
        for grad in torch.autograd.grad(value, list(z.values())):
            assert bool(torch.isfinite(grad).all())


def test_gradients_against_finite_differences() -> None:
    z = tuple(v.requires_grad_() for v in three(4).values())
    for loss in (CrossModalLoss(temperature=0.5), CrossModalLoss(KL(), temperature=0.5)):
        assert torch.autograd.gradcheck(lambda t, a, i, loss=loss: loss({"t": t, "a": a, "i": i}), z)


def test_lengths_do_not_matter_and_half_precision_works() -> None:
    z = three()
    scaled = {name: (k + 2) * v for k, (name, v) in enumerate(z.items())}
    assert float(cross_modal_loss(scaled)) == pytest.approx(float(cross_modal_loss(z)), rel=1e-9)
    half = cross_modal_loss({name: v.bfloat16() for name, v in z.items()}, temperature=0.5)
    assert float(half) == pytest.approx(float(cross_modal_loss(z, temperature=0.5)), rel=0.1)


def test_bad_input() -> None:
    z, loss = three(), CrossModalLoss()
    with pytest.raises(ValueError, match="text has shape"):
        loss({"text": z["text"], "audio": z["audio"][:4]})
    with pytest.raises(ValueError, match="at least two modalities"):
        loss({"text": z["text"]})
    flat = z["audio"].clone()
    flat[2] = 0
    with pytest.raises(ValueError, match="audio has a zero vector in row 2"):
        loss({"text": z["text"], "audio": flat})
    with pytest.raises(ValueError, match="a batch of one"):
        loss({name: v[:1] for name, v in z.items()})
    with pytest.raises(ValueError, match="labels must have shape"):
        loss(z, [0, 1])
    with pytest.raises(ValueError, match="non-finite"):
        loss({"a": z["text"] * math.nan, "b": z["audio"]})
    with pytest.raises(TypeError, match="mapping"):
        loss([z["text"], z["audio"]])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cross-modal alignment"):
        CrossModalLoss("kl")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="finite where the target has no mass"):
        CrossModalLoss(ReverseKL())
    with pytest.raises(TypeError, match="scheme"):
        CrossModalLoss(scheme="ring")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="temperature"):
        CrossModalLoss(temperature=0.0)
    with pytest.raises(ValueError, match="non-negative"):
        GeneralizedCauchySchwarz().from_probs(torch.tensor([[1.2, -0.2], [0.5, 0.5]]))
    with pytest.raises(ValueError, match="no encoder for 'smell'; there are a, b"):
        CrossModalAligner({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}).embed("smell", torch.ones(1, 2))
    with pytest.raises(ValueError, match="at least two modalities"):
        CrossModalAligner({"a": nn.Linear(2, 2)})


@pytest.mark.parametrize("divergence", [GeneralizedCauchySchwarz(), KL()], ids=["gcs", "kl"])
def test_the_aligner_learns_a_rotation(divergence) -> None:
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=chance)
    turned = x @ torch.linalg.qr(torch.randn(4, 4, generator=chance)).Q
    net = MLP(16, 1, nn.ReLU)
    aligner = CrossModalAligner(
        {n: net.build(4, 4, generator=chance) for n in ("x", "y")}, CrossModalLoss(divergence, temperature=0.1)
    )
    batches = [({"x": x[k : k + 32], "y": turned[k : k + 32]}, None) for k in (0, 32)]
    record = aligner.fit(batches, Training(steps=150, learning_rate=5e-3))
    assert record["loss"][-1] < 0.3 * record["loss"][0]
    first, second = aligner.embed("x", x), aligner.embed("y", turned)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(64))
    hits = (first @ second.T).argmax(1) == torch.arange(64)
    assert float(hits.float().mean()) > 0.25  # chance: 1 in 64


def test_an_exhausted_iterator_is_named() -> None:
    aligner = CrossModalAligner({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    one = iter([({"a": torch.randn(4, 2), "b": torch.randn(4, 2)}, None)])
    with pytest.raises(ValueError, match="exhausted"):
        aligner.fit(one, Training(steps=3))
