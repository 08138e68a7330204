"""How triangles hang together: edges, borders, orientation, the Euler characteristic, connected pieces."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from discrepancy._results import Result

Faces = Int[Tensor, "f 3"]


@dataclass(frozen=True, repr=False)
class Topology(Result):
    """What the faces alone say about a surface.

    The numbers of `vertices` in use, `edges` and `faces`; `euler` = vertices - edges + faces, which is 2 - 2 genus for every
    closed piece; `boundary` edges lie on one face, `non_manifold` ones on three or more; `inconsistent` edges are run through
    twice in one direction, so that two neighbouring normals disagree; `pieces` is the number of connected parts.
    """

    vertices: int
    edges: int
    faces: int
    euler: int
    boundary: int
    non_manifold: int
    inconsistent: int
    pieces: int

    @property
    def closed(self) -> bool:
        """Whether every edge lies on exactly two faces."""
        return self.boundary == 0 and self.non_manifold == 0

    @property
    def oriented(self) -> bool:
        """Whether neighbouring faces agree about their side."""
        return self.inconsistent == 0 and self.non_manifold == 0


def directed_edges(faces: Faces) -> Int[Tensor, "3f 2"]:
    """The three edges of each face in the order in which it runs through them: those of corner 0 to 1 first, then 1 to 2, 2 to
    0."""
    return torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def distinct_pairs(pairs: Int[Tensor, "e 2"]) -> tuple[Int[Tensor, "u 2"], Int[Tensor, " e"], Int[Tensor, " u"]]:
    """The distinct rows in ascending order, where each row went, and how often each occurs.

    Rows are sorted as one whole number each, ten times faster than as rows.
    """
    base = int(pairs.max()) + 1 if pairs.numel() else 1
    keys, where, counts = torch.unique(pairs[:, 0] * base + pairs[:, 1], return_inverse=True, return_counts=True)
    return torch.stack([keys // base, keys % base], -1), where, counts


def edges(faces: Faces) -> tuple[Int[Tensor, "e 2"], Int[Tensor, " e"]]:
    """The undirected edges, smaller vertex first, and on how many faces each lies. Time F log F."""
    found, _, counts = distinct_pairs(directed_edges(faces).sort(-1).values)
    return found, counts


def boundary_edges(faces: Faces) -> Int[Tensor, "e 2"]:
    """The edges on one face only."""
    found, counts = edges(faces)
    return found[counts == 1]


def inconsistent_edges(faces: Faces) -> Int[Tensor, "e 2"]:
    """The edges that are run through more than once in the same direction: two faces there look to different sides."""
    found, _, counts = distinct_pairs(directed_edges(faces))
    return found[counts > 1]


def neighbouring_faces(faces: Faces) -> Int[Tensor, "e 2"]:
    """Pairs of faces that share an edge, one row an edge that lies on exactly two faces."""
    _, where, counts = distinct_pairs(directed_edges(faces).sort(-1).values)
    owner = torch.arange(len(faces), device=faces.device).repeat(3)
    shared = counts[where] == 2
    order = where[shared].argsort(stable=True)
    return owner[shared][order].reshape(-1, 2)


def pieces(faces: Faces) -> Int[Tensor, " f"]:
    """The number of the connected part that each face belongs to (faces are connected through shared vertices)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pairs = directed_edges(faces).cpu().numpy()
    count = int(pairs.max()) + 1 if len(pairs) else 0
    graph = coo_matrix(([True] * len(pairs), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    label = torch.from_numpy(connected_components(graph, directed=False)[1]).to(faces.device)
    return torch.unique(label[faces[:, 0]].long(), return_inverse=True)[1]


def topology_of(faces: Faces) -> Topology:
    """Counts, borders and orientation of faces (F, 3). Time F log F, linear memory."""
    found, counts = edges(faces)
    used = len(torch.unique(faces))
    return Topology(
        vertices=used,
        edges=len(found),
        faces=len(faces),
        euler=used - len(found) + len(faces),
        boundary=int((counts == 1).sum()),
        non_manifold=int((counts > 2).sum()),
        inconsistent=len(inconsistent_edges(faces)),
        pieces=int(pieces(faces).max()) + 1 if len(faces) else 0,
    )


__all__ = [
    "Faces",
    "Topology",
    "boundary_edges",
    "directed_edges",
    "distinct_pairs",
    "edges",
    "inconsistent_edges",
    "neighbouring_faces",
    "pieces",
    "topology_of",
]
