"""Retrieval metrics by hand, against scikit-learn, with ties, and bad input."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import label_ranking_average_precision_score, top_k_accuracy_score

from discrepancy.methods.representation.retrieval import mean_average_precision, median_rank, recall_at_k

QUERIES = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
GALLERY = torch.tensor([[0.0, 2.0], [3.0, 0.0], [0.1, 1.0]])


def angles(*degrees: float) -> torch.Tensor:
    r = torch.tensor(degrees) * math.pi / 180
    return torch.stack([r.cos(), r.sin()], 1)


def test_three_items_by_hand() -> None:
    # Ranks of the own row: 3 (opposite end), 1, 2.
    assert recall_at_k(QUERIES, GALLERY, 1) == pytest.approx(1 / 3)
    assert recall_at_k(QUERIES, GALLERY, 2) == pytest.approx(2 / 3)
    assert recall_at_k(QUERIES, GALLERY, 3) == 1.0
    assert median_rank(QUERIES, GALLERY) == 2.0
    assert mean_average_precision(QUERIES, GALLERY) == pytest.approx((1 / 3 + 1 + 1 / 2) / 3)


def test_labels_by_hand() -> None:
    # One query at 0 degrees of label 7; the gallery by angle has labels 7, 1, 7: precision 1 and 2/3 at its matches.
    value = mean_average_precision(angles(0.0), angles(10.0, 20.0, 30.0), query_labels=[7], gallery_labels=[7, 1, 7])
    assert value == pytest.approx((1 + 2 / 3) / 2)
    assert recall_at_k(angles(0.0), angles(20.0, 10.0), 1, query_labels=[7], gallery_labels=[7, 1]) == 0.0


def test_against_scikit_learn() -> None:
    chance = torch.Generator().manual_seed(0)
    q, g = torch.randn(30, 5, generator=chance), torch.randn(40, 5, generator=chance)
    a, b = torch.randint(0, 4, (30,), generator=chance), torch.randint(0, 4, (40,), generator=chance)
    scores = torch.nn.functional.normalize(q.double(), dim=1) @ torch.nn.functional.normalize(g.double(), dim=1).T
    want = label_ranking_average_precision_score((a[:, None] == b).numpy(), scores.numpy())
    assert mean_average_precision(q, g, query_labels=a, gallery_labels=b) == pytest.approx(want)
    own = top_k_accuracy_score(range(30), scores[:, :30].numpy(), k=5, labels=range(30))
    assert recall_at_k(q, g[:30], 5) == pytest.approx(own)


def test_a_collapsed_embedding_scores_nothing() -> None:
    same = torch.ones(50, 3)
    assert recall_at_k(same, same, 10) == 0.0
    assert median_rank(same, same) == 50.0


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="without labels"):
        recall_at_k(QUERIES, GALLERY[:2], 1)
    with pytest.raises(ValueError, match="k must be at most"):
        recall_at_k(QUERIES, GALLERY, 4)
    with pytest.raises(ValueError, match="k must be a whole number"):
        recall_at_k(QUERIES, GALLERY, 0)
    with pytest.raises(ValueError, match="both, or for neither"):
        median_rank(QUERIES, GALLERY, query_labels=[0, 1, 2])
    with pytest.raises(ValueError, match="gallery_labels must have shape"):
        median_rank(QUERIES, GALLERY, query_labels=[0, 1, 2], gallery_labels=[0])
    with pytest.raises(ValueError, match="1 queries have no match"):
        median_rank(QUERIES, GALLERY, query_labels=[0, 1, 9], gallery_labels=[0, 1, 0])
    with pytest.raises(ValueError, match="must be"):
        recall_at_k(QUERIES, torch.ones(3, 5), 1)
