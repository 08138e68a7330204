"""Triangle meshes: areas, normals, topology, sampling, distances, and their encodings as measures."""

from discrepancy.methods.geometry.meshes.discrepancy import mesh_discrepancy
from discrepancy.methods.geometry.meshes.distance import (
    SurfaceDistance,
    SurfaceProjection,
    project_to_surface,
    surface_distance,
)
from discrepancy.methods.geometry.meshes.intersections import SelfIntersections, self_intersections
from discrepancy.methods.geometry.meshes.measures import (
    Encoding,
    MeshMeasure,
    SampledPoints,
    SurfaceMeasure,
    Varifold,
    mesh_to_measure,
)
from discrepancy.methods.geometry.meshes.mesh import Mesh, MeshWarning, as_mesh
from discrepancy.methods.geometry.meshes.penalties import (
    AreaDifference,
    EdgeLengthVariance,
    LaplacianSmoothing,
    MeshPenalty,
    NormalBending,
)
from discrepancy.methods.geometry.meshes.sampling import SurfacePoints, sample_surface
from discrepancy.methods.geometry.meshes.shapes import (
    bumpy_sphere,
    coarsened,
    ellipsoid,
    folded_sphere,
    icosphere,
    radial,
    sheet,
    subdivided,
    torus,
)
from discrepancy.methods.geometry.meshes.topology import (
    Topology,
    boundary_edges,
    edges,
    inconsistent_edges,
    neighbouring_faces,
    topology_of,
)

__all__ = [
    "AreaDifference",
    "EdgeLengthVariance",
    "Encoding",
    "LaplacianSmoothing",
    "Mesh",
    "MeshMeasure",
    "MeshPenalty",
    "MeshWarning",
    "NormalBending",
    "SampledPoints",
    "SelfIntersections",
    "SurfaceDistance",
    "SurfaceMeasure",
    "SurfacePoints",
    "SurfaceProjection",
    "Topology",
    "Varifold",
    "as_mesh",
    "boundary_edges",
    "bumpy_sphere",
    "coarsened",
    "edges",
    "ellipsoid",
    "folded_sphere",
    "icosphere",
    "inconsistent_edges",
    "mesh_discrepancy",
    "mesh_to_measure",
    "neighbouring_faces",
    "project_to_surface",
    "radial",
    "sample_surface",
    "self_intersections",
    "sheet",
    "subdivided",
    "surface_distance",
    "topology_of",
    "torus",
]
