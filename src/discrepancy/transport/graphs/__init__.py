"""Transport on metric graphs: Sobolev calculus on edges, and the dual norms between W_1 and H^-1 by flows."""
