"""Soft-minima under a cost that is a sum over the axes of a grid: one axis after the other, line by line."""
