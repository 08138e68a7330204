"""Small neural networks, described by frozen objects and built when the sizes are known."""

from __future__ import annotations

from discrepancy.networks.mlp import MLP

__all__ = ["MLP"]
