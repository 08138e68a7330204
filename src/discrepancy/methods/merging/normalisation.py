"""Running statistics of a merged model, measured anew: they are averages of inputs, not directions in weight space."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from discrepancy.methods.merging.predictions import input_batches


@torch.no_grad()
def recalibrated(model: nn.Module, inputs: Any) -> nn.Module:
    """The model with the running statistics of its batch normalisations replaced by those of `inputs`, in place; returns it.

    inputs: a tensor, a mapping of tensors, or a loader of either, of all tasks mixed. Each batch counts the same; other layers
    stay in evaluation mode, so dropout does not disturb. One pass. Raises ValueError for a model without such statistics.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        raise ValueError("the model has no batch normalisation with running statistics: there is nothing to recalibrate")
    batches = input_batches(inputs, "inputs")
    modes = [(m, m.training) for m in model.modules()]
    rates = [layer.momentum for layer in layers]
    model.eval()
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a cumulative average
            layer.train()
        for batch in batches:
            model(batch) if isinstance(batch, torch.Tensor) else model(**batch)
    finally:
        for layer, rate in zip(layers, rates, strict=True):
            layer.momentum = rate
        for module, mode in modes:
            module.training = mode
    return model


__all__ = ["recalibrated"]
