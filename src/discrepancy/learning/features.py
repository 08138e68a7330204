"""Intermediate features of any network, read by forward hooks: by module name, for one pass, leaving the network as it was."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def named_modules(network: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """The submodules of these names; KeyError, listing names that come close, for one that is not there."""
    known = dict(network.named_modules())
    found = {}
    for name in names:
        if not name or name not in known:
            near = difflib.get_close_matches(str(name), [k for k in known if k], n=4, cutoff=0.3) or [k for k in known if k][:8]
            raise KeyError(f"the network has no module {name!r}; close are {', '.join(near)}")
        found[name] = known[name]
    return found


def outputs_and_features(network: nn.Module, x: Any, names: Iterable[str]) -> tuple[Any, dict[str, Tensor]]:
    """network(x), and the output of each named submodule in that pass, with its gradient.

    A module that is called several times counts with its last call; of a tuple, the first tensor counts. The hooks are gone
    afterwards, also after an error: neither the network's state nor its later cost changes. Raises KeyError for an unknown name,
    TypeError where a module returns no tensor, ValueError where the pass did not reach it.
    """
    modules = named_modules(network, names)
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple | list) and output else output
            if not isinstance(value, Tensor):
                raise TypeError(f"module {name!r} returns {type(output).__name__}, not a tensor: name one that does")
            found[name] = value

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        output = network(x)
    finally:
        for handle in handles:
            handle.remove()
    missed = [name for name in modules if name not in found]
    if missed:
        raise ValueError(f"the pass through the network did not reach {', '.join(missed)}")
    return output, {name: found[name] for name in modules}


def logits_in(output: Any) -> Tensor:
    """The logits among a network's outputs: a tensor, or what has `.logits`; TypeError for anything else."""
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise TypeError(f"the network must return a tensor or an object with .logits, got {type(output).__name__}")
    return logits


@torch.no_grad()
def features_of(network: nn.Module, x: Tensor, names: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and named features of a batch in evaluation mode, without gradient; the network's mode is restored."""
    training = network.training
    network.eval()
    try:
        output, features = outputs_and_features(network, x, names)
    finally:
        network.train(training)
    return logits_in(output), features


__all__ = ["features_of", "logits_in", "named_modules", "outputs_and_features"]
