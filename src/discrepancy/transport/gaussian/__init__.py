"""Transport between Gaussians: the Bures-Wasserstein distance, its maps, geodesics, barycenters and metric on covariances."""
