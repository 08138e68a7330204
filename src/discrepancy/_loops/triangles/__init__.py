"""Loops over the triangles of a surface, ordered in a tree of boxes."""
