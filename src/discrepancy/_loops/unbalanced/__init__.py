"""Compiled passes of unbalanced entropic transport on kept cost matrices."""
