"""The sizes at which divergences of logits are measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """Logits of `rows` rows and `width` categories; `probabilities` for vectors in place of logits. None means all."""

    name: str
    rows: int
    width: int
    dtype: str = "float32"
    threads: int = 1
    repeats: int = 3
    probabilities: bool = False
    memory: bool = True
    divergences: tuple[str, ...] | None = None
    contenders: tuple[str, ...] | None = None


TASKS = (
    Task("512 x 150,000 float32", 512, 150_000, repeats=2),
    Task("512 x 150,000 bfloat16", 512, 150_000, dtype="bfloat16", repeats=2, divergences=("KL", "JensenShannon")),
    Task("512 x 150,000 float32, two threads", 512, 150_000, threads=2, repeats=2, divergences=("KL", "JensenShannon")),
    Task("4,096 x 32,000 float32", 4096, 32_000, repeats=2, divergences=("KL", "JensenShannon")),
    Task("4,096 x 32,000 bfloat16", 4096, 32_000, dtype="bfloat16", repeats=2, divergences=("KL",)),
    Task("256 x 1,000 float32", 256, 1000, repeats=30, memory=False),
    Task("100 x 10 float32", 100, 10, repeats=300, memory=False),
    Task(
        "10 vectors of 1,000,000 float32",
        10,
        1_000_000,
        probabilities=True,
        repeats=3,
        divergences=("KL", "JensenShannon", "TotalVariation"),
        contenders=("discrepancy", "plain"),
    ),
)

__all__ = ["TASKS", "Task"]
