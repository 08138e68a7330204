"""Rows of `make bench-structured`: sliced, one-dimensional, Gaussian and Gromov transport, and barycenters, beside their peers.

How a row is measured, judged and printed is that of `benchmarks/transport`.
"""
