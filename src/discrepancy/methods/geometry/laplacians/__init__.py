"""Laplace operators of meshes, graphs and point clouds, their eigenfunctions, and the signatures made of these."""

from discrepancy.methods.geometry.laplacians.basis import LaplacianBasis
from discrepancy.methods.geometry.laplacians.cotangent import cotangent_operator
from discrepancy.methods.geometry.laplacians.graph import graph_operator
from discrepancy.methods.geometry.laplacians.operator import Operator
from discrepancy.methods.geometry.laplacians.point_cloud import point_cloud_operator
from discrepancy.methods.geometry.laplacians.signatures import HeatKernelSignature, WaveKernelSignature

__all__ = [
    "HeatKernelSignature",
    "LaplacianBasis",
    "Operator",
    "WaveKernelSignature",
    "cotangent_operator",
    "graph_operator",
    "point_cloud_operator",
]
