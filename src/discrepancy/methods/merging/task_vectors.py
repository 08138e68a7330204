"""`TaskVectors`: what each fine-tuning of one base model changed, and every way back from changes to a model."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy.methods.merging.checkpoints import Checkpoint, is_statistic, read_checkpoint, write_safetensors

Parameters = Mapping[str, Tensor]


class BoundModel(nn.Module):
    """A module run with other parameters and buffers than its own, which stay as they are; differentiable in those given."""

    def __init__(self, module: nn.Module, tensors: Parameters) -> None:
        """Hold both; nothing is copied."""
        super().__init__()
        if hasattr(module, "config"):
            self.config: Any = module.config

        # Not a submodule: its own weights are none of this model's. `wraps` keeps the signature, which tells of a cache.
        @wraps(module.forward)
        def forward(*args: Any, **kwargs: Any) -> Any:
            return torch.func.functional_call(module, dict(tensors), args, kwargs, tie_weights=True)

        self.forward: Callable[..., Any] = forward


class TaskVectors:
    """The task vectors tau_t = theta_t - theta_0 of n experts fine-tuned from one base model.

    `base` and `experts` are modules, Hugging Face models, state dicts, or paths of safetensors files, in any mixture.
    Floating-point parameters are held in float32 (float64 where the base is), so that a small tau survives a model in half
    precision; tied weights count once; integer buffers come from the base; running statistics of normalisation layers are
    averaged over the experts, other floating-point buffers come from the base. Memory: n + 1 models in that precision.
    Raises ValueError naming the first tensor whose name, shape or device does not fit, or that is not finite, and TypeError for
    adapters that are not merged into their model.
    """

    def __init__(self, base: Any, experts: Sequence[Any]) -> None:
        """Read all checkpoints and subtract."""
        if isinstance(experts, nn.Module | Mapping | str | os.PathLike):
            raise TypeError(f"experts must be a list of models, got one {type(experts).__name__}: put it in a list")
        if len(experts) == 0:
            raise ValueError("experts is empty: merging needs at least one model")
        self._checkpoint = read_checkpoint(base, "base")
        # Copies: the module may be trained on after this.
        self.base: dict[str, Tensor] = {k: _wide(v, copy=True) for k, v in self._checkpoint.parameters.items()}
        self.count = len(experts)
        #: By parameter, the updates of all experts, stacked: (n, *shape).
        self.updates: dict[str, Tensor] = {k: v.new_empty((self.count, *v.shape)) for k, v in self.base.items()}
        self._buffers: list[dict[str, Tensor]] = []
        for i, source in enumerate(experts):
            self._take(i, read_checkpoint(source, f"experts[{i}]"))

    def _take(self, i: int, expert: Checkpoint) -> None:
        name, base = f"experts[{i}]", self._checkpoint
        tensors = expert.parameters | expert.buffers
        tensors |= {alias: tensors[target] for alias, target in expert.aliases.items()}
        groups: dict[str, list[str]] = {key: [key] for key in base.parameters}
        for alias, target in base.aliases.items():
            groups[target].append(alias)
        for key, names in groups.items():
            held = [n for n in names if n in tensors]
            if not held:
                raise ValueError(f"{name} lacks {key!r}, which the base has: they are not fine-tunings of one model")
            value = tensors[held[0]]
            for other in held[1:]:
                if not torch.equal(tensors[other], value):
                    raise ValueError(f"{name}: {other!r} and {held[0]!r} are tied in the base and differ here")
            _fits(value, self.base[key], name, key)
            update = self.updates[key][i]
            torch.sub(value.to(update.dtype), self.base[key], out=update)
            if not bool(torch.isfinite(update.sum())):
                raise ValueError(f"{name}: {key!r} is not finite, or its difference from the base is not")
        extra = next((k for k in tensors if k not in base.buffers and k not in base.parameters and k not in base.aliases), None)
        if extra is not None:
            raise ValueError(f"{name} has {extra!r}, which the base lacks: they are not fine-tunings of one model")
        self._buffers.append({})
        for key, value in base.buffers.items():
            if key in tensors:
                _fits(tensors[key], value, name, key)
            if value.is_floating_point():
                # Statistics that an expert's file leaves out are the base's.
                self._buffers[i][key] = _wide(tensors.get(key, value), copy=True)

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        numbers = sum(v.numel() for v in self.base.values())
        return f"TaskVectors({self.count} expert(s), {len(self.base)} parameters, {numbers} numbers)"

    @property
    def module(self) -> nn.Module:
        """The base as a module. Raises TypeError where a state dict or a file was given, which cannot be run."""
        if self._checkpoint.module is None:
            raise TypeError("this needs to run the model: give TaskVectors the base as an nn.Module, not as tensors")
        return self._checkpoint.module

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters, each tied group once."""
        return tuple(self.base)

    def norms(self) -> Tensor:
        """The Euclidean norm of each expert's whole update, (n,)."""
        return torch.stack([as_rows(u).double().square().sum(1) for u in self.updates.values()]).sum(0).sqrt()

    def base_norm(self) -> float:
        """The Euclidean norm of the base's parameters."""
        return float(sum(v.double().square().sum() for v in self.base.values())) ** 0.5

    def stored_transposed(self, name: str) -> bool:
        """Whether a matrix is stored (inputs, outputs): Hugging Face's Conv1D, as in GPT-2. Known where the base is a module."""
        return type(self._owner(name)).__name__ == "Conv1D"

    def is_embedding(self, name: str) -> bool:
        """Whether a matrix is a table of embeddings. Known where the base is a module."""
        return isinstance(self._owner(name), nn.Embedding | nn.EmbeddingBag)

    def _owner(self, name: str) -> nn.Module | None:
        module = self._checkpoint.module
        return None if module is None or "." not in name else module.get_submodule(name.rsplit(".", 1)[0])

    # -- from changes to models ----------------------------------------------------------------------------------------

    def moved(self, update: Parameters) -> dict[str, Tensor]:
        """theta_0 + update, by parameter; what `update` leaves out stays."""
        return {k: v + update[k] if k in update else v for k, v in self.base.items()}

    def expert(self, i: int) -> dict[str, Tensor]:
        """theta_i by parameter, with its own running statistics."""
        return self.moved({k: u[i] for k, u in self.updates.items()}) | self._buffers[i]

    def statistics(self, weights: Tensor | None = None) -> dict[str, Tensor]:
        """The floating-point buffers of a merged model: averages of the running statistics, the base's of the rest."""
        out: dict[str, Tensor] = {}
        for key, value in self._checkpoint.buffers.items():
            if not value.is_floating_point():
                continue
            stacked = torch.stack([b[key] for b in self._buffers])
            share = stacked.new_full((self.count,), 1 / self.count) if weights is None else weights.to(stacked)
            out[key] = torch.tensordot(share, stacked, 1) if is_statistic(key) else _wide(value)
        return out

    def bound(self, tensors: Parameters) -> BoundModel:
        """The base module run with these tensors."""
        return BoundModel(self.module, tensors)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The base module in evaluation mode for the time: no dropout, running statistics; every submodule's mode comes back."""
        modes = [(m, m.training) for m in self.module.modules()]
        self.module.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode

    def state_dict(self, tensors: Parameters) -> dict[str, Tensor]:
        """A full state dict in the base's dtypes and order, tied names sharing one tensor."""
        base = self._checkpoint
        unknown = next((k for k in tensors if k not in base.parameters and k not in base.buffers), None)
        if unknown is not None:
            raise ValueError(f"{unknown!r} is no parameter of the base")
        own = base.parameters | base.buffers
        out: dict[str, Tensor] = {}
        for key in base.order:
            if key in base.aliases:
                out[key] = out[base.aliases[key]]
            else:
                value = own[key]
                out[key] = (tensors[key].detach() if key in tensors else value).to(value.dtype).clone()
        return out

    def model(self, tensors: Parameters) -> nn.Module:
        """A copy of the base module with these tensors, in the base's dtypes."""
        merged = copy.deepcopy(self.module)
        merged.load_state_dict(self.state_dict(tensors))
        return merged

    def save(self, tensors: Parameters, path: str | os.PathLike[str]) -> Path:
        """Write the state dict as a safetensors file, tied weights once, under their first name (as Hugging Face does)."""
        state = self.state_dict(tensors)
        return write_safetensors({k: v for k, v in state.items() if k not in self._checkpoint.aliases}, path)


def as_rows(updates: Tensor) -> Tensor:
    """Stacked updates (n, *shape) as rows (n, numbers), scalars and empty tensors too."""
    return updates.reshape(len(updates), updates[0].numel())


def _wide(tensor: Tensor, *, copy: bool = False) -> Tensor:
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32), copy=copy)


def _fits(value: Tensor, wanted: Tensor, name: str, key: str) -> None:
    if value.shape != wanted.shape:
        raise ValueError(f"{name}: {key!r} has shape {tuple(value.shape)} and the base's {tuple(wanted.shape)}")
    if value.device != wanted.device:
        raise ValueError(f"{name}: {key!r} is on {value.device} and the base on {wanted.device}: move one of them")


__all__ = ["BoundModel", "Parameters", "TaskVectors", "as_rows"]
