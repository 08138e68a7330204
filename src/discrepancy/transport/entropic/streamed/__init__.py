"""Entropic transport between clouds whose pairs are never held: compiled passes on the CPU, forward and backward."""
