"""Orlicz-Wasserstein distances: transport measured by a Luxemburg norm, and the excess-mass bound that it certifies."""
