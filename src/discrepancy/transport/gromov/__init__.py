"""Gromov-Wasserstein: transport between spaces that share no coordinates, only their inner distances."""
