"""capsbench: equivalent capsule networks in PyTorch, TensorFlow and JAX, proven equal, then timed."""

__version__ = "0.2.0"
