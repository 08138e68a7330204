"""The protocol of a ladder: which rungs were taken, how often, in words for `TransportResult.rungs`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Rungs:
    """Counts what was done and says it: levels of annealing, dense and sparse Newton steps, remarks in between."""

    remarks: list[str] = field(default_factory=list)
    annealed: int = 0
    dense_steps: int = 0
    sparse_steps: int = 0
    entries: float = 0.0
    rejections: int = 0

    def add(self, remark: str) -> None:
        """Something that happened once."""
        self.remarks.append(remark)

    def levels(self, count: int) -> None:
        """Levels of epsilon that were visited."""
        self.annealed += count

    def dense(self, steps: int) -> None:
        """Newton steps on the dense plan."""
        self.dense_steps += steps

    def sparse(self, steps: int, entries: float) -> None:
        """Newton steps on the kept entries, of which there were so many a row."""
        self.sparse_steps += steps
        self.entries = entries

    def rejected(self) -> None:
        """A sparse stage that a full pass contradicted."""
        self.rejections += 1

    def words(self) -> tuple[str, ...]:
        """The protocol, a line each."""
        said = list(self.remarks)
        if self.annealed > 1:
            said.append(f"annealing: {self.annealed} levels")
        if self.dense_steps:
            said.append(f"dense Newton: {self.dense_steps} steps")
        if self.sparse_steps:
            said.append(f"sparse Newton: {self.sparse_steps} steps, {self.entries:.0f} entries a row at the end")
        if self.rejections:
            said.append(f"sparse stages rejected: {self.rejections}")
        return tuple(said)


__all__ = ["Rungs"]
