"""The executable specification: forward and hand-derived backward in NumPy, float64 by default, written beside the paper."""

from impls.numpy.impl import NumpyCapsNet

__all__ = ["NumpyCapsNet"]
