"""Loads weights.fifth.npz: `dict(numpy.load("weights.fifth.npz"))`."""
