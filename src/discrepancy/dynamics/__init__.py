"""Movement: particles along the gradient of a discrepancy."""

from discrepancy.dynamics.particles import Flow, flow

__all__ = ["Flow", "flow"]
