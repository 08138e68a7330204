"""Tight loops over CPU tensors, one file a loop nest; no policy lives here. Importing a file imports Numba."""
