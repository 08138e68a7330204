"""Two data sets in, a verdict out: columns, joint, profiles, report."""
