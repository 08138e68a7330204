"""Retrieval metrics: does an item's match in the other modality rank high among all candidates?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from discrepancy._validate import sample, whole_number


def _relevance(queries: Tensor, gallery: Tensor, query_labels: Any, gallery_labels: Any) -> Tensor:
    """Which gallery items (q, g) are matches: those of the same label, or of the same row where no labels are given."""
    if (query_labels is None) != (gallery_labels is None):
        raise ValueError("labels must be given for queries and gallery both, or for neither")
    if query_labels is None:
        if len(queries) != len(gallery):
            raise ValueError(
                f"without labels row i of the queries matches row i of the gallery, got {len(queries)} and {len(gallery)} rows"
            )
        return torch.eye(len(queries), dtype=torch.bool, device=queries.device)
    left, right = torch.as_tensor(query_labels), torch.as_tensor(gallery_labels)
    for name, labels, rows in (("query_labels", left, queries), ("gallery_labels", right, gallery)):
        if labels.shape != rows.shape[:1]:
            raise ValueError(f"{name} must have shape ({len(rows)},), one a row, got {tuple(labels.shape)}")
    return (left[:, None] == right[None, :]).to(queries.device)


def _ranked(queries: Any, gallery: Any, query_labels: Any, gallery_labels: Any) -> tuple[Tensor, Tensor]:
    """Matches (q, g) in the order of falling cosine, and the number of matches a query; ties count against the match."""
    q = sample(queries, "queries")
    g = sample(gallery, "gallery", like=q)
    if q.ndim != 2 or g.ndim != 2 or q.shape[1] != g.shape[1]:
        raise ValueError(f"queries and gallery must be (q, d) and (g, d), got {tuple(q.shape)} and {tuple(g.shape)}")
    relevant = _relevance(q, g, query_labels, gallery_labels)
    missing = int((~relevant.any(1)).sum())
    if missing:
        raise ValueError(f"{missing} queries have no match in the gallery: leave them out")
    scores = F.normalize(q.double(), dim=-1) @ F.normalize(g.double(), dim=-1).T
    # Stable, with the matches last among equals: a constant embedding must not look perfect.
    first = relevant.to(torch.uint8).argsort(dim=1, stable=True)
    order = first.gather(1, scores.gather(1, first).argsort(dim=1, descending=True, stable=True))
    return relevant.gather(1, order), relevant.sum(1)


@torch.no_grad()
def recall_at_k(queries: Any, gallery: Any, k: int, *, query_labels: Any = None, gallery_labels: Any = None) -> float:
    """R@k: the share of queries with a match among the k most similar gallery items, by cosine.

    queries (q, d), gallery (g, d). A match is the same row, or with labels the same label. Chance is k / g for single matches.
    Raises ValueError for k below 1 or above g, labels that do not fit, and queries without a match. Time O(q g (d + log g)).
    """
    hits, _ = _ranked(queries, gallery, query_labels, gallery_labels)
    whole_number(k, 1, "k")
    if k > hits.shape[1]:
        raise ValueError(f"k must be at most the size of the gallery, {hits.shape[1]}, got {k}")
    return float(hits[:, :k].any(1).double().mean())


@torch.no_grad()
def median_rank(queries: Any, gallery: Any, *, query_labels: Any = None, gallery_labels: Any = None) -> float:
    """The median over queries of the rank of the first match, 1 the best (the mean of the middle two for an even number)."""
    hits, _ = _ranked(queries, gallery, query_labels, gallery_labels)
    ranks = hits.to(torch.uint8).argmax(1).double() + 1
    return float(ranks.quantile(0.5))


@torch.no_grad()
def mean_average_precision(queries: Any, gallery: Any, *, query_labels: Any = None, gallery_labels: Any = None) -> float:
    """mAP: the mean over queries of the average over their matches of the precision at the match's rank."""
    hits, matches = _ranked(queries, gallery, query_labels, gallery_labels)
    places = torch.arange(1, hits.shape[1] + 1, device=hits.device)
    precision = hits.cumsum(1).double() / places
    return float(((precision * hits).sum(1) / matches).mean())


__all__ = ["mean_average_precision", "median_rank", "recall_at_k"]
