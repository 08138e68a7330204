"""Groups of symmetries as objects: what costs, kernels and critics are made invariant under."""

from discrepancy.groups.coordinates import CyclicShift, Permutation, SignFlip
from discrepancy.groups.critic import OrbitMaximum, OrbitMean, SymmetrizedCritic
from discrepancy.groups.group import FiniteGroup, Group
from discrepancy.groups.images import HFlip, Rot90
from discrepancy.groups.matrices import Drawn, FromMatrices, Product
from discrepancy.groups.planar import Cyclic, Dihedral
from discrepancy.groups.rotations import Rotation

__all__ = [
    "Cyclic",
    "CyclicShift",
    "Dihedral",
    "Drawn",
    "FiniteGroup",
    "FromMatrices",
    "Group",
    "HFlip",
    "OrbitMaximum",
    "OrbitMean",
    "Permutation",
    "Product",
    "Rot90",
    "Rotation",
    "SignFlip",
    "SymmetrizedCritic",
]
