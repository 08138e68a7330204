"""Samples of a learned law: when they help a learner, how far they are from the data, and how to train what makes them."""
