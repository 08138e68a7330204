"""Small neural networks, described by frozen objects and built when the sizes are known."""

from __future__ import annotations

from discrepancy.networks.diffusion_net import DiffusionNet, DiffusionNetModule, SpectralBasis
from discrepancy.networks.mlp import MLP
from discrepancy.networks.unet import ConditionalUNet, UNet

__all__ = ["MLP", "ConditionalUNet", "DiffusionNet", "DiffusionNetModule", "SpectralBasis", "UNet"]
