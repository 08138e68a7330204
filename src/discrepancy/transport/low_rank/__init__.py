"""Low-rank optimal transport: couplings that factor through few intermediate points, in linear memory."""
