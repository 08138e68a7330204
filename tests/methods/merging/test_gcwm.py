import copy
import math

import pytest
import torch
from torch import nn

from discrepancy.methods.merging import (
    DARE,
    GCWM,
    TIES,
    WUDI,
    Averaging,
    ContinualMerger,
    EarlyStopped,
    Energy,
    Gate,
    GeometryConflict,
    History,
    LeastSquares,
    MergeWarning,
    StateAndCurrent,
    TaskArithmetic,
    TaskVectors,
)
from discrepancy.metric_spaces import AffineInvariant, Bures, LogEuclidean
from discrepancy.transport import bures_wasserstein

HALF = torch.tensor([0.5, 0.5], dtype=torch.float64)
SHUT, OPEN = Gate(low=0.0, high=0.0), Gate(low=1.0, high=1.0)


def frame(n, k, generator):
    return torch.linalg.qr(torch.randn(n, k, generator=generator, dtype=torch.float64)).Q


def planted(spectra, shared, seed=0, outputs=12, inputs=10):
    """Two updates of rank 4 with these squared singular values, on the same or on orthogonal input directions."""
    generator = torch.Generator().manual_seed(seed)
    right = frame(inputs, 8, generator)
    updates = []
    for i, spectrum in enumerate(spectra):
        V = right[:, :4] if shared or i == 0 else right[:, 4:]
        updates.append((frame(outputs, 4, generator) * torch.tensor(spectrum, dtype=torch.float64).sqrt()) @ V.T)
    return torch.stack(updates)


def vectors_of(updates, size=100.0):
    base = torch.full(updates.shape[1:], size, dtype=torch.float64)
    return TaskVectors({"w": base}, [{"w": base + u} for u in updates])


def report(updates, **options):
    return GeometryConflict(**({"rank": 4} | options)).report(vectors_of(updates)).layers[0]


def test_the_card_s_three_planted_pairs():
    flat = (4.0, 3.0, 2.0, 1.0)
    same = report(planted([flat, flat], shared=True))
    turned = report(planted([(9.0, 4.0, 1.0, 0.1), (0.1, 1.0, 4.0, 9.0)], shared=True))
    apart = report(planted([flat, flat], shared=False))
    assert same.conflict < 0.02
    assert apart.conflict > 0.9
    assert same.conflict + 0.1 < turned.conflict < apart.conflict - 0.1
    # The alignment of subspaces cannot tell the first two apart.
    assert float(same.alignment[0, 1]) == pytest.approx(1, abs=1e-6)
    assert float(turned.alignment[0, 1]) == pytest.approx(1, abs=1e-6)
    assert float(apart.alignment[0, 1]) == pytest.approx(0, abs=1e-6)


def test_conflict_is_the_normalised_bures_distance_of_full_geometries():
    updates = torch.randn(2, 9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = report(updates, rank=5, ridge=0.1)
    ridge = 0.1 * float(updates.square().sum((1, 2)).mean()) / 5
    assert found.ridge == pytest.approx(ridge)
    C = [u.T @ u + ridge * torch.eye(5, dtype=torch.float64) for u in updates]
    squared = bures_wasserstein(None, C[0], None, C[1]) ** 2
    assert found.conflict == pytest.approx(float(squared / (C[0].trace() + C[1].trace())), rel=1e-6)
    torch.testing.assert_close(found.norms, updates.square().sum((1, 2)).sqrt(), rtol=1e-6, atol=0)
    assert float(found.cosines[0, 1]) == pytest.approx(float((updates[0] * updates[1]).sum() / found.norms.prod()), rel=1e-6)


def test_commuting_geometries_by_hand():
    # B = diag(4, 1) and diag(1, 1), ridge negligible: sum of squared differences of roots over both traces.
    updates = torch.stack([torch.diag(torch.tensor([2.0, 1.0])), torch.eye(2)]).double()
    assert report(updates, rank=2, ridge=1e-9).conflict == pytest.approx(1 / 7, abs=1e-4)


@pytest.mark.parametrize("metric", [Bures(), AffineInvariant(), LogEuclidean()], ids=["bures", "affine", "log"])
def test_every_metric_orders_the_planted_pairs_and_stays_in_the_unit_interval(metric):
    flat = (4.0, 3.0, 2.0, 1.0)
    values = [
        report(planted([flat, flat], shared=True), metric=metric).conflict,
        report(planted([(9.0, 4.0, 1.0, 0.1), (0.1, 1.0, 4.0, 9.0)], shared=True), metric=metric).conflict,
        report(planted([flat, flat], shared=False), metric=metric).conflict,
    ]
    assert values[0] < 0.02
    assert values[0] < values[1] < values[2] <= 1 + 1e-9
    assert values[2] > 0.9
    noise = torch.randn(4, 9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pairs = GeometryConflict(rank=5, metric=metric).report(vectors_of(noise)).layers[0].pairs
    assert torch.equal(pairs, pairs.T)
    assert float(pairs.diagonal().abs().max()) == 0
    assert float(pairs.min()) >= 0
    assert float(pairs.max()) <= 1


def test_conflict_is_unchanged_by_scale_turns_and_output_bases():
    generator = torch.Generator().manual_seed(2)
    updates = torch.randn(2, 7, 5, dtype=torch.float64, generator=generator)
    turn, outer = frame(5, 5, generator), frame(7, 7, generator)
    value = report(updates, rank=3).conflict
    assert report(3 * updates, rank=3).conflict == pytest.approx(value, rel=1e-6)
    assert report(updates @ turn, rank=3).conflict == pytest.approx(value, rel=1e-6)
    assert report(torch.stack([outer @ updates[0], updates[1]]), rank=3).conflict == pytest.approx(value, rel=1e-6)


def test_weights_mean_over_pairs_and_rows():
    updates = torch.randn(3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    made = vectors_of(updates)
    plain = GeometryConflict(rank=3).report(made)
    pairs = plain.layers[0].pairs
    assert plain.conflict == pytest.approx(float((pairs[0, 1] + pairs[0, 2] + pairs[1, 2]) / 3))
    weighted = GeometryConflict(rank=3).report(made, [0.5, 0.5, 0.0])
    assert weighted.conflict == pytest.approx(float(pairs[0, 1]))
    rows = plain.rows()
    assert [(r["first"], r["second"]) for r in rows] == [(0, 1), (0, 2), (1, 2)]
    assert rows[1]["conflict"] == pytest.approx(float(pairs[0, 2]))
    assert plain.to_dict()["layers"][0]["layer"] == "w"


def test_energy_chooses_the_rank():
    updates = planted([(90.0, 6.0, 3.0, 1.0), (90.0, 6.0, 3.0, 1.0)], shared=True)
    assert report(updates, rank=Energy(0.85)).subspace == 1
    assert report(updates, rank=Energy(0.95)).subspace == 2
    assert report(updates, rank=Energy(0.999)).subspace == 4


def test_a_zero_update_has_no_conflict_with_itself():
    updates = torch.zeros(2, 4, 3, dtype=torch.float64)
    found = report(updates, rank=2)
    assert found.conflict == 0
    assert found.subspace == 0
    merged = GCWM(rank=2).merge(vectors_of(updates))
    assert float(merged.update["w"].abs().max()) == 0


# -- merging -----------------------------------------------------------------------------------------------------------


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


def family(count=2, scale=0.05):
    base = network(0)
    experts = []
    for seed in range(1, count + 1):
        expert = copy.deepcopy(base)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for w in expert.parameters():
                w += scale * torch.randn(w.shape, generator=generator)
        experts.append(expert)
    return TaskVectors(base, experts)


@pytest.mark.parametrize(
    "merge",
    [WUDI(), WUDI(LeastSquares()), TIES(0.5), Averaging(), DARE(0.5, TIES(0.5))],
    ids=["wudi", "exact", "ties", "mean", "dare"],
)
def test_a_shut_gate_is_the_plain_merge_bit_for_bit(merge):
    vectors = family()
    plain = merge.merge(vectors, generator=torch.Generator().manual_seed(0)).update
    found = GCWM(rank=4, gate=SHUT, base_merge=merge).merge(vectors, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(found.update[k], plain[k]) for k in vectors.names)
    assert [layer.alpha for layer in found.layers] == [0.0, 0.0]
    assert found.layers[0].geometric_norm is None


@pytest.mark.parametrize("residual", [True, False])
def test_one_expert_is_returned_unchanged(residual):
    vectors = family(1)
    # Without the residual the rank must be full: only the first layer's inputs have as many directions as that.
    method = GCWM(rank=4, gate=OPEN) if residual else GCWM(rank=6, gate=OPEN, residual=False, layers=("0.weight",))
    found = method.merge(vectors)
    for name in vectors.names:
        torch.testing.assert_close(found.update[name], vectors.updates[name][0], rtol=1e-4, atol=1e-5)
    assert [layer.conflict for layer in found.layers] == [0.0] * len(found.layers)
    default = GCWM(rank=4).merge(vectors).layers[0].alpha
    assert default == pytest.approx(1 / (1 + math.exp(1.2)))


@pytest.mark.parametrize("merge", [Averaging(), TaskArithmetic(0.7)], ids=["mean", "sum"])
def test_with_a_linear_merge_whitening_and_colouring_cancel(merge):
    vectors = family()
    plain = merge.merge(vectors).update
    found = GCWM(rank=3, gate=OPEN, base_merge=merge).merge(vectors).update
    for name in vectors.names:
        torch.testing.assert_close(found[name], plain[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("solver", [EarlyStopped(), LeastSquares()], ids=["adam", "exact"])
@pytest.mark.parametrize("gate", [OPEN, SHUT], ids=["geometry", "plain"])
def test_updates_on_orthogonal_inputs_are_both_kept(solver, gate):
    updates = planted([(4.0, 3.0, 2.0, 1.0)] * 2, shared=False)
    found = GCWM(rank=4, gate=gate, base_merge=WUDI(solver)).merge(vectors_of(updates)).update["w"]
    torch.testing.assert_close(found, updates.sum(0), rtol=1e-3, atol=1e-3)


def test_the_branch_is_the_formula():
    updates = torch.randn(2, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    method = GCWM(rank=5, gate=OPEN, base_merge=TIES(0.6), ridge=0.1)
    ridge = 0.1 * float(updates.square().sum((1, 2)).mean()) / 5
    C = torch.stack([u.T @ u for u in updates]) + ridge * torch.eye(5, dtype=torch.float64)
    F = torch.eye(5, dtype=torch.float64) * C[0].trace() / 5
    for _ in range(200):  # the fixed point of the barycenter, by roots
        values, axes = torch.linalg.eigh(F)
        root, inverse = (axes * values.sqrt()) @ axes.T, (axes / values.sqrt()) @ axes.T
        middle = sum(0.5 * _root(root @ c @ root) for c in C)
        F = inverse @ middle @ middle @ inverse
    root = _root(F)
    expected = TIES(0.6).combine(updates @ torch.linalg.inv(root), HALF) @ root
    found = method.combine(updates, HALF)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, TIES(0.6).combine(updates, HALF), rtol=1e-2)


def _root(S):
    values, axes = torch.linalg.eigh(S)
    return (axes * values.clamp_min(0).sqrt()) @ axes.T


def test_the_gate():
    gate = Gate()
    assert gate(0.12) == pytest.approx(0.5)
    assert gate(0.46) == pytest.approx(1 / (1 + math.exp(-3.4)))
    assert Gate(skip=0.1)(0.46) == 1.0
    assert Gate(skip=0.3)(0.0) == 0.0
    assert Gate(sharpness=1e6)(1.0) == 1.0
    assert Gate(sharpness=1e6)(0.0) == 0.0
    assert Gate(low=0.2, high=0.6)(0.12) == pytest.approx(0.4)


def test_the_mixture_of_branches():
    vectors = family()
    half = GCWM(rank=4, gate=Gate(low=0.5, high=0.5)).merge(vectors)
    branch, plain = GCWM(rank=4, gate=OPEN).merge(vectors), WUDI().merge(vectors)
    for name in ("0.weight", "2.weight"):
        torch.testing.assert_close(half.update[name], (branch.update[name] + plain.update[name]) / 2, rtol=1e-4, atol=1e-5)
    assert torch.equal(half.update["0.bias"], plain.update["0.bias"])
    total = float(vectors.updates["0.weight"].sum(0).norm())
    assert half.layers[0].sum_norm == pytest.approx(total, rel=1e-5)
    assert half.layers[0].geometric_norm == pytest.approx(float(branch.update["0.weight"].norm()), rel=1e-4)


def test_transposed_storage_gives_the_transposed_merge():
    from discrepancy.language_models import tiny_gpt2

    base = tiny_gpt2(11, width=8, heads=2, layers=1)
    experts = []
    for seed in (1, 2):
        expert = copy.deepcopy(base)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for w in expert.parameters():
                w += 0.01 * torch.randn(w.shape, generator=generator)
        experts.append(expert)
    vectors = TaskVectors(base, experts)
    name = "transformer.h.0.attn.c_attn.weight"
    found = GCWM(rank=4, gate=OPEN).merge(vectors)
    stored = vectors.updates[name]
    assert stored.shape[1:] == (8, 24)
    torch.testing.assert_close(
        found.update[name], GCWM(rank=4, gate=OPEN).combine(stored.mT, HALF.float()).mT, rtol=1e-4, atol=1e-6
    )
    assert not any("wte" in layer.layer for layer in found.layers)


def test_what_is_suspicious_warns():
    base = network(0)
    with pytest.warns(MergeWarning, match="are they fine-tunings of this base"):
        GCWM(rank=2).merge(TaskVectors(base, [network(1), {k: 9 * v for k, v in base.state_dict().items()}]))
    with pytest.warns(MergeWarning, match="rank 7 exceeds"):
        GCWM(rank=7).merge(family())
    with pytest.warns(MergeWarning, match="longer than 2 times the sum"):
        GCWM(rank=1, gate=OPEN, ridge=1e-6, base_merge=WUDI(LeastSquares())).merge(family())


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: GCWM(rank=0), ValueError, "rank"),
        (lambda: GCWM(ridge=0.0), ValueError, "ridge"),
        (lambda: GCWM(base_merge="wudi"), TypeError, "base_merge must be a Merge"),
        (lambda: GCWM(metric="bures"), TypeError, "CovarianceMetric"),
        (lambda: GCWM(gate=0.5), TypeError, "Gate"),
        (lambda: GeometryConflict(metric=AffineInvariant(), ridge=0.0), ValueError, "ridge must be positive"),
        (lambda: Gate(low=0.6, high=0.5), ValueError, "low <= high"),
        (lambda: Gate(skip=0.5), ValueError, "skip"),
        (lambda: Gate(sharpness=0.0), ValueError, "sharpness"),
        (lambda: Gate(threshold=math.inf), ValueError, "threshold"),
        (lambda: Energy(1.0), ValueError, "share"),
        (lambda: GCWM(layers=("0.bias",)).merge(family()), ValueError, "no matrix"),
        (lambda: GCWM(layers=("9.weight",)).merge(family()), ValueError, "no parameter"),
        (lambda: ContinualMerger(network(0), rate=0.0), ValueError, "rate"),
        (lambda: ContinualMerger(network(0), "wudi"), TypeError, "method must be a Merge"),
        (lambda: ContinualMerger(network(0), active="all"), TypeError, "History"),
        (lambda: ContinualMerger(network(0)).model(), AttributeError, "no expert"),
        (lambda: GeometryConflict().report(TaskVectors({"b": torch.ones(3)}, [{"b": torch.ones(3)}])), ValueError, "no layer"),
    ],
)
def test_bad_input(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_kernels_are_matrices_when_asked():
    torch.manual_seed(0)
    base = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2))
    expert = copy.deepcopy(base)
    with torch.no_grad():
        for w in expert.parameters():
            w += 0.01 * torch.randn(w.shape)
    vectors = TaskVectors(base, [expert, expert])
    assert [layer.layer for layer in GeometryConflict(rank=2).report(vectors).layers] == ["2.weight"]
    assert [layer.layer for layer in GeometryConflict(rank=2, kernels=True).report(vectors).layers] == ["0.weight", "2.weight"]
    merged = GCWM(rank=2, kernels=True, gate=OPEN).merge(vectors)
    assert merged.update["0.weight"].shape == (3, 2, 3, 3)
    with pytest.raises(ValueError, match="kernels=True"):
        GeometryConflict(rank=2, layers=("0.weight",)).report(vectors)


# -- one after another ---------------------------------------------------------------------------------------------------


def test_at_rate_one_the_state_is_the_merge_of_all():
    vectors = family(3)
    experts = [vectors.model(vectors.expert(i)) for i in range(3)]
    merger = ContinualMerger(vectors.module, TIES(0.5), rate=1.0)
    for expert in experts:
        merger.update(expert)
    expected = TIES(0.5).merge(TaskVectors(vectors.module, experts)).state_dict()
    for name, value in merger.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def test_small_rates_follow_the_increments():
    vectors = family(2)
    experts = [vectors.model(vectors.expert(i)) for i in range(2)]
    merger = ContinualMerger(vectors.module, Averaging(), rate=0.3)
    first, second = merger.update(experts[0]), merger.update(experts[1])
    tau = vectors.updates["0.weight"]
    torch.testing.assert_close(
        merger.tensors["0.weight"] - vectors.base["0.weight"], 0.3 * (tau[0] + tau[1]) / 2, rtol=1e-4, atol=1e-6
    )
    assert first.moved == pytest.approx(0.3 * float(vectors.norms()[0]), rel=1e-4)
    assert second.step == 2
    assert second.layers == ()


def test_the_state_alone_can_be_the_history():
    vectors = family(2)
    experts = [vectors.model(vectors.expert(i)) for i in range(2)]
    merger = ContinualMerger(vectors.module, Averaging(), rate=0.5, active=StateAndCurrent())
    for expert in experts:
        merger.update(expert)
    a, b = vectors.updates["0.weight"]
    # Step 1: M = a, state a / 2. Step 2: M = (a / 2 + b) / 2, state a / 2 + (M - a) / 2.
    expected = a / 2 + ((a / 2 + b) / 2 - a) / 2
    torch.testing.assert_close(merger.tensors["0.weight"] - vectors.base["0.weight"], expected, rtol=1e-4, atol=1e-6)


def test_the_report_has_one_row_a_layer_and_the_base_is_left_alone():
    vectors = family(3)
    before = {k: v.clone() for k, v in vectors.module.state_dict().items()}
    merger = ContinualMerger(vectors.module, GCWM(rank=4), rate=0.3, active=History())
    for i in range(3):
        expert = vectors.model(vectors.expert(i))
        merger.update(expert)
        with torch.no_grad():
            expert[0].weight.zero_()  # trained on after it was handed over
    assert [len(step.layers) for step in merger.report_] == [2, 2, 2]
    assert [layer.layer for layer in merger.report_[-1].layers] == ["0.weight", "2.weight"]
    assert merger.report_[0].layers[0].conflict == 0
    assert all(torch.equal(v, before[k]) for k, v in vectors.module.state_dict().items())
    assert merger.report_[1].to_dict()["layers"][1]["layer"] == "2.weight"
    x = torch.randn(3, 6)
    assert merger.model()(x).shape == (3, 4)
