"""Pricing all pairs without a matrix: for every row the few columns of smallest reduced cost c(x_i, y_j) - v_j.

`ground` the costs of a pair and of a tile of columns, for the metrics that are compiled;
`boxes`, `differences`, `products`, `blocks` the four ways to walk the columns: skipping cells by their bounding boxes (low
dimension), every column by direct differences, by inner products from a matrix product that are checked by differences
where it matters (high dimension), and over a block of costs that somebody else computed;
`candidates` the arcs of a level from what the rows and the columns found.

All four walks have one contract. They write, for rows [begin, end), the K smallest keys c - v below limit[i] in
ascending order (keys, index, count) and lowest[i] = min(ceiling[i], smallest key), with limit <= ceiling: nothing that
cannot matter is looked at closely. Ties go to the smaller position in the order walked, so that any split of the rows over
threads gives the same bits.
"""
