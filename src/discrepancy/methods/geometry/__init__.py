"""Methods on shapes: point clouds, meshes, correspondences."""
