"""The training loop of the whole field: a student, what its teacher says, and any loss of the two, on shuffled batches.

A loss is called as loss(student_outputs, teacher_outputs, target) and returns a scalar, or a scalar and a mapping of terms to
record. Outputs are what a model returns: logits (B, C, ...), or a tuple, list or mapping of tensors whose first dimension is
the batch (logits beside features, say). A loss that is an `nn.Module` with parameters of its own - projections, critics - is
trained together with the student.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._results import Result
from discrepancy._validate import generator_or_default, whole_number
from discrepancy.learning import Training

Terms = Mapping[str, Tensor | float]
Loss = Callable[..., Any]
BatchLoss = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Epochs:
    """How long and in which batches: `epochs` passes over the data in shuffled batches of `batch`, Adam with a cosine rate.

    The rate starts at `learning_rate` and ends at `final_share` of it; see `learning.Training` for `warm_up` (in steps) and
    `gradient_clip`. Raises ValueError for options out of range.
    """

    epochs: int = 40
    batch: int = 100
    learning_rate: float = 3e-3
    final_share: float = 0.0
    warm_up: int = 0
    gradient_clip: float | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        whole_number(self.epochs, 1, "epochs")
        whole_number(self.batch, 1, "batch")
        self.training(1)

    def training(self, count: int) -> Training:
        """The training loop for `count` examples; terms are recorded once an epoch."""
        steps = math.ceil(count / self.batch)
        return Training(
            steps=self.epochs * steps,
            learning_rate=self.learning_rate,
            final_share=self.final_share,
            record_every=steps,
            warm_up=self.warm_up,
            gradient_clip=self.gradient_clip,
        )

    def minimise(
        self,
        modules: Iterable[nn.Module],
        batch_loss: BatchLoss,
        count: int,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, list[float]]:
        """Minimise batch_loss(indices) over the parameters of all modules that require a gradient; returns the record.

        `indices` (at most `batch`,) are those of the examples, without replacement within an epoch. `batch_loss` returns a
        scalar, or a scalar and the terms to record. Modules are in training mode meanwhile and in evaluation mode afterwards.
        Raises ValueError if there is nothing to train, NumericalError if the loss or a gradient is not finite.
        """
        whole_number(count, 1, "count")
        modules = list(modules)
        parameters = list({id(w): w for m in modules for w in m.parameters() if w.requires_grad}.values())
        if not parameters:
            raise ValueError("there is nothing to train: no module has a parameter that requires a gradient")
        source = generator_or_default(generator)
        order: list[Tensor] = []

        def step(_: int) -> tuple[Tensor, Terms]:
            if not order:
                order.extend(reversed(torch.randperm(count, generator=source).split(self.batch)))
            found = batch_loss(order.pop())
            return found if isinstance(found, tuple) else (found, {})

        for module in modules:
            module.train()
        try:
            return self.training(count).run(parameters, step)
        finally:
            for module in modules:
                module.eval()


@dataclass(frozen=True, repr=False)
class Distilled(Result):
    """A trained student: the last recorded loss, the number of steps, the record by name, and the student itself."""

    loss: float
    steps: int
    history: dict[str, list[float]] = field(repr=False)
    student: nn.Module = field(repr=False)


def taken(outputs: Any, rows: Tensor) -> Any:
    """The rows of a batch from outputs on all inputs: a tensor, or a tuple, list or mapping of such."""
    if isinstance(outputs, Tensor):
        return outputs[rows]
    if isinstance(outputs, Mapping):
        return {name: taken(value, rows) for name, value in outputs.items()}
    if isinstance(outputs, tuple | list):
        parts = [taken(value, rows) for value in outputs]
        return type(outputs)(*parts) if hasattr(outputs, "_fields") else type(outputs)(parts)
    raise TypeError(f"outputs must be a tensor or a tuple, list or mapping of tensors, got {type(outputs).__name__}")


def _joined(parts: list[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts)
    if isinstance(first, Mapping):
        return {name: _joined([p[name] for p in parts]) for name in first}
    if isinstance(first, tuple | list):
        joined = [_joined(list(group)) for group in zip(*parts, strict=True)]
        return type(first)(*joined) if hasattr(first, "_fields") else type(first)(joined)
    raise TypeError(f"outputs must be a tensor or a tuple, list or mapping of tensors, got {type(first).__name__}")


@torch.no_grad()
def outputs_of(model: Callable[[Tensor], Any], inputs: Tensor, *, chunk: int = 1000) -> Any:
    """What a model says of all inputs (n, ...), in evaluation mode and without gradient, `chunk` rows at a time.

    Memory: the outputs, and the activations of one chunk. The model's mode is restored.
    """
    whole_number(chunk, 1, "chunk")
    training = isinstance(model, nn.Module) and model.training
    if isinstance(model, nn.Module):
        model.eval()
    try:
        return _joined([model(part) for part in inputs.split(chunk)])
    finally:
        if isinstance(model, nn.Module) and training:
            model.train()


def distil(
    student: nn.Module,
    inputs: Tensor,
    targets: Tensor | None,
    loss: Loss,
    *,
    teacher: Any = None,
    epochs: Epochs = Epochs(),
    forward: Callable[[nn.Module, Tensor], Any] | None = None,
    generator: torch.Generator | None = None,
) -> Distilled:
    """Train a student on loss(student_outputs, teacher_outputs, target), with whatever parameters the loss itself has.

    inputs (n, ...), targets (n, ...) or None. `teacher` is a callable on inputs, evaluated on each batch without gradient (a
    module in evaluation mode), or its outputs on all n inputs (`outputs_of`), which saves that work where the inputs do not
    change, or None: then the loss gets None. `forward(student, x)` replaces student(x), where the loss wants more than logits.
    The order of the examples comes from `generator`: two losses with equal generators and equal students see the same batches.
    Raises ValueError for lengths that differ and where the teacher is the student, NumericalError if the loss or a gradient is
    not finite.
    """
    count = len(inputs)
    if targets is not None and len(targets) != count:
        raise ValueError(f"there are {count} inputs and {len(targets)} targets: one for each")
    if teacher is student:
        raise ValueError("teacher and student are the same module: the student would chase itself; give a copy")
    if isinstance(teacher, nn.Module):
        teacher.eval()
    known = teacher is not None and not callable(teacher)
    if known:
        lengths = {len(t) for t in _tensors(teacher)}
        if lengths != {count}:
            raise ValueError(f"there are {count} inputs and teacher's outputs have length {sorted(lengths)}: one for each")
    call = (lambda model, x: model(x)) if forward is None else forward

    def batch_loss(rows: Tensor) -> Any:
        x = inputs[rows]
        if known:
            said = taken(teacher, rows)
        elif teacher is None:
            said = None
        else:
            with torch.no_grad():
                said = teacher(x)
        return loss(call(student, x), said, None if targets is None else targets[rows])

    modules = [student, loss] if isinstance(loss, nn.Module) else [student]
    history = epochs.minimise(modules, batch_loss, count, generator=generator)
    return Distilled(history["loss"][-1], epochs.training(count).steps, history, student)


def _tensors(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, Mapping):
        return [t for value in outputs.values() for t in _tensors(value)]
    if isinstance(outputs, tuple | list):
        return [t for value in outputs for t in _tensors(value)]
    raise TypeError(f"teacher must be callable or its outputs (tensors), got {type(outputs).__name__}")


__all__ = ["BatchLoss", "Distilled", "Epochs", "Loss", "Terms", "distil", "outputs_of", "taken"]
