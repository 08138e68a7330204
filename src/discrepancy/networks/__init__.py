"""Small neural networks, described by frozen objects and built when the sizes are known."""

from __future__ import annotations

from discrepancy.networks.attention import Attention, EfficientAttention, LinearAttention, SoftmaxAttention
from discrepancy.networks.coupling_flow import BoxFlow, CouplingFlow
from discrepancy.networks.critics import BilinearCritic, ConcatenatedCritic, SeparableCritic
from discrepancy.networks.diffusion_net import DiffusionNet, DiffusionNetModule, SpectralBasis
from discrepancy.networks.mlp import MLP
from discrepancy.networks.point_net import PointCloudAutoencoder, PointNet
from discrepancy.networks.residual import ResidualMLP, ResidualModule
from discrepancy.networks.spectral import SpectralLinear
from discrepancy.networks.unet import ConditionalUNet, UNet

__all__ = [
    "MLP",
    "Attention",
    "BilinearCritic",
    "BoxFlow",
    "ConcatenatedCritic",
    "ConditionalUNet",
    "CouplingFlow",
    "DiffusionNet",
    "DiffusionNetModule",
    "EfficientAttention",
    "LinearAttention",
    "PointCloudAutoencoder",
    "PointNet",
    "ResidualMLP",
    "ResidualModule",
    "SeparableCritic",
    "SoftmaxAttention",
    "SpectralBasis",
    "SpectralLinear",
    "UNet",
]
