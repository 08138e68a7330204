"""Optimal transport between samples."""

from discrepancy.transport.wasserstein import Wasserstein

__all__ = ["Wasserstein"]
