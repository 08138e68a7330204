"""The processes of a `torch.distributed` group, and the three things that a computation over them needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """The members of a process group (None: all processes); `rank` is this one's place among `size`.

    Every method is a collective: all ranks call it, in the same order.
    """

    group: Any = None

    def __post_init__(self) -> None:
        """Raise RuntimeError where the processes have not been brought together."""
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            raise RuntimeError("torch.distributed is not initialised: call torch.distributed.init_process_group first")

    @property
    def rank(self) -> int:
        """This process's place in the group."""
        return torch.distributed.get_rank(self.group)

    @property
    def size(self) -> int:
        """The number of processes."""
        return torch.distributed.get_world_size(self.group)

    def objects(self, mine: Any) -> list[Any]:
        """A small object of every rank, in their order."""
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, mine, group=self.group)
        return found

    def join(self, part: Tensor, lengths: list[int], dim: int) -> Tensor:
        """The parts of all ranks one after another along `dim`, of which rank r holds lengths[r]; without gradients."""
        mine = part.detach().movedim(dim, 0).contiguous()
        longest = max(lengths)
        padded = mine.new_zeros((longest, *mine.shape[1:]))
        padded[: mine.shape[0]] = mine
        found = [torch.empty_like(padded) for _ in lengths]
        torch.distributed.all_gather(found, padded, group=self.group)
        return torch.cat([piece[:length] for piece, length in zip(found, lengths, strict=True)]).movedim(0, dim)

    def total(self, part: Tensor) -> Tensor:
        """The sum over the ranks, added in their order: the same bits everywhere, so that all take the same decisions."""
        found = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(self.size)]
        torch.distributed.all_gather(found, part.contiguous(), group=self.group)
        whole = found[0].clone()
        for piece in found[1:]:
            whole += piece
        return whole

    def share(self, n: int) -> tuple[slice, list[int]]:
        """This rank's rows of n, and how many each rank has: as equal as can be, however the samples were spread."""
        edges = [n * r // self.size for r in range(self.size + 1)]
        return slice(edges[self.rank], edges[self.rank + 1]), [edges[r + 1] - edges[r] for r in range(self.size)]


__all__ = ["Ranks"]
