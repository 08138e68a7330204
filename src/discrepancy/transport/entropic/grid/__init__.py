"""Entropic transport between masses on regular grids, under costs that are sums over the axes."""
