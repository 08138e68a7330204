"""Exact optimal transport: the network simplex, dense and multi-scale, with a certificate."""
