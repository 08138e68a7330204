"""Entropic problems whose cost matrix is kept, on the CPU: the ladder in Python over compiled loops."""
